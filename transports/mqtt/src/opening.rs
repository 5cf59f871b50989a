//! How a connection begins: the CONNECT, of whichever version.

use bytes::{Buf, Bytes, BytesMut};
use latchbus_bus::Credentials;

use crate::decode::{CONNECT, Frame, topic};
use crate::packet::{Connect, TOKEN_METHOD, Version, Will};
use crate::properties::Said;
use crate::property::{
    self, AUTHENTICATION_DATA, AUTHENTICATION_METHOD, MAXIMUM_PACKET_SIZE, Place, RECEIVE_MAXIMUM,
    REQUEST_PROBLEM_INFORMATION, SESSION_EXPIRY, TOPIC_ALIAS_MAXIMUM, Value,
};
use crate::reader::Reader;
use crate::{Reason, Violation};

/// What a connection begins with.
#[derive(Debug)]
pub enum Opening {
    /// A client that can be served.
    Connect(Box<Connect>),
    /// One that cannot, and is to be told so.
    Refuse {
        /// The version in which to say it.
        version: Version,
        /// Why.
        reason: Reason,
        /// The largest packet that it accepts, in bytes, as far as it has said so.
        limit: Option<usize>,
        /// What it did wrong, if it did.
        violation: Option<Violation>,
    },
}

/// Takes a CONNECT from the front of `bytes`; `None` while it is not complete.
///
/// # Errors
/// When the bytes are not the beginning of an MQTT connection. There is no answer to that (MQTT 3.1.1
/// §3.1.4).
pub fn opening(
    bytes: &mut BytesMut,
    max_packet_bytes: usize,
) -> Result<Option<Opening>, Violation> {
    if bytes.first().is_some_and(|&first| first != CONNECT) {
        return Err(Violation::Protocol(match bytes.first() {
            Some(&TLS_HANDSHAKE) => {
                "the first packet is not a CONNECT: TLS on the plain MQTT listener"
            }
            _ if [b"GET ", b"POST", b"HEAD", b"PUT "].contains(&&first_four(bytes)) => {
                "the first packet is not a CONNECT: HTTP on the MQTT listener"
            }
            _ => "the first packet is not a CONNECT",
        }));
    }
    let Some(frame) = Frame::peek(bytes, max_packet_bytes)? else {
        return Ok(None);
    };
    let mut spoken = Spoken::default();
    let opening = match (connect(&frame, &mut spoken), spoken.version) {
        // MQTT 5 §4.13.1: what is wrong is said, where the client can understand it.
        (Err(violation), Some(Version::V5)) => Opening::Refuse {
            version: Version::V5,
            reason: violation.reason(),
            limit: spoken.maximum_packet_bytes,
            violation: Some(violation),
        },
        (opening, _) => opening?,
    };
    let bytes_taken = frame.bytes.len();
    bytes.advance(bytes_taken);
    Ok(Some(opening))
}

/// The type of the record with which TLS begins (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

fn first_four(bytes: &BytesMut) -> [u8; 4] {
    let four = bytes.first_chunk::<4>();
    four.copied().unwrap_or_default()
}

/// What is known of a client before the end of its CONNECT.
#[derive(Debug, Default)]
struct Spoken {
    version: Option<Version>,
    maximum_packet_bytes: Option<usize>,
}

impl Spoken {
    const fn refuse(&self, version: Version, reason: Reason) -> Opening {
        Opening::Refuse {
            version,
            reason,
            limit: self.maximum_packet_bytes,
            violation: None,
        }
    }
}

/// The bit of the level with which a bridge of Mosquitto says what it is.
const BRIDGE: u8 = 0x80;

/// The flags of a CONNECT (MQTT 3.1.1 §3.1.2.3).
#[derive(Debug, Clone, Copy)]
struct Flags(u8);

impl Flags {
    const RESERVED: u8 = 0x01;
    const CLEAN_START: u8 = 0x02;
    const WILL: u8 = 0x04;
    const WILL_RETAIN: u8 = 0x20;
    const PASSWORD: u8 = 0x40;
    const USER_NAME: u8 = 0x80;

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    const fn will_qos(self) -> u8 {
        self.0 >> 3 & 0x03
    }

    /// MQTT-3.1.2-3, -11, -13, -14, -15, -22.
    const fn check(self, version: Version) -> Result<(), Violation> {
        let will_alone = self.will_qos() != 0 || self.has(Self::WILL_RETAIN);
        let wrong = self.has(Self::RESERVED)
            || self.will_qos() == 3
            || (!self.has(Self::WILL) && will_alone)
            || (matches!(version, Version::V3)
                && self.has(Self::PASSWORD)
                && !self.has(Self::USER_NAME));
        match wrong {
            true => Err(Violation::Malformed("connect flags")),
            false => Ok(()),
        }
    }
}

fn connect(frame: &Frame<'_>, spoken: &mut Spoken) -> Result<Opening, Violation> {
    let mut rest = Reader(frame.body);
    let name = rest.binary()?;
    let level = rest.u8()?;
    let (version, bridge) = match (name, level) {
        (b"MQTT", 4) => (Version::V3, false),
        (b"MQTT", 5) => (Version::V5, false),
        (b"MQTT", level) if level == 4 | BRIDGE => (Version::V3, true),
        // MQTT-3.1.2-2. Which form a client of another version reads, nobody knows: that of the oldest it is.
        (b"MQTT" | b"MQIsdp", _) => {
            return Ok(spoken.refuse(Version::V3, Reason::UNSUPPORTED_VERSION));
        }
        _ => return Err(Violation::Protocol("not MQTT")),
    };
    spoken.version = Some(version);
    frame.check_length(version)?;
    let flags = Flags(rest.u8()?);
    flags.check(version)?;
    let mut connect = Connect {
        version,
        bridge,
        client_id: String::new(),
        credentials: Credentials::default(),
        clean_start: flags.has(Flags::CLEAN_START),
        keep_alive_secs: rest.u16()?,
        session_expiry_secs: (version == Version::V5).then_some(0),
        receive_maximum: u16::MAX,
        maximum_packet_bytes: None,
        topic_alias_maximum: 0,
        problem_information: true,
        by_token: false,
        will: None,
    };
    let (mut method, mut data) = (None, None);
    if version == Version::V5 {
        let limit = &mut spoken.maximum_packet_bytes;
        property::read(Place::Connect, &mut rest, |id, value| {
            let number = match (id, value) {
                (_, Value::Number(number)) => number,
                (AUTHENTICATION_METHOD, Value::Text(text)) => return method = Some(text),
                (AUTHENTICATION_DATA, Value::Binary(bytes)) => return data = Some(bytes),
                _ => return,
            };
            let two_bytes = u16::try_from(number).unwrap_or(u16::MAX);
            match id {
                SESSION_EXPIRY => connect.session_expiry_secs = Some(number),
                RECEIVE_MAXIMUM => connect.receive_maximum = two_bytes,
                MAXIMUM_PACKET_SIZE => {
                    *limit = usize::try_from(number).ok();
                    connect.maximum_packet_bytes = *limit;
                }
                TOPIC_ALIAS_MAXIMUM => connect.topic_alias_maximum = two_bytes,
                REQUEST_PROBLEM_INFORMATION => connect.problem_information = number != 0,
                _ => {}
            }
        })?;
    }
    connect.client_id = rest.text()?.to_owned();
    if flags.has(Flags::WILL) {
        connect.will = Some(will(version, flags, &mut rest)?);
    }
    if flags.has(Flags::USER_NAME) {
        connect.credentials.user = Some(rest.text()?.to_owned());
    }
    if flags.has(Flags::PASSWORD) {
        let password = Bytes::copy_from_slice(rest.binary()?);
        connect.credentials.password = Some(password);
    }
    // MQTT-3.1.2-18, -20
    rest.end()?;
    match (method, data) {
        (None, None) => {}
        (None, Some(_)) => {
            return Err(Violation::Protocol("authentication data without a method"));
        }
        (Some(TOKEN_METHOD), data) => {
            connect.by_token = true;
            connect.credentials.token = Some(token(data));
        }
        (Some(_), _) => return Ok(spoken.refuse(version, Reason::BAD_AUTHENTICATION_METHOD)),
    }
    if version == Version::V3 && connect.client_id.is_empty() && !connect.clean_start {
        // MQTT-3.1.3-8
        return Ok(spoken.refuse(version, Reason::CLIENT_IDENTIFIER_NOT_VALID));
    }
    Ok(Opening::Connect(Box::new(connect)))
}

/// The token in the data of [`TOKEN_METHOD`]. What is no text, or not there, is one that proves nothing.
pub(crate) fn token(data: Option<&[u8]>) -> String {
    let text = data.and_then(|data| core::str::from_utf8(data).ok());
    text.unwrap_or_default().to_owned()
}

fn will(version: Version, flags: Flags, rest: &mut Reader<'_>) -> Result<Will, Violation> {
    let said = match version {
        Version::V3 => Said::default(),
        Version::V5 => Said::read(Place::Will, rest)?,
    };
    let (name, payload) = (rest.text()?, rest.binary()?);
    Ok(Will {
        delay: said.delay,
        publish: latchbus_bus::Publish {
            topic: topic(name)?,
            // A copy: a slice would keep the whole read buffer.
            payload: Bytes::copy_from_slice(payload),
            retain: flags.has(Flags::WILL_RETAIN),
            qos: flags.will_qos(),
            expires_in: said.expires_in,
            properties: said.shared(),
            expected: None,
            notes: Box::default(),
        },
    })
}
