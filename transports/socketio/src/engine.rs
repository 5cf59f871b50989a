//! Engine.IO packets (protocol 4), without I/O.
//!
//! A packet is a digit and what it carries. Over WebSocket a packet is a text frame, and a message of bytes a binary frame.
//! Over HTTP packets stand one after the other with U+001E between them, and a message of bytes is `b` and base64.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Stands between two packets of a body.
pub const SEPARATOR: char = '\u{1e}';

/// The most packets of a body that a client is sent: python-engineio 4.15 takes no body of more. A body that is posted may have more:
/// socket.io-client 4.8 posts all that it has, as long as `maxPayload` allows.
pub const MAX_PACKETS: usize = 16;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A packet as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: the server's first, with the handshake as JSON.
    Open(&'a str),
    /// `1`: the session is to end.
    Close,
    /// `2`: to be answered by a pong with the same text.
    Ping(&'a str),
    /// `3`: the answer to a ping.
    Pong(&'a str),
    /// `4`: a message of text.
    Message(&'a str),
    /// A message of bytes.
    Binary(Vec<u8>),
    /// `5`: the session goes on over this WebSocket.
    Upgrade,
    /// `6`: nothing.
    Noop,
}

/// What came is no packet; its session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Nothing at all.
    #[error("an empty packet")]
    Empty,
    /// A packet of no known type.
    #[error("a packet of an unknown type")]
    UnknownType,
    /// `b` and no base64 behind it.
    #[error("a message of bytes that is not base64")]
    NotBase64,
    /// A packet that carries nothing came with something.
    #[error("a packet with something behind it")]
    Trailing,
}

impl<'a> Packet<'a> {
    /// Reads a text frame, or one packet of a body: only there `b` stands for bytes.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn decode(text: &'a str, in_body: bool) -> Result<Self, PacketError> {
        let mut rest = text.chars();
        let kind = rest.next().ok_or(PacketError::Empty)?;
        let rest = rest.as_str();
        let alone = |packet| match rest {
            "" => Ok(packet),
            _ => Err(PacketError::Trailing),
        };
        match kind {
            '0' => Ok(Self::Open(rest)),
            '1' => alone(Self::Close),
            '2' => Ok(Self::Ping(rest)),
            '3' => Ok(Self::Pong(rest)),
            '4' => Ok(Self::Message(rest)),
            '5' => alone(Self::Upgrade),
            '6' => alone(Self::Noop),
            'b' if in_body => BASE64
                .decode(rest)
                .map(Self::Binary)
                .map_err(|_| PacketError::NotBase64),
            _ => Err(PacketError::UnknownType),
        }
    }

    /// Reads a body of one packet or more.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn decode_body(body: &'a str) -> Result<Vec<Self>, PacketError> {
        body.split(SEPARATOR)
            .map(|packet| Self::decode(packet, true))
            .collect()
    }

    /// Appends the packet as it stands in a body, or as a text frame; a message of bytes as in a body.
    pub fn encode(&self, out: &mut String) {
        let (kind, rest) = match self {
            Self::Open(rest) => ('0', *rest),
            Self::Close => ('1', ""),
            Self::Ping(rest) => ('2', *rest),
            Self::Pong(rest) => ('3', *rest),
            Self::Message(rest) => ('4', *rest),
            Self::Upgrade => ('5', ""),
            Self::Noop => ('6', ""),
            Self::Binary(bytes) => return encode_binary(out, bytes),
        };
        out.push(kind);
        out.push_str(rest);
    }
}

/// Appends a message of bytes as it stands in a body.
pub fn encode_binary(out: &mut String, bytes: &[u8]) {
    out.push('b');
    BASE64.encode_string(bytes, out);
}

/// How many bytes a message of so many bytes takes in a body.
pub const fn binary_len(bytes: usize) -> usize {
    1 + bytes.div_ceil(3) * 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strategy() -> impl Strategy<Value = Packet<'static>> {
        let text = || "[^\u{1e}]{0,12}".prop_map(|text| &*Box::leak(text.into_boxed_str()));
        prop_oneof![
            text().prop_map(Packet::Open),
            Just(Packet::Close),
            text().prop_map(Packet::Ping),
            text().prop_map(Packet::Pong),
            text().prop_map(Packet::Message),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Packet::Binary),
            Just(Packet::Upgrade),
            Just(Packet::Noop),
        ]
    }

    #[test]
    fn the_examples_of_the_protocol() {
        let body = "4hello\u{1e}2\u{1e}4world";
        assert_eq!(
            Packet::decode_body(body),
            Ok(vec![
                Packet::Message("hello"),
                Packet::Ping(""),
                Packet::Message("world")
            ])
        );
        assert_eq!(
            Packet::decode_body("4hello\u{1e}bAQIDBA=="),
            Ok(vec![
                Packet::Message("hello"),
                Packet::Binary(vec![1, 2, 3, 4])
            ])
        );
        assert_eq!(Packet::decode("2probe", false), Ok(Packet::Ping("probe")));
    }

    #[test]
    fn what_is_no_packet() {
        for (text, error) in [
            ("", PacketError::Empty),
            ("abc", PacketError::UnknownType),
            ("7", PacketError::UnknownType),
            ("\u{e9}", PacketError::UnknownType),
            ("4a\u{1e}", PacketError::Empty),
            ("\u{1e}4a", PacketError::Empty),
            ("b*", PacketError::NotBase64),
            ("1x", PacketError::Trailing),
            ("5x", PacketError::Trailing),
        ] {
            assert_eq!(Packet::decode_body(text), Err(error), "{text:?}");
        }
        // Over WebSocket bytes are a binary frame.
        assert_eq!(
            Packet::decode("bAQID", false),
            Err(PacketError::UnknownType)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(packets in proptest::collection::vec(strategy(), 1..=16)) {
            let mut body = String::new();
            for (at, packet) in packets.iter().enumerate() {
                if at > 0 {
                    body.push(SEPARATOR);
                }
                packet.encode(&mut body);
            }
            prop_assert_eq!(Packet::decode_body(&body), Ok(packets));
        }

        #[test]
        fn no_body_panics(body in "\\PC{0,40}|[0-6b\u{1e}A-Z=]{0,40}") {
            let _ = Packet::decode_body(&body);
        }

        #[test]
        fn lengths_of_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut out = String::new();
            encode_binary(&mut out, &bytes);
            prop_assert_eq!(out.len(), binary_len(bytes.len()));
        }
    }
}
