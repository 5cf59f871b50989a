//! A client's bytes, cut into the packets of MQTT or the frames of a WebSocket, so that a fault can hit a whole one.

use bytes::{Buf, Bytes, BytesMut};
use latchbus_core::wire::{self, ClientFrame};

/// Which protocol a connection speaks; its first byte tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Mqtt,
    /// After the request that opens it.
    WebSocket,
}

/// Collects bytes and gives whole units of the protocol. What it cannot read it passes on as it came.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: BytesMut,
    protocol: Option<Protocol>,
    /// The request of a WebSocket is over.
    upgraded: bool,
}

/// What a client publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) retain: bool,
    /// Of MQTT at QoS 1; 0 elsewhere.
    pub(super) packet_id: u16,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The next whole unit; none until it is there.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let protocol = *self.protocol.get_or_insert(match self.bytes.first()? {
            b'G' => Protocol::WebSocket,
            _ => Protocol::Mqtt,
        });
        let length = match protocol {
            Protocol::Mqtt => mqtt_length(&self.bytes)?,
            Protocol::WebSocket if !self.upgraded => {
                let end = self
                    .bytes
                    .windows(4)
                    .position(|bytes| bytes == b"\r\n\r\n")?;
                self.upgraded = true;
                end + 4
            }
            Protocol::WebSocket => websocket_length(&self.bytes)?,
        };
        (self.bytes.len() >= length).then(|| self.bytes.split_to(length).freeze())
    }
}

/// The packet identifier of a PUBACK.
pub(super) fn puback(unit: &[u8]) -> Option<u16> {
    match unit {
        [0x40, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// Whether a unit publishes, and what.
pub(super) fn published(protocol: Protocol, unit: &Bytes) -> Option<Published> {
    match protocol {
        Protocol::Mqtt => mqtt_published(unit.clone()),
        Protocol::WebSocket => websocket_published(unit),
    }
}

/// The same unit as a sender sends it again: an MQTT PUBLISH says so (MQTT 3.1.1 §3.3.1.1), a frame does not.
pub(super) fn again(protocol: Protocol, unit: &Bytes) -> Bytes {
    let mut copy = unit.to_vec();
    if protocol == Protocol::Mqtt {
        copy[0] |= 0x08;
    }
    copy.into()
}

fn mqtt_length(bytes: &[u8]) -> Option<usize> {
    let (mut length, mut header) = (0, 1);
    for shift in [0, 7, 14, 21] {
        let byte = *bytes.get(header)?;
        header += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(header + length)
}

/// Of a client's frame, which is masked, and of a server's, which is not (RFC 6455 §5.2).
fn websocket_length(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    Some(match second & 0x7f {
        126 => {
            let length = bytes.get(2..4)?;
            4 + mask + usize::from(u16::from_be_bytes(length.try_into().unwrap()))
        }
        127 => {
            let length = bytes.get(2..10)?;
            10 + mask + usize::try_from(u64::from_be_bytes(length.try_into().unwrap())).unwrap()
        }
        length => 2 + mask + usize::from(length),
    })
}

/// A PUBLISH of MQTT 3.1.1.
fn mqtt_published(mut packet: Bytes) -> Option<Published> {
    let head = *packet.first()?;
    if head >> 4 != 3 {
        return None;
    }
    packet.advance(1);
    while packet.get_u8() & 0x80 != 0 {}
    let length = packet.get_u16();
    let topic = String::from_utf8(packet.split_to(length.into()).to_vec()).unwrap();
    let packet_id = if head & 0x06 == 0 {
        0
    } else {
        packet.get_u16()
    };
    Some(Published {
        topic,
        payload: packet,
        retain: head & 1 == 1,
        packet_id,
    })
}

/// A binary frame of the subprotocol `latchbus.v1.postcard`, masked.
fn websocket_published(frame: &[u8]) -> Option<Published> {
    if frame.first()? & 0x0f != 2 || frame.get(1)? & 0x80 == 0 {
        return None;
    }
    let header = match frame[1] & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let mask: [u8; 4] = frame.get(header..header + 4)?.try_into().unwrap();
    let masked = &frame[header + 4..];
    let message: Vec<u8> = masked
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    match wire::decode_client(&message).ok()? {
        ClientFrame::Publish {
            topic,
            payload,
            retain,
            ..
        } => Some(Published {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(payload),
            retain,
            packet_id: 0,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transports::mqtt_packet as packet;

    fn units(bytes: &[u8]) -> Vec<Bytes> {
        let mut frames = Frames::default();
        let mut units = Vec::new();
        for byte in bytes {
            frames.push(&[*byte]);
            units.extend(frames.next());
        }
        units
    }

    #[test]
    fn mqtt_is_cut_into_packets_and_a_copy_says_that_it_is_one() {
        let connect = packet::connect(4, "k1", false);
        let publish = packet::publish(4, (b"a/b", &[7; 300]), Some(9), true, false);
        let bytes = [connect.clone(), publish.clone()].concat();
        assert_eq!(units(&bytes), [connect.clone(), publish.clone()]);
        let publish = Bytes::from(publish);
        let said = published(Protocol::Mqtt, &publish).unwrap();
        assert_eq!(
            (said.topic.as_str(), said.packet_id, said.retain),
            ("a/b", 9, true)
        );
        assert_eq!(said.payload, [7; 300].as_slice());
        let copy = packet::publish(4, (b"a/b", &[7; 300]), Some(9), true, true);
        assert_eq!(again(Protocol::Mqtt, &publish), copy);
        assert_eq!(published(Protocol::Mqtt, &connect.into()), None);
        assert_eq!(puback(&packet::ack(0x40, 9)), Some(9));
    }

    #[test]
    fn a_websocket_is_cut_into_frames() {
        let message = wire::encode_vec(&ClientFrame::Publish {
            id: Some(1),
            topic: "a/b",
            payload: &[7; 300],
            retain: true,
        })
        .unwrap();
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x82, 0x80 | 126];
        frame.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&mask);
        frame.extend(
            message
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        let request = b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        let ping = vec![0x89, 0x80, 0, 0, 0, 0];
        let bytes = [request.clone(), ping.clone(), frame.clone()].concat();
        assert_eq!(units(&bytes), [request, ping, frame.clone()]);
        let said = published(Protocol::WebSocket, &frame.into()).unwrap();
        assert_eq!((said.topic.as_str(), said.payload.len()), ("a/b", 300));
    }
}
