//! The server's side of the opening handshake (RFC 6455 §4.2).

use core::net::SocketAddr;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use latchbus_bus::{Bus, log::shown};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{field, warn};

use crate::origin::{Guard, Refusal};

/// A request that may become a WebSocket: send [`response`](Self::response), then wait for
/// [`upgrade`](Self::upgrade).
#[derive(Debug)]
pub struct Handshake {
    /// HTTP 101.
    pub response: Response,
    /// The raw connection, once the response is out.
    pub upgrade: OnUpgrade,
}

/// Why a request does not become a WebSocket. As a response: its HTTP status and the reason in words.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// 403: by the [`OriginPolicy`](crate::OriginPolicy).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// 426: it does not ask for a WebSocket of version 13.
    #[error("this address speaks WebSocket, version 13")]
    NoWebSocket,
    /// 400: the handshake is broken.
    #[error("the header Sec-WebSocket-Key is missing")]
    NoKey,
    /// 400: none of the subprotocols that it offers is known here.
    #[error("none of the offered subprotocols is known here")]
    UnknownProtocols,
    /// 400: it offers no subprotocol, where one is needed.
    #[error("no subprotocol is offered, and {0} is needed")]
    NoProtocol(&'static str),
    /// 500: the server under the handler cannot give its connection away.
    #[error("the connection cannot be upgraded")]
    NotUpgradable,
}

impl HandshakeError {
    /// A warning under the target of a transport, `ws`, `mqtt` or `socketio`: from where, which subprotocols were offered, and why it is
    /// refused. A few for each address. What the policy refuses has been logged by the [`Guard`].
    pub fn log(
        &self,
        bus: &Bus,
        transport: &str,
        address: Option<SocketAddr>,
        headers: &HeaderMap,
    ) {
        if matches!(self, Self::Refused(_)) {
            return;
        }
        let ip = address.map(|address| address.ip());
        let key = format!("handshake {transport} {ip:?}");
        let Some(left_out) = bus.log_limit().allow(&key) else {
            return;
        };
        let offered: Vec<_> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
        let offered = offered.join(", ");
        let (address, offered) = (address.map(field::display), shown(&offered));
        match transport {
            "mqtt" => warn!(
                target: "mqtt", address, offered, left_out, "WebSocket handshake refused: {self}"
            ),
            "socketio" => warn!(
                target: "socketio", address, offered, left_out, "WebSocket handshake refused: {self}"
            ),
            _ => warn!(
                target: "websocket", address, offered, left_out, "WebSocket handshake refused: {self}"
            ),
        }
    }
}

impl IntoResponse for HandshakeError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::NoWebSocket => StatusCode::UPGRADE_REQUIRED,
            Self::NoKey | Self::UnknownProtocols | Self::NoProtocol(_) => StatusCode::BAD_REQUEST,
            Self::NotUpgradable => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, format!("{self}\n")).into_response();
        if let Self::Refused(refusal) = &self {
            refusal.explain(&mut response);
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// Answers a request for a WebSocket and gives the subprotocol, one of `protocols`, that both sides know:
/// the first of the client's that is known here. None when the client offers none.
///
/// # Errors
/// See [`HandshakeError`], which is the answer then.
pub fn accept<'p>(
    request: &mut Request<Body>,
    guard: &Guard,
    protocols: &[&'p str],
) -> Result<(Handshake, Option<&'p str>), HandshakeError> {
    guard.check(request)?;
    let headers = request.headers();
    let asks = request.method() == Method::GET
        && has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket")
        && matches!(only(headers, &SEC_WEBSOCKET_VERSION), Ok(Some("13")));
    if !asks {
        return Err(HandshakeError::NoWebSocket);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let key = key.ok_or(HandshakeError::NoKey)?;
    let accept = derive_accept_key(key.as_bytes());
    let protocol = choose(headers, protocols)?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or(HandshakeError::NotUpgradable)?;

    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 is always a header value.
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(Ok(name)) = protocol.map(HeaderValue::from_str) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((Handshake { response, upgrade }, protocol))
}

fn choose<'p>(headers: &HeaderMap, known: &[&'p str]) -> Result<Option<&'p str>, HandshakeError> {
    let mut offered = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    let chosen = offered.find_map(|name| known.iter().find(|known| **known == name));
    chosen
        .map(|name| Some(*name))
        .ok_or(HandshakeError::UnknownProtocols)
}

/// The values of a header that is a list, in one line or several.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// The value of a header that may be there once.
pub(crate) fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().map_err(|_| ()));
    match values.next() {
        Some(_) => Err(()),
        None => first.transpose(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let value = |v: &&str| (name.clone(), HeaderValue::from_str(v).unwrap());
        values.iter().map(value).collect()
    }

    #[test]
    fn the_first_known_protocol_is_chosen() {
        let known = ["a", "b"];
        let chosen =
            |values: &[&str]| choose(&headers(SEC_WEBSOCKET_PROTOCOL, values), &known).ok();
        assert_eq!(chosen(&[]), Some(None));
        assert_eq!(chosen(&[""]), Some(None));
        assert_eq!(chosen(&["x, b,a"]), Some(Some("b")));
        assert_eq!(chosen(&["x", "a"]), Some(Some("a")));
        assert_eq!(chosen(&["x", "A"]), None);
    }
}
