//! Who asks: the credentials that a request brings, and the answer to whoever is not let in.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use latchbus_bus::{Certificate, Credentials, SignInRefused};

/// What browsers ask people for (RFC 7617).
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"latchbus\", charset=\"UTF-8\"");

/// What programs bring (RFC 6750).
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"latchbus\"");

/// The same to who has brought one that is not taken any more.
const BAD_BEARER: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"latchbus\", error=\"invalid_token\"");

/// What a request brings: the header `Authorization` (`Basic` or `Bearer`), and the certificate of its connection, an
/// `Arc<Certificate>` among the extensions of the request. Never anything of its URL, which is logged.
pub fn credentials(request: &Request) -> Credentials {
    let certificate = request.extensions().get::<Arc<Certificate>>().cloned();
    let header = request.headers().get(AUTHORIZATION);
    let header = header.map(|value| Credentials::from_authorization(value.as_bytes()));
    header.unwrap_or_default().with_certificate(certificate)
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
