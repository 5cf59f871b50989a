//! What holds for every request but WebSockets: who may ask, and what a browser may do with the answer.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, ORIGIN, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use latchbus_ws::handshake::check_origin;

use super::App;
use super::error::ApiError;

/// Scripts, styles and connections of this server alone, and nobody frames it. The WebSocket counts as its
/// own: `'self'` covers `ws:` of the same host and port.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every answer. Nothing is taken from a cache without asking: the page and the program are
/// replaced together.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(PAGE_POLICY),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (VARY, HeaderValue::from_static("Origin")),
];

/// Refuses requests of foreign pages, answers the questions that browsers ask before those of listed
/// pages, and adds the headers that each answer has.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = match check_origin(&app.0.config.origin, &request) {
        Err(refusal) => ApiError::from(refusal).into_response(),
        Ok(()) => {
            let mut response = if is_preflight(&request) {
                preflight()
            } else {
                next.run(request).await
            };
            if let Some(origin) = origin {
                allow(response.headers_mut(), origin);
            }
            response
        }
    };
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, value);
    }
    app.0.counts.answered(response.status());
    response
}

/// A browser asks whether a page of another origin may send what it is about to (Fetch §4.8).
fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, PUT, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "content-type, if-none-match"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// A page that may ask may read the answer.
fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("etag, last-modified"),
    );
}
