//! The server: answers the HTTP requests of a path and gives each session to a session of the bus.

use core::future::{Future, pending};
use core::net::SocketAddr;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    CACHE_CONTROL, CONTENT_TYPE, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use latchbus_bus::{Bus, Session, SignIn, SignInRefused};
use latchbus_ws::{Guard, Refusal, sign_in};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::ids::Ids;
use crate::machine::{Common, Heads, Records};
use crate::metrics::Metrics;
use crate::query::Query;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::session::{Carrier, Shared};
use crate::{logging, polling, upgrade};

/// Socket.IO clients of one bus. Clones are handles to one server.
#[derive(Debug, Clone)]
pub struct Server(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) common: Arc<Common>,
    pub(crate) guard: Guard,
    pub(crate) metrics: Metrics,
    sessions: Mutex<HashMap<Box<str>, Arc<Shared>>>,
    permits: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
}

/// What a message may need besides its topic and its payload.
const HEADROOM_BYTES: usize = 4 << 10;

/// Why a request is refused: a code and a text, as the library says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("Transport unknown")]
    Transport,
    #[error("Session ID unknown")]
    Session,
    #[error("Bad handshake method")]
    Method,
    #[error("Bad request")]
    Request,
    #[error("Forbidden")]
    Forbidden,
    #[error("Unsupported protocol version")]
    Protocol,
    /// 413.
    #[error("Payload too large")]
    TooLarge,
    /// 503.
    #[error("as many sessions as this server takes")]
    Full,
    #[error(transparent)]
    SignIn(SignInRefused),
}

impl Refused {
    const fn code(&self) -> u8 {
        match self {
            Self::Transport => 0,
            Self::Session => 1,
            Self::Method => 2,
            Self::Request | Self::TooLarge | Self::Full => 3,
            Self::Forbidden | Self::SignIn(_) => 4,
            Self::Protocol => 5,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut headers = Vec::new();
        let status = match &self {
            Self::SignIn(refused) => {
                // Who asks is a script: no window of the browser.
                let challenge = sign_in::challenge(refused, &HeaderMap::new());
                headers = challenge.1;
                headers.retain(|(_, value)| !value.as_bytes().starts_with(b"Basic"));
                challenge.0
            }
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let json = format!("{{\"code\":{},\"message\":\"{self}\"}}", self.code());
        let mut response = (status, [(CONTENT_TYPE, "application/json")], json).into_response();
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl Server {
    /// A server of this bus. Its sessions end when the bus closes. The guard says which web pages may connect.
    pub fn new(bus: Bus, guard: Guard, config: Config) -> Self {
        let limits = bus.limits();
        let longest = 2 * limits.payload_bytes + limits.topic_bytes + HEADROOM_BYTES;
        let longest = config.max_message_bytes.unwrap_or(longest);
        let permits = config.max_sessions.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            common: Arc::new(Common {
                max_message_bytes: longest.max(config.max_payload),
                heads: config.namespaces.iter().map(Heads::new).collect(),
                config,
                ids: Ids::default(),
                records: Records::default(),
                bus,
            }),
            guard,
            metrics: Metrics::default(),
            sessions: Mutex::default(),
            permits: Arc::new(Semaphore::new(permits)),
            tasks: TaskTracker::new(),
        }))
    }

    /// A router that answers requests of this path, as in `/socket.io/`, to be merged into an application's own. Clients may leave
    /// out the slash at its end (`addTrailingSlash: false`).
    pub fn router(&self, path: &str) -> Router {
        let handle =
            |State(server): State<Self>, request| async move { server.handle(request).await };
        let mut router = Router::new().route(path, any(handle));
        let bare = path.trim_end_matches('/');
        if !bare.is_empty() && bare != path {
            router = router.route(bare, any(handle));
        }
        router.with_state(self.clone())
    }

    /// What was counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Waits until the bus is closing and every session has ended.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.0);
        async move {
            inner.common.bus.closing().cancelled().await;
            inner.tasks.close();
            inner.tasks.wait().await;
        }
    }

    /// Answers a request, whatever its path. The client's address is known when the service was made with connect info.
    pub async fn handle(&self, request: Request) -> Response {
        let guard = &self.0.guard;
        if let Err(refusal) = guard.check(&request) {
            self.refuse();
            let mut response = Refused::Forbidden.into_response();
            *response.body_mut() = format!(
                "{{\"code\":4,\"message\":\"Forbidden\",\"reason\":{}}}",
                serde_json::Value::String(refusal.to_string())
            )
            .into();
            refusal.explain(&mut response);
            // The page may read this much, so that its console names the flag that is missing.
            if let (Refusal::Origin { .. }, Some(origin)) =
                (&refusal, request.headers().get(ORIGIN))
            {
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(VARY, HeaderValue::from_static("Origin"));
            }
            return response;
        }
        // A page that may ask may read the answer.
        let origin = request.headers().get(ORIGIN).cloned();
        let mut response = match *request.method() == Method::OPTIONS {
            true => preflight(request.headers()),
            false => self
                .answer(request)
                .await
                .unwrap_or_else(IntoResponse::into_response),
        };
        let headers = response.headers_mut();
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    async fn answer(&self, request: Request) -> Result<Response, Refused> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let upgrades = request.headers().contains_key(axum::http::header::UPGRADE);
        let websocket = match query.transport {
            Some("polling") if !upgrades => false,
            Some("websocket") if upgrades => true,
            Some("polling" | "websocket") => return Err(Refused::Request),
            _ => return Err(Refused::Transport),
        };
        if query.eio != Some("4") {
            return Err(Refused::Protocol);
        }
        let session = match query.sid {
            Some(sid) => Some(self.session(sid).ok_or(Refused::Session)?),
            None => None,
        };
        if let Some(session) = &session {
            let sign_in = self.sign_in(&request);
            check_bearer(session, sign_in).await?;
        }
        match (websocket, session) {
            (true, session) => upgrade::upgrade(self, request, session).await,
            (false, Some(session)) => match *request.method() {
                Method::GET => polling::poll(session).await,
                Method::POST => polling::post(session, request).await,
                _ => Err(Refused::Request),
            },
            (false, None) if request.method() != Method::GET => Err(Refused::Method),
            (false, None) => {
                let sign_in = self.sign_in(&request);
                drop(request);
                self.open_polling(sign_in).await
            }
        }
    }

    /// A session that begins with polling.
    async fn open_polling(&self, sign_in: SignIn) -> Result<Response, Refused> {
        let (session, shared, permit) = self.begin(sign_in, Carrier::Polling).await?;
        let open = self.open_packet(&shared, true);
        let server = self.clone();
        let task = async move { server.run(session, shared, permit).await };
        self.0.tasks.spawn(task);
        Ok(polling::body(open))
    }

    fn refuse(&self) {
        let metrics = self.0.common.bus.metrics();
        metrics.connections_refused.add(1);
    }

    /// Who begins a session, as far as the request says it.
    pub(crate) fn sign_in(&self, request: &Request) -> SignIn {
        SignIn::new("socketio")
            .with_address(self.0.guard.client(request))
            .with_credentials(sign_in::credentials(request))
    }

    /// A session of the bus, and what its requests share. Who brings no credentials, and needs some, may bring them in the CONNECT
    /// of its first namespace.
    pub(crate) async fn begin(
        &self,
        sign_in: SignIn,
        carrier: Carrier,
    ) -> Result<(Session, Arc<Shared>, OwnedSemaphorePermit), Refused> {
        let common = &self.0.common;
        let bus = &common.bus;
        let Ok(permit) = Arc::clone(&self.0.permits).try_acquire_owned() else {
            self.refuse();
            logging::no_room(bus, common.config.max_sessions);
            return Err(Refused::Full);
        };
        let client = bus.sign_in_or_wait(sign_in).await.map_err(|refused| {
            self.refuse();
            Refused::SignIn(refused)
        })?;
        let session = Session::new(client);
        let config = &common.config;
        let silent_at = Instant::now() + config.ping_interval + config.ping_timeout;
        let (client, wake) = (session.client().clone(), session.wake());
        let shared = Shared::new(Arc::clone(common), carrier, client, wake, silent_at);
        let shared = Arc::new(shared);
        self.sessions()
            .insert(shared.sid.as_str().into(), Arc::clone(&shared));
        Ok((session, shared, permit))
    }

    /// The first packet of a session.
    pub(crate) fn open_packet(&self, shared: &Shared, upgrades: bool) -> String {
        let config = &self.0.common.config;
        let upgrades = if upgrades { "\"websocket\"" } else { "" };
        format!(
            "0{{\"sid\":\"{}\",\"upgrades\":[{upgrades}],\"pingInterval\":{},\"pingTimeout\":{},\"maxPayload\":{}}}",
            shared.sid,
            config.ping_interval.as_millis(),
            config.ping_timeout.as_millis(),
            config.max_payload,
        )
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Shared>>> {
        self.0
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, sid: &str) -> Option<Arc<Shared>> {
        self.sessions().get(sid).cloned()
    }

    /// A session that did not come about.
    pub(crate) fn forget(&self, shared: &Shared) {
        self.sessions().remove(shared.sid.as_str());
    }

    /// Serves a session until it ends.
    pub(crate) async fn run(
        &self,
        mut session: Session,
        shared: Arc<Shared>,
        permit: OwnedSemaphorePermit,
    ) {
        let (bus, metrics) = (&self.0.common.bus, &self.0.metrics);
        bus.metrics().connections.up();
        bus.metrics().connections_accepted.add(1);
        metrics.sessions.up();
        logging::connected(session.client(), shared.state().carrier);
        let config = &self.0.common.config;
        let began = shared.state().silent_at - config.ping_interval - config.ping_timeout;
        let mut receiver = Receiver::new(Arc::clone(&shared), session.client().clone(), began);
        let mut sender = Sender::new(Arc::clone(&shared));
        if shared.state().carrier == Carrier::WebSocket {
            sender.push_text(&self.open_packet(&shared, false));
        }
        // A session has one task; what takes it over is its own WebSocket.
        let ended = session.run(&mut receiver, &mut sender, pending()).await;
        shared.state().end_polling("1");
        self.sessions().remove(shared.sid.as_str());
        logging::disconnected(session.client(), &ended);
        metrics.count(&ended);
        drop(session);
        drop(sender);
        receiver.drain().await;
        metrics.sessions.down();
        bus.metrics().connections.down();
        drop(permit);
    }
}

/// Whether a request may act for an open session. The session ID stands in URLs, and clients leave their header out of later requests:
/// python-engineio out of polls, browsers out of the upgrade. So the ID alone is enough from the address where a request has signed
/// in; from elsewhere it has to prove the same again. What a header `Authorization` says has to be right everywhere.
async fn check_bearer(session: &Shared, sign_in: SignIn) -> Result<(), Refused> {
    let brought = &sign_in.credentials;
    let claims_something =
        brought.user.is_some() || brought.password.is_some() || brought.token.is_some();
    let host = |address: SocketAddr| address.ip().to_canonical();
    let is_elsewhere = session.client.address().map(host) != sign_in.address.map(host);
    if claims_something || session.is_proved && is_elsewhere {
        let checked = session.client.check_again(sign_in).await;
        return checked.map_err(Refused::SignIn);
    }
    Ok(())
}

/// A page of another origin asks whether it may send what it is about to (Fetch §4.8).
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    // Whatever the page's `extraHeaders` are: nothing here looks at them.
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}
