//! What holds for every request but WebSockets: who may ask, and what a browser may do with the answer.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, LOCATION, ORIGIN, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use latchbus_ws::Refusal;

use super::refused::refused;
use super::{App, account, page, socketio_client};

/// Where a page gets its ticket; it judges requests itself.
pub(super) const TICKET: &str = "/api/v1/ticket";

/// Where a page asks whether it may use this server; it judges requests itself.
pub(super) const ORIGIN_PATH: &str = "/api/v1/origin";

/// What a load balancer and a monitor ask, by an address or without a name. It says nothing that is anybody's.
const PUBLIC: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Scripts, styles and connections of this server alone. The WebSocket counts as its own: `'self'` covers `ws:` of the
/// same host and port.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                           connect-src 'self'; base-uri 'self'; form-action 'none'";

/// The page on which users sign in has no scripts, and a form.
const SIGN_IN_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'self'; \
                              form-action 'self'";

/// Headers of every answer. Nothing is taken from a cache without asking: the page and the program are
/// replaced together.
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (
        VARY,
        HeaderValue::from_static("Origin, Accept, Accept-Encoding"),
    ),
];

/// The directive of a `Content-Security-Policy` with which these may frame the pages.
pub(super) fn frame_ancestors(allow_frames: &[String]) -> String {
    match allow_frames {
        [] => "frame-ancestors 'none'".to_owned(),
        some => format!("frame-ancestors {}", some.join(" ")),
    }
}

/// The `Content-Security-Policy` of the dashboard.
pub(super) fn page_policy(frame_ancestors: &str) -> HeaderValue {
    with_frames(PAGE_POLICY, frame_ancestors)
}

/// That of the page on which users sign in.
pub(super) fn sign_in_policy(frame_ancestors: &str) -> HeaderValue {
    with_frames(SIGN_IN_POLICY, frame_ancestors)
}

fn with_frames(policy: &str, frame_ancestors: &str) -> HeaderValue {
    // Settings hold nothing that cannot stand in a header; if an embedding program does, nobody frames it.
    HeaderValue::from_str(&format!("{policy}; {frame_ancestors}")).unwrap_or(
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    )
}

/// Refuses requests of foreign pages and by foreign names, answers the questions that browsers ask before those of
/// listed pages, and adds the headers that each answer has.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let guard = &app.0.guard;
    // A page that may ask may read the answer.
    let reader = request.headers().get(ORIGIN).cloned();
    let reader = reader.filter(|_| guard.would_pass(&request));
    let mut response = match judge(&app, &request) {
        Err(refusal) => {
            let hint = guard.untrusted_proxy(&request).map(|proxy| {
                format!(
                    "A proxy at {proxy} says more about the request than Latchbus believes: name it by \
                     --trusted-proxies {proxy} if it is yours."
                )
            });
            refused(&refusal, request.headers(), hint.as_deref())
        }
        Ok(()) if is_preflight(&request) => preflight(),
        Ok(()) if request.method() == Method::OPTIONS => options(),
        Ok(()) => {
            let way_in = account::way_in(&app, &request);
            let response = next.run(request).await;
            match way_in {
                Some(way_in) if response.status() == StatusCode::UNAUTHORIZED => {
                    (StatusCode::SEE_OTHER, [(LOCATION, way_in)]).into_response()
                }
                _ => response,
            }
        }
    };
    let own = response.extensions_mut().remove::<page::OwnPolicy>();
    let policy = own.map_or_else(|| app.0.page_policy.clone(), |own| own.0);
    let headers = response.headers_mut();
    if let Some(origin) = reader {
        allow(headers, origin);
    }
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    if app.0.config.allow_frames.is_empty() {
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    }
    for (name, value) in ALWAYS {
        headers.insert(name, value);
    }
    app.0.counts.answered(response.status());
    response
}

fn judge(app: &App, request: &Request) -> Result<(), Refusal> {
    let (guard, path) = (&app.0.guard, request.uri().path());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    // A load balancer's check; it is answered with what is known anyway.
    let asks = request.method() == Method::OPTIONS && !request.headers().contains_key(ORIGIN);
    let is_public = reads && (PUBLIC.contains(&path) || path == ORIGIN_PATH);
    if asks || is_public || path == TICKET {
        Ok(())
    } else if reads && (page::is_there(app, request) || socketio_client::is_script(path)) {
        // The files are the same for everyone, and no foreign page can read them. Browsers name an origin for modules, and
        // behind a proxy it cannot always be compared.
        guard.check_host(request)
    } else {
        guard.check(request)
    }
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
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, PUT, POST, DELETE"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "content-type, if-match, if-none-match",
        ),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn options() -> Response {
    let allow = (ALLOW, "GET, HEAD, OPTIONS, PUT, POST, DELETE");
    (StatusCode::NO_CONTENT, [allow]).into_response()
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("etag, last-modified"),
    );
}
