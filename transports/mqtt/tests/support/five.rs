//! A client of MQTT 5 that sends what it is told.

use core::net::SocketAddr;
use core::num::NonZeroU16;

use bytes::BytesMut;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Codec, Connect, ConnectAck, DisconnectReasonCode, LastWill, Packet, Subscribe,
    SubscribeAckReason, SubscriptionOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder};

use super::DEADLINE;

pub(crate) struct V5 {
    pub(crate) stream: TcpStream,
    bytes: BytesMut,
}

impl V5 {
    pub(crate) async fn connect(address: SocketAddr, connect: Connect) -> (Self, ConnectAck) {
        let mut v5 = Self {
            stream: TcpStream::connect(address).await.unwrap(),
            bytes: BytesMut::new(),
        };
        v5.send(Packet::Connect(Box::new(connect))).await;
        match v5.next().await {
            Some(Packet::ConnectAck(ack)) => (v5, *ack),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn open(address: SocketAddr, id: &str) -> Self {
        Self::connect(address, client(id)).await.0
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        Codec::default().encode(packet, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<Packet> {
        let reading = async {
            loop {
                let mut copy = self.bytes.clone();
                if let Some((packet, _)) = Codec::default().decode(&mut copy).unwrap() {
                    self.bytes = copy;
                    return Some(packet);
                }
                if !matches!(self.stream.read_buf(&mut self.bytes).await, Ok(1..)) {
                    return None;
                }
            }
        };
        timeout(DEADLINE, reading).await.expect("in time")
    }

    pub(crate) async fn message(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => *publish,
            other => panic!("{other:?} for a PUBLISH"),
        }
    }

    pub(crate) async fn subscribe(&mut self, subscribe: Subscribe) -> Vec<SubscribeAckReason> {
        self.send(Packet::Subscribe(subscribe)).await;
        match self.next().await {
            Some(Packet::SubscribeAck(ack)) => ack.status,
            other => panic!("{other:?} for a SUBACK"),
        }
    }

    pub(crate) async fn quiet(&mut self) {
        self.send(Packet::PingRequest).await;
        assert_eq!(self.next().await, Some(Packet::PingResponse));
    }

    /// The server says why it closes, and closes.
    pub(crate) async fn ends(&mut self, reason: DisconnectReasonCode) {
        match self.next().await {
            Some(Packet::Disconnect(disconnect)) => {
                assert_eq!(disconnect.reason_code, reason);
                // MQTT-3.14.2-2
                assert_eq!(disconnect.session_expiry_interval_secs, None);
            }
            other => panic!("{other:?} for a DISCONNECT"),
        }
        assert_eq!(self.next().await, None);
    }
}

pub(crate) fn client(id: &str) -> Connect {
    Connect {
        clean_start: true,
        keep_alive: 60,
        ..Connect::default().client_id(id.to_owned())
    }
}

pub(crate) fn one(filter: &str, options: SubscriptionOptions) -> Subscribe {
    Subscribe {
        packet_id: NonZeroU16::MIN,
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![(filter.into(), options)],
    }
}

pub(crate) fn message(topic: &str, payload: &str, qos: QoS, id: u16) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.into(),
        packet_id: id.try_into().ok(),
        payload: payload.to_owned().into(),
        properties: None,
    }
}

/// The retained word `offline` under the client's status.
pub(crate) fn offline(id: &str, delay: Option<u32>) -> LastWill {
    LastWill {
        qos: QoS::AtLeastOnce,
        retain: true,
        will_delay_interval_sec: delay,
        ..will(&format!("status/{id}"), "offline")
    }
}

/// An event at QoS 0.
pub(crate) fn will(topic: &str, message: &'static str) -> LastWill {
    LastWill {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: topic.to_owned().into(),
        message: message.into(),
        will_delay_interval_sec: None,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    }
}
