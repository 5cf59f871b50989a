//! What the server sends.

use std::io::{self, Write};

use bytes::Bytes;
use latchbus_core::hub::{Counts, Kind};
use latchbus_core::wire::ServerFrame;

use super::payload::{PayloadForm, write_text};
use crate::{Delivery, Encoding, HistoryPage, Identity};

/// Under this name a delivery keeps what [`message_tail`] made.
const TAIL: Encoding = Encoding::new("json");

/// The part of a message that is the same for all subscribers: `"topic":…,"payload":…,"rev":…,"at":…}`. It follows a
/// [`MessageHead`], or `{`. Made once for each message.
pub fn message_tail(delivery: &Delivery) -> &Bytes {
    delivery.payload.encoded(TAIL, || {
        let mut out =
            Vec::with_capacity(64 + delivery.topic.as_str().len() + delivery.payload.bytes().len());
        write_delivery(&mut out, delivery);
        out.into()
    })
}

/// Appends a message as one object, `{"topic":…,"payload":…,"rev":…,"at":…}`, with `"cleared":true` in the place of a
/// payload, and with `"event":true` if it is not retained.
pub fn write_message(out: &mut Vec<u8>, delivery: &Delivery) {
    out.push(b'{');
    write_delivery(out, delivery);
}

fn write_delivery(out: &mut Vec<u8>, delivery: &Delivery) {
    let topic = delivery.topic.as_str();
    let payload = delivery.payload.bytes();
    write_tail(
        out,
        delivery.kind,
        topic,
        payload,
        delivery.rev,
        delivery.at,
    );
}

fn write_tail(out: &mut Vec<u8>, kind: Kind, topic: &str, payload: &[u8], rev: u64, at: u64) {
    out.extend_from_slice(b"\"topic\":");
    write_text(out, topic);
    out.push(b',');
    match kind {
        Kind::Cleared => out.extend_from_slice(b"\"cleared\":true"),
        Kind::State | Kind::Event => {
            // Writing to a vector cannot fail.
            let _ = write!(out, "{}", PayloadForm::of(payload));
        }
    }
    let _ = write!(out, r#","rev":{rev},"at":{at}"#);
    out.extend_from_slice(match kind {
        Kind::Event => br#","event":true}"#,
        Kind::State | Kind::Cleared => b"}",
    });
}

/// The first frame, with the server's time in Unix milliseconds, and who the client is: its user, or that it has still to sign in.
/// (Postcard has no place for them: a reader of its version refuses a longer frame.)
pub fn welcome(frame: &ServerFrame<'_>, time: u64, identity: &Identity) -> Vec<u8> {
    let mut out = encode(frame);
    out.pop();
    // Writing to a vector cannot fail.
    let _ = write!(out, r#","time":{time}"#);
    if let Some(name) = identity.name() {
        out.extend_from_slice(br#","user":"#);
        write_text(&mut out, name);
    } else if *identity == Identity::Guest {
        out.extend_from_slice(br#","guest":true"#);
    }
    out.push(b'}');
    out
}

/// The answer to a ping, with what the connection's subscriptions have lost, if anything.
pub fn pong(id: u64, counts: Counts) -> Vec<u8> {
    let mut out = format!(r#"{{"op":"pong","id":{id}"#);
    for (name, count) in [("conflated", counts.conflated), ("skipped", counts.skipped)] {
        if count > 0 {
            out += &format!(r#","{name}":{count}"#);
        }
    }
    out.push('}');
    out.into_bytes()
}

/// The answer to an `auth` whose credentials were right.
pub fn authenticated(id: Option<u64>) -> Vec<u8> {
    let id = id.map(|id| format!(",\"id\":{id}")).unwrap_or_default();
    format!(r#"{{"op":"authenticated"{id}}}"#).into_bytes()
}

/// A page of what a topic retains: the answer to the request of this id.
pub fn history(id: u64, page: &HistoryPage) -> Vec<u8> {
    let mut out = format!(r#"{{"op":"history","id":{id},"#).into_bytes();
    write_page(&mut out, page);
    out
}

/// A page as one object: `{"messages":[…],"more":true}`.
pub fn page(page: &HistoryPage) -> Vec<u8> {
    let mut out = vec![b'{'];
    write_page(&mut out, page);
    out
}

fn write_page(out: &mut Vec<u8>, page: &HistoryPage) {
    out.extend_from_slice(br#""messages":["#);
    for (place, delivery) in page.messages.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_message(out, delivery);
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, r#"],"more":{}}}"#, page.has_more);
}

/// What precedes a tail, for one subscription: made anew for each message, so without an allocation.
#[derive(Debug)]
pub struct MessageHead {
    bytes: [u8; Self::BEGIN.len() + Self::MAX_DIGITS + 1],
    length: usize,
}

impl MessageHead {
    const BEGIN: &[u8] = br#"{"op":"message","id":"#;
    const MAX_DIGITS: usize = u64::MAX.ilog10() as usize + 1;

    /// That of a message for this subscription.
    pub fn new(id: u64) -> Self {
        let mut bytes = [0; _];
        let room = bytes.len();
        let mut rest = bytes.as_mut_slice();
        // It has room for any number.
        let _ = rest.write_all(Self::BEGIN);
        let _ = write!(rest, "{id},");
        let length = room - rest.len();
        Self { bytes, length }
    }

    /// The bytes that precede the tail.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// One frame of the subprotocol `latchbus.v1.json`.
pub fn encode(frame: &ServerFrame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a vector cannot fail.
    let _ = write_frame(&mut out, frame);
    out
}

fn write_frame(out: &mut Vec<u8>, frame: &ServerFrame<'_>) -> io::Result<()> {
    match *frame {
        ServerFrame::Welcome {
            server,
            epoch,
            limits,
        } => {
            out.extend_from_slice(br#"{"op":"welcome","server":"#);
            write_text(out, server);
            write!(
                out,
                r#","epoch":"{epoch:x}","limits":{{"payload_bytes":{},"topic_bytes":{},"subscriptions":{},"in_flight":{}}}}}"#,
                limits.payload_bytes, limits.topic_bytes, limits.subscriptions, limits.in_flight,
            )
        }
        ServerFrame::Message {
            id,
            topic,
            payload,
            rev,
            at,
        } => {
            out.extend(MessageHead::new(id).as_bytes());
            write_tail(out, Kind::State, topic, payload, rev, at);
            Ok(())
        }
        ServerFrame::Cleared { id, topic, rev, at } => {
            out.extend(MessageHead::new(id).as_bytes());
            write_tail(out, Kind::Cleared, topic, b"", rev, at);
            Ok(())
        }
        ServerFrame::Synced { id, cursor } => {
            write!(out, r#"{{"op":"synced","id":{id},"cursor":"{cursor}"}}"#)
        }
        ServerFrame::Gap { id, missed } => {
            write!(out, r#"{{"op":"gap","id":{id},"missed":{missed}}}"#)
        }
        ServerFrame::Reset { id } => write!(out, r#"{{"op":"reset","id":{id}}}"#),
        ServerFrame::Ack { id, rev } => write!(out, r#"{{"op":"ack","id":{id},"rev":{rev}}}"#),
        ServerFrame::Error { id, code, message } => {
            out.extend_from_slice(br#"{"op":"error","#);
            if let Some(id) = id {
                write!(out, r#""id":{id},"#)?;
            }
            write!(out, r#""code":"{code}","message":"#)?;
            write_text(out, message);
            out.push(b'}');
            Ok(())
        }
        ServerFrame::Pong { id } => {
            out.extend(pong(id, Counts::default()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use latchbus_core::hub::Cursor;
    use latchbus_core::wire::{ErrorCode, Limits};

    use super::*;

    #[test]
    fn the_frames_of_the_contract() {
        let limits = Limits {
            payload_bytes: 65_536,
            topic_bytes: 1024,
            subscriptions: 100,
            in_flight: 16,
        };
        let cursor = Cursor {
            epoch: 0x9f3c,
            rev: 1042,
        };
        for (frame, text) in [
            (
                ServerFrame::Welcome {
                    server: "latchbus/0.1.0",
                    epoch: 0x9f3c,
                    limits,
                },
                r#"{"op":"welcome","server":"latchbus/0.1.0","epoch":"9f3c","limits":{"payload_bytes":65536,"topic_bytes":1024,"subscriptions":100,"in_flight":16}}"#,
            ),
            (
                ServerFrame::Message {
                    id: 1,
                    topic: "clicks/main/values",
                    payload: br#"{"red":12,"blue":7}"#,
                    rev: 1042,
                    at: 1_732_305_000_123,
                },
                r#"{"op":"message","id":1,"topic":"clicks/main/values","payload":{"red":12,"blue":7},"rev":1042,"at":1732305000123}"#,
            ),
            (
                ServerFrame::Message {
                    id: 1,
                    topic: "a\"b",
                    payload: b"red",
                    rev: 2,
                    at: 3,
                },
                r#"{"op":"message","id":1,"topic":"a\"b","text":"red","rev":2,"at":3}"#,
            ),
            (
                ServerFrame::Message {
                    id: 1,
                    topic: "a",
                    payload: b"\xff",
                    rev: 2,
                    at: 3,
                },
                r#"{"op":"message","id":1,"topic":"a","base64":"/w==","rev":2,"at":3}"#,
            ),
            (
                ServerFrame::Cleared {
                    id: 1,
                    topic: "a",
                    rev: 2,
                    at: 3,
                },
                r#"{"op":"message","id":1,"topic":"a","cleared":true,"rev":2,"at":3}"#,
            ),
            (
                ServerFrame::Synced { id: 1, cursor },
                r#"{"op":"synced","id":1,"cursor":"9f3c:1042"}"#,
            ),
            (
                ServerFrame::Gap { id: 1, missed: 17 },
                r#"{"op":"gap","id":1,"missed":17}"#,
            ),
            (ServerFrame::Reset { id: 1 }, r#"{"op":"reset","id":1}"#),
            (
                ServerFrame::Ack { id: 2, rev: 1043 },
                r#"{"op":"ack","id":2,"rev":1043}"#,
            ),
            (
                ServerFrame::Error {
                    id: Some(2),
                    code: ErrorCode::InvalidTopic,
                    message: "\"+\"",
                },
                r#"{"op":"error","id":2,"code":"invalid_topic","message":"\"+\""}"#,
            ),
            (
                ServerFrame::Error {
                    id: None,
                    code: ErrorCode::BadMessage,
                    message: "?",
                },
                r#"{"op":"error","code":"bad_message","message":"?"}"#,
            ),
            (ServerFrame::Pong { id: 3 }, r#"{"op":"pong","id":3}"#),
        ] {
            assert_eq!(String::from_utf8(encode(&frame)).unwrap(), text);
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
        }
    }

    #[test]
    fn a_welcome_says_the_time() {
        let frame = ServerFrame::Welcome {
            server: "latchbus/0.1.0",
            epoch: 0x9f3c,
            limits: Limits {
                payload_bytes: 65_536,
                topic_bytes: 1024,
                subscriptions: 100,
                in_flight: 16,
            },
        };
        assert_eq!(
            String::from_utf8(welcome(&frame, 1_732_305_000_123, &Identity::Anonymous)).unwrap(),
            r#"{"op":"welcome","server":"latchbus/0.1.0","epoch":"9f3c","limits":{"payload_bytes":65536,"topic_bytes":1024,"subscriptions":100,"in_flight":16},"time":1732305000123}"#
        );
        let user = Identity::User("an\"na".to_owned());
        for (identity, end) in [
            (user, r#","time":5,"user":"an\"na"}"#),
            (Identity::Guest, r#","time":5,"guest":true}"#),
        ] {
            let text = String::from_utf8(welcome(&frame, 5, &identity)).unwrap();
            assert!(text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn an_event_says_so() {
        let mut tail = Vec::new();
        write_tail(&mut tail, Kind::Event, "bell", b"ding", 2, 3);
        assert_eq!(
            String::from_utf8([MessageHead::new(1).as_bytes(), &tail].concat()).unwrap(),
            r#"{"op":"message","id":1,"topic":"bell","text":"ding","rev":2,"at":3,"event":true}"#
        );
    }

    #[test]
    fn a_pong_says_what_was_lost() {
        for (conflated, skipped, text) in [
            (0, 0, r#"{"op":"pong","id":3}"#),
            (17, 0, r#"{"op":"pong","id":3,"conflated":17}"#),
            (17, 4, r#"{"op":"pong","id":3,"conflated":17,"skipped":4}"#),
        ] {
            let counts = Counts {
                taken: 9,
                conflated,
                skipped,
            };
            assert_eq!(String::from_utf8(pong(3, counts)).unwrap(), text);
        }
    }
}
