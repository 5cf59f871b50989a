//! A server on a port of its own, and a peer that speaks either subprotocol in JSON values.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use core::future::Future;
use core::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use latchbus_bus::{Bus, Options};
use latchbus_core::hub::Mode;
use latchbus_core::wire::{self, ClientFrame, ServerFrame};
use latchbus_ws::Protocol;
use latchbus_ws::server::{Config, Server};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// No test waits longer for anything.
#[path = "../../../../tests/deadline.rs"]
mod deadline;
pub use deadline::DEADLINE;

pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("it takes too long")
}

pub struct TestServer {
    pub bus: Bus,
    pub server: Server,
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start(options: Options, config: Config) -> Self {
        let any = "127.0.0.1:0".parse().unwrap();
        Self::start_at(any, Bus::open(options).unwrap(), config).await
    }

    pub async fn start_at(address: SocketAddr, bus: Bus, config: Config) -> Self {
        let server = Server::new(bus.clone(), config);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = server.router();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            bus,
            server,
            address,
            task,
        }
    }

    pub async fn default() -> Self {
        Self::start(Options::default(), Config::default()).await
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    pub async fn stop(self) {
        self.task.abort();
        within(self.bus.close()).await;
        within(self.server.closed()).await;
    }
}

/// Passes connections on, until they are cut.
pub struct Proxy {
    pub address: SocketAddr,
    tasks: JoinHandle<()>,
    cut: tokio::sync::watch::Sender<u64>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, cuts) = tokio::sync::watch::channel(0);
        let tasks = tokio::spawn(async move {
            let mut links = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                links.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            tasks,
            cut,
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

/// A WebSocket of another implementation, with messages as JSON values whatever the subprotocol.
pub struct Peer<S = MaybeTlsStream<TcpStream>> {
    pub socket: WebSocketStream<S>,
    pub protocol: Protocol,
}

impl Peer {
    /// Connects and takes the welcome.
    pub async fn connect(server: &TestServer, protocol: Protocol) -> (Self, Value) {
        let mut request = server.url().into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.name().parse().unwrap());
        let connecting = tokio_tungstenite::connect_async(request);
        let (socket, response) = within(connecting).await.unwrap();
        let chosen = response.headers().get("sec-websocket-protocol").unwrap();
        assert_eq!(chosen, protocol.name());
        let mut peer = Self { socket, protocol };
        let welcome = peer.recv().await;
        assert_eq!(welcome["op"], "welcome");
        (peer, welcome)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub async fn send(&mut self, value: Value) {
        let message = match self.protocol {
            Protocol::Json => Message::text(value.to_string()),
            Protocol::Postcard => Message::binary(to_postcard(&value)),
        };
        self.send_raw(message).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        within(self.socket.send(message)).await.unwrap();
    }

    /// The next message with data.
    pub async fn recv(&mut self) -> Value {
        loop {
            let message = within(self.socket.next()).await.expect("closed").unwrap();
            match (self.protocol, message) {
                (Protocol::Json, Message::Text(text)) => {
                    return serde_json::from_str(&text).unwrap();
                }
                (Protocol::Postcard, Message::Binary(bytes)) => return from_postcard(&bytes),
                (_, Message::Ping(_) | Message::Pong(_)) => {}
                (_, other) => panic!("{other:?}"),
            }
        }
    }

    /// Sends, and takes the next message as the answer.
    pub async fn ask(&mut self, value: Value) -> Value {
        self.send(value).await;
        self.recv().await
    }

    /// Asserts that an answer is an error of this code, with this id.
    pub async fn refused(&mut self, value: Value, code: &str) {
        let id = value["id"].clone();
        let answer = self.ask(value).await;
        assert_eq!(
            (&answer["op"], &answer["code"], &answer["id"]),
            (&json!("error"), &json!(code), &id),
            "{answer}"
        );
    }

    /// Subscribes and takes everything up to `synced`, which comes last.
    pub async fn subscribe(&mut self, value: Value) -> Vec<Value> {
        self.send(value).await;
        let mut all = vec![self.recv().await];
        while all.last().unwrap()["op"] != "synced" {
            all.push(self.recv().await);
        }
        all
    }

    /// Ends a subscription and waits until nothing more comes for it.
    pub async fn unsubscribe(&mut self, id: u64) {
        self.send(json!({"op": "unsubscribe", "id": id})).await;
        assert_eq!(
            self.ask(json!({"op": "ping", "id": id})).await["op"],
            "pong"
        );
    }

    /// The code that the server closes with.
    pub async fn closed(mut self) -> u16 {
        loop {
            let message = within(self.socket.next()).await;
            if let Message::Close(frame) = message.expect("no close frame").unwrap() {
                return frame.expect("no code").code.into();
            }
        }
    }
}

fn to_postcard(value: &Value) -> Vec<u8> {
    let id = value["id"].as_u64();
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let payload;
    let frame = match text("op") {
        "subscribe" => ClientFrame::Subscribe {
            id: id.unwrap(),
            filter: text("filter"),
            mode: match text("mode") {
                "every" => Mode::Every,
                "state" => Mode::State,
                _ => Mode::Latest,
            },
            max_rate: value["max_rate"].as_f64().map(|rate| rate as f32),
            since: value["since"].as_str().map(|since| since.parse().unwrap()),
        },
        "unsubscribe" => ClientFrame::Unsubscribe { id: id.unwrap() },
        "publish" => {
            payload = if let Some(text) = value["text"].as_str() {
                text.as_bytes().to_vec()
            } else if let Some(base64) = value["base64"].as_str() {
                decode64(base64)
            } else if value["cleared"] == true {
                Vec::new()
            } else {
                value["payload"].to_string().into_bytes()
            };
            ClientFrame::Publish {
                id,
                topic: text("topic"),
                payload: &payload,
                retain: value["retain"] == true,
            }
        }
        "ping" => ClientFrame::Ping { id: id.unwrap() },
        other => panic!("{other}"),
    };
    wire::encode_vec(&frame).unwrap()
}

fn from_postcard(bytes: &[u8]) -> Value {
    match wire::decode_server(bytes).unwrap() {
        ServerFrame::Welcome {
            server,
            epoch,
            limits,
        } => {
            json!({"op": "welcome", "server": server, "epoch": format!("{epoch:x}"), "limits": limits})
        }
        ServerFrame::Message {
            id,
            topic,
            payload,
            rev,
            at,
        } => {
            let mut value =
                json!({"op": "message", "id": id, "topic": topic, "rev": rev, "at": at});
            let (key, payload) = match core::str::from_utf8(payload) {
                Ok(text) => match serde_json::from_str(text) {
                    Ok(json) => ("payload", json),
                    Err(_) => ("text", json!(text)),
                },
                Err(_) => ("base64", json!(encode64(payload))),
            };
            value[key] = payload;
            value
        }
        ServerFrame::Cleared { id, topic, rev, at } => {
            json!({"op": "message", "id": id, "topic": topic, "cleared": true, "rev": rev, "at": at})
        }
        ServerFrame::Synced { id, cursor } => {
            json!({"op": "synced", "id": id, "cursor": cursor.to_string()})
        }
        ServerFrame::Gap { id, missed } => json!({"op": "gap", "id": id, "missed": missed}),
        ServerFrame::Reset { id } => json!({"op": "reset", "id": id}),
        ServerFrame::Ack { id, rev } => json!({"op": "ack", "id": id, "rev": rev}),
        ServerFrame::Error { id, code, message } => {
            json!({"op": "error", "id": id, "code": code, "message": message})
        }
        ServerFrame::Pong { id } => json!({"op": "pong", "id": id}),
    }
}

fn encode64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

fn decode64(text: &str) -> Vec<u8> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap()
}
