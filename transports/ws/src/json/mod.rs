//! The JSON form of the messages.

mod event;
mod payload;
mod request;

pub(crate) use event::{MessageHead, encode, message_tail, pong, welcome};
pub use payload::is_plain_json;
pub(crate) use payload::{base64_bytes, payload_key, quoted, with_space};
pub(crate) use request::also_null;
pub use request::decode;
