//! The frames of [`latchbus_core::wire`], as every transport that carries them reads and writes them.

mod event;
pub mod json;
mod request;

pub use event::{each_frame, message};
pub use request::{Bad, decode_postcard, history, publish, subscribe, unsubscribe};
