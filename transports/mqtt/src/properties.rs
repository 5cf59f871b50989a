//! The properties of a PUBLISH of MQTT 5 (§3.3.2.3), both ways.

use core::num::NonZeroU16;
use core::time::Duration;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use latchbus_bus::{PayloadFormat, Properties};

use crate::Violation;
use crate::encode::{put_varint, varint_bytes};
use crate::packet::{Publish, Service, Version};
use crate::property::{
    self, CONTENT_TYPE, CORRELATION_DATA, MESSAGE_EXPIRY, PAYLOAD_FORMAT, Place, RESPONSE_TOPIC,
    SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS, USER, Value, WILL_DELAY,
};
use crate::reader::Reader;

/// The names of the user properties that the server adds where a SUBSCRIBE has them.
pub(crate) const REV: &str = "latchbus-rev";
pub(crate) const AT: &str = "latchbus-at";

/// Reads a PUBLISH behind its fixed header.
pub(crate) fn read_publish(version: Version, flags: u8, body: &[u8]) -> Result<Publish, Violation> {
    let mut rest = Reader(body);
    let topic = rest.text()?;
    let service = match flags & 0x06 {
        0 => Service::Zero,
        0x02 => Service::One(rest.packet_id()?),
        _ => Service::Two(rest.packet_id()?),
    };
    let said = match version {
        Version::V3 => Said::default(),
        Version::V5 => Said::read(Place::Publish, &mut rest)?,
    };
    if said.has_identifier {
        // MQTT-3.3.4-6
        return Err(Violation::Protocol("subscription identifier from a client"));
    }
    Ok(Publish {
        topic: topic.to_owned(),
        // A copy: a slice would keep the whole read buffer for as long as the hub keeps the message.
        payload: Bytes::copy_from_slice(rest.0),
        retain: flags & 0x01 != 0,
        service,
        alias: said.alias,
        expires_in: said.expires_in,
        properties: said.shared(),
    })
}

/// What a PUBLISH or a will says beside its payload.
#[derive(Debug, Default)]
pub(crate) struct Said {
    properties: Properties,
    pub(crate) expires_in: Option<Duration>,
    /// Of a will.
    pub(crate) delay: Duration,
    alias: Option<NonZeroU16>,
    has_identifier: bool,
}

impl Said {
    pub(crate) fn read(place: Place, from: &mut Reader<'_>) -> Result<Self, Violation> {
        let mut said = Self::default();
        let properties = &mut said.properties;
        property::read(place, from, |id, value| match (id, value) {
            (PAYLOAD_FORMAT, Value::Number(format)) => {
                properties.payload_format = match format {
                    0 => PayloadFormat::Bytes,
                    _ => PayloadFormat::Text,
                };
            }
            (MESSAGE_EXPIRY, Value::Number(secs)) => {
                said.expires_in = Some(Duration::from_secs(secs.into()));
            }
            (WILL_DELAY, Value::Number(secs)) => said.delay = Duration::from_secs(secs.into()),
            (CONTENT_TYPE, Value::Text(text)) => properties.content_type = Some(text.to_owned()),
            (RESPONSE_TOPIC, Value::Text(text)) => {
                properties.response_topic = Some(text.to_owned());
            }
            (CORRELATION_DATA, Value::Binary(data)) => {
                properties.correlation_data = Some(data.to_vec());
            }
            (TOPIC_ALIAS, Value::Number(alias)) => {
                said.alias = u16::try_from(alias).ok().and_then(NonZeroU16::new);
            }
            (SUBSCRIPTION_IDENTIFIER, _) => said.has_identifier = true,
            (USER, Value::Pair(name, value)) => {
                properties.user.push((name.to_owned(), value.to_owned()));
            }
            _ => {}
        })?;
        Ok(said)
    }

    /// What goes with the message; nothing where nothing was said.
    pub(crate) fn shared(self) -> Option<Arc<Properties>> {
        (self.properties != Properties::default()).then(|| Arc::new(self.properties))
    }
}

/// What a publisher said, as every subscriber gets it.
pub(crate) fn write_said(said: &Properties) -> Bytes {
    let mut out = BytesMut::with_capacity(said.bytes());
    match said.payload_format {
        PayloadFormat::Unstated => {}
        PayloadFormat::Text => out.put_slice(&[PAYLOAD_FORMAT, 1]),
        PayloadFormat::Bytes => out.put_slice(&[PAYLOAD_FORMAT, 0]),
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
pub(crate) fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(bytes.get(..length.into()).unwrap_or(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Said, Violation> {
        let mut out = BytesMut::new();
        put_varint(bytes.len() as u32, &mut out);
        out.put_slice(bytes);
        Said::read(Place::Publish, &mut Reader(&out))
    }

    #[test]
    fn what_is_written_is_read() {
        let full = Properties {
            payload_format: PayloadFormat::Text,
            content_type: Some("text/plain".into()),
            response_topic: Some("answers/é".into()),
            correlation_data: Some(vec![0, 1, 255]),
            user: vec![("a".into(), "1".into()), ("a".into(), "".into())],
        };
        let bytes = Properties {
            payload_format: PayloadFormat::Bytes,
            ..Properties::default()
        };
        for properties in [full, bytes, Properties::default()] {
            let written = write_said(&properties);
            assert_eq!(written.len(), properties.bytes());
            assert_eq!(read(&written).unwrap().properties, properties);
        }
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
        let said = read(&out).unwrap();
        assert_eq!(said.expires_in, Some(Duration::from_secs(7)));
        assert_eq!(said.alias, NonZeroU16::new(3));
        let user = [(REV, "1f:2"), (AT, "3")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(said.properties.user, user);
    }
}
