//! Who comes in over HTTP, WebSocket, MQTT over WebSocket and Socket.IO, and what they get.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use core::future::pending;
use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use latchbus::http;
use latchbus_bus::accept::{Acceptor, Connection};
use latchbus_bus::{
    Bus, Certificate, Event, Mode, Principal, Session, Start, Subscribe, TopicFilter, memory,
};
use latchbus_mqtt::server as mqtt;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

#[path = "../../../tests/deadline.rs"]
mod deadline;
#[path = "../../../tests/doorman.rs"]
mod doorman;
use deadline::DEADLINE;
use doorman::Doorman;

struct Running {
    bus: Bus,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

/// Accepts connections whose clients have shown a certificate of anna's.
struct Certified<T>(T);

impl Acceptor for Certified<TcpListener> {
    type Connection = Certified<TcpStream>;

    async fn accept(&mut self) -> io::Result<Certified<TcpStream>> {
        Acceptor::accept(&mut self.0).await.map(Certified)
    }
}

impl Connection for Certified<TcpStream> {
    type Reader = OwnedReadHalf;
    type Writer = OwnedWriteHalf;

    fn peer(&self) -> Option<SocketAddr> {
        self.0.peer()
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        Some(Arc::new(Certificate {
            common_name: Some("anna".to_owned()),
            alternative_names: Vec::new(),
        }))
    }

    fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.0.into_split()
    }
}

impl AsyncRead for Certified<TcpStream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Certified<TcpStream> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Running {
    async fn start(doorman: &Doorman) -> Self {
        Self::on(doorman, |listener| listener).await
    }

    async fn on<A: Acceptor>(doorman: &Doorman, acceptor: impl FnOnce(TcpListener) -> A) -> Self {
        let bus = Bus::open(doorman.options()).unwrap();
        for topic in ["a/kept", "b/kept"] {
            bus.publish_state(topic, "1").await.unwrap();
        }
        let mqtt = mqtt::Server::new(bus.clone(), mqtt::Config::default());
        let http = http::Http::new(bus.clone(), mqtt, http::Config::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(http.serve(acceptor(listener)));
        Self {
            bus,
            address,
            serving,
        }
    }

    async fn stop(self) {
        self.bus.close().await;
        timeout(DEADLINE, self.serving).await.unwrap().unwrap();
    }

    /// The head and the body of the answer.
    async fn ask(&self, line: &str, headers: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        timeout(DEADLINE, reading).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    async fn status(&self, line: &str, headers: &str) -> u16 {
        let (head, _) = self.ask(line, headers, "").await;
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    async fn socket(
        &self,
        path: &str,
        authorization: Option<&str>,
    ) -> Result<Socket, tungstenite::Error> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request()?;
        if let Some(value) = authorization {
            let headers = request.headers_mut();
            headers.insert("authorization", value.parse().unwrap());
        }
        if path == "/mqtt" {
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", "mqtt".parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = timeout(DEADLINE, client_async(request, stream))
            .await
            .unwrap()?;
        Ok(Socket(socket))
    }
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn send(&mut self, text: impl ToString) {
        self.0.send(Message::text(text.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        loop {
            let next = timeout(DEADLINE, self.0.next()).await.unwrap();
            match next.unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(self.next().await.to_text().unwrap()).unwrap()
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            match self.next().await {
                Message::Close(Some(frame)) => return frame.code.into(),
                Message::Close(None) => panic!("no code"),
                _ => {}
            }
        }
    }

    /// Subscribes to everything: the topics up to `synced`.
    async fn topics(&mut self) -> Vec<String> {
        self.send(json!({"op": "subscribe", "id": 9, "filter": "#"}))
            .await;
        let mut topics = Vec::new();
        loop {
            let frame = self.json().await;
            match frame["op"].as_str().unwrap() {
                "message" => topics.push(frame["topic"].as_str().unwrap().to_owned()),
                "synced" => return topics,
                _ => panic!("{frame}"),
            }
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn header(value: &str) -> String {
    format!("Authorization: {value}\r\n")
}

const LIST: &str = "GET /api/v1/topics";

#[tokio::test]
async fn http_answers_who_is_not_let_in() {
    let running = Running::start(&Doorman::new()).await;
    for (authorization, expected) in [
        (String::new(), 401),
        (header(&basic("anna", "right")), 200),
        (header(&basic("anna", "wrong")), 401),
        (header("Bearer token-anna"), 200),
        (header("Bearer x"), 401),
        (header("Bearer token-expired"), 401),
        (header("Digest x"), 401),
        (header(&basic("barred", "right")), 403),
        (header(&basic("often", "right")), 429),
        (header(&basic("broken", "right")), 503),
    ] {
        for line in [
            LIST,
            "GET /api/v1/topics/a/kept",
            "GET /api/v1/history/a/kept",
            "PUT /api/v1/topics/a/put",
            "POST /api/v1/topics/a/post",
            "GET /api/v1/export",
            "GET /metrics",
        ] {
            let status = running.status(line, &authorization).await;
            assert_eq!(status, expected, "{line} {authorization}");
        }
    }
    assert_eq!(running.status("GET /healthz", "").await, 200);
    let (head, body) = running.ask(LIST, "", "").await;
    assert!(
        head.contains("www-authenticate: basic realm=\"latchbus\""),
        "{head}"
    );
    assert!(head.contains("www-authenticate: bearer"), "{head}");
    assert!(body.contains("\"unauthorized\""), "{body}");
    // The browser is not to ask in a window of its own when a script of a page has asked.
    let (head, _) = running.ask(LIST, "Sec-Fetch-Dest: empty\r\n", "").await;
    assert!(!head.contains("basic") && head.contains("bearer"), "{head}");
    let (head, _) = running.ask(LIST, &header("Bearer token-expired"), "").await;
    assert!(head.contains("error=\"invalid_token\""), "{head}");
    let (head, _) = running.ask(LIST, &header(&basic("often", "x")), "").await;
    assert!(head.contains("retry-after: 10"), "{head}");
    running.stop().await;
}

#[tokio::test]
async fn http_gives_what_may_be_read() {
    let running = Running::start(&Doorman::new()).await;
    let anna = header(&basic("anna", "right"));
    let (_, list) = running.ask(LIST, &anna, "").await;
    assert!(
        list.contains("a/kept") && !list.contains("b/kept"),
        "{list}"
    );
    let (_, export) = running.ask("GET /api/v1/export", &anna, "").await;
    assert!(
        export.contains("a/kept") && !export.contains("b/kept"),
        "{export}"
    );
    for (topic, expected) in [
        ("a/kept", 200),
        ("a/none", 404),
        ("b/kept", 403),
        ("b/none", 403),
    ] {
        let line = format!("GET /api/v1/topics/{topic}");
        assert_eq!(running.status(&line, &anna).await, expected, "{topic}");
    }
    for (topic, expected) in [("a/kept", 200), ("b/kept", 403)] {
        let line = format!("GET /api/v1/history/{topic}");
        assert_eq!(running.status(&line, &anna).await, expected, "{topic}");
    }
    running.stop().await;
}

#[tokio::test]
async fn clients_are_named_to_administrators_only() {
    let running = Running::start(&Doorman::new()).await;
    let slow = Principal::user("slow".into(), "mqtt").with_client_id("slow-client");
    let slow = running.bus.client(slow).unwrap();
    let mut session = Session::new(slow);
    let subscribed = session.subscribe(vec![Subscribe {
        id: 1,
        filter: TopicFilter::parse("s/#".to_owned()).unwrap(),
        mode: Mode::Latest,
        start: Start::Snapshot,
        pace: None,
        group: None,
        durable: false,
        waits: false,
    }]);
    assert!(subscribed[0].is_ok());
    for n in 0..3 {
        let payload = n.to_string();
        running.bus.publish_state("s/fast", payload).await.unwrap();
    }
    // It takes the newest, and has lost what was before.
    let (mut link, mut peer) = memory::link(4);
    let run = tokio::spawn(async move {
        let (receiver, sender) = (link.receiver, &mut link.sender);
        session.run(receiver, sender, pending()).await;
    });
    while !matches!(peer.events.recv().await, Ok(Event::Message { .. })) {}
    for (user, is_named) in [("anna", false), ("root", true)] {
        let (_, metrics) = running
            .ask("GET /metrics", &header(&basic(user, "right")), "")
            .await;
        assert!(
            metrics.contains("latchbus_messages_conflated_total 2"),
            "{metrics}"
        );
        assert_eq!(metrics.contains("slow-client"), is_named, "{user}");
    }
    running.stop().await;
    timeout(DEADLINE, run).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_web_socket_signs_in_by_its_handshake() {
    let doorman = Doorman::new();
    let running = Running::start(&doorman).await;
    for (value, status) in [
        (basic("anna", "wrong"), 401),
        (basic("barred", "right"), 403),
        (basic("often", "right"), 429),
    ] {
        match running.socket("/ws", Some(&value)).await {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), status),
            other => panic!("{:?}", other.is_ok()),
        }
    }
    let mut anna = running
        .socket("/ws", Some(&basic("anna", "right")))
        .await
        .unwrap();
    assert_eq!(anna.json().await["op"], "welcome");
    assert_eq!(anna.topics().await, ["a/kept"]);
    // Renewed, but not as somebody else.
    anna.send(json!({"op": "auth", "id": 1, "user": "anna", "password": "right"}))
        .await;
    assert_eq!(anna.json().await, json!({"op": "authenticated", "id": 1}));
    anna.send(json!({"op": "auth", "id": 2, "user": "bea", "password": "right"}))
        .await;
    assert_eq!(anna.json().await["code"], "unauthorized");
    anna.send(json!({"op": "ping", "id": 3})).await;
    assert_eq!(anna.json().await["op"], "pong");
    doorman.remove("anna");
    assert_eq!(anna.close_code().await, 3000);
    running.stop().await;
}

#[tokio::test]
async fn a_web_socket_signs_in_by_its_first_frame() {
    let running = Running::start(&Doorman::new()).await;
    for frame in [
        json!({"op": "auth", "token": "token-anna"}),
        json!({"op": "auth", "user": "anna", "password": "right"}),
    ] {
        let mut socket = running.socket("/ws", None).await.unwrap();
        assert_eq!(socket.json().await["op"], "welcome");
        for asked in [
            json!({"op": "subscribe", "id": 1, "filter": "a/#"}),
            json!({"op": "publish", "id": 1, "topic": "a/x", "payload": 1}),
            json!({"op": "history", "id": 1, "topic": "a/kept"}),
        ] {
            socket.send(&asked).await;
            let answer = socket.json().await;
            assert_eq!(
                (&answer["id"], &answer["code"]),
                (&json!(1), &json!("unauthorized"))
            );
        }
        socket.send(frame).await;
        assert_eq!(socket.json().await, json!({"op": "authenticated"}));
        assert_eq!(socket.topics().await, ["a/kept"]);
    }
    for frame in [
        json!({"op": "auth", "id": 7, "token": "x"}),
        json!({"op": "auth", "id": 7, "user": "anna", "password": "wrong"}),
    ] {
        let mut socket = running.socket("/ws", None).await.unwrap();
        assert_eq!(socket.json().await["op"], "welcome");
        socket.send(frame).await;
        let answer = socket.json().await;
        assert_eq!(
            (&answer["id"], &answer["code"]),
            (&json!(7), &json!("unauthorized"))
        );
        assert_eq!(socket.close_code().await, 3000);
    }
    // Neither one nor the other.
    let mut socket = running.socket("/ws", None).await.unwrap();
    assert_eq!(socket.json().await["op"], "welcome");
    for frame in [
        json!({"op": "auth", "id": 1}),
        json!({"op": "auth", "id": 1, "user": "anna"}),
        json!({"op": "auth", "id": 1, "token": "x", "user": "anna", "password": "right"}),
        json!({"op": "auth", "id": 1, "token": "x", "topic": "a"}),
        json!({"op": "ping", "id": 1, "token": "x"}),
    ] {
        socket.send(&frame).await;
        assert_eq!(socket.json().await["code"], "bad_message", "{frame}");
    }
    running.stop().await;
}

#[tokio::test]
async fn mqtt_over_web_socket_takes_what_the_handshake_brought() {
    let running = Running::start(&Doorman::new()).await;
    for (authorization, code) in [
        (Some("Bearer token-anna"), 0),
        (Some("Bearer x"), 4),
        (None, 5),
    ] {
        let mut socket = running.socket("/mqtt", authorization).await.unwrap();
        let connect = [16, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a'];
        socket
            .0
            .send(Message::binary(connect.to_vec()))
            .await
            .unwrap();
        let connack = socket.next().await.into_data();
        assert_eq!(&connack[..], [0x20, 2, 0, code]);
    }
    running.stop().await;
}

#[tokio::test]
async fn socket_io_signs_in_by_its_connect() {
    let running = Running::start(&Doorman::new()).await;
    const PATH: &str = "/socket.io/?EIO=4&transport=websocket";
    let open = async |authorization| {
        let mut socket = running.socket(PATH, authorization).await.unwrap();
        assert!(socket.next().await.to_text().unwrap().starts_with('0'));
        socket
    };
    for (auth, authorization, lets_in) in [
        (r#"{"user":"anna","password":"right"}"#, None, true),
        (r#"{"token":"token-anna"}"#, None, true),
        ("", Some("Bearer token-anna"), true),
        (r#"{"user":"anna","password":"wrong"}"#, None, false),
        (r#"{"token":7}"#, None, false),
        ("", None, false),
    ] {
        let mut socket = open(authorization).await;
        socket.send(format!("40{auth}")).await;
        let answer = socket.next().await.into_text().unwrap();
        match lets_in {
            true => assert!(answer.starts_with("40{"), "{answer}"),
            false => {
                assert!(answer.starts_with("44{\"message\":"), "{answer}");
                assert!(answer.contains("\"code\":\"unauthorized\""), "{answer}");
            }
        }
    }
    let refused = running.socket(PATH, Some("Bearer x")).await;
    assert!(matches!(refused, Err(tungstenite::Error::Http(answer)) if answer.status() == 401));
    running.stop().await;
}

/// What TLS has verified counts at every door, where nothing else is brought.
#[tokio::test]
async fn a_certificate_of_the_connection_signs_in() {
    let running = Running::on(&Doorman::new(), Certified).await;
    assert_eq!(running.status("GET /api/v1/topics/a/kept", "").await, 200);
    assert_eq!(running.status("GET /api/v1/topics/b/kept", "").await, 403);
    // What is brought counts before it, right or wrong.
    for (authorization, expected) in [("Bearer token-bea", 200), ("Bearer x", 401)] {
        let line = "GET /api/v1/topics/b/kept";
        let status = running.status(line, &header(authorization)).await;
        assert_eq!(status, expected, "{authorization}");
    }
    let mut anna = running.socket("/ws", None).await.unwrap();
    assert_eq!(anna.json().await["op"], "welcome");
    assert_eq!(anna.topics().await, ["a/kept"]);
    let mut anna = running.socket("/mqtt", None).await.unwrap();
    let connect = [16, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a'];
    let connect = Message::binary(connect.to_vec());
    anna.0.send(connect).await.unwrap();
    assert_eq!(&anna.next().await.into_data()[..], [0x20, 2, 0, 0]);
    let path = "/socket.io/?EIO=4&transport=websocket";
    let mut anna = running.socket(path, None).await.unwrap();
    assert!(anna.next().await.to_text().unwrap().starts_with('0'));
    anna.send("40").await;
    let answer = anna.next().await.into_text().unwrap();
    assert!(answer.starts_with("40{"), "{answer}");
    running.stop().await;
}
