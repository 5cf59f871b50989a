//! Socket.IO, over WebSocket and over polls, with peers that write their own packets and requests.

use core::future::Future;
use core::net::SocketAddr;
use std::collections::VecDeque;

use axum::serve::ListenerExt;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt, StreamExt};
use latchbus_bus::Bus;
use latchbus_core::wire::ErrorCode;
use latchbus_socketio::{Config, Namespace, Server};
use latchbus_ws::{Guard, OriginPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::socketio_form::{Form, Packet};
use super::tcp;
use crate::DEADLINE;
use crate::transport::{
    Connect, End, Incoming, Peer, Publish, Subscribe, Transport, Verdict, Words, Wrong,
};
use crate::users::PASSWORD;

/// What carries a session.
pub trait Carrier: Sync + 'static {
    /// Its other end.
    type Peer: Peer;

    /// Opens a session and joins `/`.
    fn open(address: SocketAddr, connect: Connect<'_>) -> impl Future<Output = Self::Peer> + Send;

    /// See [`Transport::verdict`].
    fn verdict(wrong: Wrong) -> Verdict;
}

/// Socket.IO over one carrier.
#[derive(Debug)]
pub struct SocketIo<C> {
    address: SocketAddr,
    server: Server,
    accepts: JoinHandle<()>,
    carrier: core::marker::PhantomData<fn() -> C>,
}

/// Over WebSocket from the beginning.
#[derive(Debug)]
pub struct OverWebSocket;

/// Over polls to the end.
#[derive(Debug)]
pub struct OverPolls;

impl<C: Carrier> Transport for SocketIo<C> {
    type Peer = C::Peer;

    const WORDS: Words = Words::ALL;

    async fn serve(bus: Bus) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let closing = bus.closing();
        let config = Config {
            namespaces: vec![Namespace {
                general: true,
                ..Namespace::new("/")
            }],
            // A peer that does not read is no peer that is gone.
            ping_interval: DEADLINE,
            ping_timeout: DEADLINE,
            ..Config::default()
        };
        let server = Server::new(bus, Guard::new(&OriginPolicy::default()), config);
        let http = axum::serve(listener, server.router("/socket.io/"))
            .with_graceful_shutdown(async move { closing.cancelled().await });
        Self {
            address,
            server,
            accepts: tokio::spawn(async move { http.await.unwrap() }),
            carrier: core::marker::PhantomData,
        }
    }

    async fn connect(&self, connect: Connect<'_>) -> C::Peer {
        C::open(self.address, connect).await
    }

    async fn ended(self) {
        self.server.closed().await;
        // Connections without requests are left to their peers.
        self.accepts.abort();
    }

    fn verdict(wrong: Wrong) -> Verdict {
        C::verdict(wrong)
    }
}

/// A client over WebSocket.
#[derive(Debug)]
pub struct SocketIoPeer {
    stream: WebSocketStream<TcpStream>,
    form: Form,
}

impl Carrier for OverWebSocket {
    type Peer = SocketIoPeer;

    async fn open(address: SocketAddr, connect: Connect<'_>) -> SocketIoPeer {
        let stream = tcp::connect(address, connect.narrow).await;
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (mut stream, _) = client_async(url, stream).await.unwrap();
        assert!(text(&mut stream).await.starts_with("0{"));
        stream.send(Frame::text(join(connect))).await.unwrap();
        assert!(text(&mut stream).await.starts_with("40{"));
        SocketIoPeer {
            stream,
            form: Form::default(),
        }
    }

    fn verdict(wrong: Wrong) -> Verdict {
        match wrong {
            Wrong::Message => Verdict::Told(ErrorCode::BadMessage),
            Wrong::Frame => Verdict::Ended(End::Fault(1002)),
            Wrong::Text => Verdict::Ended(End::Fault(1007)),
            Wrong::LongFrame => Verdict::Ended(End::Fault(1009)),
        }
    }
}

/// The CONNECT of the namespace `/`.
fn join(connect: Connect<'_>) -> String {
    let auth = connect.user.map(|user| {
        let auth = serde_json::json!({"user": user, "password": PASSWORD});
        auth.to_string()
    });
    format!("40{}", auth.unwrap_or_default())
}

async fn text(stream: &mut WebSocketStream<TcpStream>) -> String {
    loop {
        match stream.next().await.unwrap().unwrap() {
            Frame::Text(text) => return text.as_str().to_owned(),
            Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

impl SocketIoPeer {
    async fn send(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            // That the connection has ended is told by `recv`.
            let _ended = self
                .stream
                .send(match packet {
                    Packet::Text(text) => Frame::text(text),
                    Packet::Bytes(bytes) => Frame::binary(bytes),
                })
                .await;
        }
    }
}

impl Peer for SocketIoPeer {
    async fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        let packets = self.form.subscribe(subscribe);
        self.send(packets).await;
    }

    async fn unsubscribe(&mut self, id: u64) {
        let packets = self.form.unsubscribe(id);
        self.send(packets).await;
    }

    async fn publish(&mut self, publish: Publish<'_>) {
        let packets = self.form.publish(publish);
        self.send(packets).await;
    }

    async fn send_wrong(&mut self, wrong: Wrong) {
        let masked = |opcode: u8, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
            frame.extend_from_slice(payload);
            frame
        };
        let bytes = match wrong {
            Wrong::Message => return self.send(vec![Form::senseless()]).await,
            // Opcode 3 is reserved.
            Wrong::Frame => masked(3, b"frame"),
            Wrong::Text => masked(1, b"42[\"\xff\"]"),
            Wrong::LongFrame => {
                let mut head = vec![0x81, 0x80 | 127];
                head.extend_from_slice(&(1_u64 << 40).to_be_bytes());
                head.extend_from_slice(&[0; 4]);
                head
            }
        };
        let _ended = self.stream.get_mut().write_all(&bytes).await;
    }

    async fn recv(&mut self) -> Incoming {
        loop {
            let incoming = match self.stream.next().await {
                Some(Ok(Frame::Text(text))) => self.form.text(&text),
                Some(Ok(Frame::Binary(bytes))) => Some(self.form.bytes(&bytes)),
                Some(Ok(Frame::Close(close))) => {
                    let code = close.map(|close| u16::from(close.code));
                    Some(Incoming::Ended(match code {
                        Some(1001) => End::GoingAway,
                        Some(code) => End::Fault(code),
                        None => End::Silent,
                    }))
                }
                Some(Ok(_)) => None,
                Some(Err(_)) | None => Some(Incoming::Ended(End::Silent)),
            };
            if let Some(incoming) = incoming {
                return incoming;
            }
        }
    }

    async fn leave(mut self) {
        let _ended = self.stream.send(Frame::text("1")).await;
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    fn cut(self) {
        tcp::cut(self.stream.get_ref());
    }
}

/// A client that polls: the next poll is under way when the one before was answered, and is read when something is asked for.
#[derive(Debug)]
pub struct PollingPeer {
    address: SocketAddr,
    sid: String,
    polls: TcpStream,
    posts: TcpStream,
    /// Of the answer to the poll.
    answer: Vec<u8>,
    packets: VecDeque<String>,
    form: Form,
    /// It has sent something wrong.
    at_fault: bool,
    /// How it has ended.
    ended: Option<End>,
}

impl Carrier for OverPolls {
    type Peer = PollingPeer;

    async fn open(address: SocketAddr, connect: Connect<'_>) -> PollingPeer {
        let mut peer = PollingPeer {
            address,
            sid: String::new(),
            polls: tcp::connect(address, connect.narrow).await,
            posts: tcp::connect(address, false).await,
            answer: Vec::new(),
            packets: VecDeque::new(),
            form: Form::default(),
            at_fault: false,
            ended: None,
        };
        peer.ask().await;
        let open = peer.packet().await.unwrap();
        let open: serde_json::Value =
            serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        peer.sid = format!("&sid={}", open["sid"].as_str().unwrap());
        peer.ask().await;
        assert!(peer.post(join(connect)).await);
        assert!(peer.packet().await.unwrap().starts_with("40{"));
        peer
    }

    fn verdict(wrong: Wrong) -> Verdict {
        match wrong {
            Wrong::Message => Verdict::Told(ErrorCode::BadMessage),
            // The post is refused, and with it the session.
            Wrong::Frame | Wrong::Text | Wrong::LongFrame => Verdict::Ended(End::Silent),
        }
    }
}

impl PollingPeer {
    fn request(&self, method: &str, body: &[u8]) -> Vec<u8> {
        let (address, sid, length) = (self.address, &self.sid, body.len());
        let mut request = format!(
            "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// Begins a poll.
    async fn ask(&mut self) {
        let request = self.request("GET", b"");
        // That the connection has ended is told by the answer.
        let _ended = self.polls.write_all(&request).await;
    }

    async fn post(&mut self, body: impl AsRef<[u8]>) -> bool {
        let request = self.request("POST", body.as_ref());
        let _ended = self.posts.write_all(&request).await;
        let mut answer = Vec::new();
        loop {
            if let Some((status, _)) = parsed(&mut answer) {
                return status == 200;
            }
            if !matches!(self.posts.read_buf(&mut answer).await, Ok(1..)) {
                return false;
            }
        }
    }

    async fn send(&mut self, packets: Vec<Packet>) {
        let packets = packets.into_iter().map(|packet| match packet {
            Packet::Text(text) => text,
            Packet::Bytes(bytes) => format!("b{}", BASE64_STANDARD.encode(bytes)),
        });
        let body = packets.collect::<Vec<_>>().join("\u{1e}");
        self.post(body).await;
    }

    /// A session that is over. The poll that waits is told so; a poll that comes too late is told that there is no session, and there
    /// is nobody any more for whom it was not its own fault.
    fn end(&self) -> End {
        match self.at_fault {
            true => End::Silent,
            false => End::GoingAway,
        }
    }

    /// The next packet, or how the session has ended. Cancel-safe.
    async fn packet(&mut self) -> Result<String, End> {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return Ok(packet);
            }
            if let Some(ended) = self.ended {
                return Err(ended);
            }
            match parsed(&mut self.answer) {
                Some((200, body)) => {
                    self.packets.extend(body.split('\u{1e}').map(str::to_owned));
                    if !self.sid.is_empty() {
                        self.ask().await;
                    }
                }
                Some(_) => self.ended = Some(self.end()),
                None => {
                    if !matches!(self.polls.read_buf(&mut self.answer).await, Ok(1..)) {
                        self.ended = Some(self.end());
                    }
                }
            }
        }
    }
}

/// Takes a whole answer: its status and its body.
fn parsed(bytes: &mut Vec<u8>) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(bytes);
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    let length: usize = length.unwrap_or(0);
    let body = rest.get(..length)?.to_owned();
    let whole = head.len() + 4 + length;
    bytes.drain(..whole);
    Some((status, body))
}

impl Peer for PollingPeer {
    async fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        let packets = self.form.subscribe(subscribe);
        self.send(packets).await;
    }

    async fn unsubscribe(&mut self, id: u64) {
        let packets = self.form.unsubscribe(id);
        self.send(packets).await;
    }

    async fn publish(&mut self, publish: Publish<'_>) {
        let packets = self.form.publish(publish);
        self.send(packets).await;
    }

    async fn send_wrong(&mut self, wrong: Wrong) {
        self.at_fault = wrong != Wrong::Message;
        match wrong {
            Wrong::Message => self.send(vec![Form::senseless()]).await,
            Wrong::Frame => _ = self.post("frame").await,
            Wrong::Text => _ = self.post(b"42[\"\xff\"]").await,
            Wrong::LongFrame => _ = self.post(vec![b'4'; 8 << 20]).await,
        }
    }

    async fn recv(&mut self) -> Incoming {
        loop {
            let packet = match self.packet().await {
                Ok(packet) => packet,
                Err(end) => return Incoming::Ended(end),
            };
            let incoming = match packet.as_bytes() {
                b"1" => {
                    let end = self.end();
                    self.ended = Some(end);
                    Some(Incoming::Ended(end))
                }
                b"2" | b"6" => None,
                [b'b', base64 @ ..] => {
                    Some(self.form.bytes(&BASE64_STANDARD.decode(base64).unwrap()))
                }
                _ => self.form.text(&packet),
            };
            if let Some(incoming) = incoming {
                return incoming;
            }
        }
    }

    async fn leave(mut self) {
        self.post("1").await;
        while self.packet().await.is_ok() {}
    }

    fn cut(mut self) {
        // A cable that is pulled between two polls is noticed with the next ping. So that nobody waits for that, a second poll ends the
        // session first, whichever of the two comes first.
        tokio::spawn(async move {
            let request = self.request("GET", b"");
            let _ended = self.posts.write_all(&request).await;
            let mut answer = Vec::new();
            while let Ok(1..) = self.posts.read_buf(&mut answer).await {
                if parsed(&mut answer).is_some() {
                    break;
                }
            }
            tcp::cut(&self.polls);
            tcp::cut(&self.posts);
        });
    }
}
