//! The API: what an administrator does with rooms and devices.

use core::fmt::Display;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use latchbus_bus::{Client, Operate, Operated, OperationError, audit};
use latchbus_core::clicks::Counter;
use tokio::time::timeout;

use super::App;
use super::error::ApiError;
use super::sign_in::client;
use super::topics::body;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/rooms/{room}/reset", post(reset))
        .route("/api/v1/rooms/{room}/devices/{device}", delete(remove))
        .route("/api/v1/undo/{id}", post(undo))
}

/// The body says with which counts the room begins, `{"red":5,"blue":2}`; without one it begins with none.
async fn reset(
    State(app): State<App>,
    Path(room): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let client = client(&app, &request).await?;
    let body = body(&app, &client, request).await?;
    let counts = match body.trim_ascii() {
        b"" => Counter::ZERO,
        json @ [b'{', ..] => Counter::parse(json).map_err(ApiError::bad_message)?,
        _ => return Err(ApiError::bad_message("expected the counts as JSON")),
    };
    operate(&app, &client, Operate::ResetRoom { room, counts }).await
}

async fn remove(
    State(app): State<App>,
    Path((room, device)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let client = client(&app, &request).await?;
    operate(&app, &client, Operate::RemoveDevice { room, device }).await
}

async fn undo(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let client = client(&app, &request).await?;
    let kind = Operate::Undo { id: 0 }.kind();
    let unknown = OperationError::UnknownOperation;
    let id = number(&client, kind, &id, (unknown, OperationError::NotAllowed))?;
    operate(&app, &client, Operate::Undo { id }).await
}

/// The number that names what an action is about. What is none is `unknown`, and was asked for all the same, by who may ask or may not.
pub(super) fn number<E: Display + Into<ApiError>>(
    client: &Client,
    action: &str,
    id: &str,
    (unknown, not_allowed): (E, E),
) -> Result<u64, ApiError> {
    id.parse().map_err(|_| {
        let error = match client.may_administer() {
            true => unknown,
            false => not_allowed,
        };
        audit::action(client, action, id, Err(&error));
        error.into()
    })
}

/// Answers when the operation is on disk, if anything is.
async fn operate(app: &App, client: &Client, operate: Operate) -> Result<Response, ApiError> {
    let operated = timeout(app.0.config.publish_timeout, client.operate(operate)).await;
    let late =
        |_| ApiError::unavailable("the store does not answer; the operation may be made later");
    let Operated {
        id,
        room,
        device,
        from,
        to,
        undo_until,
        ..
    } = operated.map_err(late)??;
    let mut answer = serde_json::json!({
        // A string: it stands for nothing but itself.
        "id": id.to_string(),
        "room": room,
        "from": from,
        "to": to,
    });
    if let Some(answer) = answer.as_object_mut() {
        answer.extend(device.map(|device| ("device".to_owned(), device.into())));
        answer.extend(undo_until.map(|until| ("undo_until".to_owned(), until.into())));
    }
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], format!("{answer}\n")).into_response())
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        let (status, code) = match error {
            OperationError::Refused(refused) => return refused.into(),
            OperationError::NotAllowed => (StatusCode::FORBIDDEN, "not_allowed"),
            OperationError::TooLate => (StatusCode::GONE, "too_late"),
            _ => (StatusCode::NOT_FOUND, "not_found"),
        };
        Self::new(status, code, error)
    }
}
