//! MQTT, with a peer that acknowledges what it reads and keeps nothing else.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use bytes::BytesMut;
use latchbus_bus::Bus;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::ErrorCode;
use latchbus_mqtt::server::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::mqtt_packet::{self as packet, Packet, Published};
use super::tcp;
use crate::transport::{
    Connect, End, Incoming, Message, Peer, Publish, Subscribe, Transport, Verdict, Words, Wrong,
};
use crate::users::PASSWORD;

/// MQTT of one protocol level: 4 is 3.1.1.
#[derive(Debug)]
pub struct Mqtt<const LEVEL: u8> {
    address: SocketAddr,
    serves: JoinHandle<()>,
}

/// MQTT 3.1.1.
pub type Mqtt3 = Mqtt<4>;

/// MQTT 5.
pub type Mqtt5 = Mqtt<5>;

/// An MQTT client: subscribes at QoS 1, publishes at QoS 1 what is to be acknowledged and at QoS 0 the rest.
#[derive(Debug)]
pub struct MqttPeer<const LEVEL: u8> {
    stream: TcpStream,
    bytes: BytesMut,
    filters: BTreeMap<u64, TopicFilter<String>>,
    /// Whether the server had kept its session.
    pub session_present: bool,
}

impl<const LEVEL: u8> Transport for Mqtt<LEVEL> {
    type Peer = MqttPeer<LEVEL>;

    const WORDS: Words = Words {
        synced: false,
        gap: false,
        revisions: false,
        modes: false,
        subscriptions: LEVEL == 5,
        refusals: LEVEL == 5,
    };

    async fn serve(bus: Bus) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(bus, Config::default());
        let serves = tokio::spawn(async move { server.serve(listener).await });
        Self { address, serves }
    }

    async fn connect(&self, connect: Connect<'_>) -> MqttPeer<LEVEL> {
        MqttPeer::open(self.address, connect).await
    }

    async fn ended(self) {
        self.serves.await.unwrap();
    }

    /// 3.1.1 has no words from the server: whatever is wrong ends the connection.
    fn verdict(wrong: Wrong) -> Verdict {
        let code = match wrong {
            // A publish to a wildcard is malformed: 0x90 is for names that are well-formed (MQTT 5 §3.14.2.1).
            Wrong::Message | Wrong::Frame | Wrong::Text => 0x81,
            Wrong::LongFrame => 0x95,
        };
        Verdict::Ended(match LEVEL {
            5 => End::Fault(code),
            _ => End::Silent,
        })
    }
}

impl<const LEVEL: u8> MqttPeer<LEVEL> {
    /// Connects to any server and waits for its CONNACK.
    pub async fn open(address: SocketAddr, connect: Connect<'_>) -> Self {
        let opened = Self::open_with_will(address, connect, None).await;
        opened.unwrap_or_else(|code| panic!("CONNACK {code:#x}"))
    }

    /// The same with a will: its topic, its payload, and whether it is retained.
    ///
    /// # Errors
    /// The code of the CONNACK.
    pub async fn open_with_will(
        address: SocketAddr,
        connect: Connect<'_>,
        will: Option<(&str, &[u8], bool)>,
    ) -> Result<Self, u8> {
        let mut peer = Self {
            stream: tcp::connect(address, connect.narrow).await,
            bytes: BytesMut::new(),
            filters: BTreeMap::new(),
            session_present: false,
        };
        let user = connect.user.map(|user| (user, PASSWORD));
        let brought = packet::Brought { user, will };
        peer.send(&packet::connect_with(
            LEVEL,
            connect.name,
            connect.resume,
            brought,
        ))
        .await;
        match peer.packet().await {
            Some(Packet::Connack { present, code: 0 }) => peer.session_present = present,
            Some(Packet::Connack { code, .. }) => return Err(code),
            other => panic!("instead of CONNACK: {other:?}"),
        }
        Ok(peer)
    }

    async fn send(&mut self, packet: &[u8]) {
        // That the connection has ended is told by `recv`.
        let _ended = self.stream.write_all(packet).await;
    }

    /// The next packet; none when the connection has ended.
    async fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = packet::take(LEVEL, &mut self.bytes) {
                return Some(packet);
            }
            match self.stream.read_buf(&mut self.bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn message(&mut self, published: Published) -> Message {
        match published.qos {
            0 => {}
            1 => self.send(&packet::ack(0x40, published.id)).await,
            _ => self.send(&packet::ack(0x50, published.id)).await,
        }
        Message {
            subscription: match published.subscription {
                Some(id) => Some(id.into()),
                None => self.only_match(&published.topic),
            },
            topic: published.topic,
            cleared: published.payload.is_empty(),
            payload: published.payload,
            rev: None,
            retained: Some(published.retain),
            again: published.dup,
        }
    }

    /// The subscription for which a message must be, when no other matches.
    fn only_match(&self, topic: &str) -> Option<u64> {
        let topic = TopicName::parse(topic).unwrap();
        let mut matching = (self.filters.iter()).filter(|(_, filter)| filter.matches(&topic));
        let (id, _) = matching.next()?;
        matching.next().is_none().then_some(*id)
    }
}

impl<const LEVEL: u8> Peer for MqttPeer<LEVEL> {
    async fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        let filter = TopicFilter::parse(subscribe.filter.to_owned()).unwrap();
        self.filters.insert(subscribe.id, filter);
        let id = u16::try_from(subscribe.id).unwrap();
        self.send(&packet::subscribe(LEVEL, id, subscribe.filter))
            .await;
    }

    async fn unsubscribe(&mut self, id: u64) {
        let filter = self.filters.remove(&id).unwrap();
        let id = u16::try_from(id).unwrap();
        self.send(&packet::unsubscribe(LEVEL, id, filter.as_str()))
            .await;
    }

    async fn publish(&mut self, publish: Publish<'_>) {
        let id = publish.id.map(|id| u16::try_from(id).unwrap());
        let message = (publish.topic.as_bytes(), publish.payload);
        let packet = packet::publish(LEVEL, message, id, publish.retain, publish.again);
        self.send(&packet).await;
    }

    async fn send_wrong(&mut self, wrong: Wrong) {
        let bytes = match wrong {
            Wrong::Message => packet::publish(LEVEL, (b"harm/+", b"x"), Some(9), true, false),
            Wrong::Text => packet::publish(LEVEL, (b"harm/\xff", b"x"), Some(9), true, false),
            // Type 0 is reserved.
            Wrong::Frame => packet::packet(0x00, b"frame"),
            Wrong::LongFrame => {
                let mut head = vec![0x30];
                packet::put_varint(&mut head, (1 << 28) - 1);
                head
            }
        };
        self.send(&bytes).await;
    }

    async fn recv(&mut self) -> Incoming {
        loop {
            let Some(packet) = self.packet().await else {
                return Incoming::Ended(End::Silent);
            };
            return match packet {
                Packet::Publish(published) => Incoming::Message(self.message(published).await),
                Packet::Pubrel { id } => {
                    self.send(&packet::ack(0x70, id)).await;
                    continue;
                }
                // 0x10: nobody is subscribed, which is no error.
                Packet::Puback { id, code: 0 | 0x10 } => Incoming::Acked(id.into()),
                Packet::Puback { id, code } => Incoming::Refused(Some(id.into()), error_code(code)),
                Packet::Suback { id, codes } => match codes[..] {
                    [0..=2] => Incoming::Subscribed(id.into()),
                    [code] => Incoming::Refused(Some(id.into()), error_code(code)),
                    _ => panic!("one filter, {} codes", codes.len()),
                },
                Packet::Unsuback { id } => Incoming::Unsubscribed(id.into()),
                Packet::Disconnect { code: 0x8b } => Incoming::Ended(End::GoingAway),
                Packet::Disconnect { code } => Incoming::Ended(End::Fault(code.into())),
                other => panic!("nobody asked for {other:?}"),
            };
        }
    }

    async fn leave(mut self) {
        self.send(&packet::disconnect()).await;
        while self.packet().await.is_some() {}
    }

    fn cut(self) {
        tcp::cut(&self.stream);
    }
}

/// A reason code of MQTT 5 (§2.4) in the words of the bus.
fn error_code(reason: u8) -> ErrorCode {
    match reason {
        0x87 => ErrorCode::NotAllowed,
        0x90 => ErrorCode::InvalidTopic,
        0x8f => ErrorCode::InvalidFilter,
        0x95 => ErrorCode::TooLarge,
        0x97 => ErrorCode::Full,
        _ => ErrorCode::BadMessage,
    }
}
