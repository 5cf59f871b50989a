//! A base path: where a proxy serves this server below `/lb/`, it may pass that on or take it away.

use axum::http::Request;
use axum::http::uri::{PathAndQuery, Uri};
use latchbus_ws::Guard;

use super::pages::DASHBOARD;

/// The path below which browsers see this server; begins and ends with a slash. In the extensions of a request, where it
/// is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base(pub(super) String);

/// In the extensions of a request for the dashboard at `/latchbus/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dashboard;

/// Takes `/latchbus` away, below which everything is that is at `/`: so the dashboard's pages find what they name relative
/// to themselves. After the base path.
pub(super) fn take_dashboard<B>(request: &mut Request<B>) {
    let path = request.uri().path().strip_prefix('/');
    let rest = path.and_then(|path| path.strip_prefix(DASHBOARD));
    let Some(path) = rest.filter(|rest| rest.starts_with('/')) else {
        return;
    };
    let stripped = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    set_path(request, stripped);
    let extensions = request.extensions_mut();
    extensions.insert(Dashboard);
    if let Some(Base(base)) = extensions.get_mut() {
        *base = format!("{base}{DASHBOARD}/");
    }
}

/// Takes the base path away, where a request has it, and notes below which path its client sees this server. `base_path`
/// is empty, or begins with a slash and does not end with one.
pub(super) fn take<B>(request: &mut Request<B>, base_path: &str, guard: &Guard) {
    let rest = request.uri().path().strip_prefix(base_path);
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let stripped = rest.filter(|_| !base_path.is_empty()).map(|rest| {
        let path = if rest.is_empty() { "/" } else { rest };
        match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    });
    let mut base = guard.prefix(request).unwrap_or_default();
    // Without a prefix from the proxy, what it takes away is what the setting names.
    if !base.ends_with(base_path) && (stripped.is_some() || base.is_empty()) {
        base.push_str(base_path);
    }
    if let Some(stripped) = stripped {
        set_path(request, stripped);
    }
    if !base.is_empty() {
        base.push('/');
        request.extensions_mut().insert(Base(base));
    }
}

/// Addresses of the program that are the same with a slash behind them, which proxies and their users add.
const WITHOUT_SLASH: [&str; 5] = ["/healthz", "/metrics", "/mqtt", "/readyz", "/ws"];

/// Takes that slash away. After the base path and `/latchbus`.
pub(super) fn take_slash<B>(request: &mut Request<B>) {
    let path = request.uri().path().strip_suffix('/');
    let Some(path) = path.filter(|path| WITHOUT_SLASH.contains(path)) else {
        return;
    };
    let stripped = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    set_path(request, stripped);
}

fn set_path<B>(request: &mut Request<B>, path_and_query: String) {
    if let Ok(path) = PathAndQuery::try_from(path_and_query) {
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use latchbus_ws::OriginPolicy;
    use latchbus_ws::origin::LocalPort;

    use super::*;

    fn taken(base_path: &str, path: &str, prefix: Option<&str>) -> (String, Option<String>) {
        let guard = Guard::new(&OriginPolicy {
            trusted_proxies: ["127.0.0.1".parse().unwrap()].into_iter().collect(),
            ..OriginPolicy::default()
        });
        let mut request = Request::builder().uri(path).header("host", "backend");
        if let Some(prefix) = prefix {
            request = request.header("x-forwarded-prefix", prefix);
        }
        let mut request = request.body(()).unwrap();
        let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(LocalPort(3000));
        take(&mut request, base_path, &guard);
        let base = request.extensions().get::<Base>();
        (request.uri().to_string(), base.map(|base| base.0.clone()))
    }

    #[test]
    fn the_base_path_is_taken_away_once() {
        for (base_path, path, prefix, expected, base) in [
            ("", "/topics?a=b", None, "/topics?a=b", None),
            ("/lb", "/lb", None, "/", Some("/lb/")),
            ("/lb", "/lb/", None, "/", Some("/lb/")),
            ("/lb", "/lb/ws?ticket=1", None, "/ws?ticket=1", Some("/lb/")),
            ("/lb", "/ws", None, "/ws", Some("/lb/")),
            ("/lb", "/lbx/ws", None, "/lbx/ws", Some("/lb/")),
            ("/lb", "/lb/lb/x", None, "/lb/x", Some("/lb/")),
            ("/a/b", "/a/b/x", None, "/x", Some("/a/b/")),
            ("", "/x", Some("/lb/"), "/x", Some("/lb/")),
            ("/lb", "/x", Some("/lb"), "/x", Some("/lb/")),
            ("/lb", "/lb/x", Some("/outer"), "/x", Some("/outer/lb/")),
            ("/lb", "/lb/x", Some("/lb"), "/x", Some("/lb/")),
        ] {
            let (path_taken, base_seen) = taken(base_path, path, prefix);
            let case = format!("{base_path} {path} {prefix:?}");
            assert_eq!(path_taken, expected, "{case}");
            assert_eq!(base_seen.as_deref(), base, "{case}");
        }
    }
}
