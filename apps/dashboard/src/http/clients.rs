//! The API: who is connected, which sessions are kept, and the end of either. For administrators.

use core::net::SocketAddr;
use core::str::FromStr;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use latchbus_bus::{
    AdminError, CLIENTS_PAGE, Client, Connected, Identity, MAX_CLIENTS_PAGE, Principal, Subscribed,
};
use latchbus_mqtt::server::SessionAway;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use super::operate;
use super::sign_in::client;
use super::topics::decoded;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/clients/{id}", delete(disconnect))
        .route("/api/v1/clients/{id}/subscriptions", get(subscriptions))
        .route("/api/v1/sessions", get(sessions).delete(end_named))
        .route("/api/v1/sessions/{client_id}", delete(end_session))
}

/// Bytes of what is searched for.
const MAX_SEARCH_BYTES: usize = 256;

/// What is searched for in a list, without regard to case.
struct Search(String);

impl Search {
    fn of(text: &str) -> Result<Self, ApiError> {
        match text.len() {
            ..=MAX_SEARCH_BYTES => Ok(Self(text.to_lowercase())),
            bytes => Err(ApiError::bad_message(format!(
                "a search of {bytes} bytes is longer than {MAX_SEARCH_BYTES}"
            ))),
        }
    }

    /// Whether it is a part of the name, the client identifier, the transport or the address.
    fn finds(&self, principal: &Principal, address: Option<SocketAddr>) -> bool {
        let is_in = |text: &str| text.to_lowercase().contains(&self.0);
        self.0.is_empty()
            || is_in(&principal.client_id)
            || principal.identity.name().is_some_and(is_in)
            || is_in(principal.transport)
            || address.is_some_and(|address| is_in(&address.to_string()))
    }
}

/// Where a page begins, its length, and what of the list it shows.
struct Page<T> {
    after: Option<T>,
    limit: usize,
    search: Option<Search>,
}

impl<T: FromStr> Page<T> {
    fn of(request: &Request) -> Result<Self, ApiError> {
        let (mut after, mut limit, mut search) = (None, CLIENTS_PAGE, None);
        let query = request.uri().query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let bad =
                || ApiError::bad_message("expected `after=`, `limit=` and `search=`, each once");
            let (name, value) = pair.split_once('=').ok_or_else(bad)?;
            let value = decoded(value)?;
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
                "search" if search.is_none() => search = Some(Search::of(&value)?),
                _ => return Err(bad()),
            }
        }
        Ok(Self {
            after,
            limit,
            search,
        })
    }

    /// Whether an entry is of those that are searched for.
    fn finds(&self, principal: &Principal, address: Option<SocketAddr>) -> bool {
        let search = self.search.as_ref();
        search.is_none_or(|search| search.finds(principal, address))
    }

    /// The list as an answer; `next` is what the next page begins behind, and is left out where there is none. `total`: how many
    /// there are over all pages, where that is known.
    fn answer<E>(
        &self,
        name: &str,
        (listed, total): (&[E], Option<usize>),
        entry: impl Fn(&E) -> Value,
        next: impl Fn(&E) -> Value,
    ) -> Response {
        let mut answer = serde_json::Map::new();
        answer.insert(name.to_owned(), listed.iter().map(entry).collect());
        if let Some(last) = listed.last().filter(|_| listed.len() >= self.limit) {
            answer.insert("next".to_owned(), next(last));
        }
        answer.extend(total.map(|total| ("total".to_owned(), total.into())));
        json(&Value::Object(answer))
    }
}

async fn clients(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let page = Page::<u64>::of(&request)?;
    let admin = client(&app, &request).await?;
    let is_wanted = |principal: &Principal, address| page.finds(principal, address);
    let after = page.after.unwrap_or_default();
    let (clients, total) = admin.find_clients(after, page.limit, is_wanted)?;
    let listed = (&*clients, Some(total));
    Ok(page.answer("clients", listed, connected, |last| last.id.into()))
}

async fn subscriptions(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let page = Page::<u64>::of(&request)?;
    if page.search.is_some() {
        return Err(ApiError::bad_message("subscriptions are not searched"));
    }
    let admin = client(&app, &request).await?;
    let from = page.after.map_or(0, |after| after.saturating_add(1));
    let id = number(&admin, "list-subscriptions", &id)?;
    let subscriptions = admin.subscriptions_of(id, from, page.limit)?;
    let listed = (&*subscriptions, None);
    Ok(page.answer("subscriptions", listed, subscribed, |last| last.id.into()))
}

async fn sessions(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let page = Page::<String>::of(&request)?;
    let admin = client(&app, &request).await?;
    let after = page.after.as_deref().unwrap_or_default();
    let is_wanted = |principal: &Principal| page.finds(principal, None);
    let (sessions, total) = (app.0.mqtt).find_sessions(&admin, after, page.limit, is_wanted)?;
    let listed = (&*sessions, Some(total));
    Ok(page.answer("sessions", listed, away, |last| {
        last.client_id.as_str().into()
    }))
}

async fn disconnect(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = client(&app, &request).await?;
    let id = number(&admin, "disconnect", &id)?;
    admin.disconnect(id)?;
    Ok(json(&json!({"id": id, "disconnected": true})))
}

async fn end_session(
    State(app): State<App>,
    Path(client_id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let admin = client(&app, &request).await?;
    end(&app, &admin, &client_id).await
}

/// The client identifier in the query: one that is `..` is no part of a path that a browser leaves alone.
async fn end_named(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let query = request.uri().query().unwrap_or_default();
    let client_id = query
        .strip_prefix("client_id=")
        .filter(|id| !id.contains('&'));
    let client_id = client_id.ok_or_else(|| ApiError::bad_message("expected `client_id=`"))?;
    let client_id = decoded(client_id)?;
    let admin = client(&app, &request).await?;
    end(&app, &admin, &client_id).await
}

async fn end(app: &App, admin: &Client, client_id: &str) -> Result<Response, ApiError> {
    app.0.mqtt.end_session(admin, client_id).await?;
    Ok(json(&json!({"client_id": client_id, "ended": true})))
}

/// The number of a client.
fn number(admin: &Client, action: &str, id: &str) -> Result<u64, ApiError> {
    let errors = (AdminError::UnknownClient, AdminError::NotAllowed);
    operate::number(admin, action, id, errors)
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
        "mode": subscription.mode.name(),
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
