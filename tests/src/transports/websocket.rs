//! WebSocket, with a peer that writes its own frames where they are to be wrong.

use core::{marker::PhantomData, net::SocketAddr};

use axum::serve::ListenerExt;
use futures_util::{SinkExt, StreamExt};
use latchbus_bus::Bus;
use latchbus_core::wire::ErrorCode;
use latchbus_ws::{Config, Server};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{self, Message as Frame, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::tcp;
use super::websocket_form::{Form, Json, Postcard};
use crate::transport::{
    Connect, End, Incoming, Peer, Publish, Subscribe, Transport, Verdict, Words, Wrong,
};
use crate::users::authorization;

/// WebSocket in one form.
#[derive(Debug)]
pub struct WebSocket<F> {
    address: SocketAddr,
    server: Server,
    accepts: JoinHandle<()>,
    form: PhantomData<F>,
}

/// WebSocket with JSON messages.
pub type WebSocketJson = WebSocket<Json>;

/// WebSocket with postcard messages.
pub type WebSocketPostcard = WebSocket<Postcard>;

/// A WebSocket client.
#[derive(Debug)]
pub struct WebSocketPeer<F> {
    stream: WebSocketStream<TcpStream>,
    form: PhantomData<F>,
}

impl<F: Form> Transport for WebSocket<F> {
    type Peer = WebSocketPeer<F>;

    const WORDS: Words = Words::ALL;

    async fn serve(bus: Bus) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let closing = bus.closing();
        let server = Server::new(bus, Config::default());
        let http = axum::serve(listener, server.router())
            .with_graceful_shutdown(async move { closing.cancelled().await });
        Self {
            address,
            server,
            accepts: tokio::spawn(async move { http.await.unwrap() }),
            form: PhantomData,
        }
    }

    async fn connect(&self, connect: Connect<'_>) -> WebSocketPeer<F> {
        let stream = tcp::connect(self.address, connect.narrow).await;
        (WebSocketPeer::handshake(stream, self.address, connect.user).await).unwrap()
    }

    async fn ended(self) {
        self.server.closed().await;
        self.accepts.await.unwrap();
    }

    fn verdict(wrong: Wrong) -> Verdict {
        match wrong {
            Wrong::Message => Verdict::Told(ErrorCode::BadMessage),
            Wrong::Frame => Verdict::Ended(End::Fault(1002)),
            Wrong::Text => F::NO_TEXT_VERDICT,
            Wrong::LongFrame => Verdict::Ended(End::Fault(1009)),
        }
    }
}

impl<F: Form> WebSocketPeer<F> {
    /// Connects to the `/ws` of any server, with little room for what is not read if `narrow`.
    pub async fn open(address: SocketAddr, narrow: bool) -> Self {
        let stream = tcp::connect(address, narrow).await;
        Self::handshake(stream, address, None).await.unwrap()
    }

    /// Connects to the `/ws` of a server that may not be there.
    ///
    /// # Errors
    /// When it is not, or goes away meanwhile.
    pub async fn try_open(address: SocketAddr) -> Result<Self, tungstenite::Error> {
        Self::handshake(tcp::try_connect(address, false).await?, address, None).await
    }

    async fn handshake(
        stream: TcpStream,
        address: SocketAddr,
        user: Option<&str>,
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{address}/ws").into_client_request()?;
        let name = F::SUBPROTOCOL.parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", name);
        if let Some(user) = user {
            let authorization = authorization(user).parse().unwrap();
            request.headers_mut().insert("authorization", authorization);
        }
        let (stream, _) = client_async(request, stream).await?;
        let form = PhantomData;
        Ok(Self { stream, form })
    }

    async fn send(&mut self, frame: Frame) {
        // That the connection has ended is told by `recv`.
        let _ended = self.stream.send(frame).await;
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        let _ended = self.stream.get_mut().write_all(bytes).await;
    }
}

/// A masked frame with a mask of zeros, so that the bytes stand as they are (RFC 6455 §5.3).
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

impl<F: Form> Peer for WebSocketPeer<F> {
    async fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        self.send(F::subscribe(subscribe)).await;
    }

    async fn unsubscribe(&mut self, id: u64) {
        self.send(F::unsubscribe(id)).await;
    }

    async fn publish(&mut self, publish: Publish<'_>) {
        self.send(F::publish(publish)).await;
    }

    async fn send_wrong(&mut self, wrong: Wrong) {
        let bytes = match wrong {
            Wrong::Message => masked(F::OPCODE, F::SENSELESS),
            Wrong::Text => masked(F::OPCODE, F::NO_TEXT),
            // Opcode 3 is reserved.
            Wrong::Frame => masked(3, b"frame"),
            Wrong::LongFrame => {
                let mut head = vec![0x80 | F::OPCODE, 0x80 | 127];
                head.extend_from_slice(&(1_u64 << 40).to_be_bytes());
                head.extend_from_slice(&[0; 4]);
                head
            }
        };
        self.send_raw(&bytes).await;
    }

    async fn recv(&mut self) -> Incoming {
        loop {
            match self.stream.next().await {
                Some(Ok(Frame::Close(close))) => {
                    let code = close.map(|close| u16::from(close.code));
                    return Incoming::Ended(match code {
                        Some(1001) => End::GoingAway,
                        Some(code) => End::Fault(code),
                        None => End::Silent,
                    });
                }
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                Some(Ok(frame)) => {
                    if let Some(incoming) = F::incoming(&frame) {
                        return incoming;
                    }
                }
                Some(Err(_)) | None => return Incoming::Ended(End::Silent),
            }
        }
    }

    async fn leave(mut self) {
        let _ended = self.stream.close(None).await;
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    fn cut(self) {
        tcp::cut(self.stream.get_ref());
    }
}
