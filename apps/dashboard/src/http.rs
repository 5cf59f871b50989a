//! HTTP: the dashboard, the API, health and metrics, and the way in for WebSockets.
//!
//! | path | answer |
//! |---|---|
//! | `GET /` and the files of the page | pages of one's own, or else the dashboard, which is always at `/latchbus/` |
//! | `GET /healthz` | 200 and `ok`, or `warning:` and what is nearly full; 503 and why |
//! | `GET /readyz` | 200 and `ready` while clients may be sent here; 503 and why |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/v1/topics?filter=` | what is kept, as JSON |
//! | `GET`, `PUT`, `POST /api/v1/topics/<topic>` | the last value; publish state; publish an event |
//! | `GET /api/v1/history/<topic>?before=&limit=` | what the topic retains, page by page |
//! | `GET /api/v1/export` | a snapshot of all that is kept, as JSON lines |
//! | `POST /api/v1/import` | merges such lines |
//! | `POST /api/v1/rooms/<room>/reset` | the room begins anew, with the counts in the body |
//! | `DELETE /api/v1/rooms/<room>/devices/<device>` | removes a device with its clicks |
//! | `POST /api/v1/undo/<id>` | undoes one of these two within a minute |
//! | `GET /api/v1/clients?after=&limit=` | who is connected, page by page |
//! | `DELETE /api/v1/clients/<id>` | ends the connection of a client |
//! | `GET /api/v1/clients/<id>/subscriptions` | its subscriptions |
//! | `GET /api/v1/sessions?after=&limit=` | MQTT sessions whose clients are away |
//! | `DELETE /api/v1/sessions/<client id>` | ends a session, and the connection of its client first |
//! | `GET /api/v1/me` | who asks, and what they may do |
//! | `GET`, `POST /sign-in`, `POST /sign-out` | the page on which users sign in, where there are any |
//! | `POST /api/v1/ticket` | what a page shows whose origin a proxy hides: `latchbus_ws::origin` |
//! | `GET /api/v1/origin` | to any page: whether its origin may use this server, and which setting allows it |
//! | `GET /socket.io/socket.io.js` | the client of Socket.IO |
//! | `GET /ws`, `GET /mqtt` | WebSockets, of `latchbus_ws` and of `latchbus_mqtt` |
//! | `/socket.io/` | Socket.IO, of `latchbus_socketio` |
//!
//! `/healthz`, `/readyz`, `/metrics`, `/ws` and `/mqtt` are served with a slash behind them too; the pages are redirected to theirs
//! without one.

mod account;
mod backup;
mod base;
mod clients;
mod conditions;
mod connection;
mod counts;
mod error;
mod files;
mod json;
mod listing;
mod metrics;
mod mqtt;
mod operate;
mod page;
mod pages;
mod policy;
mod refused;
mod sign_in;
mod socketio_client;
mod topics;
mod tunnel;

use core::time::Duration;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use latchbus_access::Sessions;
use latchbus_bus::Bus;
use latchbus_bus::accept::Acceptor;
use latchbus_ws::{Guard, OriginPolicy};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::Connections;
use self::counts::Counts;
use self::error::ApiError;
pub use self::pages::{Pages, PagesError};
pub use self::socketio_client::{NoSocketioClient, SocketioClient};

/// How a server over HTTP is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which web pages may use it.
    pub origin: OriginPolicy,
    /// Which pages may show this server's pages in a frame: what stands in `frame-ancestors` of a
    /// `Content-Security-Policy`. None: nobody.
    pub allow_frames: Vec<String>,
    /// The path below which proxies serve this server, where they pass it on: it begins with a slash and does not end
    /// with one. Requests without it are served as well. Empty: none.
    pub base_path: String,
    /// The front end that is served at `/`; none: the dashboard.
    pub pages: Option<Pages>,
    /// Its `Content-Security-Policy`, without `frame-ancestors`; `off`: none; not set: one that built front ends need.
    pub pages_csp: Option<String>,
    /// The client of Socket.IO at `/socket.io/socket.io.js`.
    pub socketio_client: Option<SocketioClient>,
    /// HTTP connections at a time, and as many WebSockets and as many Socket.IO sessions beside them. One more connection is
    /// closed at once, one more WebSocket or session is answered with 503.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, also of the next one on a connection that
    /// is kept open. Default 30 s.
    pub head_timeout: Duration,
    /// How long it may take to send the body. Default 30 s.
    pub body_timeout: Duration,
    /// A connection on which no byte has moved for so long is closed; up to twice as long may pass. Default
    /// 30 s.
    pub stall_timeout: Duration,
    /// How long a publish may wait for the store. Default 5 s.
    pub publish_timeout: Duration,
    /// Socket.IO; none: not at all.
    pub socketio: Option<latchbus_socketio::Config>,
    /// Those of browsers whose users sign in on a page, the bus's authenticator; none: nobody can.
    pub sessions: Option<Sessions>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origin: OriginPolicy::default(),
            allow_frames: Vec::new(),
            base_path: String::new(),
            pages: None,
            pages_csp: None,
            socketio_client: None,
            max_connections: 20_000,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            publish_timeout: Duration::from_secs(5),
            socketio: Some(latchbus_socketio::Config::default()),
            sessions: None,
        }
    }
}

/// The stall timeout with which a poll of Socket.IO can wait for its next ping.
pub fn stall_timeout(socketio: Option<&latchbus_socketio::Config>) -> Duration {
    let longest = socketio.map_or(Duration::ZERO, |config| config.ping_interval);
    let usual = Config::default().stall_timeout;
    usual.max(longest + usual / 3)
}

/// HTTP in front of a bus.
#[derive(Debug)]
pub struct Http {
    app: App,
    ws: latchbus_ws::Server,
}

/// The path of Socket.IO, which its clients take unless told otherwise.
const SOCKETIO: &str = "/socket.io/";

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<AppInner>);

#[derive(Debug)]
struct AppInner {
    bus: Bus,
    mqtt: latchbus_mqtt::server::Server,
    config: Config,
    guard: Guard,
    page_policy: HeaderValue,
    /// That of the page on which users sign in.
    sign_in_policy: HeaderValue,
    /// That of pages of one's own.
    own_policy: HeaderValue,
    counts: Counts,
    socketio: Option<latchbus_socketio::Server>,
    places: backup::Places,
    /// Cancelled when the bus begins to close.
    closing: CancellationToken,
    /// MQTT connections over WebSocket.
    tunnels: TaskTracker,
}

impl Http {
    /// A server without connections. The MQTT server takes the connections of `/mqtt`.
    pub fn new(bus: Bus, mqtt: latchbus_mqtt::server::Server, config: Config) -> Self {
        let ws = latchbus_ws::server::Config {
            origin: config.origin.clone(),
            max_connections: config.max_connections,
            ..latchbus_ws::server::Config::default()
        };
        let ws = latchbus_ws::Server::new(bus.clone(), ws);
        let frame_ancestors = policy::frame_ancestors(&config.allow_frames);
        let socketio = config.socketio.clone().map(|socketio| {
            let socketio = latchbus_socketio::Config {
                max_sessions: config.max_connections,
                ..socketio
            };
            latchbus_socketio::Server::new(bus.clone(), ws.guard().clone(), socketio)
        });
        Self {
            app: App(Arc::new(AppInner {
                closing: bus.closing(),
                bus,
                mqtt,
                guard: ws.guard().clone(),
                page_policy: policy::page_policy(&frame_ancestors),
                sign_in_policy: policy::sign_in_policy(&frame_ancestors),
                own_policy: pages::policy(config.pages_csp.as_deref(), &frame_ancestors),
                config,
                counts: Counts::default(),
                socketio,
                places: backup::Places::default(),
                tunnels: TaskTracker::new(),
            })),
            ws,
        }
    }

    /// Serves what a listener accepts (TCP, a Unix socket: any [`Acceptor`]), until the bus begins to close; ends after all
    /// its connections, WebSockets among them.
    pub async fn serve(self, listener: impl Acceptor) {
        let Self { app, ws } = self;
        let router = router(&app, &ws);
        Connections::new(&app, router).accept(listener).await;
        app.0.tunnels.close();
        app.0.tunnels.wait().await;
        if let Some(socketio) = &app.0.socketio {
            socketio.closed().await;
        }
        ws.closed().await;
    }
}

fn router(app: &App, ws: &latchbus_ws::Server) -> Router {
    let guarded = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::metrics))
        .route(policy::TICKET, post(ticket))
        .route(policy::ORIGIN_PATH, get(origin))
        .merge(account::router())
        .merge(topics::router())
        .merge(backup::router())
        .merge(operate::router())
        .merge(clients::router())
        .merge(socketio_client::router())
        .fallback(page::page)
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(axum::middleware::from_fn_with_state(
            app.clone(),
            policy::guard,
        ));
    // These check the origin within their handshakes.
    let router = guarded
        .route("/mqtt", any(mqtt::upgrade))
        .with_state(app.clone())
        .merge(ws.router());
    match &app.0.socketio {
        Some(socketio) => router.merge(socketio.router(SOCKETIO)),
        None => router,
    }
}

/// For a page of this server. One of another origin cannot read the answer.
async fn ticket(State(app): State<App>, request: Request) -> Response {
    match app.0.guard.ticket(&request) {
        Ok(ticket) => {
            let json = HeaderValue::from_static("application/json");
            let ticket = serde_json::json!({ "ticket": ticket });
            ([(CONTENT_TYPE, json)], format!("{ticket}\n")).into_response()
        }
        Err(refusal) => ApiError::from(refusal).into_response(),
    }
}

/// To any page, allowed or not, so that its console can say what is missing. It tells nothing but what the page has sent.
async fn origin(State(app): State<App>, request: Request) -> Response {
    let verdict = match app.0.guard.verdict(&request) {
        Ok(()) => serde_json::json!({ "allowed": true }),
        Err(refusal) => {
            serde_json::json!({ "allowed": false, "message": refusal.to_string() })
        }
    };
    let json = HeaderValue::from_static("application/json");
    let everyone = (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    ([(CONTENT_TYPE, json), everyone], format!("{verdict}\n")).into_response()
}

async fn health(State(app): State<App>) -> Response {
    match app.0.bus.health() {
        Ok(()) => {
            let capacities = app.0.bus.capacities().into_iter();
            let warnings: String = capacities
                .filter(|capacity| capacity.is_near_full())
                .map(|capacity| format!("warning: {capacity}\n"))
                .collect();
            match warnings.is_empty() {
                true => "ok\n".into_response(),
                false => warnings.into_response(),
            }
        }
        Err(reason) => unavailable(&reason),
    }
}

/// Whether a load balancer may send clients. A server that stops accepts no connection.
async fn ready(State(app): State<App>) -> Response {
    match app.0.bus.health() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => unavailable(&reason),
    }
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}
