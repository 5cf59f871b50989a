//! The JSON form of the messages: the one encoder and decoder of all doors that speak JSON.
//!
//! | a door that sends | calls |
//! |---|---|
//! | frames of `latchbus.v1.json` | [`MessageHead`] and [`message_tail`] for a message, [`encode`] for anything else |
//! | a message by itself: an item of a list, the `data` of a server-sent event | [`write_message`], or `{` and [`message_tail`] |
//! | a payload alone, as a JSON value or otherwise | [`PayloadForm`] |
//!
//! [`message_tail`] is made once for all subscribers and stays with the message; [`write_message`] leaves nothing behind,
//! which is right for lists, whose messages are mostly asked for once.
//!
//! ```
//! use latchbus_bus::frames::json::{PayloadForm, message_tail, write_message};
//! use latchbus_bus::{Bus, Options, Publish};
//! use latchbus_core::topic::TopicName;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let bus = Bus::open(Options::default())?;
//! let topic = TopicName::parse("lab/temp".to_owned())?;
//! bus.publish(Publish::state(topic.clone(), "{\"c\":21.5}")).await?;
//! let delivery = bus.last(topic.borrowed()).ok_or("no value")?;
//!
//! let mut item = Vec::new();
//! write_message(&mut item, &delivery);
//! assert!(item.starts_with(b"{\"topic\":\"lab/temp\",\"payload\":{\"c\":21.5},\"rev\":"));
//! assert_eq!(&item[1..], message_tail(&delivery));
//! assert_eq!(PayloadForm::of(delivery.payload.bytes()), PayloadForm::Json("{\"c\":21.5}"));
//! # bus.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod event;
mod payload;
mod request;

pub use event::{
    MessageHead, authenticated, encode, history, message_tail, page, pong, welcome, write_message,
};
pub use payload::{
    PayloadError, PayloadForm, SPACE, base64, base64_bytes, is_plain_json, payload_bytes, quoted,
    write_text,
};
pub use request::{decode, raw_or_null};
