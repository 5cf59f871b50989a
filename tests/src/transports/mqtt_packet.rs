//! MQTT packets as a client writes and reads them, from the specifications alone: MQTT 3.1.1 §2 and §3,
//! MQTT 5 §2 and §3. Levels are 4 and 5.

use bytes::{Buf, Bytes, BytesMut};

/// The topic alias and its like are never asked for, so these are all that a server may send.
const SUBSCRIPTION_IDENTIFIER: u32 = 0x0b;

/// What a server sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Packet {
    Connack { present: bool, code: u8 },
    Publish(Published),
    Puback { id: u16, code: u8 },
    Pubrec { id: u16 },
    Pubrel { id: u16 },
    Pubcomp { id: u16 },
    Suback { id: u16, codes: Bytes },
    Unsuback { id: u16 },
    Pingresp,
    Disconnect { code: u8 },
}

#[derive(Debug, PartialEq)]
pub(crate) struct Published {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    /// 0 at QoS 0.
    pub(crate) id: u16,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) subscription: Option<u32>,
}

pub(crate) fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    put_varint(&mut packet, u32::try_from(body.len()).unwrap());
    packet.extend_from_slice(body);
    packet
}

pub(crate) fn connect(level: u8, client_id: &str, keep: bool) -> Vec<u8> {
    connect_with(level, client_id, keep, Brought::default())
}

/// What a CONNECT may bring.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Brought<'a> {
    /// A user and a password.
    pub(crate) user: Option<(&'a str, &'a str)>,
    /// The topic and the payload of a will, and whether it is retained; of QoS 1.
    pub(crate) will: Option<(&'a str, &'a [u8], bool)>,
}

pub(crate) fn connect_with(
    level: u8,
    client_id: &str,
    keep: bool,
    brought: Brought<'_>,
) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, "MQTT");
    // Bit 1: a clean session. In MQTT 5 a clean start, after which a session may still be kept.
    let mut flags = if keep { 0 } else { 2 };
    if brought.user.is_some() {
        flags |= 0b1100_0000;
    }
    if let Some((.., retain)) = brought.will {
        flags |= 0b1100 | u8::from(retain) << 5;
    }
    body.extend_from_slice(&[level, flags, 0, 0]);
    if level == 5 {
        let mut properties = Vec::new();
        if keep {
            properties.push(0x11);
            properties.extend_from_slice(&3_600_u32.to_be_bytes());
        }
        put_varint(&mut body, u32::try_from(properties.len()).unwrap());
        body.extend_from_slice(&properties);
    }
    put_text(&mut body, client_id);
    if let Some((topic, payload, _)) = brought.will {
        no_properties(level, &mut body);
        put_text(&mut body, topic);
        put_bytes(&mut body, payload);
    }
    if let Some((user, password)) = brought.user {
        put_text(&mut body, user);
        put_text(&mut body, password);
    }
    packet(0x10, &body)
}

pub(crate) fn publish(
    level: u8,
    (topic, payload): (&[u8], &[u8]),
    id: Option<u16>,
    retain: bool,
    dup: bool,
) -> Vec<u8> {
    let mut body = Vec::new();
    put_bytes(&mut body, topic);
    if let Some(id) = id {
        body.extend_from_slice(&id.to_be_bytes());
    }
    no_properties(level, &mut body);
    body.extend_from_slice(payload);
    let qos = u8::from(id.is_some()) << 1;
    let dup = u8::from(dup && id.is_some()) << 3;
    packet(0x30 | dup | qos | u8::from(retain), &body)
}

/// At QoS 1. In MQTT 5 the packet's identifier is the subscription's, too.
pub(crate) fn subscribe(level: u8, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level == 5 {
        let mut properties = Vec::new();
        put_varint(&mut properties, SUBSCRIPTION_IDENTIFIER);
        put_varint(&mut properties, id.into());
        put_varint(&mut body, u32::try_from(properties.len()).unwrap());
        body.extend_from_slice(&properties);
    }
    put_text(&mut body, filter);
    body.push(1);
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(level: u8, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    no_properties(level, &mut body);
    put_text(&mut body, filter);
    packet(0xa2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its first byte; success needs no reason code.
pub(crate) fn ack(head: u8, id: u16) -> Vec<u8> {
    packet(head, &id.to_be_bytes())
}

pub(crate) fn disconnect() -> Vec<u8> {
    packet(0xe0, &[])
}

/// Takes a whole packet from the front; none until it is there.
pub(crate) fn take(level: u8, bytes: &mut BytesMut) -> Option<Packet> {
    let head = *bytes.first()?;
    let mut length = 0;
    let mut header = 1;
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(header)?;
        header += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if bytes.len() < header + length {
        return None;
    }
    bytes.advance(header);
    Some(read(level, head, bytes.split_to(length).freeze()))
}

fn read(level: u8, head: u8, mut body: Bytes) -> Packet {
    let code = |body: &Bytes| body.first().copied().unwrap_or(0);
    match head >> 4 {
        2 => Packet::Connack {
            present: body.get_u8() & 1 == 1,
            code: code(&body),
        },
        3 => Packet::Publish(read_publish(level, head, body)),
        4 => Packet::Puback {
            id: body.get_u16(),
            code: code(&body),
        },
        5 => Packet::Pubrec { id: body.get_u16() },
        6 => Packet::Pubrel { id: body.get_u16() },
        7 => Packet::Pubcomp { id: body.get_u16() },
        9 => {
            let id = body.get_u16();
            let _properties = properties(level, &mut body);
            Packet::Suback { id, codes: body }
        }
        11 => Packet::Unsuback { id: body.get_u16() },
        13 => Packet::Pingresp,
        14 => Packet::Disconnect { code: code(&body) },
        _ => panic!("a packet with head {head:#x} from a server"),
    }
}

fn read_publish(level: u8, head: u8, mut body: Bytes) -> Published {
    let length = body.get_u16();
    let topic = body.split_to(length.into());
    let qos = head >> 1 & 3;
    let id = if qos > 0 { body.get_u16() } else { 0 };
    let mut properties = properties(level, &mut body);
    let subscription = properties.has_remaining().then(|| {
        assert_eq!(get_varint(&mut properties), SUBSCRIPTION_IDENTIFIER);
        get_varint(&mut properties)
    });
    assert!(
        !properties.has_remaining(),
        "more properties: {properties:?}"
    );
    Published {
        topic: String::from_utf8(topic.to_vec()).unwrap(),
        payload: body,
        qos,
        id,
        retain: head & 1 == 1,
        dup: head & 8 == 8,
        subscription,
    }
}

fn properties(level: u8, body: &mut Bytes) -> Bytes {
    if level < 5 {
        return Bytes::new();
    }
    let length = get_varint(body);
    body.split_to(usize::try_from(length).unwrap())
}

fn no_properties(level: u8, body: &mut Vec<u8>) {
    if level == 5 {
        body.push(0);
    }
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    put_bytes(body, text.as_bytes());
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
    body.extend_from_slice(bytes);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn get_varint(bytes: &mut Bytes) -> u32 {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = bytes.get_u8();
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a length of more than four bytes");
}
