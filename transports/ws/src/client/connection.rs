//! The task behind a client: connects, moves messages, waits, connects again.

use core::{convert::Infallible, time::Duration};
use std::io;
use std::sync::Arc;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use latchbus_bus::Backoff;
use latchbus_core::wire::ErrorCode;
use latchbus_tls::server::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message as WsMessage};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

use super::error::{Lost, host_and_port};
use super::machine::Live;
use super::message::Incoming;
use super::{Options, Shared, State};

/// TCP, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

type Socket = WebSocketStream<Box<dyn Stream>>;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Buffers of one connection.
const BUFFER_BYTES: usize = 8 << 10;

pub(super) struct Connection {
    pub(super) url: String,
    /// The header `Authorization`.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) options: Options,
    pub(super) shared: Arc<Shared>,
    pub(super) state: watch::Sender<State>,
    pub(super) stop: CancellationToken,
}

impl Connection {
    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let Options {
            backoff: (base, cap),
            ..
        } = self.options;
        let mut backoff = Backoff::new(base, cap);
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            self.state.send_replace(State::Connecting);
            let mut live_since = None;
            let lost = self.connect_and_serve(&mut live_since).await;
            self.shared.machine().disconnected();
            let Err(lost) = lost else { break };
            let explained = lost.explained(live_since.is_some(), &self.url);
            let lost = select! {
                lost = explained => lost,
                () = stop.cancelled() => break,
            };
            // A server that accepts and hangs up at once is not back yet.
            if live_since.is_some_and(|since: Instant| since.elapsed() >= base) {
                backoff.reset();
            }
            let wait = backoff.next_wait();
            tracing::debug!(target: "websocket", reason = %lost, ?wait, "not connected");
            self.state.send_replace(State::Offline {
                next_attempt: Instant::now() + wait,
                reason: lost.to_string(),
            });
            select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
        self.shared.machine().close();
        self.state.send_replace(State::Closed);
    }

    /// Ends well only when it is stopped.
    async fn connect_and_serve(&self, live_since: &mut Option<Instant>) -> Result<(), Lost> {
        let connecting = async {
            let mut socket = self.connect().await?;
            let welcome = self.receive(&mut socket).await?;
            match welcome {
                Incoming::Welcome { epoch, limits } => Ok((socket, epoch, limits)),
                _ => Err(Lost::NotLatchbus),
            }
        };
        let limit = self.options.connect_timeout;
        let (socket, epoch, limits) = select! {
            connected = timeout(limit, connecting) => {
                connected.map_err(|_| Lost::NotConnected(limit))??
            }
            () = self.stop.cancelled() => return Ok(()),
        };
        self.shared.machine().welcome(Live { epoch, limits });
        *live_since = Some(Instant::now());
        self.state.send_replace(State::Live);

        let (mut sink, mut stream) = socket.split();
        let never = select! {
            received = self.read(&mut stream) => received,
            sent = self.write(&mut sink) => sent,
            () = self.stop.cancelled() => {
                let goodbye = async {
                    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    sink.send(WsMessage::Close(Some(close))).await?;
                    while stream.next().await.transpose()?.is_some() {}
                    Ok::<(), tungstenite::Error>(())
                };
                // Whether the server hears the goodbye makes no difference.
                let _ = timeout(GOODBYE, goodbye).await;
                return Ok(());
            }
        };
        match never {
            Err(lost) => Err(lost),
        }
    }

    async fn connect(&self) -> Result<Socket, Lost> {
        let mut request = self.url.as_str().into_client_request()?;
        let name = HeaderValue::from_static(self.options.protocol.name());
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
        if let Some(authorization) = &self.authorization {
            request
                .headers_mut()
                .insert(AUTHORIZATION, authorization.clone());
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(self.options.max_message_bytes))
            .max_frame_size(Some(self.options.max_message_bytes));
        let stream = self.open().await.map_err(tungstenite::Error::Io)?;
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(socket)
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let (host, port) =
            host_and_port(&self.url).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        match &self.options.tls {
            Some(tls) if self.url.starts_with("wss:") => {
                let stream = tls.connect(&host, stream, Protocol::Http).await?;
                Ok(Box::new(stream))
            }
            _ => Ok(Box::new(stream)),
        }
    }

    async fn read(&self, stream: &mut SplitStream<Socket>) -> Result<Infallible, Lost> {
        loop {
            let incoming = self.receive(stream).await?;
            // The client signs in with the handshake: until the next one nothing that it asks for is answered otherwise.
            if let Incoming::Error { refused, .. } = &incoming
                && refused.code == ErrorCode::Unauthorized
            {
                return Err(Lost::unauthorized(&refused.message));
            }
            let mut machine = self.shared.machine();
            machine.handle(incoming, Instant::now());
            if machine.has_work() {
                self.shared.wake.notify_one();
            }
        }
    }

    /// The next message with data. Any frame shows that the server lives.
    async fn receive<S>(&self, stream: &mut S) -> Result<Incoming, Lost>
    where
        S: StreamExt<Item = Result<WsMessage, tungstenite::Error>> + Unpin,
    {
        let limit = self.options.idle_timeout;
        loop {
            let silent_at = Instant::now() + limit;
            let message = timeout_at(silent_at, stream.next())
                .await
                .map_err(|_| Lost::Silent(limit))?
                .ok_or(Lost::Cut)??;
            if let WsMessage::Close(frame) = &message {
                let (code, reason) = match frame {
                    Some(frame) => (frame.code.into(), frame.reason.as_str()),
                    None => (CloseCode::Status.into(), ""),
                };
                return Err(Lost::closed(code, reason));
            }
            if let Some(incoming) = Incoming::decode(self.options.protocol, &message)? {
                return Ok(incoming);
            }
        }
    }

    async fn write(&self, sink: &mut SplitSink<Socket, WsMessage>) -> Result<Infallible, Lost> {
        let mut ping_at = Instant::now() + self.options.ping_every;
        loop {
            loop {
                let outgoing = self.shared.machine().next_outgoing(Instant::now());
                let Some(outgoing) = outgoing else { break };
                sink.feed(outgoing.encode(self.options.protocol)?).await?;
            }
            sink.flush().await?;
            let retry_at = self.shared.machine().retry_at();
            select! {
                () = self.shared.wake.notified() => {}
                () = sleep_until(retry_at.unwrap_or(ping_at)), if retry_at.is_some() => {}
                () = sleep_until(ping_at) => {
                    sink.feed(WsMessage::Ping(Default::default())).await?;
                    ping_at = Instant::now() + self.options.ping_every;
                }
            }
        }
    }
}
