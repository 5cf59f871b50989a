//! WebSocket clients, by another implementation.

use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{DEADLINE, Server};

pub(crate) async fn web_socket(
    server: &Server,
    path: &str,
    protocol: &str,
) -> WebSocketStream<TcpStream> {
    let headers = [("Sec-WebSocket-Protocol", protocol)];
    open(server, path, &headers).await.unwrap()
}

/// Opens one with these headers, of which those that are empty are left out.
pub(crate) async fn open(
    server: &Server,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
    let address = server.http();
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .unwrap();
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().insert(*name, value);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    Ok(client_async(request, stream).await?.0)
}

pub(crate) async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    let message = timeout(DEADLINE, socket.next()).await.unwrap();
    message.map(Result::unwrap)
}

/// The next message of JSON, whatever else stands between.
pub(crate) async fn next_json(socket: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        match next(socket).await.unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Sends a signal, and waits for the close frame: its code.
pub(crate) async fn close_code(
    server: &Server,
    socket: &mut WebSocketStream<TcpStream>,
    signal: Signal,
) -> u16 {
    server.signal(signal);
    loop {
        if let Message::Close(frame) = next(socket).await.unwrap() {
            return frame.unwrap().code.into();
        }
    }
}
