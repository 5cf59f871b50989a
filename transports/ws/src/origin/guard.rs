//! The policy at the door: reads requests, logs what it refuses, and issues tickets.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, HOST, HeaderName, ORIGIN};
use axum::http::{Method, Request, Version};

use super::forwarded::Forwarded;
use super::ticket::Tickets;
use super::warned::Warned;
use super::{Asked, Called, Field, OriginPolicy, Refusal, Rules};
use crate::handshake::only;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The port of the listener that a request came by: whoever accepts connections puts it into the extensions of their
/// requests, beside [`ConnectInfo`]. Where it is missing, no name passes as one that a proxy has put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalPort(pub u16);

/// Among the extensions of a request: its connection is TLS to here, so that a page that has sent it is `https`. Where it is
/// missing, a proxy may have ended TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secure;

/// An [`OriginPolicy`] that is asked about requests. Clones are handles to one.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Rules,
    tickets: Tickets,
    warned: Warned,
}

impl Guard {
    /// Asks this policy. Patterns in it that cannot be read match nothing.
    pub fn new(policy: &OriginPolicy) -> Self {
        Self(Arc::new(Inner {
            rules: Rules::new(policy),
            tickets: Tickets::default(),
            warned: Warned::default(),
        }))
    }

    /// Checks a request that may read and write, or become a WebSocket. What is refused is logged, the same name once a
    /// minute.
    ///
    /// # Errors
    /// See [`Refusal`]. A header that is there twice or is no text is as good as a hostile one.
    pub fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let judged = self.0.rules.judge(&self.asked(request));
        self.warn(request, &judged);
        judged
    }

    /// Checks the name alone, for what every page may have but not read, as the files of a public page.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check_host<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        let judged = self.0.rules.called(&self.asked(request)).map(|_| ());
        self.warn(request, &judged);
        judged
    }

    /// Whether [`check`](Self::check) would pass it. Logs nothing.
    pub fn would_pass<B>(&self, request: &Request<B>) -> bool {
        self.verdict(request).is_ok()
    }

    /// Whether [`check`](Self::check) would pass it if there were no `allow_origins`: it comes from a page of this server, or from
    /// none. Logs nothing.
    pub fn is_own<B>(&self, request: &Request<B>) -> bool {
        let asked = Asked {
            own_pages_only: true,
            ..self.asked(request)
        };
        self.0.rules.judge(&asked).is_ok()
    }

    /// What [`check`](Self::check) would say. Logs nothing.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn verdict<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        self.0.rules.judge(&self.asked(request))
    }

    /// A ticket, which a page of this server shows as `?ticket=` within a minute, where a proxy hides from here that it
    /// is of the same origin. A page of another origin can ask for one and cannot read it; give no header that lets it.
    ///
    /// # Errors
    /// When the request says itself that it is of another site, or its origin may be a name that was rebound.
    pub fn ticket<B>(&self, request: &Request<B>) -> Result<String, Refusal> {
        let asked = Asked {
            ticket: true,
            ..self.asked(request)
        };
        let judged = self.0.rules.judge(&asked);
        self.warn(request, &judged);
        judged.map(|()| self.0.tickets.issue(Instant::now()))
    }

    /// The client: who has connected, or whom trusted proxies name. Port 0 where they name none.
    pub fn client<B>(&self, request: &Request<B>) -> Option<SocketAddr> {
        let peer = peer(request);
        let forwarded = self.forwarded(request);
        forwarded.and_then(|forwarded| forwarded.client).or(peer)
    }

    /// The path below which a trusted proxy serves this server, as in `/lb`, where it says so.
    pub fn prefix<B>(&self, request: &Request<B>) -> Option<String> {
        self.forwarded(request)?.prefix
    }

    /// Whether a browser that has sent this is known to show its page over TLS: the connection is TLS to here, or a trusted proxy says
    /// so. What the request says of itself does not count.
    pub fn is_secure<B>(&self, request: &Request<B>) -> bool {
        let forwarded = self.forwarded(request);
        request.extensions().get::<Secure>().is_some()
            || forwarded.and_then(|forwarded| forwarded.https) == Some(true)
    }

    /// The host by which a request came, as far as it is known here.
    pub fn host<B>(&self, request: &Request<B>) -> Option<String> {
        match self.0.rules.called(&self.asked(request)) {
            Ok(Called::By(host) | Called::Replaced(host)) => Some(host.to_string()),
            Ok(Called::Not) | Err(_) => None,
        }
    }

    /// A peer that says what only a trusted proxy may, and is none.
    pub fn untrusted_proxy<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let peer = peer(request)?.ip();
        let headers = request.headers();
        let speaks = ["forwarded", "x-forwarded-host", "x-forwarded-for"];
        let speaks = speaks.iter().any(|name| headers.contains_key(*name));
        (speaks && !self.0.rules.trusted.contains(peer)).then_some(peer)
    }

    fn forwarded<B>(&self, request: &Request<B>) -> Option<Forwarded> {
        let rules = &self.0.rules;
        let peer = peer(request).map(|peer| peer.ip());
        rules
            .is_proxied(peer, local_port(request), host(request))
            .then(|| Forwarded::read(request.headers(), &rules.trusted))
    }

    fn asked<'r, B>(&self, request: &'r Request<B>) -> Asked<'r> {
        let headers = request.headers();
        let upgrades =
            headers.contains_key(CONNECTION) && headers.contains_key(axum::http::header::UPGRADE);
        Asked {
            local_port: local_port(request),
            is_secure: request.extensions().get::<Secure>().is_some(),
            host: host(request),
            origin: only(headers, &ORIGIN),
            site: only(headers, &SITE),
            navigates: matches!(only(headers, &MODE), Ok(Some("navigate"))),
            reads: matches!(*request.method(), Method::GET | Method::HEAD) && !upgrades,
            ticket: ticket(request)
                .is_some_and(|ticket| self.0.tickets.is_valid(ticket, Instant::now())),
            own_pages_only: false,
            forwarded: self.forwarded(request),
        }
    }

    fn warn<B>(&self, request: &Request<B>, judged: &Result<(), Refusal>) {
        let Err(refusal) = judged else {
            return;
        };
        let Some(suppressed) = self.0.warned.is_due(refusal.name(), Instant::now()) else {
            return;
        };
        let client = self.client(request).map(|client| client.to_string());
        let untrusted = self.untrusted_proxy(request).map(|proxy| {
            format!(
                "; X-Forwarded headers count from trusted_proxies alone: --trusted-proxies {proxy}"
            )
        });
        tracing::warn!(
            target: "http",
            client = client.unwrap_or_default(),
            name = refusal.name(),
            setting = refusal.setting().map(|(name, _)| name),
            path = request.uri().path(),
            left_out = suppressed,
            "refused: {refusal}{}",
            untrusted.unwrap_or_default(),
        );
    }
}

/// HTTP/2 and absolute requests name the host in the address itself. A browser always names one; HTTP/1.1 requires it.
fn host<B>(request: &Request<B>) -> Field<'_> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    match only(request.headers(), &HOST)? {
        None if request.version() > Version::HTTP_10 => Err(()),
        host => Ok(host),
    }
}

fn ticket<B>(request: &Request<B>) -> Option<&str> {
    let query = request.uri().query()?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("ticket="))
}

fn peer<B>(request: &Request<B>) -> Option<SocketAddr> {
    let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
    info.map(|info| info.0)
}

fn local_port<B>(request: &Request<B>) -> Option<u16> {
    request.extensions().get::<LocalPort>().map(|port| port.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(HeaderName, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder().uri("/ws");
        for (name, value) in pairs {
            request = request.header(name, *value);
        }
        Guard::new(&OriginPolicy::default()).check(&request.body(()).unwrap())
    }

    #[test]
    fn host_and_origin_stand_once() {
        let (host, own) = ((HOST, "127.0.0.1:1"), (ORIGIN, "http://127.0.0.1:1"));
        let is_of_origin = |judged| matches!(judged, Err(Refusal::Origin { .. }));
        assert_eq!(check(&[host.clone(), own.clone()]), Ok(()));
        assert_eq!(check(core::slice::from_ref(&host)), Ok(()));
        assert_eq!(check(&[]), Err(Refusal::NoHost));
        assert_eq!(check(&[host.clone(), host.clone()]), Err(Refusal::NoHost));
        assert!(is_of_origin(check(&[host.clone(), own.clone(), own])));
        assert!(is_of_origin(check(&[
            host.clone(),
            (ORIGIN, "http://\u{e9}")
        ])));
        let same = (SITE, "same-origin");
        assert!(check(&[host.clone(), same.clone()]).is_ok());
        assert!(check(&[host, same.clone(), same]).is_err());
    }

    #[test]
    fn an_absolute_address_names_the_host() {
        let request = |uri| Request::builder().uri(uri).header(HOST, "127.0.0.1");
        let guard = Guard::new(&OriginPolicy::default());
        let check = |uri| guard.check(&request(uri).body(()).unwrap());
        assert_eq!(check("http://127.0.0.1/ws"), Ok(()));
        assert!(check("http://evil.example/ws").is_err());
    }

    #[test]
    fn only_old_clients_name_no_host() {
        let guard = Guard::new(&OriginPolicy::default());
        let request = |version| {
            Request::builder()
                .version(version)
                .uri("/")
                .body(())
                .unwrap()
        };
        assert_eq!(guard.check(&request(Version::HTTP_10)), Ok(()));
        assert_eq!(
            guard.check(&request(Version::HTTP_11)),
            Err(Refusal::NoHost)
        );
    }
}
