//! Pages of one's own: a front end that others have built, served in the place of the dashboard, which is then at
//! `/latchbus/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use axum::extract::Request;
use axum::http::header::{ACCEPT, ALLOW, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use latchbus_bus::log::shown;

use super::App;
use super::error::ApiError;
use super::files::{Accepted, FileError, Files, Found, Names, Opened};

/// Where the pages of the program are, also when `/` has others.
pub(super) const DASHBOARD: &str = "latchbus";

/// The first names of addresses that are the program's own.
const RESERVED: [&str; 9] = [
    "api",
    "healthz",
    DASHBOARD,
    "metrics",
    "mqtt",
    "openapi.json",
    "readyz",
    "socket.io",
    "ws",
];

const INDEX: &str = "index.html";

/// A site that has this file does without the index for what is not there, as on other hosts of static pages.
const NOT_FOUND: &str = "404.html";

/// What built front ends need, Angular's default build among them: it loads its style sheet late, by a script of which the
/// first is the hash (Angular 22: `data-beasties-media`), and before by `onload="this.media='all'"`, of which it is the second.
const POLICY: &str = "default-src 'self'; \
                      script-src 'self' 'unsafe-hashes' 'sha256-LMY6wYoFV9I4wWzxaq1N/dTpl4iurQktw706UCHK3vM=' \
                      'sha256-MhtPZXr7+LpJUY5qtMutB+qWfQtMaPccfe7QXtCcEYc='; \
                      style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; \
                      object-src 'none'; base-uri 'self'; form-action 'self'";

/// Pages of one's own.
#[derive(Debug, Clone)]
pub struct Pages {
    files: Files,
}

/// Why a folder can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PagesError {
    /// It is not there, or can't be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No page in it.
    #[error(
        "{} has no index.html, and no folder in it has one: build the front end first, and name the folder that it is built into",
        path.display()
    )]
    NoIndex {
        /// The folder.
        path: PathBuf,
    },
    /// Pages in several folders.
    #[error("{} has no index.html, and several folders in it have one: name one of {names}", path.display())]
    Several {
        /// The folder.
        path: PathBuf,
        /// Those that have one.
        names: String,
    },
}

impl Pages {
    /// The front end in a folder: where its `index.html` is, or in the only folder of those that build tools make
    /// (`browser`, `APP`, `APP/browser`) that has one.
    ///
    /// # Errors
    /// See [`PagesError`].
    pub fn open(path: &Path) -> Result<Self, PagesError> {
        let root = site(path)?;
        let names = fs::read_dir(&root).into_iter().flatten().flatten();
        let names: Vec<_> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| RESERVED.contains(&name.as_str()))
            .collect();
        if !names.is_empty() {
            tracing::warn!(
                target: "http",
                pages = %root.display(),
                names = names.join(", "),
                "these files are not served: the addresses are Latchbus's own"
            );
        }
        tracing::info!(target: "http", pages = %root.display(), "pages at /, the dashboard at /{DASHBOARD}/");
        Ok(Self {
            files: Files::new(root),
        })
    }
}

fn site(path: &Path) -> Result<PathBuf, PagesError> {
    let unreadable = |source| PagesError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let folders = fs::read_dir(path).map_err(unreadable)?;
    let has_index = |folder: &Path| folder.join(INDEX).is_file();
    if has_index(path) {
        return Ok(path.to_owned());
    }
    let folders = folders.flatten().map(|entry| entry.path());
    let folders = folders.flat_map(|folder| [folder.join("browser"), folder]);
    let mut found: Vec<_> = folders.filter(|folder| has_index(folder)).collect();
    found.sort_unstable();
    match found.as_slice() {
        [] => Err(PagesError::NoIndex {
            path: path.to_owned(),
        }),
        [only] => Ok(only.clone()),
        several => {
            let names = several.iter().map(|path| path.display().to_string());
            Err(PagesError::Several {
                path: path.to_owned(),
                names: names.collect::<Vec<_>>().join(", "),
            })
        }
    }
}

/// The `Content-Security-Policy` of these pages: the one of the settings, or else [`POLICY`]; `off` is none but for
/// `frame-ancestors`, which goes by a setting of its own unless the policy names it.
pub(super) fn policy(setting: Option<&str>, frame_ancestors: &str) -> HeaderValue {
    let setting = setting.unwrap_or(POLICY).trim().trim_end_matches(';');
    let mut directives = setting
        .split(';')
        .map(|one| one.trim().to_ascii_lowercase());
    let policy = match setting {
        "off" => frame_ancestors.to_owned(),
        _ if directives.any(|one| one.starts_with("frame-ancestors")) => setting.to_owned(),
        _ => format!("{setting}; {frame_ancestors}"),
    };
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// Whether an address is the program's own and never one of these pages.
pub(super) fn is_reserved(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    first.is_some_and(|first| RESERVED.contains(&first))
}

/// What a request gets. Only reads get something.
pub(super) async fn answer(app: App, pages: Pages, request: Request) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    if !matches!(method, Method::GET | Method::HEAD) {
        let allowed = [(ALLOW, HeaderValue::from_static("GET, HEAD"))];
        return (allowed, ApiError::method()).into_response();
    }
    let headers = request.headers().clone();
    let wants_page = wants_page(uri.path(), &headers);
    let (accepted, path) = (Accepted::read(&headers), uri.path().to_owned());
    let found = tokio::task::spawn_blocking(move || {
        let result = choose(&pages.files, &path, accepted, wants_page);
        (pages, path, result)
    });
    let Ok((pages, path, result)) = found.await else {
        return ApiError::unavailable("the server is stopping").into_response();
    };
    match result {
        Ok(Chosen::File(opened)) => opened.answer(&method, &headers),
        Ok(Chosen::NotFound(opened)) => {
            let mut response = opened.answer(&method, &HeaderMap::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        Ok(Chosen::Slash) => slash(uri.path(), uri.query()),
        Ok(Chosen::Nothing) => ApiError::not_found().into_response(),
        Err(error) => refuse(&app, &pages.files, &path, &error),
    }
}

/// What answers a path.
enum Chosen {
    File(Box<Opened>),
    /// The site's own page for it.
    NotFound(Box<Opened>),
    /// A folder, whose address ends with a slash so that relative addresses in its page mean what they should.
    Slash,
    Nothing,
}

fn choose(
    files: &Files,
    path: &str,
    accepted: Accepted,
    wants_page: bool,
) -> Result<Chosen, FileError> {
    let find = |names: &Names| files.find(names, accepted);
    if let Some(names) = Names::parse(path) {
        if names.is_folder() {
            if let Found::File(opened) = find(&names.index())? {
                return Ok(Chosen::File(opened));
            }
        } else {
            match find(&names)? {
                Found::File(opened) => return Ok(Chosen::File(opened)),
                Found::Folder if matches!(find(&names.index())?, Found::File(_)) => {
                    return Ok(Chosen::Slash);
                }
                Found::Folder | Found::Nothing => {}
            }
            if let Some(page) = names.page()
                && let Found::File(opened) = find(&page)?
            {
                return Ok(Chosen::File(opened));
            }
        }
    }
    if let Found::File(opened) = find(&Names::file(NOT_FOUND))? {
        return Ok(Chosen::NotFound(opened));
    }
    if wants_page && let Found::File(opened) = find(&Names::file(INDEX))? {
        return Ok(Chosen::File(opened));
    }
    Ok(Chosen::Nothing)
}

/// Whether a path without a file may be a route within the page: a browser that shows a page says so; a program that says
/// nothing gets the page where the path does not end like a file's.
fn wants_page(path: &str, headers: &HeaderMap) -> bool {
    let accepts = |wanted: &str| {
        let values = headers.get_all(ACCEPT).iter();
        let mut items = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','));
        items.any(|item| {
            item.split(';')
                .next()
                .is_some_and(|kind| kind.trim() == wanted)
        })
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_hidden = path.split('/').any(|name| name.starts_with('.'));
    let takes_all = !headers.contains_key(ACCEPT) || accepts("*/*");
    !is_hidden && (accepts("text/html") || (takes_all && !last.contains('.')))
}

fn slash(path: &str, query: Option<&str>) -> Response {
    let last = path.rsplit('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    // Relative: below which path a proxy serves this is not always known here.
    match HeaderValue::from_str(&format!("./{last}/{query}")) {
        Ok(location) => (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response(),
        Err(_) => ApiError::not_found().into_response(),
    }
}

fn refuse(app: &App, files: &Files, path: &str, error: &FileError) -> Response {
    if let Some(left_out) = app.0.bus.log_limit().allow("pages") {
        let (pages, path) = (files.root().display(), shown(path));
        tracing::warn!(target: "http", %pages, path, %error, left_out, "a file cannot be served");
    }
    match error {
        FileError::Outside => ApiError::not_found(),
        FileError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let message = "the server may not read this file";
            ApiError::new(StatusCode::FORBIDDEN, "not_allowed", message)
        }
        FileError::Io(_) => ApiError::unavailable("the file cannot be read now"),
    }
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_who_may_frame() {
        let of = |setting| {
            policy(setting, "frame-ancestors 'none'")
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(of(Some("off")), "frame-ancestors 'none'");
        let own = "default-src 'self'; frame-ancestors https://a.example";
        assert_eq!(of(Some(own)), own);
        let kept = "default-src 'self'; frame-ancestors 'none'";
        assert_eq!(of(Some("default-src 'self';")), kept);
        assert!(of(None).starts_with(POLICY));
    }

    #[test]
    fn routes_of_a_page_are_told_from_files() {
        let wants = |path, accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            wants_page(path, &headers)
        };
        let browser = Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        for (path, accept, expected) in [
            ("/rooms/lab", browser, true),
            ("/users/john.doe", browser, true),
            ("/rooms/lab", Some("*/*"), true),
            ("/rooms/lab", None, true),
            ("/rooms/lab/", Some("*/*"), true),
            ("/main-1.js", Some("*/*"), false),
            ("/main-1.js", None, false),
            ("/rooms/lab", Some("application/json"), false),
            ("/rooms/lab", Some("image/avif,image/webp,image/*"), false),
            ("/.env", browser, false),
            ("/a/.git/config", browser, false),
        ] {
            assert_eq!(wants(path, accept), expected, "{path} {accept:?}");
        }
    }

    #[test]
    fn reserved_addresses() {
        for path in [
            "/api",
            "/api/v2/x",
            "/ws",
            "/ws/",
            "/socket.io/x",
            "/latchbus/none.js",
            "//api/x",
        ] {
            assert!(is_reserved(path), "{path}");
        }
        for path in [
            "/",
            "/apis",
            "/wsx",
            "/rooms/api",
            "/main.js",
            "/index.html",
        ] {
            assert!(!is_reserved(path), "{path}");
        }
    }
}
