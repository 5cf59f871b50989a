//! The properties of MQTT 5 as a table (§2.2.2.2), and what a packet may say with them.
//!
//! What is wrong has the code that the specification names: an identifier that there is not or that the packet does
//! not have, and a value that is not of its type, are malformed (§2.2.2.2); a property twice, and a value that its
//! type has and the property has not, are protocol errors (each property's own section).

use latchbus_core::topic::TopicName;

use crate::Violation;
use crate::reader::Reader;

pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
pub(crate) const CONTENT_TYPE: u8 = 0x03;
pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
pub(crate) const CORRELATION_DATA: u8 = 0x09;
pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub(crate) const SESSION_EXPIRY: u8 = 0x11;
pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(crate) const WILL_DELAY: u8 = 0x18;
pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
pub(crate) const REASON_STRING: u8 = 0x1F;
pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(crate) const TOPIC_ALIAS: u8 = 0x23;
pub(crate) const MAXIMUM_QOS: u8 = 0x24;
pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
pub(crate) const USER: u8 = 0x26;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(crate) const WILDCARDS_AVAILABLE: u8 = 0x28;
pub(crate) const IDENTIFIERS_AVAILABLE: u8 = 0x29;
pub(crate) const SHARED_AVAILABLE: u8 = 0x2A;

/// What has properties: a packet by its type, and the will in a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Place {
    Connect = 1 << 1,
    Connack = 1 << 2,
    Publish = 1 << 3,
    Puback = 1 << 4,
    Pubrec = 1 << 5,
    Pubrel = 1 << 6,
    Pubcomp = 1 << 7,
    Subscribe = 1 << 8,
    Suback = 1 << 9,
    Unsubscribe = 1 << 10,
    Unsuback = 1 << 11,
    Will = 1 << 12,
    Disconnect = 1 << 14,
    Auth = 1 << 15,
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Byte,
    TwoBytes,
    FourBytes,
    Varint,
    Text,
    Binary,
    Pair,
}

/// What the values of a type are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Any,
    /// 0 or 1.
    Bit,
    NotZero,
    /// A topic alias, which has a code of its own for 0 (§3.3.4).
    Alias,
    /// What can be published to (MQTT-3.3.2-14, MQTT-4.7.3-1).
    TopicName,
}

/// A row of the table: which property, of which type, what it may be and where.
struct Row(u8, Type, Rule, &'static [Place]);

impl Row {
    const fn is_in(&self, place: Place) -> bool {
        let mut places = 0;
        let mut rest = self.3;
        while let [first, others @ ..] = rest {
            places |= *first as u16;
            rest = others;
        }
        places & place as u16 != 0
    }
}

/// The table of §2.2.2.2.
#[rustfmt::skip]
const TABLE: [Row; 27] = {
    use Place::*;
    use Rule::*;
    use Type::*;
    const ALL: &[Place] = &[
        Connect, Connack, Publish, Will, Puback, Pubrec, Pubrel, Pubcomp, Subscribe, Suback, Unsubscribe, Unsuback,
        Disconnect, Auth,
    ];
    const ANSWERS: &[Place] = &[Connack, Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Disconnect, Auth];
    [
        Row(PAYLOAD_FORMAT, Byte, Bit, &[Publish, Will]),
        Row(MESSAGE_EXPIRY, FourBytes, Any, &[Publish, Will]),
        Row(CONTENT_TYPE, Text, Any, &[Publish, Will]),
        Row(RESPONSE_TOPIC, Text, TopicName, &[Publish, Will]),
        Row(CORRELATION_DATA, Binary, Any, &[Publish, Will]),
        Row(SUBSCRIPTION_IDENTIFIER, Varint, NotZero, &[Publish, Subscribe]),
        Row(SESSION_EXPIRY, FourBytes, Any, &[Connect, Connack, Disconnect]),
        Row(ASSIGNED_CLIENT_ID, Text, Any, &[Connack]),
        Row(SERVER_KEEP_ALIVE, TwoBytes, Any, &[Connack]),
        Row(AUTHENTICATION_METHOD, Text, Any, &[Connect, Connack, Auth]),
        Row(AUTHENTICATION_DATA, Binary, Any, &[Connect, Connack, Auth]),
        Row(REQUEST_PROBLEM_INFORMATION, Byte, Bit, &[Connect]),
        Row(WILL_DELAY, FourBytes, Any, &[Will]),
        Row(REQUEST_RESPONSE_INFORMATION, Byte, Bit, &[Connect]),
        Row(RESPONSE_INFORMATION, Text, Any, &[Connack]),
        Row(SERVER_REFERENCE, Text, Any, &[Connack, Disconnect]),
        Row(REASON_STRING, Text, Any, ANSWERS),
        Row(RECEIVE_MAXIMUM, TwoBytes, NotZero, &[Connect, Connack]),
        Row(TOPIC_ALIAS_MAXIMUM, TwoBytes, Any, &[Connect, Connack]),
        Row(TOPIC_ALIAS, TwoBytes, Alias, &[Publish]),
        Row(MAXIMUM_QOS, Byte, Bit, &[Connack]),
        Row(RETAIN_AVAILABLE, Byte, Bit, &[Connack]),
        Row(USER, Pair, Any, ALL),
        Row(MAXIMUM_PACKET_SIZE, FourBytes, NotZero, &[Connect, Connack]),
        Row(WILDCARDS_AVAILABLE, Byte, Bit, &[Connack]),
        Row(IDENTIFIERS_AVAILABLE, Byte, Bit, &[Connack]),
        Row(SHARED_AVAILABLE, Byte, Bit, &[Connack]),
    ]
};

/// A value of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A byte, an integer of two or four bytes, or a variable byte integer.
    Number(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl Type {
    fn read<'a>(self, from: &mut Reader<'a>) -> Result<Value<'a>, Violation> {
        Ok(match self {
            Self::Byte => Value::Number(from.u8()?.into()),
            Self::TwoBytes => Value::Number(from.u16()?.into()),
            Self::FourBytes => Value::Number(from.u32()?),
            Self::Varint => Value::Number(from.varint()?),
            Self::Text => Value::Text(from.text()?),
            Self::Binary => Value::Binary(from.binary()?),
            Self::Pair => Value::Pair(from.text()?, from.text()?),
        })
    }
}

impl Rule {
    fn check(self, value: Value<'_>) -> Result<(), Violation> {
        match (self, value) {
            (Self::Bit, Value::Number(2..)) => {
                Err(Violation::Protocol("a property that is neither 0 nor 1"))
            }
            (Self::NotZero, Value::Number(0)) => Err(Violation::Protocol("a property of 0")),
            (Self::Alias, Value::Number(0)) => Err(Violation::TopicAlias),
            (Self::TopicName, Value::Text(text)) => TopicName::parse(text)
                .map(drop)
                .map_err(|_| Violation::Protocol("a response topic that is no topic name")),
            _ => Ok(()),
        }
    }
}

/// Reads the properties of `place` with their length, and gives each with its value to `each`.
pub(crate) fn read<'a>(
    place: Place,
    from: &mut Reader<'a>,
    mut each: impl FnMut(u8, Value<'a>),
) -> Result<(), Violation> {
    let mut rest = from.part()?;
    let mut seen = 0_u64;
    while !rest.is_empty() {
        let identifier = rest.varint()?;
        let row = TABLE.iter().find(|row| u32::from(row.0) == identifier);
        let Some(row) = row.filter(|row| row.is_in(place)) else {
            return Err(Violation::Malformed("a property that is not of the packet"));
        };
        let Row(id, kind, rule, _) = *row;
        let value = kind.read(&mut rest)?;
        let bit = 1 << id;
        if id != USER && seen & bit != 0 {
            return Err(Violation::Protocol("a property twice"));
        }
        seen |= bit;
        rule.check(value)?;
        each(id, value);
    }
    Ok(())
}
