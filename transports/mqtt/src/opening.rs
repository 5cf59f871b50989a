//! How a connection begins: the CONNECT, of whichever version.

use core::num::NonZeroU16;
use core::time::Duration;

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use latchbus_bus::Properties;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use crate::decode::{CONNECT, Frame, check_text, own, text, topic, violation};
use crate::packet::{Connect, Version, Will};
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
        return Err(Violation::Protocol("the first packet is not a CONNECT"));
    }
    let Some(frame) = Frame::peek(bytes, max_packet_bytes)? else {
        return Ok(None);
    };
    let mut version = None;
    let opening = match (connect(&frame, &mut version), version) {
        // MQTT 5 §4.13.1: what is wrong is said, where the client can understand it.
        (Err(violation), Some(Version::V5)) => Opening::Refuse {
            version: Version::V5,
            reason: violation.reason(),
        },
        (opening, _) => opening?,
    };
    let bytes_taken = frame.bytes.len();
    bytes.advance(bytes_taken);
    Ok(Some(opening))
}

fn connect(frame: &Frame<'_>, spoken: &mut Option<Version>) -> Result<Opening, Violation> {
    let short = Violation::Malformed("cut short");
    let (length, rest) = frame.body.split_first_chunk::<2>().ok_or(short)?;
    let name_bytes = usize::from(u16::from_be_bytes(*length));
    let (name, rest) = rest.split_at_checked(name_bytes).ok_or(short)?;
    let [level, flags, ..] = *rest else {
        return Err(short);
    };
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V3,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT", 6..) => {
            return Ok(Opening::Refuse {
                version: Version::V5,
                reason: Reason::UNSUPPORTED_VERSION,
            });
        }
        (b"MQTT" | b"MQIsdp", _) => {
            return Ok(Opening::Refuse {
                version: Version::V3,
                reason: Reason::UNSUPPORTED_VERSION,
            });
        }
        _ => return Err(Violation::Protocol("not MQTT")),
    };
    *spoken = Some(version);
    let (has_will, will_flags) = (flags & 0x04 != 0, flags & 0x38);
    if flags & 0x01 != 0 || will_flags & 0x18 == 0x18 || (!has_will && will_flags != 0) {
        return Err(Violation::Malformed("connect flags"));
    }
    if version == Version::V3 && flags & 0xC0 == 0x40 {
        // MQTT 3.1.1 §3.1.2.9
        return Err(Violation::Malformed("password without user name"));
    }
    let invalid_id = |version| Opening::Refuse {
        version,
        reason: Reason::CLIENT_IDENTIFIER_NOT_VALID,
    };
    match version {
        Version::V3 => match v3::Codec::default().decode(&mut BytesMut::from(frame.bytes)) {
            Ok(Some((v3::Packet::Connect(connect), _))) => connect_v3(*connect),
            Err(DecodeError::InvalidClientId) => Ok(invalid_id(version)),
            Err(error) => Err(violation(&error)),
            Ok(_) => Err(short),
        },
        Version::V5 => {
            let mut bytes = BytesMut::from(frame.bytes);
            let mut decoded = v5::Codec::default().decode(&mut bytes);
            if matches!(decoded, Err(DecodeError::InvalidClientId)) {
                // MQTT 5 §3.1.3.1 lets a client without an identifier ask for an old session, which it
                // cannot have; the codec does not.
                bytes = BytesMut::from(frame.bytes);
                let flags_at = frame.bytes.len() - rest.len() + 1;
                if let Some(flags) = bytes.get_mut(flags_at) {
                    *flags |= 0x02;
                }
                decoded = v5::Codec::default().decode(&mut bytes);
            }
            match decoded {
                Ok(Some((v5::Packet::Connect(connect), _))) => connect_v5(*connect),
                Err(error) => Err(violation(&error)),
                Ok(_) => Err(short),
            }
        }
    }
}

fn connect_v3(connect: v3::Connect) -> Result<Opening, Violation> {
    check_text(connect.username.as_deref().unwrap_or_default())?;
    let will = match connect.last_will {
        Some(will) => Some(Will {
            publish: latchbus_bus::Publish {
                topic: topic(&will.topic)?,
                payload: own(&will.message),
                retain: will.retain,
                qos: will.qos.value(),
                properties: None,
                expires_in: None,
                notes: Box::default(),
            },
            delay: Duration::ZERO,
        }),
        None => None,
    };
    Ok(Opening::Connect(Box::new(Connect {
        version: Version::V3,
        client_id: text(&connect.client_id)?,
        user: connect.username.as_deref().map(text).transpose()?,
        clean_start: connect.clean_session,
        keep_alive_secs: connect.keep_alive,
        session_expiry_secs: None,
        receive_maximum: u16::MAX,
        maximum_packet_bytes: None,
        topic_alias_maximum: 0,
        problem_information: true,
        will,
    })))
}

fn connect_v5(connect: v5::Connect) -> Result<Opening, Violation> {
    check_text(connect.username.as_deref().unwrap_or_default())?;
    if connect.auth_method.is_some() {
        return Ok(Opening::Refuse {
            version: Version::V5,
            reason: Reason::BAD_AUTHENTICATION_METHOD,
        });
    }
    if connect.auth_data.is_some() {
        return Err(Violation::Protocol("authentication data without a method"));
    }
    let will = match connect.last_will {
        Some(will) => Some(Will {
            publish: latchbus_bus::Publish {
                topic: topic(&will.topic)?,
                properties: will_properties(&will)?,
                expires_in: (will.message_expiry_interval)
                    .map(|secs| Duration::from_secs(secs.get().into())),
                payload: own(&will.message),
                retain: will.retain,
                qos: will.qos.value(),
                notes: Box::default(),
            },
            delay: Duration::from_secs(will.will_delay_interval_sec.unwrap_or(0).into()),
        }),
        None => None,
    };
    Ok(Opening::Connect(Box::new(Connect {
        version: Version::V5,
        client_id: text(&connect.client_id)?,
        user: connect.username.as_deref().map(text).transpose()?,
        clean_start: connect.clean_start,
        keep_alive_secs: connect.keep_alive,
        session_expiry_secs: Some(connect.session_expiry_interval_secs),
        receive_maximum: connect.receive_max.map_or(u16::MAX, NonZeroU16::get),
        maximum_packet_bytes: connect.max_packet_size.map(|size| size.get() as usize),
        topic_alias_maximum: connect.topic_alias_max,
        problem_information: connect.request_problem_info,
        will,
    })))
}

fn will_properties(will: &v5::LastWill) -> Result<Option<Arc<Properties>>, Violation> {
    let own_text = |value: &Option<_>| value.as_deref().map(text).transpose();
    let user = will.user_properties.iter();
    let properties = Properties {
        payload_is_text: will.is_utf8_payload == Some(true),
        content_type: own_text(&will.content_type)?,
        response_topic: own_text(&will.response_topic)?,
        correlation_data: will.correlation_data.as_deref().map(<[u8]>::to_vec),
        user: user
            .map(|(name, value)| Ok((text(name)?, text(value)?)))
            .collect::<Result<_, Violation>>()?,
    };
    Ok((properties != Properties::default()).then(|| Arc::new(properties)))
}
