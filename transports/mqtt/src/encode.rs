//! Packets to bytes: what a server sends.
//!
//! A PUBLISH goes from the shared delivery into the write buffer in one copy, without the codec, which
//! would want an owned packet for each subscriber. The acknowledgements are a few fixed bytes.

use core::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};

use crate::packet::{TOKEN_METHOD, Version};
use crate::properties::{Added, put_bytes};
use crate::property::{
    ASSIGNED_CLIENT_ID, AUTHENTICATION_METHOD, MAXIMUM_PACKET_SIZE, REASON_STRING, RECEIVE_MAXIMUM,
    SERVER_KEEP_ALIVE, SESSION_EXPIRY, TOPIC_ALIAS_MAXIMUM,
};
use crate::{Connect, Reason};

/// The acknowledgements that name a packet identifier alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ack {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

/// One PUBLISH to a subscriber.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) id: Option<NonZeroU16>,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// In MQTT 5: what the publisher said, and what the server adds.
    pub(crate) said: Bytes,
    pub(crate) added: Added,
}

/// The largest remaining length that four bytes can say (MQTT 3.1.1 §2.2.3).
const MAX_LENGTH: usize = 268_435_455;

impl Outgoing<'_> {
    fn properties_bytes(&self) -> usize {
        self.said.len() + self.added.bytes()
    }

    fn length(&self, version: Version) -> usize {
        let properties = match version {
            Version::V3 => 0,
            Version::V5 => {
                let bytes = self.properties_bytes();
                bytes + varint_bytes(u32::try_from(bytes).unwrap_or(u32::MAX))
            }
        };
        2 + self.topic.len() + self.id.map_or(0, |_| 2) + properties + self.payload.len()
    }

    /// Appends the packet to `out`; false, and nothing, when it is larger than the client accepts.
    pub(crate) fn encode(
        &self,
        version: Version,
        limit: Option<usize>,
        out: &mut BytesMut,
    ) -> bool {
        let length = self.length(version);
        let (Ok(topic_bytes), Ok(remaining)) =
            (u16::try_from(self.topic.len()), u32::try_from(length))
        else {
            return false;
        };
        let size = 1 + varint_bytes(remaining) + length;
        if length > MAX_LENGTH || limit.is_some_and(|limit| size > limit) {
            return false;
        }
        out.reserve(size);
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        out.put_u8(0x30 | flags);
        put_varint(remaining, out);
        out.put_u16(topic_bytes);
        out.put_slice(self.topic.as_bytes());
        if let Some(id) = self.id {
            out.put_u16(id.get());
        }
        if version == Version::V5 {
            let bytes = u32::try_from(self.properties_bytes()).unwrap_or(u32::MAX);
            put_varint(bytes, out);
            self.added.write(out);
            out.put_slice(&self.said);
        }
        out.put_slice(self.payload);
        true
    }
}

pub(crate) fn ack(ack: Ack, version: Version, id: NonZeroU16, reason: Reason, out: &mut BytesMut) {
    let with_reason = version == Version::V5 && reason != Reason::SUCCESS;
    out.put_slice(&[ack as u8, if with_reason { 3 } else { 2 }]);
    out.put_u16(id.get());
    if with_reason {
        out.put_u8(reason.0);
    }
}

/// A refusal in MQTT 5 with its reason in words, where the client wants them (§3.1.2.11.7) and they fit.
pub(crate) fn refusing_ack(
    kind: Ack,
    id: NonZeroU16,
    reason: Reason,
    words: Option<&str>,
    limit: Option<usize>,
    out: &mut BytesMut,
) {
    let said = words.and_then(|words| ReasonString::new(words, 3, limit));
    let Some(said) = said else {
        return ack(kind, Version::V5, id, reason, out);
    };
    out.put_u8(kind as u8);
    put_varint(3 + said.bytes, out);
    out.put_u16(id.get());
    out.put_u8(reason.0);
    said.put(out);
}

/// The properties of a packet that has no other than its reason in words.
struct ReasonString<'w> {
    words: &'w str,
    /// With the length before them.
    bytes: u32,
}

impl<'w> ReasonString<'w> {
    /// None where there are no words, and where a packet with so many bytes before them would be larger than the client
    /// accepts.
    fn new(words: &'w str, before: u32, limit: Option<usize>) -> Option<Self> {
        let properties = 3 + u32::from(u16::try_from(words.len()).ok()?);
        let bytes = varint_bytes(properties) as u32 + properties;
        let remaining = before + bytes;
        let size = 1 + varint_bytes(remaining) + remaining as usize;
        let fits = !words.is_empty() && limit.is_none_or(|limit| size <= limit);
        fits.then_some(Self { words, bytes })
    }

    fn put(&self, out: &mut BytesMut) {
        put_varint(3 + self.words.len() as u32, out);
        out.put_u8(REASON_STRING);
        out.put_u16(self.words.len() as u16);
        out.put_slice(self.words.as_bytes());
    }
}

/// The size of a SUBACK or UNSUBACK of MQTT 5 with so many codes.
pub(crate) fn answers_bytes(codes: usize) -> usize {
    let length = 3 + codes;
    1 + varint_bytes(u32::try_from(length).unwrap_or(u32::MAX)) + length
}

/// SUBACK and UNSUBACK: a code for each filter, which an UNSUBACK of 3.1.1 does not carry.
pub(crate) fn answers(
    kind: Answers,
    version: Version,
    id: NonZeroU16,
    codes: &[u8],
    out: &mut BytesMut,
) {
    let properties = usize::from(version == Version::V5);
    let codes = match (kind, version) {
        (Answers::Unsuback, Version::V3) => &[],
        _ => codes,
    };
    // There are fewer codes than bytes in the request that they answer.
    let length = u32::try_from(2 + properties + codes.len()).unwrap_or(u32::MAX);
    out.reserve(5 + codes.len());
    out.put_u8(kind as u8);
    put_varint(length, out);
    out.put_u16(id.get());
    out.put_bytes(0, properties);
    out.put_slice(codes);
}

/// What [`answers`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answers {
    Suback = 0x90,
    Unsuback = 0xB0,
}

pub(crate) fn pong(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// Only a server of MQTT 5 says why it ends a connection.
pub(crate) fn disconnect(
    version: Version,
    reason: Reason,
    words: &str,
    limit: Option<usize>,
    out: &mut BytesMut,
) {
    if version != Version::V5 || limit.is_some_and(|limit| limit < 3) {
        return;
    }
    let Some(said) = ReasonString::new(words, 1, limit) else {
        out.put_slice(&[0xE0, 1, reason.0]);
        return;
    };
    out.put_u8(0xE0);
    put_varint(1 + said.bytes, out);
    out.put_u8(reason.0);
    said.put(out);
}

/// A CONNACK that refuses; nothing where the client takes no packet of that size.
pub fn refusal(version: Version, reason: Reason, limit: Option<usize>, out: &mut BytesMut) {
    let code = reason.in_connack(version);
    match version {
        Version::V3 => out.put_slice(&[0x20, 2, 0, code]),
        Version::V5 if limit.is_some_and(|limit| limit < 5) => {}
        Version::V5 => out.put_slice(&[0x20, 3, 0, code, 0]),
    }
}

/// What a server announces when it accepts.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    pub(crate) session_present: bool,
    pub(crate) assigned_client_id: bool,
    pub(crate) session_expiry_secs: Option<u32>,
    pub(crate) keep_alive_secs: Option<u16>,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_bytes: u32,
}

/// A CONNACK that accepts.
pub(crate) fn welcome(connect: &Connect, welcome: &Welcome, out: &mut BytesMut) {
    if connect.version == Version::V3 {
        out.put_slice(&[0x20, 2, u8::from(welcome.session_present), 0]);
        return;
    }
    let mut said = BytesMut::new();
    if let Some(secs) = welcome.session_expiry_secs {
        said.put_u8(SESSION_EXPIRY);
        said.put_u32(secs);
    }
    said.put_u8(RECEIVE_MAXIMUM);
    said.put_u16(welcome.receive_maximum);
    said.put_u8(MAXIMUM_PACKET_SIZE);
    said.put_u32(welcome.max_packet_bytes);
    if welcome.assigned_client_id {
        said.put_u8(ASSIGNED_CLIENT_ID);
        put_bytes(connect.client_id.as_bytes(), &mut said);
    }
    if welcome.topic_alias_maximum > 0 {
        said.put_u8(TOPIC_ALIAS_MAXIMUM);
        said.put_u16(welcome.topic_alias_maximum);
    }
    if let Some(secs) = welcome.keep_alive_secs {
        said.put_u8(SERVER_KEEP_ALIVE);
        said.put_u16(secs);
    }
    if connect.by_token {
        // MQTT-4.12.0-5
        put_method(&mut said);
    }
    // A few properties, and an identifier that the server has chosen.
    let bytes = u32::try_from(said.len()).unwrap_or(u32::MAX);
    let length = 2 + bytes + varint_bytes(bytes) as u32;
    out.put_u8(0x20);
    put_varint(length, out);
    out.put_slice(&[u8::from(welcome.session_present), Reason::SUCCESS.0]);
    put_varint(bytes, out);
    out.put_slice(&said);
}

/// AUTH: the client has proved anew who it is. It is smaller than the CONNACK of such a client.
pub(crate) fn authenticated(out: &mut BytesMut) {
    let mut said = BytesMut::new();
    put_method(&mut said);
    let bytes = u32::try_from(said.len()).unwrap_or(u32::MAX);
    out.put_u8(0xF0);
    put_varint(2 + bytes, out);
    out.put_u8(Reason::SUCCESS.0);
    put_varint(bytes, out);
    out.put_slice(&said);
}

fn put_method(said: &mut BytesMut) {
    said.put_u8(AUTHENTICATION_METHOD);
    put_bytes(TOKEN_METHOD.as_bytes(), said);
}

pub(crate) const fn varint_bytes(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

pub(crate) fn put_varint(mut value: u32, out: &mut BytesMut) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        out.put_u8(if value == 0 { byte } else { byte | 0x80 });
        if value == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_any_length_are_said_where_they_fit() {
        let id = NonZeroU16::MIN;
        for (length, size) in [(1, 10), (100, 109), (120, 129), (150, 161)] {
            let words = "w".repeat(length);
            for (limit, fits) in [(None, true), (Some(size), true), (Some(size - 1), false)] {
                let (mut ack, mut end) = (BytesMut::new(), BytesMut::new());
                let reason = Reason::PAYLOAD_FORMAT_INVALID;
                refusing_ack(Ack::Puback, id, reason, Some(&words), limit, &mut ack);
                let limit = limit.map(|limit| limit - 2);
                disconnect(Version::V5, reason, &words, limit, &mut end);
                assert_eq!(ack.ends_with(words.as_bytes()), fits, "{length}");
                assert_eq!(end.ends_with(words.as_bytes()), fits, "{length}");
                if fits {
                    assert_eq!(ack.len(), size, "{length}");
                }
            }
        }
    }

    /// MQTT 5, MQTT-1.5.5-1; the boundaries are those of the table in §1.5.5.
    #[test]
    fn lengths_take_as_few_bytes_as_they_need() {
        let table: [(u32, &[u8]); 8] = [
            (0, &[0]),
            (127, &[0x7F]),
            (128, &[0x80, 1]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 1]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 1]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ];
        for (value, expected) in table {
            let mut out = BytesMut::new();
            put_varint(value, &mut out);
            assert_eq!(out, expected);
            assert_eq!(varint_bytes(value), expected.len());
        }
    }
}
