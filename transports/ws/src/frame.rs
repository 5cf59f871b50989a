//! WebSocket frames (RFC 6455 §5) of the server's side, without I/O.
//!
//! The server writes them itself because a delivery goes out in two pieces, a head for each subscription
//! and a tail that all share: the pieces are copied once, into the buffer that goes to the socket, and that
//! buffer is given back when it is empty. So an idle connection holds no buffers at all.

use core::mem;

use bytes::{Buf, BytesMut};

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next piece of a message.
    Continuation,
    /// A message of text, or its first piece.
    Text,
    /// A message of bytes, or its first piece.
    Binary,
    /// The last frame of its sender.
    Close,
    /// To be answered by a pong.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    const fn code(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The most bytes that a close, ping or pong frame carries (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// Appends one whole frame, unmasked as a server's frames are, whose payload is `pieces` one after another.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, pieces: &[&[u8]]) {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    out.reserve(10 + length);
    out.push(0x80 | opcode.code());
    if length <= MAX_CONTROL_BYTES {
        out.push(length as u8);
    } else if let Ok(short) = u16::try_from(length) {
        out.push(126);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// A whole message, or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message of text.
    Text(String),
    /// A message of bytes.
    Binary(Vec<u8>),
    /// To be answered by a pong with the same bytes, at most [`MAX_CONTROL_BYTES`].
    Ping(Vec<u8>),
    /// The answer to a ping, with its bytes.
    Pong(Vec<u8>),
    /// The peer's last frame, with its code.
    Close(Option<u16>),
}

/// The peer broke the protocol; the connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a frame, or not one that may stand here.
    #[error("broken frame: {0}")]
    Protocol(&'static str),
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// A message longer than this server takes.
    #[error("message longer than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
}

impl FrameError {
    /// The code to close with (RFC 6455 §7.4.1).
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge { .. } => 1009,
        }
    }
}

/// Finds messages in what a client sends.
///
/// Call [`feed`](Self::feed) with what was read, then [`next_incoming`](Self::next_incoming) until it gives none. It holds at
/// most two messages of the bound and what was fed last, and nothing when all was taken.
#[derive(Debug)]
pub struct FrameReader {
    limit: usize,
    input: BytesMut,
    /// The message whose pieces are coming in, and what it is.
    message: Option<(Data, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy)]
enum Data {
    Text,
    Binary,
}

/// A client's frame, unmasked.
struct Frame {
    opcode: Opcode,
    last: bool,
    payload: Vec<u8>,
}

impl FrameReader {
    /// A reader of messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            input: BytesMut::new(),
            message: None,
        }
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The bytes of what is not complete.
    pub fn held_bytes(&self) -> usize {
        self.input.len() + self.message.as_ref().map_or(0, |(_, bytes)| bytes.len())
    }

    /// The next message or control frame, if it is complete.
    ///
    /// # Errors
    /// When the connection has to end; the reader must not be used after that.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming>, FrameError> {
        while let Some(frame) = self.next_frame()? {
            if self.input.is_empty() {
                // Gives the memory back.
                self.input = BytesMut::new();
            }
            if let Some(incoming) = self.take(frame)? {
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((&[first, second], rest)) = self.input.split_first_chunk() else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(FrameError::Protocol("reserved bits"));
        }
        let opcode =
            Opcode::from_code(first & 0x0f).ok_or(FrameError::Protocol("unknown opcode"))?;
        let last = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(FrameError::Protocol("not masked"));
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            length => (u64::from(length), rest),
        };
        if opcode.is_control() && (!last || length > MAX_CONTROL_BYTES as u64) {
            return Err(FrameError::Protocol("control frame too long or in pieces"));
        }
        let before = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
        let room = self.limit.saturating_sub(before);
        let length = match usize::try_from(length) {
            Ok(length) if opcode.is_control() || length <= room => length,
            _ => return Err(FrameError::TooLarge { limit: self.limit }),
        };
        let Some((&mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let mut payload = payload.to_vec();
        unmask(&mut payload, mask);
        let used = self.input.len() - rest.len() + length;
        self.input.advance(used);
        Ok(Some(Frame {
            opcode,
            last,
            payload,
        }))
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Incoming>, FrameError> {
        let Frame {
            opcode,
            last,
            payload,
        } = frame;
        let begun = self.message.is_some();
        match opcode {
            Opcode::Ping => return Ok(Some(Incoming::Ping(payload))),
            Opcode::Pong => return Ok(Some(Incoming::Pong(payload))),
            Opcode::Close => return close(&payload).map(Some),
            Opcode::Text | Opcode::Binary if begun => {
                return Err(FrameError::Protocol("a message within a message"));
            }
            Opcode::Text => self.message = Some((Data::Text, payload)),
            Opcode::Binary => self.message = Some((Data::Binary, payload)),
            Opcode::Continuation => match &mut self.message {
                Some((_, message)) => message.extend_from_slice(&payload),
                None => return Err(FrameError::Protocol("a continuation of nothing")),
            },
        }
        if !last {
            return Ok(None);
        }
        mem::take(&mut self.message)
            .map(|(data, message)| match data {
                Data::Binary => Ok(Incoming::Binary(message)),
                Data::Text => String::from_utf8(message)
                    .map(Incoming::Text)
                    .map_err(|_| FrameError::NotUtf8),
            })
            .transpose()
    }
}

fn close(payload: &[u8]) -> Result<Incoming, FrameError> {
    if payload.is_empty() {
        return Ok(Incoming::Close(None));
    }
    let Some((code, reason)) = payload.split_first_chunk() else {
        return Err(FrameError::Protocol("half a close code"));
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(FrameError::Protocol("a close code that may not be sent"));
    }
    match core::str::from_utf8(reason) {
        Ok(_) => Ok(Incoming::Close(Some(code))),
        Err(_) => Err(FrameError::NotUtf8),
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for chunk in payload.chunks_mut(mask.len()) {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::{
        Frame as PeerFrame, FrameHeader as PeerHeader, coding,
    };

    use super::*;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame, by another implementation.
    fn masked(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
        let header = PeerHeader {
            is_final: last,
            opcode: coding::OpCode::from(opcode),
            mask: Some(MASK),
            ..PeerHeader::default()
        };
        let mut out = Vec::new();
        PeerFrame::from_payload(header, payload.to_vec().into())
            .format(&mut out)
            .unwrap();
        out
    }

    fn read(limit: usize, bytes: &[u8]) -> Result<Vec<Incoming>, FrameError> {
        let mut reader = FrameReader::new(limit);
        reader.feed(bytes);
        let mut all = Vec::new();
        while let Some(incoming) = reader.next_incoming()? {
            all.push(incoming);
        }
        Ok(all)
    }

    #[test]
    fn the_examples_of_the_specification() {
        // RFC 6455 §5.7.
        let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(read(5, hello), Ok(vec![Incoming::Text("Hello".to_owned())]));
        let mut out = Vec::new();
        write_frame(&mut out, Opcode::Text, &[b"Hel", b"", b"lo"]);
        assert_eq!(out, b"\x81\x05Hello");
    }

    #[test]
    fn pieces_with_a_ping_between_them() {
        let bytes = [
            masked(1, false, "gr\u{fc}".as_bytes().split_at(3).0),
            masked(9, true, b"?"),
            masked(0, false, "gr\u{fc}".as_bytes().split_at(3).1),
            masked(0, true, "\u{df}".as_bytes()),
            masked(10, true, b""),
            masked(2, true, b""),
            masked(8, true, b"\x03\xe8bye"),
        ]
        .concat();
        assert_eq!(
            read(6, &bytes),
            Ok(vec![
                Incoming::Ping(b"?".to_vec()),
                Incoming::Text("gr\u{fc}\u{df}".to_owned()),
                Incoming::Pong(Vec::new()),
                Incoming::Binary(Vec::new()),
                Incoming::Close(Some(1000)),
            ])
        );
    }

    #[test]
    fn too_large_is_said_before_it_is_read() {
        let too_large = Err(FrameError::TooLarge { limit: 300 });
        assert_eq!(read(300, &masked(2, true, &[0; 301])[..4]), too_large);
        assert_eq!(
            read(300, b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            too_large
        );
        let pieces = [masked(2, false, &[0; 200]), masked(0, false, &[0; 101])].concat();
        assert_eq!(read(300, &pieces), too_large);
        assert_eq!(
            read(300, &masked(2, true, &[7; 300])),
            Ok(vec![Incoming::Binary(vec![7; 300])])
        );
        // A control frame is none of the message.
        assert_eq!(
            read(0, &masked(9, true, &[7; 125])),
            Ok(vec![Incoming::Ping(vec![7; 125])])
        );
    }

    #[test]
    fn what_breaks_the_protocol() {
        let unmasked = b"\x81\x00".to_vec();
        let reserved = [b"\xc1\x80".as_slice(), &MASK].concat();
        let unknown = [b"\x83\x80".as_slice(), &MASK].concat();
        let broken = [
            unmasked,
            reserved,
            unknown,
            masked(0, true, b"of nothing"),
            [masked(1, false, b"a"), masked(1, true, b"b")].concat(),
            masked(9, false, b""),
            masked(9, true, &[0; 126]),
            masked(8, true, b"\x03"),
            masked(8, true, b"\x03\xed"),
            masked(8, true, b"\x00\x00"),
        ];
        for bytes in broken {
            let refused = read(1000, &bytes).unwrap_err();
            assert_eq!(refused.close_code(), 1002, "{bytes:x?}");
        }
        assert_eq!(read(9, &masked(1, true, b"\xff")), Err(FrameError::NotUtf8));
        assert_eq!(
            read(9, &masked(8, true, b"\x03\xe8\xff")),
            Err(FrameError::NotUtf8)
        );
    }

    #[test]
    fn an_idle_reader_holds_nothing() {
        let mut reader = FrameReader::new(1 << 20);
        reader.feed(&masked(2, true, &[0; 70_000]));
        assert!(reader.next_incoming().unwrap().is_some());
        assert_eq!(reader.input.capacity(), 0);
        assert_eq!(reader.next_incoming(), Ok(None));
    }

    proptest! {
        #[test]
        fn no_input_panics_or_is_held_beyond_the_bound(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), limit in 0_usize..100,
        ) {
            let mut reader = FrameReader::new(limit);
            for byte in bytes {
                reader.feed(&[byte]);
                match reader.next_incoming() {
                    Ok(Some(Incoming::Text(text))) => prop_assert!(text.len() <= limit),
                    Ok(Some(Incoming::Binary(bytes))) => prop_assert!(bytes.len() <= limit),
                    Ok(_) => {}
                    Err(_) => break,
                }
                prop_assert!(reader.input.len() <= 14 + limit.max(MAX_CONTROL_BYTES));
            }
        }

        #[test]
        fn cuts_change_nothing(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5),
            cut in 1_usize..50,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|m| masked(2, true, m)).collect();
            let mut reader = FrameReader::new(300);
            let mut all = Vec::new();
            for piece in bytes.chunks(cut) {
                reader.feed(piece);
                while let Some(incoming) = reader.next_incoming().unwrap() {
                    all.push(incoming);
                }
            }
            prop_assert_eq!(all, messages.into_iter().map(Incoming::Binary).collect::<Vec<_>>());
        }
    }
}
