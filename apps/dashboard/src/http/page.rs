//! The dashboard: files that are part of the program; and pages of one's own in its place.

use core::hash::{Hash as _, Hasher as _};
use core::str;
use std::hash::DefaultHasher;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use latchbus_bus::Client;

use super::base::{Base, Dashboard};
use super::conditions::is_known;
use super::error::ApiError;
use super::sign_in::client;
use super::{App, pages};

/// In the extensions of an answer: the `Content-Security-Policy` in the place of the dashboard's.
#[derive(Debug, Clone)]
pub(super) struct OwnPolicy(pub(super) HeaderValue);

struct Asset {
    /// As in the address, with its slash.
    path: &'static str,
    content_type: &'static str,
    /// Of the bytes, quoted.
    etag: &'static str,
    bytes: &'static [u8],
}

/// Everything below `page/`; the build script writes the list.
const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

fn asset(path: &str) -> Option<&'static Asset> {
    let (path, extension) = match path.strip_prefix('/')? {
        "" => ("/index", ".html"),
        name if PAGES.contains(&name) => (path, ".html"),
        _ => (path, ""),
    };
    let mut assets = ASSETS.iter();
    assets.find(|asset| asset.path.strip_suffix(extension) == Some(path))
}

/// The pages beside the first one, as in the address.
const PAGES: [&str; 3] = ["chat", "clients", "topics"];

/// The name of a page to whose address a slash was added: what it names is relative to the address without it.
fn name_before_slash(path: &str) -> Option<&str> {
    let name = path.strip_prefix('/')?.strip_suffix('/')?;
    PAGES.contains(&name).then_some(name)
}

/// Whether this is an address of files that are the same for everyone.
pub(super) fn is_there(app: &App, request: &Request) -> bool {
    let path = request.uri().path();
    if app.0.config.pages.is_none() || is_dashboard(request) {
        asset(path).is_some() || path == DASHBOARD || name_before_slash(path).is_some()
    } else {
        !pages::is_reserved(path) || path == DASHBOARD
    }
}

/// The dashboard, where `/` may be something else; its pages name their files and addresses relative to it.
const DASHBOARD: &str = "/latchbus";

fn is_dashboard(request: &Request) -> bool {
    request.extensions().get::<Dashboard>().is_some()
}

/// Answers whatever no other route does.
pub(super) async fn page(State(app): State<App>, request: Request) -> Response {
    let path = request.uri().path();
    if !is_dashboard(&request) {
        if path == DASHBOARD && matches!(*request.method(), Method::GET | Method::HEAD) {
            let location = [(LOCATION, HeaderValue::from_static("latchbus/"))];
            return (StatusCode::PERMANENT_REDIRECT, location).into_response();
        }
        if let Some(pages) = &app.0.config.pages
            && !pages::is_reserved(path)
        {
            let pages = pages.clone();
            let policy = OwnPolicy(app.0.own_policy.clone());
            let mut response = pages::answer(app, pages, request).await;
            response.extensions_mut().insert(policy);
            return response;
        }
    }
    let (path, reads) = (
        request.uri().path(),
        matches!(*request.method(), Method::GET | Method::HEAD),
    );
    if let Some(name) = name_before_slash(path).filter(|_| reads) {
        let query = request.uri().query();
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        // Relative: below which path a proxy serves this is not always known here.
        if let Ok(location) = HeaderValue::from_str(&format!("../{name}{query}")) {
            return (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response();
        }
    }
    let Some(asset) = asset(path) else {
        return ApiError::not_found().into_response();
    };
    if !reads {
        let allowed = [(ALLOW, HeaderValue::from_static("GET, HEAD"))];
        return (allowed, ApiError::method()).into_response();
    }
    if !asset.content_type.starts_with("text/html") {
        let body = Body::from(asset.bytes);
        return answer(asset, body, asset.etag, request.headers());
    }
    // Scripts and styles are the same for everyone, and so that the form can be shown they are everyone's.
    let client = match client(&app, &request).await {
        Ok(client) => client,
        Err(refused) => return refused.into_response(),
    };
    let Some((bytes, etag)) = written(asset, &request, &app, &client) else {
        return answer(
            asset,
            Body::from(asset.bytes),
            asset.etag,
            request.headers(),
        );
    };
    answer(asset, Body::from(bytes), &etag, request.headers())
}

fn answer(asset: &Asset, body: Body, etag: &str, headers: &HeaderMap) -> Response {
    let mut response = if is_known(headers, etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let content_type = HeaderValue::from_static(asset.content_type);
        ([(CONTENT_TYPE, content_type)], body).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// The element that says below which path a page is served, where that is known.
pub(super) fn base_element(request: &Request) -> String {
    match request.extensions().get::<Base>() {
        Some(Base(path)) => format!("\n    <base href=\"{path}\">"),
        None => String::new(),
    }
}

/// A page with what its request shows: the host as it came here, with which the page compares its own, the path below which it is
/// served, where that is known, and what who asks is not offered.
fn written(
    asset: &Asset,
    request: &Request,
    app: &App,
    client: &Client,
) -> Option<(String, String)> {
    let page = str::from_utf8(asset.bytes).ok()?;
    // Both hold letters, digits and a few signs, none of which means anything in HTML.
    let host = app.0.guard.host(request).unwrap_or_default();
    let (before, rest) = page.split_once("<html lang=\"en\">")?;
    let (head, rest) = rest.split_once("<head>")?;
    let base = base_element(request);
    let mut withheld = String::new();
    if !client.may_administer() {
        withheld.push_str(" data-admin=\"false\"");
    }
    if !(app.0.bus.authorizer()).may_publish_anything(&client.principal()) {
        withheld.push_str(" data-publishes=\"false\"");
    }
    let page = format!(
        "{before}<html lang=\"en\" data-host=\"{host}\"{withheld}>{head}<head>{base}{rest}"
    );
    let mut hasher = DefaultHasher::new();
    (&host, &base, &withheld).hash(&mut hasher);
    let etag = format!(
        "{}-{:x}\"",
        asset.etag.trim_end_matches('"'),
        hasher.finish()
    );
    Some((page, etag))
}
