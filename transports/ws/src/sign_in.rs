//! Who asks: the credentials that a request brings, and the answer to whoever is not let in.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, COOKIE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use latchbus_bus::{Certificate, Credentials, SignInRefused};

use crate::origin::Secure;

/// What browsers ask people for (RFC 7617).
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"latchbus\", charset=\"UTF-8\"");

/// What programs bring (RFC 6750).
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"latchbus\"");

/// The same to who has brought one that is not taken any more.
const BAD_BEARER: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"latchbus\", error=\"invalid_token\"");

/// With this the name of a cookie begins that brings the session of a browser. `__Host-` or `__Secure-` may stand before it, which
/// browsers take over TLS alone, and behind it what tells the servers of one host apart.
pub const SESSION_COOKIE: &str = "latchbus-session";

/// Sessions of one request that are looked at: those of other servers on the same host may be among them.
const MAX_SESSIONS: usize = 8;

/// What a request brings: the header `Authorization` (`Basic` or `Bearer`), else the session of a browser in a cookie, and the
/// certificate of its connection, an `Arc<Certificate>` among the extensions of the request. Never anything of its URL, which is
/// logged.
pub fn credentials(request: &Request) -> Credentials {
    let certificate = request.extensions().get::<Arc<Certificate>>().cloned();
    let header = request.headers().get(AUTHORIZATION);
    let header = header.map(|value| Credentials::from_authorization(value.as_bytes()));
    let credentials =
        header.unwrap_or_else(|| Credentials::default().with_sessions(sessions(request)));
    credentials.with_certificate(certificate)
}

/// The sessions of a browser that a request brings. Of a connection that is TLS to here no cookie counts that a page without TLS
/// could have set.
pub fn sessions(request: &Request) -> Vec<String> {
    let is_secure = request.extensions().get::<Secure>().is_some();
    let values = request.headers().get_all(COOKIE).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';'));
    let pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    let sessions = pairs.filter(|(name, _)| {
        let secure = name
            .strip_prefix("__Host-")
            .or(name.strip_prefix("__Secure-"));
        let name = secure.or(Some(*name).filter(|_| !is_secure));
        name.is_some_and(|name| name.starts_with(SESSION_COOKIE))
    });
    let sessions = sessions.map(|(_, value)| value.to_owned());
    sessions.take(MAX_SESSIONS).collect()
}

/// With which status and which headers a request is answered whose sender is not let in. `asked` is its head: a script in a page
/// gets no challenge upon which the browser would ask for a password in a window of its own.
pub fn challenge(
    refused: &SignInRefused,
    asked: &HeaderMap,
) -> (StatusCode, Vec<(HeaderName, HeaderValue)>) {
    match refused {
        SignInRefused::CredentialsRequired
        | SignInRefused::BadCredentials
        | SignInRefused::BadToken(_)
        | SignInRefused::NamelessCertificate
        | SignInRefused::Expired => {
            let bearer = match refused {
                SignInRefused::Expired => BAD_BEARER,
                _ => BEARER,
            };
            let by_script = asked
                .get("sec-fetch-dest")
                .is_some_and(|destination| destination == "empty");
            let mut headers = vec![(WWW_AUTHENTICATE, bearer)];
            if !by_script {
                headers.insert(0, (WWW_AUTHENTICATE, BASIC));
            }
            (StatusCode::UNAUTHORIZED, headers)
        }
        SignInRefused::TooManyAttempts { retry_after } => {
            let seconds = retry_after.as_secs().saturating_add(1);
            (
                StatusCode::TOO_MANY_REQUESTS,
                vec![(RETRY_AFTER, HeaderValue::from(seconds))],
            )
        }
        // Connections end at any time: to come back soon is right.
        SignInRefused::TooManyConnections { .. } => (
            StatusCode::TOO_MANY_REQUESTS,
            vec![(RETRY_AFTER, HeaderValue::from(1))],
        ),
        SignInRefused::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            vec![(RETRY_AFTER, HeaderValue::from(1))],
        ),
        _ => (StatusCode::FORBIDDEN, Vec::new()),
    }
}

/// The same as a whole answer.
pub fn refuse(refused: &SignInRefused, asked: &HeaderMap) -> Response {
    let (status, headers) = challenge(refused, asked);
    let mut response = (status, format!("{refused}\n")).into_response();
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn cookies_of_browsers() {
        let read = |cookies: &[&str], is_secure: bool| {
            let mut request = Request::new(Body::empty());
            for cookie in cookies {
                let cookie = HeaderValue::from_str(cookie).unwrap();
                request.headers_mut().append(COOKIE, cookie);
            }
            if is_secure {
                request.extensions_mut().insert(Secure);
            }
            credentials(&request).sessions
        };
        for (cookies, plain, secure) in [
            (&["a=b; latchbus-session=x"][..], &["x"][..], &[][..]),
            (&["__Host-latchbus-session-8443=y;c"], &["y"], &["y"]),
            (
                &[
                    "latchbus-session-3000=x; __Secure-latchbus-session=y",
                    "latchbus-session=z",
                ],
                &["x", "y", "z"],
                &["y"],
            ),
            (
                &["__Host-other=x; latchbus=y; xlatchbus-session=z; latchbus-session"],
                &[],
                &[],
            ),
        ] {
            assert_eq!(read(cookies, false), plain, "{cookies:?}");
            assert_eq!(read(cookies, true), secure, "{cookies:?}");
        }
        let many = vec!["latchbus-session=x"; 100].join("; ");
        assert_eq!(read(&[&many], false).len(), MAX_SESSIONS);
    }

    #[test]
    fn the_header_goes_before_the_cookie() {
        let mut request = Request::new(Body::empty());
        let headers = request.headers_mut();
        headers.insert(COOKIE, HeaderValue::from_static("latchbus-session=x"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer t"));
        assert_eq!(credentials(&request), Credentials::token("t"));
    }
}
