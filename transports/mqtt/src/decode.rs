//! Bytes to packets: a packet comes out whole and valid, or not at all.

use core::num::NonZeroU32;

use bytes::{Buf, Bytes, BytesMut};
use latchbus_bus::log::shown;
use latchbus_core::topic::{TopicFilter, TopicName};

use crate::connection::subscribing::shared;
use crate::packet::{Goodbye, Options, Packet, Retained, Version};
use crate::properties::{AT, REV, read_publish};
use crate::property::{
    self, AUTHENTICATION_DATA, AUTHENTICATION_METHOD, Place, REASON_STRING, SESSION_EXPIRY,
    SUBSCRIPTION_IDENTIFIER, USER, Value,
};
use crate::reader::Reader;
use crate::{Reason, Violation};

pub(crate) const CONNECT: u8 = 0x10;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const SUBSCRIBE: u8 = 0x82;
const UNSUBSCRIBE: u8 = 0xA2;
const PINGREQ: u8 = 0xC0;
const DISCONNECT: u8 = 0xE0;
const AUTH: u8 = 0xF0;

/// Takes packets from the front of a buffer, after the CONNECT.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) version: Version,
    /// Whether the client is a bridge of 3.1.1, whose subscriptions have options that 3.1.1 has no bits for.
    pub(crate) bridge: bool,
    pub(crate) max_packet_bytes: usize,
}

impl Decoder {
    /// The next packet; `None` while it is not complete.
    pub(crate) fn next(&self, bytes: &mut BytesMut) -> Result<Option<Packet>, Violation> {
        let Some(frame) = Frame::peek(bytes, self.max_packet_bytes)? else {
            return Ok(None);
        };
        frame.check_length(self.version)?;
        let packet = self.packet(&frame)?;
        let size = frame.bytes.len();
        bytes.advance(size);
        Ok(Some(packet))
    }

    fn packet(&self, frame: &Frame<'_>) -> Result<Packet, Violation> {
        let mut rest = Reader(frame.body);
        let rest = &mut rest;
        let packet = match frame.kind {
            // Its payload is all that is left.
            0x30..=0x3F => {
                let publish = read_publish(self.version, frame.kind & 0x0F, frame.body)?;
                return Ok(Packet::Publish(publish));
            }
            PUBACK => Packet::Acknowledged {
                id: rest.packet_id()?,
                reason: self.reason(Place::Puback, rest)?,
            },
            PUBREC => Packet::Received {
                id: rest.packet_id()?,
                reason: self.reason(Place::Pubrec, rest)?,
            },
            PUBREL => {
                let id = rest.packet_id()?;
                self.reason(Place::Pubrel, rest)?;
                Packet::Release(id)
            }
            PUBCOMP => {
                let id = rest.packet_id()?;
                self.reason(Place::Pubcomp, rest)?;
                Packet::Complete(id)
            }
            SUBSCRIBE => self.subscribe(rest)?,
            UNSUBSCRIBE => self.unsubscribe(rest)?,
            PINGREQ => Packet::Ping,
            DISCONNECT => {
                let (mut session_expiry_secs, mut words) = (None, None);
                let reason =
                    self.reason_and(Place::Disconnect, rest, |id, value| match (id, value) {
                        (SESSION_EXPIRY, Value::Number(secs)) => session_expiry_secs = Some(secs),
                        (REASON_STRING, Value::Text(text)) => words = Some(shown(text).into()),
                        _ => {}
                    })?;
                Packet::Disconnect {
                    goodbye: Goodbye { reason, words },
                    session_expiry_secs,
                }
            }
            AUTH => self.auth(rest)?,
            CONNECT => return Err(Violation::Protocol("a second CONNECT")),
            _ => return Err(Violation::Malformed("fixed header")),
        };
        rest.end()?;
        Ok(packet)
    }

    fn reason(&self, place: Place, rest: &mut Reader<'_>) -> Result<Reason, Violation> {
        self.reason_and(place, rest, |_, _| {})
    }

    /// A reason code and properties, each of which may be left out in MQTT 5 (§3.4.2.1, §3.14.2.1); 3.1.1 has
    /// neither.
    fn reason_and<'a>(
        &self,
        place: Place,
        rest: &mut Reader<'a>,
        each: impl FnMut(u8, Value<'a>),
    ) -> Result<Reason, Violation> {
        if self.version == Version::V3 || rest.is_empty() {
            return Ok(Reason::SUCCESS);
        }
        let reason = Reason::from_client(place, rest.u8()?)?;
        // §3.15.2.2.1: AUTH has both or neither.
        if !rest.is_empty() || place == Place::Auth {
            property::read(place, rest, each)?;
        }
        Ok(reason)
    }

    /// The server asks for no more data within an authentication, so a client can only begin another (MQTT 5 §4.12.1).
    fn auth(&self, rest: &mut Reader<'_>) -> Result<Packet, Violation> {
        let (mut method, mut data) = (None, None);
        let reason = self.reason_and(Place::Auth, rest, |id, value| match (id, value) {
            (AUTHENTICATION_METHOD, Value::Text(text)) => method = Some(text.to_owned()),
            (AUTHENTICATION_DATA, Value::Binary(bytes)) => {
                data = Some(Bytes::copy_from_slice(bytes));
            }
            _ => {}
        })?;
        rest.end()?;
        match (reason, method) {
            (Reason::REAUTHENTICATE, Some(method)) => Ok(Packet::Authenticate { method, data }),
            (Reason::REAUTHENTICATE, None) => {
                Err(Violation::Protocol("AUTH without an authentication method"))
            }
            _ => Err(Violation::Protocol("AUTH that nobody has asked for")),
        }
    }

    fn subscribe(&self, rest: &mut Reader<'_>) -> Result<Packet, Violation> {
        let id = rest.packet_id()?;
        let (mut identifier, mut rev, mut at) = (None, false, false);
        if self.version == Version::V5 {
            property::read(Place::Subscribe, rest, |id, value| match (id, value) {
                (SUBSCRIPTION_IDENTIFIER, Value::Number(number)) => {
                    identifier = NonZeroU32::new(number);
                }
                (USER, Value::Pair(name, _)) => {
                    rev |= name == REV;
                    at |= name == AT;
                }
                _ => {}
            })?;
        }
        let mut filters = Vec::new();
        while !rest.is_empty() {
            let filter = self.filter(rest)?;
            let options = self.options(rest.u8()?)?;
            let options = Options {
                identifier,
                rev,
                at,
                ..options
            };
            filters.push((filter, options));
        }
        if filters.is_empty() {
            // MQTT-3.8.3-3, MQTT 5 MQTT-3.8.3-2
            return Err(Violation::Protocol("SUBSCRIBE without a filter"));
        }
        Ok(Packet::Subscribe { id, filters })
    }

    fn unsubscribe(&self, rest: &mut Reader<'_>) -> Result<Packet, Violation> {
        let id = rest.packet_id()?;
        if self.version == Version::V5 {
            property::read(Place::Unsubscribe, rest, |_, _| {})?;
        }
        let mut filters = Vec::new();
        while !rest.is_empty() {
            filters.push(self.filter(rest)?);
        }
        if filters.is_empty() {
            // MQTT-3.10.3-2
            return Err(Violation::Protocol("UNSUBSCRIBE without a filter"));
        }
        Ok(Packet::Unsubscribe { id, filters })
    }

    /// A well-formed filter (MQTT 5 §4.7.1, §4.7.3, §4.8.2). What is a filter in 3.1.1 and is none as a shared one
    /// passes: it is refused with its SUBACK, for 3.1.1 knows nothing of those.
    fn filter(&self, rest: &mut Reader<'_>) -> Result<String, Violation> {
        let text = rest.text()?;
        let is_filter = |text| TopicFilter::parse(text).is_ok();
        let well_formed = match (shared(text), self.version) {
            (None, _) | (Some(_), Version::V3) => is_filter(text),
            (Some((group, plain)), Version::V5) => is_group(group) && is_filter(plain),
        };
        match well_formed {
            true => Ok(text.to_owned()),
            false => Err(Violation::Malformed("not a topic filter")),
        }
    }

    /// MQTT 3.1.1 §3.8.3, MQTT 5 §3.8.3.1.
    fn options(&self, bits: u8) -> Result<Options, Violation> {
        let reserved = match self.version {
            Version::V3 => 0xFC,
            Version::V5 => 0xC0,
        };
        if bits & reserved != 0 {
            return Err(Violation::Malformed(
                "reserved bits of subscription options",
            ));
        }
        let qos = bits & 0x03;
        if qos == 3 {
            return Err(Violation::Protocol("a subscription at QoS 3"));
        }
        let retained = match bits >> 4 {
            0 => Retained::Always,
            1 => Retained::WhenNew,
            2 => Retained::Never,
            _ => return Err(Violation::Protocol("retain handling 3")),
        };
        Ok(Options {
            qos,
            no_local: self.bridge || bits & 0x04 != 0,
            retain_as_published: self.bridge || bits & 0x08 != 0,
            retained,
            ..Options::NONE
        })
    }
}

/// The name of a group of a shared subscription (MQTT-4.8.2-1, MQTT-4.8.2-2).
pub(crate) fn is_group(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#'])
}

/// One packet, still in its bytes.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    kind: u8,
    pub(crate) body: &'a [u8],
    /// Whether the remaining length has more bytes than it needs.
    padded: bool,
}

impl<'a> Frame<'a> {
    /// The packet at the front; `None` while it is not complete. What is wrong with a header is found
    /// before the rest has come.
    pub(crate) fn peek(
        bytes: &'a [u8],
        max_packet_bytes: usize,
    ) -> Result<Option<Self>, Violation> {
        let Some((&kind, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        check_kind(kind)?;
        let mut length = 0_usize;
        let mut header = 1;
        for (place, &byte) in rest.iter().take(4).enumerate() {
            length |= usize::from(byte & 0x7F) << (7 * place);
            header += 1;
            if byte & 0x80 == 0 {
                let size = header + length;
                if size > max_packet_bytes {
                    return Err(Violation::TooLarge {
                        bytes: size,
                        limit: max_packet_bytes,
                    });
                }
                return Ok(bytes.get(..size).map(|bytes| Self {
                    bytes,
                    kind,
                    body: bytes.get(header..).unwrap_or_default(),
                    padded: byte == 0 && place > 0,
                }));
            }
        }
        if header == 5 {
            return Err(Violation::Malformed("remaining length of five bytes"));
        }
        Ok(None)
    }

    /// MQTT-1.5.5-1: in MQTT 5 a length has no more bytes than it needs; 3.1.1 does not say so.
    pub(crate) const fn check_length(&self, version: Version) -> Result<(), Violation> {
        match (version, self.padded) {
            (Version::V5, true) => Err(Violation::Malformed("remaining length")),
            _ => Ok(()),
        }
    }
}

/// The first byte: a packet that a client may send, with the flags that it must have (MQTT 3.1.1 §2.2).
fn check_kind(kind: u8) -> Result<(), Violation> {
    match kind {
        CONNECT | PUBACK | PUBREC | PUBREL | PUBCOMP | SUBSCRIBE | UNSUBSCRIBE | PINGREQ
        | DISCONNECT | AUTH => Ok(()),
        0x30..=0x3F => match (kind & 0x06, kind & 0x08) {
            (0x06, _) => Err(Violation::Malformed("QoS 3")),
            // MQTT 3.1.1 §3.3.1.1
            (0, 0x08) => Err(Violation::Malformed("DUP with QoS 0")),
            _ => Ok(()),
        },
        0x20 | 0x90 | 0xB0 | 0xD0 => Err(Violation::Protocol("a packet that only a server sends")),
        _ => Err(Violation::Malformed("fixed header")),
    }
}

pub(crate) fn topic(name: &str) -> Result<TopicName<String>, Violation> {
    TopicName::parse(name.to_owned()).map_err(|_| Violation::TopicName)
}
