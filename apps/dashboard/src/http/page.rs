//! The dashboard: files that are part of the program.

use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::topics::is_known;

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

/// Answers whatever no other route does.
pub(super) async fn page(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path() {
        "/" => "/index.html",
        "/topics" => "/topics.html",
        path => path,
    };
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return ApiError::not_found().into_response();
    };
    if !matches!(method, Method::GET | Method::HEAD) {
        let allowed = [(ALLOW, HeaderValue::from_static("GET, HEAD"))];
        return (allowed, ApiError::method()).into_response();
    }
    let etag = (ETAG, HeaderValue::from_static(asset.etag));
    if is_known(&headers, asset.etag) {
        return (StatusCode::NOT_MODIFIED, [etag]).into_response();
    }
    let content_type = HeaderValue::from_static(asset.content_type);
    ([etag, (CONTENT_TYPE, content_type)], asset.bytes).into_response()
}
