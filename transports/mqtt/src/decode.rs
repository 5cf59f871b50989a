//! Bytes to packets: what the codec leaves open is checked here, so that a packet comes out whole and
//! valid, or not at all.

use bytes::{Buf, Bytes, BytesMut};
use latchbus_core::topic::TopicName;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::{Publish as CodecPublish, QoS};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use crate::packet::{Options, Packet, Publish, Retained, Service, Version};
use crate::properties::{AT, REV, read_publish};
use crate::{Reason, Violation};

pub(crate) const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const PINGREQ: u8 = 0xC0;
const DISCONNECT: u8 = 0xE0;

/// Takes packets from the front of a buffer, after the CONNECT.
#[derive(Debug)]
pub(crate) struct Decoder {
    codec: Codec,
    max_packet_bytes: usize,
}

#[derive(Debug)]
enum Codec {
    V3(v3::Codec),
    V5(v5::Codec),
}

impl Decoder {
    pub(crate) fn new(version: Version, max_packet_bytes: usize) -> Self {
        let codec = match version {
            Version::V3 => Codec::V3(v3::Codec::default()),
            Version::V5 => Codec::V5(v5::Codec::default()),
        };
        Self {
            codec,
            max_packet_bytes,
        }
    }

    /// The next packet; `None` while it is not complete. The codec sees whole packets only: given a
    /// part, it would set aside the size that a header claims.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Packet>, Violation> {
        let Some(frame) = Frame::peek(bytes, self.max_packet_bytes)? else {
            return Ok(None);
        };
        match &mut self.codec {
            Codec::V3(codec) => {
                frame.check_v3()?;
                let decoded = codec.decode(bytes).map_err(|error| violation(&error))?;
                decoded.map(|(packet, _)| from_v3(packet)).transpose()
            }
            Codec::V5(codec) => {
                if frame.kind & 0xF0 == PUBLISH {
                    let publish = read_publish(frame.kind & 0x0F, frame.body)?;
                    let size = frame.bytes.len();
                    bytes.advance(size);
                    return Ok(Some(Packet::Publish(publish)));
                }
                let decoded = codec.decode(bytes).map_err(|error| violation(&error))?;
                decoded.map(|(packet, _)| from_v5(packet)).transpose()
            }
        }
    }
}

/// One packet, still in its bytes.
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    kind: u8,
    pub(crate) body: &'a [u8],
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
                }));
            }
        }
        if header == 5 {
            return Err(Violation::Malformed("remaining length of five bytes"));
        }
        Ok(None)
    }

    /// What the codec accepts in 3.1.1 and the specification does not.
    fn check_v3(&self) -> Result<(), Violation> {
        match self.kind {
            PINGREQ | DISCONNECT if !self.body.is_empty() => {
                Err(Violation::Malformed("a body where none may be"))
            }
            SUBSCRIBE => {
                let mut rest = self.body.get(2..).unwrap_or_default();
                while let Some((length, tail)) = rest.split_first_chunk::<2>() {
                    let length = usize::from(u16::from_be_bytes(*length));
                    let Some((&options, tail)) = tail.get(length..).and_then(<[u8]>::split_first)
                    else {
                        return Err(Violation::Malformed("cut short"));
                    };
                    if options > 2 {
                        // MQTT 3.1.1 §3.8.3: the upper six bits are reserved, QoS 3 does not exist.
                        return Err(Violation::Malformed("subscription options"));
                    }
                    rest = tail;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The first byte: a packet that a client may send, with the flags that it must have (MQTT 3.1.1 §2.2).
fn check_kind(kind: u8) -> Result<(), Violation> {
    match kind {
        CONNECT | 0x40 | 0x50 | 0x62 | 0x70 | SUBSCRIBE | 0xA2 | PINGREQ | DISCONNECT => Ok(()),
        0x30..=0x3F => match (kind & 0x06, kind & 0x08) {
            (0x06, _) => Err(Violation::Malformed("QoS 3")),
            // MQTT 3.1.1 §3.3.1.1
            (0, 0x08) => Err(Violation::Malformed("DUP with QoS 0")),
            _ => Ok(()),
        },
        0xF0 => Err(Violation::Protocol("AUTH without a method agreed on")),
        0x20 | 0x90 | 0xB0 | 0xD0 => Err(Violation::Protocol("a packet that only a server sends")),
        _ => Err(Violation::Malformed("fixed header")),
    }
}

fn from_v3(packet: v3::Packet) -> Result<Packet, Violation> {
    Ok(match packet {
        v3::Packet::Publish(publish) => Packet::Publish(self::publish(*publish)?),
        v3::Packet::PublishAck { packet_id } => Packet::Acknowledged(packet_id),
        v3::Packet::PublishReceived { packet_id } => Packet::Received {
            id: packet_id,
            refused: false,
        },
        v3::Packet::PublishRelease { packet_id } => Packet::Release(packet_id),
        v3::Packet::PublishComplete { packet_id } => Packet::Complete(packet_id),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => Packet::Subscribe {
            id: packet_id,
            filters: topic_filters
                .iter()
                .map(|(filter, qos)| {
                    let options = Options {
                        qos: qos.value(),
                        no_local: false,
                        retain_as_published: false,
                        retained: Retained::Always,
                        identifier: None,
                        rev: false,
                        at: false,
                    };
                    (filter.to_string(), options)
                })
                .collect(),
        },
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => Packet::Unsubscribe {
            id: packet_id,
            filters: topic_filters.iter().map(ToString::to_string).collect(),
        },
        v3::Packet::PingRequest => Packet::Ping,
        v3::Packet::Disconnect => Packet::Disconnect {
            reason: Reason::SUCCESS,
            session_expiry_secs: None,
        },
        other => return Err(misplaced(matches!(other, v3::Packet::Connect(_)))),
    })
}

fn from_v5(packet: v5::Packet) -> Result<Packet, Violation> {
    Ok(match packet {
        v5::Packet::PublishAck(ack) => Packet::Acknowledged(ack.packet_id),
        v5::Packet::PublishReceived(ack) => Packet::Received {
            id: ack.packet_id,
            refused: Reason(ack.reason_code.into()).is_error(),
        },
        v5::Packet::PublishRelease(ack) => Packet::Release(ack.packet_id),
        v5::Packet::PublishComplete(ack) => Packet::Complete(ack.packet_id),
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe {
            id: subscribe.packet_id,
            filters: subscribe
                .topic_filters
                .iter()
                .map(|(filter, options)| {
                    let asks_for =
                        |name| (subscribe.user_properties.iter()).any(|(n, _)| n == name);
                    let options = Options {
                        qos: options.qos.value(),
                        no_local: options.no_local,
                        retain_as_published: options.retain_as_published,
                        retained: match options.retain_handling {
                            v5::RetainHandling::AtSubscribe => Retained::Always,
                            v5::RetainHandling::AtSubscribeNew => Retained::WhenNew,
                            v5::RetainHandling::NoAtSubscribe => Retained::Never,
                        },
                        identifier: subscribe.id,
                        rev: asks_for(REV),
                        at: asks_for(AT),
                    };
                    (filter.to_string(), options)
                })
                .collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe {
            id: unsubscribe.packet_id,
            filters: (unsubscribe.topic_filters.iter())
                .map(ToString::to_string)
                .collect(),
        },
        v5::Packet::PingRequest => Packet::Ping,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect {
            reason: Reason(disconnect.reason_code.into()),
            session_expiry_secs: disconnect.session_expiry_interval_secs,
        },
        other => return Err(misplaced(matches!(other, v5::Packet::Connect(_)))),
    })
}

fn publish(publish: CodecPublish) -> Result<Publish, Violation> {
    let id = publish.packet_id;
    let service = match (publish.qos, id) {
        (QoS::AtMostOnce, _) => Service::Zero,
        (QoS::AtLeastOnce, Some(id)) => Service::One(id),
        (QoS::ExactlyOnce, Some(id)) => Service::Two(id),
        (_, None) => return Err(Violation::Malformed("no packet identifier")),
    };
    Ok(Publish {
        topic: publish.topic.to_string(),
        payload: own(&publish.payload),
        retain: publish.retain,
        service,
        alias: None,
        properties: None,
        expires_in: None,
    })
}

/// A copy: a slice would keep the whole read buffer alive for as long as the hub keeps the message.
pub(crate) fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(crate) fn topic(name: &str) -> Result<TopicName<String>, Violation> {
    TopicName::parse(name.to_owned()).map_err(|_| Violation::TopicName)
}

pub(crate) fn text(text: &str) -> Result<String, Violation> {
    check_text(text)?;
    Ok(text.to_owned())
}

/// MQTT 3.1.1 §1.5.3: no string holds U+0000.
pub(crate) fn check_text(text: &str) -> Result<(), Violation> {
    if text.contains('\0') {
        return Err(Violation::Malformed("U+0000 in a string"));
    }
    Ok(())
}

fn misplaced(connect: bool) -> Violation {
    Violation::Protocol(if connect {
        "a second CONNECT"
    } else {
        "a packet that only a server sends"
    })
}

pub(crate) fn violation(error: &DecodeError) -> Violation {
    match error {
        DecodeError::Utf8Error => Violation::Malformed("invalid UTF-8"),
        DecodeError::InvalidTopicName => Violation::TopicName,
        DecodeError::InvalidTopicFilter => Violation::Protocol("no topic filter"),
        DecodeError::InvalidLength => Violation::Malformed("length"),
        DecodeError::PacketIdRequired => Violation::Malformed("packet identifier 0"),
        _ => Violation::Malformed("contents"),
    }
}
