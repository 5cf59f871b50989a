use cobs::{CobsEncoder, DecodeResult, DecoderState};
use crc::{CRC_32_ISO_HDLC, Crc, Digest, NoTable};
use postcard::ser_flavors::Flavor;

use super::frame::Frame;
use super::{VERSION, WireError};

/// How many bytes of a link frame check it, inside the stuffing.
pub const LINK_CHECKSUM_BYTES: usize = 4;

/// Computed bit by bit: the table would take 1 KiB (the fast one 16 KiB) of a microcontroller's
/// 64 KiB of flash, while some forty cycles a byte are 1% of a Cortex-M0 at 48 MHz that receives
/// 115,200 baud. COBS alone does not notice a changed byte, hence the checksum.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// Ends every link frame and stands nowhere inside.
const DELIMITER: u8 = 0x00;

/// The most bytes on the link for a message of this many bytes, version byte included.
#[must_use]
pub const fn max_link_bytes(message_bytes: usize) -> usize {
    let stuffed = message_bytes + LINK_CHECKSUM_BYTES;
    stuffed + stuffed.div_ceil(254) + 1
}

/// Writes a message as a link frame to the front of `out` and returns it: version byte, postcard and
/// CRC-32/ISO-HDLC (little endian) in COBS, then `0x00`.
///
/// A sender that starts, or that has been cut, sends a lone `0x00` first: it ends whatever the
/// receiver has half read.
///
/// # Errors
/// [`WireError::BufferFull`] when it does not fit; [`max_link_bytes`] always do.
pub fn encode_link<'b>(frame: &impl Frame, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
    let mut writer = LinkWriter::new(out);
    writer.try_push(VERSION)?;
    let length = postcard::serialize_with_flavor(frame, writer)?;
    terminate(out, length)
}

/// Writes a message that is encoded already, in one or several pieces, as a link frame.
///
/// # Errors
/// [`WireError::BufferFull`] when it does not fit; [`max_link_bytes`] always do.
pub fn wrap_link<'b>(pieces: &[&[u8]], out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
    let mut writer = LinkWriter::new(out);
    for piece in pieces {
        writer.try_extend(piece)?;
    }
    let length = writer.finalize()?;
    terminate(out, length)
}

/// Finds messages in a stream of bytes. `N` bounds a message with its checksum
/// ([`LINK_CHECKSUM_BYTES`]), and the memory.
///
/// Noise, cut frames and frames that are too long are counted and skipped, and the next `0x00`
/// begins anew. A damaged frame passes only if its checksum collides: one in 2^32.
///
/// ```
/// use latchbus_core::wire::{self, ClientFrame, LinkDecoder};
///
/// let mut buffer = [0; 32];
/// let link_frame = wire::encode_link(&ClientFrame::Ping { id: 3 }, &mut buffer)?;
///
/// let mut decoder = LinkDecoder::<64>::default();
/// let mut input: &[u8] = link_frame;
/// let mut pings = 0;
/// while !input.is_empty() {
///     let (message, rest) = decoder.feed(input);
///     if let Some(message) = message {
///         assert_eq!(wire::decode_client(message)?, ClientFrame::Ping { id: 3 });
///         pings += 1;
///     }
///     input = rest;
/// }
/// assert_eq!(pings, 1);
/// # Ok::<(), wire::WireError>(())
/// ```
#[derive(Debug)]
pub struct LinkDecoder<const N: usize> {
    stuffing: DecoderState,
    message: heapless::Vec<u8, N>,
    /// The current frame is too long: ignore it up to its delimiter.
    skipping: bool,
    counts: LinkCounts,
}

/// What a [`LinkDecoder`] has seen. Each count saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Messages given out.
    pub messages: u32,
    /// Frames that were cut, noisy, or of the wrong checksum.
    pub corrupt: u32,
    /// Frames longer than the decoder's memory.
    pub oversized: u32,
}

impl<const N: usize> Default for LinkDecoder<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> LinkDecoder<N> {
    /// A decoder at the start of a frame.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            stuffing: DecoderState::Idle,
            message: heapless::Vec::new(),
            skipping: false,
            counts: LinkCounts {
                messages: 0,
                corrupt: 0,
                oversized: 0,
            },
        }
    }

    /// Reads up to the end of the first intact message in `input`. Returns that message, for
    /// [`decode_client`](super::decode_client) or [`decode_server`](super::decode_server), and the input behind
    /// it. Without a message all input was taken, and the next may go on in the middle of a frame.
    pub fn feed<'i>(&mut self, input: &'i [u8]) -> (Option<&[u8]>, &'i [u8]) {
        let mut rest = input;
        while let Some((byte, tail)) = rest.split_first() {
            rest = tail;
            if let Some(length) = self.push(*byte) {
                return (self.message.get(..length), rest);
            }
        }
        (None, rest)
    }

    /// What was seen so far.
    #[must_use]
    pub const fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Returns the length of the message that this byte completes.
    fn push(&mut self, byte: u8) -> Option<usize> {
        if self.skipping {
            self.skipping = byte != DELIMITER;
            return None;
        }
        match self.stuffing.feed(byte) {
            Ok(DecodeResult::NoData) => {}
            Ok(DecodeResult::DataStart) => self.message.clear(),
            Ok(DecodeResult::DataContinue(byte)) => {
                if self.message.push(byte).is_err() {
                    count(&mut self.counts.oversized);
                    self.stuffing = DecoderState::Idle;
                    self.skipping = true;
                }
            }
            Ok(DecodeResult::DataComplete) => {
                if let Some(message) = intact(&self.message) {
                    count(&mut self.counts.messages);
                    return Some(message.len());
                }
                count(&mut self.counts.corrupt);
            }
            // Only a delimiter in the wrong place is an error, and it has ended the frame.
            Err(_) => count(&mut self.counts.corrupt),
        }
        None
    }
}

/// Stuffs and sums up what postcard writes, so that a message needs no second buffer.
struct LinkWriter<'b> {
    stuffing: CobsEncoder<'b>,
    checksum: Digest<'static, u32, NoTable>,
}

impl<'b> LinkWriter<'b> {
    fn new(out: &'b mut [u8]) -> Self {
        Self {
            stuffing: CobsEncoder::new(out),
            checksum: CRC.digest(),
        }
    }
}

impl Flavor for LinkWriter<'_> {
    type Output = usize;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.checksum.update(bytes);
        let pushed = self.stuffing.push(bytes);
        pushed.map_err(|_| postcard::Error::SerializeBufferFull)
    }

    fn finalize(mut self) -> postcard::Result<usize> {
        let checksum = self.checksum.finalize().to_le_bytes();
        let pushed = self.stuffing.push(&checksum);
        pushed.map_err(|_| postcard::Error::SerializeBufferFull)?;
        Ok(self.stuffing.finalize())
    }
}

fn terminate(out: &mut [u8], length: usize) -> Result<&mut [u8], WireError> {
    let frame = out.get_mut(..=length).ok_or(WireError::BufferFull)?;
    if let Some(last) = frame.last_mut() {
        *last = DELIMITER;
    }
    Ok(frame)
}

/// The message of a frame with the right checksum.
fn intact(frame: &[u8]) -> Option<&[u8]> {
    let (message, checksum) = frame.split_last_chunk::<LINK_CHECKSUM_BYTES>()?;
    let matches = CRC.checksum(message).to_le_bytes() == *checksum;
    (matches && !message.is_empty()).then_some(message)
}

fn count(counter: &mut u32) {
    *counter = counter.saturating_add(1);
}
