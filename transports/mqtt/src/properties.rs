//! The properties of a PUBLISH of MQTT 5 (§3.3.2.3), both ways.

use core::num::NonZeroU16;
use core::time::Duration;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use latchbus_bus::Properties;

use crate::Violation;
use crate::encode::{put_varint, varint_bytes};
use crate::packet::{Publish, Service};

const PAYLOAD_FORMAT: u8 = 0x01;
const MESSAGE_EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
const TOPIC_ALIAS: u8 = 0x23;
const USER: u8 = 0x26;

/// The names of the user properties that the server adds where a SUBSCRIBE has them.
pub(crate) const REV: &str = "latchbus-rev";
pub(crate) const AT: &str = "latchbus-at";

/// Reads a PUBLISH behind its fixed header. The codec is not asked: it does not know an alias of 0 from
/// other nonsense, nor an expiry of 0.
pub(crate) fn read_publish(flags: u8, body: &[u8]) -> Result<Publish, Violation> {
    let mut rest = Reader(body);
    let topic = rest.text()?;
    let service = match flags & 0x06 {
        0 => Service::Zero,
        qos => {
            let id = NonZeroU16::new(rest.u16()?);
            let id = id.ok_or(Violation::Malformed("packet identifier 0"))?;
            match qos {
                0x02 => Service::One(id),
                _ => Service::Two(id),
            }
        }
    };
    let length = rest.varint()?;
    let said = read(Reader(rest.take(length)?))?;
    Ok(Publish {
        topic: topic.to_owned(),
        // A copy: a slice would keep the whole read buffer for as long as the hub keeps the message.
        payload: Bytes::copy_from_slice(rest.0),
        retain: flags & 0x01 != 0,
        service,
        alias: said.alias,
        properties: (said.properties != Properties::default()).then(|| Arc::new(said.properties)),
        expires_in: said.expires_in,
    })
}

#[derive(Default)]
struct Said {
    properties: Properties,
    expires_in: Option<Duration>,
    alias: Option<NonZeroU16>,
}

fn read(mut rest: Reader<'_>) -> Result<Said, Violation> {
    let (mut said, mut format) = (Said::default(), None);
    let properties = &mut said.properties;
    while !rest.0.is_empty() {
        match rest.u8()? {
            PAYLOAD_FORMAT => once(&mut format, rest.u8()?)?,
            MESSAGE_EXPIRY => {
                let after = Duration::from_secs(rest.u32()?.into());
                once(&mut said.expires_in, after)?;
            }
            CONTENT_TYPE => once(&mut properties.content_type, rest.text()?.to_owned())?,
            RESPONSE_TOPIC => {
                let topic = rest.text()?;
                if topic.contains(['+', '#']) {
                    // MQTT-3.3.2-14
                    return Err(Violation::Protocol("a response topic with a wildcard"));
                }
                once(&mut properties.response_topic, topic.to_owned())?;
            }
            CORRELATION_DATA => once(&mut properties.correlation_data, rest.binary()?.to_vec())?,
            TOPIC_ALIAS => {
                let alias = NonZeroU16::new(rest.u16()?).ok_or(Violation::TopicAlias)?;
                once(&mut said.alias, alias)?;
            }
            USER => {
                let name = rest.text()?.to_owned();
                properties.user.push((name, rest.text()?.to_owned()));
            }
            SUBSCRIPTION_IDENTIFIER => {
                // MQTT-3.3.4-6
                return Err(Violation::Protocol("subscription identifier from a client"));
            }
            _ => return Err(Violation::Malformed("property")),
        }
    }
    properties.payload_is_text = match format {
        None | Some(0) => false,
        Some(1) => true,
        Some(_) => return Err(Violation::Protocol("payload format")),
    };
    Ok(said)
}

/// MQTT 5 §2.2.2.2: all but user properties come at most once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Violation> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Violation::Protocol("a property twice")),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Violation> {
        let cut_short = Violation::Malformed("cut short");
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(cut_short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    fn varint(&mut self) -> Result<usize, Violation> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Violation::Malformed("length"))
    }

    fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn text(&mut self) -> Result<&'a str, Violation> {
        let text = core::str::from_utf8(self.binary()?)
            .map_err(|_| Violation::Malformed("invalid UTF-8"))?;
        crate::decode::check_text(text)?;
        Ok(text)
    }
}

/// What a publisher said, as every subscriber gets it.
pub(crate) fn write_said(said: &Properties) -> Bytes {
    let mut out = BytesMut::with_capacity(said.bytes());
    if said.payload_is_text {
        out.put_slice(&[PAYLOAD_FORMAT, 1]);
    }
    let texts = [
        (CONTENT_TYPE, said.content_type.as_ref()),
        (RESPONSE_TOPIC, said.response_topic.as_ref()),
    ];
    for (property, text) in texts {
        if let Some(text) = text {
            out.put_u8(property);
            put_bytes(text.as_bytes(), &mut out);
        }
    }
    if let Some(data) = &said.correlation_data {
        out.put_u8(CORRELATION_DATA);
        put_bytes(data, &mut out);
    }
    for (name, value) in &said.user {
        put_user(name, value, &mut out);
    }
    out.freeze()
}

/// What the server adds for one subscriber.
#[derive(Debug, Clone, Default)]
pub(crate) struct Added {
    pub(crate) expires_in_secs: Option<u32>,
    pub(crate) identifier: Option<core::num::NonZeroU32>,
    pub(crate) alias: Option<NonZeroU16>,
    pub(crate) rev: Option<String>,
    pub(crate) at: Option<String>,
}

impl Added {
    pub(crate) fn bytes(&self) -> usize {
        let stamp = |name: &str, value: &Option<String>| {
            (value.as_ref()).map_or(0, |value| 5 + name.len() + value.len())
        };
        self.expires_in_secs.map_or(0, |_| 5)
            + self.identifier.map_or(0, |id| 1 + varint_bytes(id.get()))
            + self.alias.map_or(0, |_| 3)
            + stamp(REV, &self.rev)
            + stamp(AT, &self.at)
    }

    pub(crate) fn write(&self, out: &mut BytesMut) {
        if let Some(secs) = self.expires_in_secs {
            out.put_u8(MESSAGE_EXPIRY);
            out.put_u32(secs);
        }
        if let Some(identifier) = self.identifier {
            out.put_u8(SUBSCRIPTION_IDENTIFIER);
            put_varint(identifier.get(), out);
        }
        if let Some(alias) = self.alias {
            out.put_u8(TOPIC_ALIAS);
            out.put_u16(alias.get());
        }
        for (name, value) in [(REV, &self.rev), (AT, &self.at)] {
            if let Some(value) = value {
                put_user(name, value, out);
            }
        }
    }
}

fn put_user(name: &str, value: &str, out: &mut BytesMut) {
    out.put_u8(USER);
    put_bytes(name.as_bytes(), out);
    put_bytes(value.as_bytes(), out);
}

/// What came in a packet has no more bytes than a length of two bytes can say. What another program on the
/// bus has made is cut there.
fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(bytes.get(..length.into()).unwrap_or(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let properties = Properties {
            payload_is_text: true,
            content_type: Some("text/plain".into()),
            response_topic: Some("answers/é".into()),
            correlation_data: Some(vec![0, 1, 255]),
            user: vec![("a".into(), "1".into()), ("a".into(), "".into())],
        };
        let written = write_said(&properties);
        assert_eq!(written.len(), properties.bytes());
        assert_eq!(read(Reader(&written)).unwrap().properties, properties);
        let added = Added {
            expires_in_secs: Some(7),
            identifier: None,
            alias: NonZeroU16::new(3),
            rev: Some("1f:2".into()),
            at: Some("3".into()),
        };
        let mut out = BytesMut::new();
        added.write(&mut out);
        assert_eq!(out.len(), added.bytes());
        let said = read(Reader(&out)).unwrap();
        assert_eq!(said.expires_in, Some(Duration::from_secs(7)));
        assert_eq!(said.alias, NonZeroU16::new(3));
        let user = [(REV, "1f:2"), (AT, "3")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(said.properties.user, user);
    }

    #[test]
    fn what_must_not_be_there_is_refused() {
        let protocol = |bytes: &[u8]| matches!(read(Reader(bytes)), Err(Violation::Protocol(_)));
        let malformed = |bytes: &[u8]| matches!(read(Reader(bytes)), Err(Violation::Malformed(_)));
        assert!(protocol(&[PAYLOAD_FORMAT, 2]));
        assert!(protocol(&[PAYLOAD_FORMAT, 1, PAYLOAD_FORMAT, 1]));
        assert!(protocol(&[SUBSCRIPTION_IDENTIFIER, 1]));
        assert!(protocol(&[RESPONSE_TOPIC, 0, 1, b'#']));
        assert!(malformed(&[CONTENT_TYPE, 0, 1, 0]));
        assert!(malformed(&[CONTENT_TYPE, 0, 1, 0xFF]));
        assert!(malformed(&[CONTENT_TYPE, 0, 9, b'a']));
        assert!(malformed(&[0x11, 0, 0, 0, 1]));
        assert!(malformed(&[USER, 0, 1, b'a']));
        let alias_0 = read(Reader(&[TOPIC_ALIAS, 0, 0])).map(drop);
        assert_eq!(alias_0, Err(Violation::TopicAlias));
    }
}
