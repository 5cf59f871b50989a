//! The API: topics over HTTP.

use core::time::Duration;
use std::time::SystemTime;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use latchbus_bus::log::shown;
use latchbus_bus::{
    Client, Delivery, HISTORY_PAGE, Publish, PublishRefused, SubscribeRefused, frames,
};
use latchbus_core::topic::{TopicFilter, TopicName};
use percent_encoding::percent_decode_str;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::conditions::{self, etag, is_known};
use super::error::ApiError;
use super::listing::Listing;
use super::sign_in::client;
use super::{App, json};

/// Where the topics lie.
const PATH: &str = "/api/v1/topics";

/// Where their histories lie.
const HISTORY_PATH: &str = "/api/v1/history";

pub(super) fn router() -> Router<App> {
    Router::new()
        .route(PATH, get(list))
        .route(
            "/api/v1/topics/{*topic}",
            get(last).put(publish_state).post(publish_event),
        )
        .route("/api/v1/history/{*topic}", get(history))
}

/// A page of what a topic retains, the oldest first: the last `limit` messages, or those before revision `before`.
async fn history(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let topic = topic(HISTORY_PATH, request.uri())?;
    let (mut before, mut limit) = (None, HISTORY_PAGE as u64);
    let query = request.uri().query().unwrap_or_default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let number = |value: &str| {
            let number = value.parse::<u64>();
            number.map_err(|_| ApiError::bad_message(format_args!("`{pair}`: expected a number")))
        };
        match pair.split_once('=') {
            Some(("before", value)) if before.is_none() => before = Some(number(value)?),
            Some(("limit", value)) => limit = number(value)?,
            _ => return Err(ApiError::bad_message("expected `before=` and `limit=`")),
        }
    }
    if limit == 0 {
        return Err(ApiError::bad_message("limit is 0"));
    }
    let client = client(&app, &request).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = client.history(topic.borrowed(), before, limit)?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], frames::json::page(&page)).into_response())
}

/// Everything that is kept, matches the filter and may be read, `#` unless another is named: a JSON array, the oldest
/// change first, that is written as fast as the client reads it. A topic that changes meanwhile is in it once.
async fn list(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let filter = filter(request.uri().query().unwrap_or_default())?;
    let filter = TopicFilter::parse(filter.as_str()).map_err(ApiError::invalid_filter)?;
    let listing = Listing::begin(&client(&app, &request).await?, filter)?;
    let body = Body::from_stream(json::array(listing));
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], body).into_response())
}

/// In a query `+` stands for itself and not, as in forms, for a space: filters are full of it.
fn filter(query: &str) -> Result<String, ApiError> {
    let mut filter = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "filter" || filter.is_some() {
            return Err(ApiError::bad_message(
                "expected one `filter=` and nothing else",
            ));
        }
        filter = Some(decoded(value)?);
    }
    Ok(filter.unwrap_or_else(|| "#".to_owned()))
}

/// The last value, byte by byte.
async fn last(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let topic = topic(PATH, request.uri())?;
    let client = client(&app, &request).await?;
    if !client.may_read(topic.borrowed()) {
        return Err(SubscribeRefused::NotAllowed(topic.as_str().into()).into());
    }
    let delivery = client
        .last(topic.borrowed())
        .ok_or_else(ApiError::not_found)?;
    let etag = etag(app.0.bus.epoch(), delivery.rev);
    let validators = [
        header(ETAG, &etag)?,
        header(LAST_MODIFIED, &last_modified(&delivery))?,
    ];
    if is_known(request.headers(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, validators).into_response());
    }
    let payload = delivery.payload.bytes().clone();
    let content_type = HeaderValue::from_static(json::content_type(&payload));
    Ok((validators, [(CONTENT_TYPE, content_type)], payload).into_response())
}

async fn publish_state(app: State<App>, request: Request) -> Result<Response, ApiError> {
    publish(app, request, Publish::state).await
}

async fn publish_event(app: State<App>, request: Request) -> Result<Response, ApiError> {
    publish(app, request, Publish::event).await
}

/// Publishes the body, and answers when the message is accepted and, where it is to be durable, on disk.
async fn publish(
    State(app): State<App>,
    request: Request,
    publish: fn(TopicName<String>, Bytes) -> Publish,
) -> Result<Response, ApiError> {
    let topic = topic(PATH, request.uri())?;
    let expected = conditions::expected(request.headers(), app.0.bus.epoch())?;
    let client = client(&app, &request).await?;
    let payload = body(&app, &client, request).await?;
    let publish = Publish {
        expected: expected.map(Box::new),
        ..publish(topic.clone(), payload)
    };
    let accepted = timeout(app.0.config.publish_timeout, client.publish(publish)).await;
    // The message may still be accepted: it cannot be taken back from the store's queue.
    let late =
        |_| ApiError::unavailable("the store does not answer; the message may be accepted later");
    let rev = accepted.map_err(late)??.rev;
    let mut response = format!("{{\"rev\":{rev}}}\n").into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    // A press or a clear leaves no value behind, and an event leaves the one before.
    let last = app.0.bus.last(topic.borrowed());
    if last.is_some_and(|last| last.rev == rev) {
        let (name, value) = header(ETAG, &etag(app.0.bus.epoch(), rev))?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// How much of a body that is refused is still read, and for how long.
const DRAIN_BYTES: usize = 4 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Reads a body that is at most as long as a payload may be.
pub(super) async fn body(app: &App, client: &Client, request: Request) -> Result<Bytes, ApiError> {
    let limit = app.0.bus.limits().payload_bytes;
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let path = request.uri().path().to_owned();
    let too_large = || {
        let metrics = app.0.bus.metrics();
        metrics.publishes_refused.add(1);
        metrics.publishes_too_large.add(1);
        warn_of_limit(
            client,
            &path,
            "payload too large",
            limit,
            "limits.payload_bytes",
        );
        ApiError::too_large(limit)
    };
    let mut pieces = request.into_body().into_data_stream();
    if announced.is_some_and(|length| length > limit as u64) {
        drain(&mut pieces).await;
        return Err(too_large());
    }
    let mut hold = app.0.bus.incoming().hold();
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(ApiError::bad_message)?;
            if piece.len() > limit - bytes.len() {
                drain(&mut pieces).await;
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
            if let Err(exceeded) = hold.set(bytes.len()) {
                drain(&mut pieces).await;
                let (limit, setting) = (exceeded.limit, "limits.incoming_bytes");
                warn_of_limit(client, &path, "no memory for its body", limit, setting);
                return Err(ApiError::unavailable(exceeded));
            }
        }
        Ok(bytes.freeze())
    };
    tokio::select! {
        read = read => read,
        () = sleep(app.0.config.body_timeout) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "bad_message",
            "the body did not come in time",
        )),
        () = app.0.closing.cancelled() => Err(PublishRefused::Closed.into()),
    }
}

/// Reads on for a while what is not taken: to close on bytes that were not read resets the connection, and the answer
/// may be lost with it (RFC 9112 §9.6).
async fn drain(pieces: &mut BodyDataStream) {
    let reading = async {
        let mut read = 0;
        while read < DRAIN_BYTES
            && let Some(Ok(piece)) = pieces.next().await
        {
            read += piece.len();
        }
    };
    let _still_sending = timeout(DRAIN_TIME, reading).await;
}

fn warn_of_limit(client: &Client, path: &str, why: &str, limit: usize, setting: &str) {
    let key = client.principal().log_key(setting);
    let Some(left_out) = client.bus().log_limit().allow(&key) else {
        return;
    };
    let principal = client.principal();
    let (user, address, path) = (principal.shown_user(), client.shown_address(), shown(path));
    warn!(target: "http", user, address, path, limit, setting, left_out, "publish rejected: {why}");
}

/// The topic in an address: all that follows the path, slashes included.
fn topic(path: &str, uri: &Uri) -> Result<TopicName<String>, ApiError> {
    let topic = uri
        .path()
        .strip_prefix(path)
        .and_then(|rest| rest.strip_prefix('/'));
    let topic = decoded(topic.unwrap_or_default())?;
    TopicName::parse(topic).map_err(ApiError::invalid_topic)
}

/// What percent signs stand for in a part of an address.
pub(super) fn decoded(text: &str) -> Result<String, ApiError> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| ApiError::bad_message("the address is not UTF-8"))?;
    Ok(decoded.into_owned())
}

fn last_modified(delivery: &Delivery) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(delivery.at);
    httpdate::fmt_http_date(at)
}

fn header(name: HeaderName, value: &str) -> Result<(HeaderName, HeaderValue), ApiError> {
    let value = HeaderValue::from_str(value);
    let value = value
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_in_addresses() {
        for (path, expected) in [
            ("/api/v1/topics/lab/temp", Some("lab/temp")),
            ("/api/v1/topics//lab//", Some("/lab//")),
            (
                "/api/v1/topics/%2Flab%2F%C3%A9%20%25",
                Some("/lab/\u{e9} %"),
            ),
            ("/api/v1/topics/$SYS/x", Some("$SYS/x")),
            ("/api/v1/topics/", None),
            ("/api/v1/topics/a%00", None),
            ("/api/v1/topics/a+", None),
            ("/api/v1/topics/%23", None),
            ("/api/v1/topics/%ff", None),
        ] {
            let found = topic(PATH, &path.parse().unwrap()).ok();
            let found = found.as_ref().map(TopicName::as_str);
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn filters_in_queries() {
        for (query, expected) in [
            ("", Some("#")),
            ("filter=clicks/+/values", Some("clicks/+/values")),
            ("filter=clicks%2F%2B%2F%23", Some("clicks/+/#")),
            ("filter=a=b", Some("a=b")),
            ("filter=", Some("")),
            ("filter=a&filter=b", None),
            ("fitler=a", None),
            ("filter=%ff", None),
        ] {
            assert_eq!(filter(query).ok().as_deref(), expected, "{query}");
        }
    }
}
