//! What the tests share: a server in the process, raw MQTT 3.1.1 packets, and conditions with a deadline.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod five;
pub(crate) mod log;
pub(crate) mod wire;

use core::net::SocketAddr;
use core::time::Duration;

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use latchbus_bus::{Bus, Options, Publish, StoreKind};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::{Config, Server};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v3::{Codec, Connect, Packet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder};

#[path = "../../../../tests/deadline.rs"]
mod deadline;
pub(crate) use deadline::DEADLINE;

pub(crate) struct Running {
    pub(crate) bus: Bus,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    directory: Option<PathBuf>,
    serving: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default(), Config::default()).await
    }

    pub(crate) async fn with(options: Options, config: Config) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), options, config).await
    }

    pub(crate) async fn on(address: SocketAddr, options: Options, config: Config) -> Self {
        let directory = match &options.store {
            StoreKind::Directory(directory) => Some(directory.clone()),
            _ => None,
        };
        let bus = Bus::open(options).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(bus.clone(), config);
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener).await }
        });
        Self {
            bus,
            server,
            address,
            directory,
            serving,
        }
    }

    /// Where it stores.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.as_deref().expect("a store")
    }

    /// `serve` ends, and the bus closes.
    pub(crate) async fn stop(self) {
        self.bus.begin_close();
        timeout(DEADLINE, self.serving).await.unwrap().unwrap();
        self.bus.close().await;
    }

    pub(crate) async fn publish(&self, topic: &str, payload: &str, retain: bool, qos: u8) {
        let publish = Publish {
            qos,
            retain,
            ..Publish::event(
                TopicName::parse(topic.to_owned()).unwrap(),
                payload.to_owned(),
            )
        };
        self.bus.publish(publish).await.unwrap();
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("in time");
}

/// A client that sends what it is told, byte by byte if need be.
pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
    bytes: BytesMut,
}

impl Raw<TcpStream> {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Connects with a CONNECT, and says whether a session was present.
    pub(crate) async fn connect(address: SocketAddr, connect: Connect) -> (Self, bool) {
        let mut raw = Self::open(address).await;
        let present = raw.shake_hands(connect).await;
        (raw, present)
    }

    pub(crate) async fn clean(address: SocketAddr, id: &str) -> Self {
        Self::connect(address, client(id, true)).await.0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            bytes: BytesMut::new(),
        }
    }

    pub(crate) async fn shake_hands(&mut self, connect: Connect) -> bool {
        self.send(Packet::Connect(Box::new(connect))).await;
        match self.next().await {
            Packet::ConnectAck(ack) => {
                assert_eq!(u8::from(ack.return_code), 0);
                ack.session_present
            }
            other => panic!("{other:?} for a CONNACK"),
        }
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        Codec::default().encode(packet, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next packet; panics when the server has closed.
    pub(crate) async fn next(&mut self) -> Packet {
        self.next_or_end().await.expect("the connection lives")
    }

    /// The next packet; `None` when the server has closed the connection.
    pub(crate) async fn next_or_end(&mut self) -> Option<Packet> {
        let reading = async {
            loop {
                if let Some((packet, _)) = Codec::default().decode(&mut self.copy()).unwrap() {
                    let before = self.bytes.len();
                    let mut codec = Codec::default();
                    codec.decode(&mut self.bytes).unwrap();
                    assert!(self.bytes.len() < before);
                    return Some(packet);
                }
                if !matches!(self.stream.read_buf(&mut self.bytes).await, Ok(1..)) {
                    return None;
                }
            }
        };
        timeout(DEADLINE, reading).await.expect("in time")
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.send(Packet::Subscribe {
            packet_id: 7.try_into().unwrap(),
            topic_filters: vec![(filter.into(), qos)],
        })
        .await;
        loop {
            match self.next().await {
                Packet::SubscribeAck { .. } => return,
                Packet::Publish(_) => panic!("a message before the SUBACK"),
                _ => {}
            }
        }
    }

    pub(crate) async fn message(&mut self) -> rmqtt_codec::types::Publish {
        match self.next().await {
            Packet::Publish(publish) => *publish,
            other => panic!("{other:?} for a PUBLISH"),
        }
    }

    /// Everything that the server sent before this was read.
    pub(crate) async fn quiet(&mut self) {
        self.send(Packet::PingRequest).await;
        assert_eq!(self.next().await, Packet::PingResponse);
    }

    fn copy(&self) -> BytesMut {
        BytesMut::from(&self.bytes[..])
    }
}

pub(crate) fn client(id: &str, clean_session: bool) -> Connect {
    Connect {
        clean_session,
        keep_alive: 60,
        ..Connect::default().client_id(id.to_owned())
    }
}

pub(crate) fn publish(topic: &str, payload: &str, qos: QoS, id: u16) -> Packet {
    Packet::Publish(Box::new(rmqtt_codec::types::Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.into(),
        packet_id: id.try_into().ok(),
        payload: payload.to_owned().into(),
        properties: None,
    }))
}

/// What a client of 3.1.1 with a persistent session connects with, for the state machine without a server.
pub(crate) fn persistent() -> latchbus_mqtt::Connect {
    latchbus_mqtt::Connect {
        version: latchbus_mqtt::Version::V3,
        bridge: false,
        client_id: "c".into(),
        credentials: latchbus_bus::Credentials::default(),
        clean_start: false,
        keep_alive_secs: 0,
        session_expiry_secs: None,
        receive_maximum: u16::MAX,
        maximum_packet_bytes: None,
        topic_alias_maximum: 0,
        problem_information: true,
        by_token: false,
        will: None,
    }
}
