//! A server on a port of its own, and clients that write their own requests and packets.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assumption is a failed test"
)]

use core::future::Future;
use core::net::SocketAddr;
use core::time::Duration;

use futures_util::{SinkExt, StreamExt};
use latchbus_bus::{Bus, Options};
use latchbus_socketio::{Config, Namespace, Server};
use latchbus_ws::{Guard, OriginPolicy};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

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

/// A configuration in which time plays no part.
pub fn patient() -> Config {
    Config {
        ping_interval: DEADLINE,
        ping_timeout: DEADLINE,
        connect_timeout: DEADLINE,
        ..Config::default()
    }
}

/// What the suites of the protocols ask of a server, without their times.
pub fn suite() -> Config {
    Config {
        namespaces: vec![
            Namespace::protocol_suite("/"),
            Namespace::protocol_suite("/custom"),
        ],
        ..patient()
    }
}

impl TestServer {
    pub async fn start(config: Config) -> Self {
        Self::on(Bus::open(Options::default()).unwrap(), config).await
    }

    pub async fn on(bus: Bus, config: Config) -> Self {
        let guard = Guard::new(&OriginPolicy {
            allow_origins: vec!["https://page.example".to_owned()],
            trusted_proxies: core::iter::once("127.0.0.1".parse().unwrap()).collect(),
            ..OriginPolicy::default()
        });
        let server = Server::new(bus.clone(), guard, config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = server.router("/socket.io/");
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            bus,
            server,
            address,
            task,
        }
    }

    /// Stops as a program does.
    pub async fn stop(self) {
        within(self.bus.close()).await;
        within(self.server.closed()).await;
        self.task.abort();
    }

    /// One request on a connection of its own.
    pub async fn request(&self, method: &str, query: &str, body: &str) -> Answer {
        self.request_with(method, query, "", body).await
    }

    pub async fn request_with(
        &self,
        method: &str,
        query: &str,
        headers: &str,
        body: &str,
    ) -> Answer {
        within(
            Pending::send(self.address, method, query, headers, body)
                .await
                .answer(),
        )
        .await
    }

    pub async fn get(&self, query: &str) -> Answer {
        self.request("GET", query, "").await
    }

    pub async fn open(&self) -> Polling<'_> {
        let answer = self.get("EIO=4&transport=polling").await;
        assert_eq!(answer.status, 200);
        let open: Value = serde_json::from_str(answer.body.strip_prefix('0').unwrap()).unwrap();
        Polling {
            server: self,
            sid: open["sid"].as_str().unwrap().to_owned(),
            open,
        }
    }

    /// A WebSocket; without a session id one of its own.
    pub async fn websocket(&self, sid: Option<&str>) -> WebSocket {
        self.try_websocket(sid).await.unwrap()
    }

    pub async fn try_websocket(&self, sid: Option<&str>) -> Result<WebSocket, tungstenite::Error> {
        let sid = sid.map_or(String::new(), |sid| format!("&sid={sid}"));
        let url = format!(
            "ws://{}/socket.io/?EIO=4&transport=websocket{sid}",
            self.address
        );
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (stream, _) = client_async(url, stream).await?;
        Ok(WebSocket(stream, Vec::new()))
    }

    /// A WebSocket whose handshake is done, on Engine.IO's side.
    pub async fn opened(&self) -> WebSocket {
        let mut socket = self.websocket(None).await;
        assert!(socket.text().await.starts_with('0'));
        socket
    }

    /// The same in a namespace. With the answer to CONNECT.
    pub async fn joined(&self, namespace: &str, auth: &str) -> (WebSocket, Value) {
        let mut socket = self.opened().await;
        let connected = socket.join(namespace, auth).await;
        (socket, connected)
    }
}

/// A request that was sent.
pub struct Pending(TcpStream);

impl Pending {
    pub async fn send(
        address: SocketAddr,
        method: &str,
        query: &str,
        headers: &str,
        body: &str,
    ) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} /socket.io/?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        // The server may have answered before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        Self(stream)
    }

    pub async fn answer(mut self) -> Answer {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A session of polls.
pub struct Polling<'a> {
    pub server: &'a TestServer,
    pub sid: String,
    pub open: Value,
}

impl Polling<'_> {
    pub fn query(&self) -> String {
        format!("EIO=4&transport=polling&sid={}", self.sid)
    }

    pub async fn poll(&self) -> Answer {
        self.server.get(&self.query()).await
    }

    pub async fn begin_poll(&self) -> Pending {
        Pending::send(self.server.address, "GET", &self.query(), "", "").await
    }

    pub async fn post(&self, body: &str) -> Answer {
        self.server.request("POST", &self.query(), body).await
    }

    /// The packets of polls, until there are so many.
    pub async fn packets(&self, count: usize) -> Vec<String> {
        let mut packets = Vec::new();
        while packets.len() < count {
            let answer = self.poll().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            packets.extend(answer.body.split('\u{1e}').map(str::to_owned));
        }
        packets
    }
}

/// With what was read on the way to something else.
pub struct WebSocket(pub WebSocketStream<TcpStream>, pub Vec<String>);

/// How a WebSocket ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed(pub Option<u16>);

impl WebSocket {
    pub async fn send(&mut self, text: &str) {
        within(self.0.send(Message::text(text))).await.unwrap();
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        within(self.0.send(Message::binary(bytes.to_vec())))
            .await
            .unwrap();
    }

    pub async fn next(&mut self) -> Result<Message, Closed> {
        loop {
            match within(self.0.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(close))) => {
                    return Err(Closed(close.map(|close| close.code.into())));
                }
                Some(Ok(message)) => return Ok(message),
                Some(Err(_)) | None => return Err(Closed(None)),
            }
        }
    }

    pub async fn text(&mut self) -> String {
        match self.next().await {
            Ok(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn bytes(&mut self) -> Vec<u8> {
        match self.next().await {
            Ok(Message::Binary(bytes)) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads until it is closed.
    pub async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }

    /// Joins a namespace, and gives the answer.
    pub async fn join(&mut self, namespace: &str, auth: &str) -> Value {
        let prefix = match namespace {
            "/" => String::new(),
            other => format!("{other},"),
        };
        self.send(&format!("40{prefix}{auth}")).await;
        let answer = self.text().await;
        let json = answer.strip_prefix(&format!("40{prefix}"));
        serde_json::from_str(json.unwrap_or_else(|| panic!("{answer}"))).unwrap()
    }

    /// The next event: its arguments, its name first.
    pub async fn event(&mut self) -> Vec<Value> {
        let text = self.text().await;
        let at = text.find('[').unwrap_or_else(|| panic!("{text}"));
        assert!(text.starts_with("42") || text.starts_with("45"), "{text}");
        serde_json::from_str(&text[at..]).unwrap()
    }
}

/// Times as the suites of the protocols have them.
pub const PING_INTERVAL: Duration = Duration::from_millis(300);
pub const PING_TIMEOUT: Duration = Duration::from_millis(200);
