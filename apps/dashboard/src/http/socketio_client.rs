//! `/socket.io/socket.io.js`: the browser's client of Socket.IO, from the folder of its npm package, as Socket.IO's own
//! server serves it.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::App;
use super::error::ApiError;
use super::files::{Accepted, Files, Found, Names};

/// The files of `dist/` that are served, each with its source map beside it.
const SCRIPTS: [&str; 4] = [
    "socket.io.js",
    "socket.io.min.js",
    "socket.io.esm.min.js",
    "socket.io.msgpack.min.js",
];

/// Where they lie below the folder that is named: the package, what was installed, the project, the server's package.
const BELOW: [&str; 6] = [
    "",
    "dist",
    "socket.io-client/dist",
    "node_modules/socket.io-client/dist",
    "client-dist",
    "node_modules/socket.io/client-dist",
];

/// The client's scripts.
#[derive(Debug, Clone)]
pub struct SocketioClient {
    files: Files,
}

/// No client there.
#[derive(Debug, thiserror::Error)]
#[error("{} holds no client of Socket.IO: name the folder of the npm package socket.io-client", path.display())]
pub struct NoSocketioClient {
    path: PathBuf,
}

impl SocketioClient {
    /// The client in the folder of the npm package `socket.io-client`, or in that of a project in which it is installed.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(path: &Path) -> Result<Self, NoSocketioClient> {
        let has_client =
            |folder: &PathBuf| SCRIPTS.iter().any(|script| folder.join(script).is_file());
        let found = BELOW.iter().map(|below| path.join(below)).find(has_client);
        found
            .map(|root| Self {
                files: Files::new(root),
            })
            .ok_or_else(|| NoSocketioClient {
                path: path.to_owned(),
            })
    }
}

/// One address for each script and map.
pub(super) fn router() -> Router<App> {
    let names = SCRIPTS
        .iter()
        .flat_map(|script| [(*script).to_owned(), format!("{script}.map")]);
    names.fold(Router::new(), |router, name| {
        router.route(&format!("/socket.io/{name}"), get(script))
    })
}

/// Whether an address is one of these: the files are the same for everyone.
pub(super) fn is_script(path: &str) -> bool {
    let name = path
        .strip_prefix("/socket.io/")
        .map(|name| name.strip_suffix(".map").unwrap_or(name));
    name.is_some_and(|name| SCRIPTS.contains(&name))
}

async fn script(State(app): State<App>, request: Request) -> Response {
    let Some(client) = app.0.config.socketio_client.clone() else {
        let message = "no client is named: --socketio-client DIR, the folder of the npm package socket.io-client";
        if let Some(left_out) = app.0.bus.log_limit().allow("socketio client") {
            tracing::warn!(target: "http", path = request.uri().path(), setting = "socketio_client", left_out, "{message}");
        }
        return ApiError::new(StatusCode::NOT_FOUND, "not_found", message).into_response();
    };
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let name = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let accepted = Accepted::read(&headers);
    let find = move || client.files.find(&Names::file(&name), accepted);
    debug_assert!(matches!(method, Method::GET | Method::HEAD));
    match tokio::task::spawn_blocking(find).await {
        Ok(Ok(Found::File(opened))) => opened.answer(&method, &headers),
        Ok(Ok(Found::Folder | Found::Nothing)) => ApiError::not_found().into_response(),
        Ok(Err(error)) => {
            tracing::warn!(target: "http", path = request.uri().path(), %error, "a file cannot be served");
            ApiError::not_found().into_response()
        }
        Err(_) => ApiError::unavailable("the server is stopping").into_response(),
    }
}
