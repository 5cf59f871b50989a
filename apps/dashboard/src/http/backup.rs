//! The API: everything at once, for backups. See [`crate::backup`] for the lines.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use latchbus_bus::{Client, PublishRefused, audit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::App;
use super::error::ApiError;
use super::sign_in::client;
use crate::backup::import::{Merge, MergeError};
use crate::backup::{Reader, Totals, Writer};

/// Exports at a time: each holds a pointer to every value, as it was when the export began.
const EXPORTS: usize = 4;

/// Imports at a time: each may hold a long line, and a slow one keeps its place.
const IMPORTS: usize = 4;

/// How many exports and imports may begin.
#[derive(Debug)]
pub(super) struct Places {
    exports: Arc<Semaphore>,
    imports: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            exports: Arc::new(Semaphore::new(EXPORTS)),
            imports: Arc::new(Semaphore::new(IMPORTS)),
        }
    }
}

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/export", get(export))
        .route("/api/v1/import", post(import))
}

/// A snapshot as JSON lines, written as fast as the client reads it.
async fn export(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let place = place(&app.0.places.exports, "exports")?;
    let client = client(&app, &request).await?;
    let export = timeout(app.0.config.publish_timeout, client.export()).await;
    let writer = Writer::new(export.map_err(|_| late())??);
    let pieces = stream::try_unfold((writer, place), |(mut writer, place)| async {
        let piece = writer.piece().map_err(io::Error::from)?;
        Ok::<_, io::Error>(piece.map(|piece| (Bytes::from(piece), (writer, place))))
    });
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=\"latchbus-export.jsonl\"",
        ),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Merges the body, record by record as it comes. After an error those before the named line are merged,
/// which does no harm: the whole can be sent again.
async fn import(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let _place = place(&app.0.places.imports, "imports")?;
    let client = client(&app, &request).await?;
    let mut import = Import::new(client);
    let merged = tokio::select! {
        merged = merge(&app, &mut import.merge, request) => merged,
        () = app.0.closing.cancelled() => Err(PublishRefused::Closed.into()),
    };
    let refused = |error: &ApiError| error.message().to_owned();
    import.ended = Some(merged.as_ref().map(|_| ()).map_err(refused));
    let Totals {
        values, devices, ..
    } = merged?;
    let json = HeaderValue::from_static("application/json");
    let body = format!("{{\"values\":{values},\"devices\":{devices}}}\n");
    Ok(([(CONTENT_TYPE, json)], body).into_response())
}

/// An import, of which the log tells auditors once, whatever becomes of it.
struct Import {
    merge: Merge,
    /// What has come of it. None: its client went away.
    ended: Option<Result<(), String>>,
}

impl Import {
    fn new(client: Client) -> Self {
        Self {
            merge: Merge::new(client),
            ended: None,
        }
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        let totals = self.merge.merged();
        let client = self.merge.client();
        let cut = || Err("the connection was cut".to_owned());
        let result = self.ended.take().unwrap_or_else(cut);
        let Totals {
            values,
            devices,
            rooms,
        } = totals;
        audit::import(client, [values, devices, rooms], result.as_ref());
    }
}

async fn merge(app: &App, merge: &mut Merge, request: Request) -> Result<Totals, ApiError> {
    let merged = read(app, merge, request).await;
    if merged.is_err() {
        // What was taken before is merged, and counted.
        let _may_be_refused_too = timeout(app.0.config.publish_timeout, merge.finish()).await;
    }
    merged
}

async fn read(app: &App, merge: &mut Merge, request: Request) -> Result<Totals, ApiError> {
    let mut reader = Reader::default();
    let mut pieces = request.into_body().into_data_stream();
    let config = &app.0.config;
    loop {
        let piece = timeout(config.body_timeout, pieces.next()).await;
        let Some(piece) = piece.map_err(|_| silent())? else {
            break;
        };
        let piece = piece.map_err(ApiError::bad_message)?;
        let mut records = Vec::new();
        let fed = reader.feed(&piece, |line, record| records.push((line, record)));
        for (line, record) in records {
            let taken = timeout(config.publish_timeout, merge.take(line, record)).await;
            taken.map_err(|_| late())??;
        }
        fed.map_err(ApiError::bad_message)?;
    }
    let totals = reader.finish().map_err(ApiError::bad_message)?;
    let finished = timeout(config.publish_timeout, merge.finish()).await;
    finished.map_err(|_| late())??;
    Ok(totals)
}

fn place(places: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, ApiError> {
    let place = Arc::clone(places).try_acquire_owned();
    place.map_err(|_| ApiError::unavailable(format!("as many {what} as may be are under way")))
}

fn late() -> ApiError {
    ApiError::unavailable("the store does not answer")
}

fn silent() -> ApiError {
    ApiError::new(
        StatusCode::REQUEST_TIMEOUT,
        "bad_message",
        "the body did not come in time",
    )
}

impl From<MergeError> for ApiError {
    fn from(error: MergeError) -> Self {
        Self::from(error.refused.clone()).with_message(error)
    }
}
