//! Signing in on a page: the form, the cookie of the session, and what a page may ask about its user.
//!
//! The cookie holds an id of 256 random bits and nothing else; what it stands for is in [`Sessions`]. A script cannot read it
//! (`HttpOnly`), a page of another site cannot send it (`SameSite=Strict`), and over TLS it never goes out without (`Secure`,
//! and a name that browsers take over TLS alone).

use core::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use latchbus_access::Sessions;
use latchbus_bus::{Credentials, Identity, Publish, PublishRequest, SignIn, SignInRefused};
use latchbus_core::topic::TopicName;
use latchbus_ws::sign_in::{SESSION_COOKIE, challenge, sessions};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::time::timeout;

use super::base::{Base, Dashboard};
use super::error::ApiError;
use super::pages::DASHBOARD;
use super::refused::escaped;
use super::sign_in::client;
use super::{App, page};

/// The form; a token in the place of a password has its room.
const MAX_FORM_BYTES: usize = 16 << 10;

/// The longest address to go on to.
const MAX_NEXT_BYTES: usize = 2_048;

/// Topics in one question.
const MAX_ASKED: usize = 32;

/// What stands for itself in the value of a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'/');

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const PAGE: &str = include_str!("sign_in.html");

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/sign-in", any(sign_in))
        .route("/sign-out", any(sign_out))
        .route("/api/v1/me", get(me))
}

/// The sessions, where these addresses are the program's own and not those of the pages in its place.
fn own(app: &App, request: &Request) -> Option<Sessions> {
    let is_foreign =
        app.0.config.pages.is_some() && request.extensions().get::<Dashboard>().is_none();
    let sessions = app.0.config.sessions.clone();
    sessions.filter(|sessions| !is_foreign && sessions.has_users())
}

/// Where a browser is sent that asks for a page and has not signed in: to the form, and from there back. None for programs,
/// whose answer is 401.
pub(super) fn way_in(app: &App, request: &Request) -> Option<HeaderValue> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path().strip_prefix('/')?;
    if !reads || !wants_page(request.headers()) {
        return None;
    }
    own(app, request)?;
    let next = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // Relative: below which path a proxy serves this is not always known here.
    let up = "../".repeat(path.matches('/').count());
    let next = match next.is_empty() {
        true => String::new(),
        false => format!("?next={}", utf8_percent_encode(&next, QUERY)),
    };
    HeaderValue::from_str(&format!("{up}sign-in{next}")).ok()
}

/// Whether a browser will show the answer as a page.
fn wants_page(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.any(|accept| accept.contains("text/html"))
}

/// Where to go on, as a relative address: a page of this server, whatever was sent.
fn onward(next: &str) -> String {
    let path = next.split(['?', '#']).next().unwrap_or_default();
    let is_strange = next.len() > MAX_NEXT_BYTES
        || next.contains('\\')
        || next.contains(|character: char| character.is_control() || character.is_whitespace())
        || path.starts_with("//")
        || path.split('/').any(is_dots)
        // Whoever has signed in is not to be signed out, or asked again.
        || ["sign-in", "sign-out"].contains(&path.trim_matches('/'));
    match (is_strange, next.strip_prefix('/')) {
        (true, _) => "./".to_owned(),
        (false, Some(_)) => next.to_owned(),
        (false, None) => format!("./{next}"),
    }
}

/// What browsers take for the folder above.
fn is_dots(name: &str) -> bool {
    name.to_ascii_lowercase().replace("%2e", ".") == ".."
}

/// The values of a form or a query by this name.
fn values<'a>(pairs: &'a str, name: &'a str) -> impl Iterator<Item = Option<String>> + 'a {
    let pairs = pairs
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let pairs = pairs.filter(move |(key, _)| *key == name);
    pairs.map(|(_, value)| {
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8();
        value.ok().map(|value| value.into_owned())
    })
}

fn value(pairs: &str, name: &str) -> String {
    values(pairs, name).next().flatten().unwrap_or_default()
}

/// How the cookie of a session is written.
struct Cookie {
    name: String,
    attributes: String,
}

impl Cookie {
    fn of(app: &App, request: &Request) -> Self {
        let is_secure = app.0.guard.is_secure(request);
        let base = request.extensions().get::<Base>();
        let mut path = base.map_or("/", |Base(base)| base.as_str());
        if request.extensions().get::<Dashboard>().is_some() {
            let inner = path.strip_suffix('/').unwrap_or(path);
            path = inner.strip_suffix(DASHBOARD).unwrap_or(path);
        }
        let prefix = match (is_secure, path) {
            (true, "/") => "__Host-",
            (true, _) => "__Secure-",
            (false, _) => "",
        };
        // Cookies do not tell the ports of a host apart.
        let host = request.headers().get(HOST);
        let port = host.and_then(|host| Some(host.to_str().ok()?.rsplit_once(':')?.1));
        let port = port.filter(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        let port = port.map(|port| format!("-{port}")).unwrap_or_default();
        let secure = if is_secure { "; Secure" } else { "" };
        Self {
            name: format!("{prefix}{SESSION_COOKIE}{port}"),
            attributes: format!("Path={path}; HttpOnly; SameSite=Strict{secure}"),
        }
    }

    fn set(&self, id: &str, age: Duration) -> Option<HeaderValue> {
        let (name, attributes, age) = (&self.name, &self.attributes, age.as_secs());
        HeaderValue::from_str(&format!("{name}={id}; Max-Age={age}; {attributes}")).ok()
    }

    fn clear(&self) -> Option<HeaderValue> {
        let (name, attributes) = (&self.name, &self.attributes);
        HeaderValue::from_str(&format!("{name}=; Max-Age=0; {attributes}")).ok()
    }
}

/// A page of another origin may not sign anybody in or out, also one that may use the API.
fn check_page(app: &App, request: &Request) -> Result<(), ApiError> {
    match app.0.guard.is_own(request) {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "not_allowed",
            "only a page of this server can do that",
        )),
    }
}

async fn sign_in(State(app): State<App>, request: Request) -> Response {
    let Some(sessions) = own(&app, &request) else {
        return page::page(State(app), request).await;
    };
    match *request.method() {
        Method::GET | Method::HEAD => form(&app, &sessions, request).await,
        Method::POST => match check_page(&app, &request) {
            Ok(()) => signed_in(&app, &sessions, request).await,
            Err(error) => error.into_response(),
        },
        _ => ApiError::method().into_response(),
    }
}

async fn form(app: &App, sessions: &Sessions, request: Request) -> Response {
    let next = value(request.uri().query().unwrap_or_default(), "next");
    let form = Form::of(app, sessions, &request, &next);
    // A link on another site leads here, and with it the browser sends no cookie: it is asked to come again by itself.
    let is_foreign = request
        .headers()
        .get(SITE)
        .is_some_and(|site| site == "cross-site" || site == "same-site");
    match client(app, &request).await {
        Ok(client) if client.principal().identity != Identity::Anonymous => go(&onward(&next)),
        _ => form.page(StatusCode::OK, "", is_foreign),
    }
}

async fn signed_in(app: &App, sessions: &Sessions, request: Request) -> Response {
    let cookie = Cookie::of(app, &request);
    let before = latchbus_ws::sign_in::sessions(&request);
    let address = app.0.guard.client(&request);
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let is_form =
        content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
    if !is_form {
        let message = "expected application/x-www-form-urlencoded";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return ApiError::new(status, "bad_message", message).into_response();
    }
    let mut form = Form::of(app, sessions, &request, "");
    let body = to_bytes(request.into_body(), MAX_FORM_BYTES);
    let body = match timeout(app.0.config.body_timeout, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return ApiError::too_large(MAX_FORM_BYTES).into_response(),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let Ok(body) = core::str::from_utf8(&body) else {
        return ApiError::bad_message("not UTF-8").into_response();
    };
    let (user, password) = (value(body, "user"), value(body, "password"));
    (form.user, form.next) = (user.clone(), value(body, "next"));
    // Of its own name: over `http` each request is a sign-in, and no news for auditors.
    let sign_in = SignIn::new("page")
        .with_address(address)
        .with_credentials(Credentials::password(user, password));
    let client = match app.0.bus.sign_in(sign_in).await {
        Ok(client) => client,
        Err(refused) => return form.refused(&refused),
    };
    let principal = client.principal();
    // Whoever signs in again, perhaps as somebody else, has left the session before.
    for session in &before {
        sessions.end(session);
    }
    let (session, age) = (sessions.begin(&principal), sessions.limits().age);
    let Some(cookie) = session.and_then(|session| cookie.set(&session, age)) else {
        return form.refused(&SignInRefused::Unavailable);
    };
    let mut response = go(&onward(&form.next));
    response.headers_mut().insert(SET_COOKIE, cookie);
    response
}

async fn sign_out(State(app): State<App>, request: Request) -> Response {
    let Some(open) = own(&app, &request) else {
        return page::page(State(app), request).await;
    };
    if *request.method() != Method::POST {
        return ApiError::method().into_response();
    }
    if let Err(error) = check_page(&app, &request) {
        return error.into_response();
    }
    let address = app.0.guard.client(&request);
    for session in sessions(&request) {
        if let Some(identity) = open.end(&session) {
            let (user, address) = (identity.name(), latchbus_bus::log::place("page", address));
            tracing::info!(target: "audit", action = "sign-out", by = user, transport = "page", address, result = "done", "signed out");
        }
    }
    let mut response = match wants_page(request.headers()) {
        true => go("sign-in"),
        false => StatusCode::NO_CONTENT.into_response(),
    };
    if let Some(cookie) = Cookie::of(&app, &request).clear() {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// Who asks, and what they may do: `?publish=TOPIC`, several times, asks about topics, with `retain=true` about state.
async fn me(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let client = client(&app, &request).await?;
    let topics: Option<Vec<String>> = values(&query, "publish").take(MAX_ASKED + 1).collect();
    let topics = topics.ok_or_else(|| ApiError::bad_message("a topic that is not UTF-8"))?;
    if topics.len() > MAX_ASKED {
        return Err(ApiError::bad_message(format!(
            "more than {MAX_ASKED} topics"
        )));
    }
    let retain = value(&query, "retain") == "true";
    let mut publish = serde_json::Map::new();
    for topic in topics {
        let name = TopicName::parse(topic.as_str()).map_err(ApiError::invalid_topic)?;
        let asked = PublishRequest::new(name, retain, Publish::STATE_QOS);
        let may = client.may_publish(&asked);
        publish.insert(topic, may.into());
    }
    let principal = client.principal();
    let authorizer = app.0.bus.authorizer();
    let has_users = app
        .0
        .config
        .sessions
        .as_ref()
        .is_some_and(Sessions::has_users);
    let answer = serde_json::json!({
        "user": principal.identity.name(),
        "admin": client.may_administer(),
        "may_publish": authorizer.may_publish_anything(&principal),
        "publish": publish,
        "sign_in": has_users,
        "session": principal.session.is_some(),
    });
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], format!("{answer}\n")).into_response())
}

fn go(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response(),
        Err(_) => (StatusCode::SEE_OTHER, [(LOCATION, "./")]).into_response(),
    }
}

/// The page.
struct Form {
    policy: HeaderValue,
    base: String,
    allows_guests: bool,
    user: String,
    next: String,
}

impl Form {
    fn of(app: &App, sessions: &Sessions, request: &Request, next: &str) -> Self {
        Self {
            policy: app.0.sign_in_policy.clone(),
            base: page::base_element(request),
            allows_guests: sessions.allows_anonymous(),
            user: String::new(),
            next: next.to_owned(),
        }
    }

    fn refused(&self, refused: &SignInRefused) -> Response {
        let message = match refused {
            SignInRefused::TooManyAttempts { retry_after } => {
                let seconds = retry_after.as_secs_f32().ceil().max(1.0);
                let unit = if seconds > 1.0 { "seconds" } else { "second" };
                format!("Too many attempts. Try again in {seconds} {unit}.")
            }
            SignInRefused::Expired => "The token has expired.".to_owned(),
            SignInRefused::NamelessCertificate => {
                "The certificate of this browser has no name that can be used.".to_owned()
            }
            SignInRefused::NotAuthorized => "This user may not use this server.".to_owned(),
            SignInRefused::Unavailable => {
                "Nobody can be signed in at this moment. Try again soon.".to_owned()
            }
            // The same for a user who is unknown.
            _ => "Wrong name or password.".to_owned(),
        };
        let (status, headers) = challenge(refused, &HeaderMap::new());
        let mut response = self.page(status, &message, false);
        // `Basic` would make the browser ask in a window of its own.
        let headers = headers.into_iter().filter(|(name, value)| {
            *name == RETRY_AFTER || value.as_bytes().starts_with(b"Bearer")
        });
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }

    fn page(&self, status: StatusCode, problem: &str, comes_again: bool) -> Response {
        let again = match comes_again {
            true => "\n    <meta http-equiv=\"refresh\" content=\"0\">",
            false => "",
        };
        let problem = match problem {
            "" => String::new(),
            text => format!(
                "\n        <p class=\"problem\" id=\"problem\" role=\"alert\">{}</p>",
                escaped(text)
            ),
        };
        let guests = match self.allows_guests {
            true => format!(
                "\n        <p class=\"guests\"><a href=\"{}\">Go on without signing in</a></p>",
                escaped(&onward(&self.next))
            ),
            false => String::new(),
        };
        let (user, next) = (escaped(&self.user), escaped(&self.next));
        // What people have typed goes in last, so that nothing in it stands for anything.
        let focus = if self.user.is_empty() {
            "user"
        } else {
            "password"
        };
        let mut page = String::with_capacity(PAGE.len() + 1_024);
        for piece in PAGE.split_inclusive("}}") {
            let (text, name) = match piece.strip_suffix("}}").and_then(|it| it.split_once("{{")) {
                Some((text, name)) => (text, name),
                None => (piece, ""),
            };
            page.push_str(text);
            page.push_str(match name {
                "base" => &self.base,
                "again" => again,
                "problem" => &problem,
                "guests" => &guests,
                "user" => &user,
                "next" => &next,
                "user-focus" if focus == "user" => " autofocus",
                "password-focus" if focus == "password" => " autofocus",
                _ => "",
            });
        }
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        let mut response = (status, [(CONTENT_TYPE, html)], page).into_response();
        let policy = page::OwnPolicy(self.policy.clone());
        response.extensions_mut().insert(policy);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_to_a_page_of_this_server() {
        for (next, expected) in [
            ("", "./"),
            ("topics", "./topics"),
            ("topics?filter=a%2Fb&x=1", "./topics?filter=a%2Fb&x=1"),
            ("?room=lab", "./?room=lab"),
            ("api/v1/export", "./api/v1/export"),
            ("/lb/topics", "/lb/topics"),
            // Below `./` these are names of this server, whatever they look like.
            ("https://evil.example", "./https://evil.example"),
            ("javascript:alert(1)", "./javascript:alert(1)"),
            ("//evil.example", "./"),
            ("///evil.example", "./"),
            ("/\\evil.example", "./"),
            ("\\\\evil.example", "./"),
            ("/\t/evil.example", "./"),
            ("\n//evil.example", "./"),
            (" //evil.example", "./"),
            ("../x", "./"),
            ("a/../../x", "./"),
            ("%2e%2E/x", "./"),
            ("a\r\nSet-Cookie: x=y", "./"),
            ("sign-in", "./"),
            ("sign-in?next=sign-in", "./"),
            ("/sign-out", "./"),
        ] {
            assert_eq!(onward(next), expected, "{next:?}");
        }
        assert_eq!(onward(&"a".repeat(MAX_NEXT_BYTES + 1)), "./");
    }

    #[test]
    fn fields_of_a_form() {
        let form = "user=anna+b&password=a%2Bb%26%3D%C3%BC&next=&x&password=2";
        assert_eq!(value(form, "user"), "anna b");
        assert_eq!(value(form, "password"), "a+b&=ü");
        assert_eq!(value(form, "next"), "");
        assert_eq!(value(form, "nothing"), "");
        assert_eq!(values(form, "password").count(), 2);
        assert_eq!(values("a=%ff", "a").next(), Some(None));
    }

    #[test]
    fn what_was_typed_is_text() {
        let form = Form {
            policy: HeaderValue::from_static(""),
            base: String::new(),
            allows_guests: true,
            user: "\"><script>{{next}}".to_owned(),
            next: "\"><i>{{user}}".to_owned(),
        };
        let response = form.page(StatusCode::OK, "", false);
        let body = futures_util::FutureExt::now_or_never(to_bytes(response.into_body(), 1 << 20));
        let page = String::from_utf8(body.unwrap().unwrap().to_vec()).unwrap();
        assert!(
            !page.contains("<script>") && !page.contains("<i>"),
            "{page}"
        );
        assert!(page.contains("&quot;&gt;&lt;script&gt;{{next}}"), "{page}");
    }
}
