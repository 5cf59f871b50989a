//! The server's side of the opening handshake (RFC 6455 §4.2).

use axum::body::Body;
use axum::http::header::{
    CONNECTION, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::origin::{OriginPolicy, Refusal};

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
    /// 403: by the [`OriginPolicy`].
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
    /// 500: the server under the handler cannot give its connection away.
    #[error("the connection cannot be upgraded")]
    NotUpgradable,
}

impl IntoResponse for HandshakeError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::NoWebSocket => StatusCode::UPGRADE_REQUIRED,
            Self::NoKey | Self::UnknownProtocols => StatusCode::BAD_REQUEST,
            Self::NotUpgradable => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, format!("{self}\n")).into_response();
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// Checks `Host` and `Origin` of any HTTP request.
///
/// # Errors
/// See [`Refusal`]. A header that is there twice or is no text is as good as a hostile one.
pub fn check_origin<B>(policy: &OriginPolicy, request: &Request<B>) -> Result<(), Refusal> {
    // HTTP/2 and absolute requests name the host in the address itself.
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let host = match authority {
        Some(authority) => Some(authority),
        None => only(request.headers(), &HOST).map_err(|_| Refusal::NoHost)?,
    };
    let origin = only(request.headers(), &ORIGIN).map_err(|_| Refusal::Origin)?;
    policy.check(host, origin)
}

/// Answers a request for a WebSocket and gives the subprotocol, one of `protocols`, that both sides know:
/// the first of the client's that is known here. None when the client offers none.
///
/// # Errors
/// See [`HandshakeError`], which is the answer then.
pub fn accept<'p>(
    request: &mut Request<Body>,
    policy: &OriginPolicy,
    protocols: &[&'p str],
) -> Result<(Handshake, Option<&'p str>), HandshakeError> {
    check_origin(policy, request)?;
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
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ()> {
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

    #[test]
    fn host_and_origin_stand_once() {
        let check = |pairs: &[(HeaderName, &str)]| {
            let mut request = Request::builder().uri("/ws");
            for (name, value) in pairs {
                request = request.header(name, *value);
            }
            check_origin(&OriginPolicy::default(), &request.body(()).unwrap())
        };
        let (host, own) = ((HOST, "127.0.0.1:1"), (ORIGIN, "http://127.0.0.1:1"));
        assert_eq!(check(&[host.clone(), own.clone()]), Ok(()));
        assert_eq!(check(core::slice::from_ref(&host)), Ok(()));
        assert_eq!(check(&[]), Err(Refusal::NoHost));
        assert_eq!(check(&[host.clone(), host.clone()]), Err(Refusal::NoHost));
        assert_eq!(
            check(&[host.clone(), own.clone(), own]),
            Err(Refusal::Origin)
        );
        assert_eq!(
            check(&[host, (ORIGIN, "http://\u{e9}")]),
            Err(Refusal::Origin)
        );
    }

    #[test]
    fn an_absolute_address_names_the_host() {
        let request = |uri| Request::builder().uri(uri).header(HOST, "127.0.0.1");
        let check = |uri| check_origin(&OriginPolicy::default(), &request(uri).body(()).unwrap());
        assert_eq!(check("http://127.0.0.1/ws"), Ok(()));
        assert_eq!(check("http://evil.example/ws"), Err(Refusal::Host));
    }
}
