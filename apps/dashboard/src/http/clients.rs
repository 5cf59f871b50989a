//! The API: who is connected, which sessions are kept, and the end of either. For administrators.

use core::str::FromStr;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use latchbus_bus::{
    AdminError, CLIENTS_PAGE, Connected, Identity, MAX_CLIENTS_PAGE, Mode, Principal, Subscribed,
};
use latchbus_mqtt::server::SessionAway;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::sign_in::client;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/clients/{id}", delete(disconnect))
        .route("/api/v1/clients/{id}/subscriptions", get(subscriptions))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/sessions/{client_id}", delete(end_session))
}

/// Where a page begins, and its length.
struct Page<T> {
    after: Option<T>,
    limit: usize,
}

impl<T: FromStr> Page<T> {
    fn of(request: &Request) -> Result<Self, ApiError> {
        let (mut after, mut limit) = (None, CLIENTS_PAGE);
        let query = request.uri().query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let bad = || ApiError::bad_message("expected `after=` and `limit=`, each once");
            let (name, value) = pair.split_once('=').ok_or_else(bad)?;
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| ApiError::bad_message("the address is not UTF-8"))?;
            match name {
                "after" if after.is_none() => after = Some(value.parse().map_err(|_| bad())?),
                "limit" => {
                    let number: usize = value.parse().map_err(|_| bad())?;
                    if !(1..=MAX_CLIENTS_PAGE).contains(&number) {
                        let message = format!("expected a limit from 1 to {MAX_CLIENTS_PAGE}");
                        return Err(ApiError::bad_message(message));
                    }
                    limit = number;
                }
                _ => return Err(bad()),
            }
        }
        Ok(Self { after, limit })
    }

    /// The list as an answer; `next` is what the next page begins behind, and is left out where there is none.
    fn answer<E>(
        &self,
        name: &str,
        listed: &[E],
        entry: impl Fn(&E) -> Value,
        next: impl Fn(&E) -> Value,
    ) -> Response {
        let mut answer = serde_json::Map::new();
        answer.insert(name.to_owned(), listed.iter().map(entry).collect());
        if let Some(last) = listed.last().filter(|_| listed.len() >= self.limit) {
            answer.insert("next".to_owned(), next(last));
        }
        json(&Value::Object(answer))
    }
}

async fn clients(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let page = Page::<u64>::of(&request)?;
    let admin = client(&app, &request).await?;
    let clients = admin.clients(page.after.unwrap_or_default(), page.limit)?;
    Ok(page.answer("clients", &clients, connected, |last| last.id.into()))
}

async fn subscriptions(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let page = Page::<u64>::of(&request)?;
    let admin = client(&app, &request).await?;
    let from = page.after.map_or(0, |after| after.saturating_add(1));
    let id = number(&id)?;
    let subscriptions = admin.subscriptions_of(id, from, page.limit)?;
    Ok(
        page.answer("subscriptions", &subscriptions, subscribed, |last| {
            last.id.into()
        }),
    )
}

async fn sessions(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let page = Page::<String>::of(&request)?;
    let admin = client(&app, &request).await?;
    let after = page.after.as_deref().unwrap_or_default();
    let sessions = app.0.mqtt.sessions(&admin, after, page.limit)?;
    Ok(page.answer("sessions", &sessions, away, |last| {
        last.client_id.as_str().into()
    }))
}

async fn disconnect(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = client(&app, &request).await?;
    let id = number(&id)?;
    admin.disconnect(id)?;
    Ok(json(&json!({"id": id, "disconnected": true})))
}

async fn end_session(
    State(app): State<App>,
    Path(client_id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = client(&app, &request).await?;
    app.0.mqtt.end_session(&admin, &client_id).await?;
    Ok(json(&json!({"client_id": client_id, "ended": true})))
}

/// What is no number is no client's.
fn number(id: &str) -> Result<u64, ApiError> {
    id.parse().map_err(|_| AdminError::UnknownClient.into())
}

fn connected(client: &Connected) -> Value {
    let mut entry = json!({
        "id": client.id,
        "transport": client.principal.transport,
        "since": client.since,
        "subscriptions": client.subscriptions,
        "pending": client.pending,
        "in_flight": client.in_flight,
        "lost": client.conflated + client.skipped,
    });
    if let Some(entry) = entry.as_object_mut() {
        entry.extend(who(&client.principal));
        let address = client.address.map(|address| address.to_string().into());
        entry.extend(address.map(|address| ("address".to_owned(), address)));
        let keep_alive = client.keep_alive.map(|time| time.as_secs().into());
        entry.extend(keep_alive.map(|secs| ("keep_alive_secs".to_owned(), secs)));
    }
    entry
}

fn away(session: &SessionAway) -> Value {
    let mut entry = json!({
        "client_id": session.client_id,
        "id": session.id,
        "expires_in_secs": session.expires_in.as_secs(),
        "subscriptions": session.subscriptions,
        "pending": session.pending,
        "in_flight": session.in_flight,
        "stored": session.is_durable,
        "will": session.has_will,
    });
    if let Some(entry) = entry.as_object_mut() {
        entry.extend(who(&session.principal));
    }
    entry
}

fn subscribed(subscription: &Subscribed) -> Value {
    let mut entry = json!({
        "id": subscription.id,
        "filter": subscription.filter,
        "mode": match subscription.mode {
            Mode::Latest => "latest",
            Mode::Every => "every",
        },
        "stored": subscription.is_durable,
        "pending": subscription.pending,
        "lost": subscription.conflated + subscription.skipped,
    });
    if let (Some(entry), Some(group)) = (entry.as_object_mut(), &subscription.group) {
        entry.insert("group".to_owned(), group.as_str().into());
    }
    entry
}

/// Its name, the way that it was proved, and what it calls itself.
fn who(principal: &Principal) -> impl Iterator<Item = (String, Value)> {
    let identity = match principal.identity {
        Identity::User(_) => "user",
        Identity::Token { .. } => "token",
        Identity::Certificate { .. } => "certificate",
        Identity::Process => "process",
        _ => "anonymous",
    };
    let client_id = (!principal.client_id.is_empty()).then_some(principal.client_id.as_str());
    [
        ("identity", Some(identity)),
        ("user", principal.identity.name()),
        ("client_id", client_id),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
}

fn json(answer: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], format!("{answer}\n")).into_response()
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        let (status, code) = match error {
            AdminError::NotAllowed => (StatusCode::FORBIDDEN, "not_allowed"),
            AdminError::StillConnected => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            _ => (StatusCode::NOT_FOUND, "not_found"),
        };
        Self::new(status, code, error)
    }
}
