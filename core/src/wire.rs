//! Binary messages: postcard, for the WebSocket subprotocol `latchbus.v1.postcard` and for byte links.
//!
//! A message is the version byte `0x01` and a [`ClientFrame`] or a [`ServerFrame`] in
//! [postcard](https://postcard.jamesmunns.com/wire-format). On a WebSocket one binary frame is one
//! message. On a UART or any other stream of bytes [`encode_link`] adds a checksum and a delimiter, and a
//! [`LinkDecoder`] finds the messages again after loss and noise.
//!
//! Enum variants and fields are known on the wire by their order alone. Whatever changes it needs a
//! new version byte; the golden bytes in the tests say when it has changed.
//!
//! ```
//! use latchbus_core::wire::{self, ClientFrame};
//!
//! let ask = ClientFrame::Publish { id: Some(7), topic: "lab/temp", payload: b"21.5", retain: true };
//! let mut buffer = [0; 32];
//! let message = wire::encode(&ask, &mut buffer)?;
//! assert_eq!(message, b"\x01\x02\x01\x07\x08lab/temp\x0421.5\x01");
//! assert_eq!(wire::decode_client(message)?, ask);
//! # Ok::<(), wire::WireError>(())
//! ```

mod code;
mod frame;
mod link;
mod shared;

pub use code::{ErrorCode, UnknownErrorCode};
pub use frame::{ClientFrame, Frame, Limits, ServerFrame};
pub use link::{
    LINK_CHECKSUM_BYTES, LinkCounts, LinkDecoder, encode_link, max_link_bytes, wrap_link,
};
pub use shared::{ClearedTail, Head, MAX_HEAD_BYTES, MessageTail, cleared_head, message_head};

use serde::Deserialize;
use thiserror::Error;

/// The first byte of every message.
pub const VERSION: u8 = 0x01;

/// Writes a message to the front of `out` and returns it.
///
/// # Errors
/// [`WireError::BufferFull`] when it does not fit; `out` then holds part of it.
pub fn encode<'b>(frame: &impl Frame, out: &'b mut [u8]) -> Result<&'b mut [u8], WireError> {
    let (version, body) = out.split_first_mut().ok_or(WireError::BufferFull)?;
    *version = VERSION;
    let length = 1 + postcard::to_slice(frame, body)?.len();
    out.get_mut(..length).ok_or(WireError::BufferFull)
}

/// A message in memory of its own.
///
/// # Errors
/// None that a [`Frame`] causes; the result keeps the caller free of an unproven promise.
#[cfg(feature = "alloc")]
pub fn encode_vec(frame: &impl Frame) -> Result<alloc::vec::Vec<u8>, WireError> {
    Ok(postcard::to_extend(frame, alloc::vec![VERSION])?)
}

/// Reads what a client sends. The frame borrows from `message`.
///
/// # Errors
/// See [`WireError`]. A message is taken whole or not at all.
pub fn decode_client(message: &[u8]) -> Result<ClientFrame<'_>, WireError> {
    decode(message)
}

/// Reads what a server sends. The frame borrows from `message`.
///
/// # Errors
/// See [`WireError`]. A message is taken whole or not at all.
pub fn decode_server(message: &[u8]) -> Result<ServerFrame<'_>, WireError> {
    decode(message)
}

/// Why a message could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The buffer is too small for the message.
    #[error("buffer too small for the message")]
    BufferFull,
    /// The message ends too early.
    #[error("truncated message")]
    Truncated,
    /// The peer speaks another version, which begins its messages with this byte.
    #[error("unknown message version {0}")]
    UnknownVersion(u8),
    /// An unknown variant, a text that is not UTF-8, or a number out of range.
    #[error("malformed message")]
    Malformed,
    /// Bytes follow the message.
    #[error("bytes after the message")]
    Trailing,
}

impl From<postcard::Error> for WireError {
    fn from(error: postcard::Error) -> Self {
        match error {
            postcard::Error::SerializeBufferFull => Self::BufferFull,
            postcard::Error::DeserializeUnexpectedEnd => Self::Truncated,
            _ => Self::Malformed,
        }
    }
}

fn decode<'a, F: Frame + Deserialize<'a>>(message: &'a [u8]) -> Result<F, WireError> {
    let (version, body) = message.split_first().ok_or(WireError::Truncated)?;
    if *version != VERSION {
        return Err(WireError::UnknownVersion(*version));
    }
    let (frame, rest) = postcard::take_from_bytes(body)?;
    if rest.is_empty() {
        Ok(frame)
    } else {
        Err(WireError::Trailing)
    }
}
