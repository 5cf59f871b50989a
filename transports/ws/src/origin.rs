//! Which web pages may talk to this server.
//!
//! A browser lets any page open a WebSocket to, and send simple requests to, any address that its user can
//! reach, this machine's loopback included. Three headers that a page cannot forge tell them apart:
//!
//! - `Host` is the name by which the page reaches this server. It stands against DNS rebinding, where a hostile
//!   name is made to point here, so that everything else says "same origin".
//! - `Origin` names the page's own server. Browsers send it with every WebSocket and every write, programs do not.
//! - `Sec-Fetch-Site` is the browser's own verdict. Browsers send it over TLS and to the loopback interface, Chromium
//!   not with WebSockets.
//!
//! # Behind a proxy
//! A proxy may replace `Host` by a name of its own. Then there is no name to compare the origin with, and:
//!
//! - `Host` is taken from `Forwarded` or `X-Forwarded-Host` where the proxy is in
//!   [`trusted_proxies`](OriginPolicy::trusted_proxies), which may also pass `Host` itself on. It then vouches for the
//!   name, unless `allow_hosts` lists those that are meant.
//! - Without that, a name without a dot (`backend`) passes when it does not go with the port of this listener: whoever
//!   connects here by himself names that port, so a proxy has put it there. No public name server answers for such a
//!   name. The name that the user has typed is not known then, so what could be a rebound name (neither an IP address nor
//!   `localhost` nor listed, without TLS) may not write or subscribe, and a read needs `Sec-Fetch-Site`, which browsers
//!   do not send for such names.
//! - A `Host` without a port, where this listener's port is not the scheme's own, is one whose port a proxy has left out:
//!   the origin's is not compared.
//! - A page that can show a [ticket](Guard::ticket) is of the same origin: no other can read one.
//!
//! Programs that are no browsers send no `Origin` and are not restricted by it.

mod forwarded;
mod guard;
mod pattern;
mod ticket;
mod warned;

use core::net::IpAddr;

use axum::http::Response;
use hyper::ext::ReasonPhrase;
use latchbus_bus::proxy::Networks;

pub use self::guard::{Guard, LocalPort, Secure};

use self::forwarded::Forwarded;
use self::pattern::{Authority, HostPattern, Name, Origin, OriginPattern, scheme_port};

/// Of a name that is refused, so much stands in a reason phrase.
const MAX_SHOWN_CHARS: usize = 200;

/// The rules. The default allows pages that this server itself has delivered, by an IP address or as
/// `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// Origins of other servers whose pages are welcome, as browsers write them:
    /// `https://dash.example.com`, with `:port` where it is not the scheme's own. `https://*.example.com` are all that
    /// are below it, `:*` is every port, `null` the pages that have no origin.
    pub allow_origins: Vec<String>,
    /// Names by which this server may be called, as in `bus.example.com`; with `:port`, by that port
    /// alone. `*.local` are all that are below it.
    pub allow_hosts: Vec<String>,
    /// Proxies whose word is taken for the client's address, the host and the scheme. Nobody else may connect from
    /// these addresses.
    pub trusted_proxies: Networks,
}

/// Why a request is refused. The answer is HTTP 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Host`, or none that can be read.
    #[error("the Host header is missing or malformed")]
    NoHost,
    /// The `Host` is a name that is not in [`OriginPolicy::allow_hosts`].
    #[error(
        "the Host is neither an IP address nor localhost nor in allow_hosts; to allow it: --allow-hosts {host}"
    )]
    Host {
        /// As it was sent.
        host: String,
    },
    /// A proxy has replaced the `Host`, so that it is not known by which name a browser came.
    #[error(
        "a proxy has replaced the Host by its own name for this server; let it pass Host on, or, where only programs \
         come this way, --allow-hosts {host}"
    )]
    Replaced {
        /// As it was sent.
        host: String,
    },
    /// The page is of another origin that is not in [`OriginPolicy::allow_origins`].
    #[error(
        "the Origin is neither this server ({host}) nor in allow_origins; to allow it: --allow-origins {origin}; \
         behind a proxy, let it pass Host on or name it in --trusted-proxies"
    )]
    Origin {
        /// As it was sent.
        origin: String,
        /// What it was compared with.
        host: String,
    },
    /// The browser says that the page is of another site (`Sec-Fetch-Site`) and does not say of which.
    #[error(
        "the request comes from a page of another site (Sec-Fetch-Site); its origin can be allowed by --allow-origins"
    )]
    CrossSite,
}

impl Refusal {
    /// The name that is refused: what a log line shows.
    pub fn name(&self) -> &str {
        match self {
            Self::NoHost | Self::CrossSite => "",
            Self::Host { host } | Self::Replaced { host } => host,
            Self::Origin { origin, .. } => origin,
        }
    }

    /// The setting that allows it, and the value to add to it.
    pub fn setting(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::NoHost | Self::CrossSite => None,
            Self::Host { host } | Self::Replaced { host } => Some(("allow_hosts", host)),
            Self::Origin { origin, .. } => Some(("allow_origins", origin)),
        }
    }
}

impl Refusal {
    /// Puts the flag that allows it into the reason phrase of an answer (HTTP/1.1), which browsers show on their console also
    /// where a page may not read the answer.
    pub fn explain<B>(&self, response: &mut Response<B>) {
        let Some((setting, value)) = self.setting() else {
            return;
        };
        let flag = setting.replace('_', "-");
        let value: String = value.chars().take(MAX_SHOWN_CHARS).collect();
        let phrase = format!("Forbidden: start Latchbus with --{flag} {value}");
        if let Ok(phrase) = ReasonPhrase::try_from(phrase.into_bytes()) {
            response.extensions_mut().insert(phrase);
        }
    }
}

impl OriginPolicy {
    /// Checks `Host` and `Origin` of a request of which nothing else is known. A page is of the same origin when the
    /// host and the port of its origin are those of `Host`, over `http` or `https`: behind a proxy that ends
    /// TLS this server does not see the scheme.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
        let asked = Asked {
            host: host.ok_or(()).map(Some),
            origin: Ok(origin),
            ..Asked::default()
        };
        Rules::new(self).judge(&asked)
    }

    /// Whether this can stand in [`allow_origins`](Self::allow_origins).
    pub fn is_origin(text: &str) -> bool {
        OriginPattern::parse(text).is_some()
    }

    /// Whether this can stand in [`allow_hosts`](Self::allow_hosts).
    pub fn is_host(text: &str) -> bool {
        HostPattern::parse(text).is_some()
    }
}

/// A header that may stand once; an error where it stands twice or is no text.
type Field<'r> = Result<Option<&'r str>, ()>;

/// What is known of a request.
#[derive(Debug, Clone)]
struct Asked<'r> {
    /// The port of the listener.
    local_port: Option<u16>,
    /// Its connection is TLS to here.
    is_secure: bool,
    host: Field<'r>,
    origin: Field<'r>,
    site: Field<'r>,
    /// The browser shows the answer as a page: `Sec-Fetch-Mode`.
    navigates: bool,
    /// GET and HEAD, but not for a WebSocket: browsers send no `Origin` with those of the same origin.
    reads: bool,
    /// It has shown a ticket.
    ticket: bool,
    /// What `allow_origins` lists does not count.
    own_pages_only: bool,
    /// Of a trusted proxy; see [`Rules::is_proxied`].
    forwarded: Option<Forwarded>,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            local_port: None,
            is_secure: false,
            host: Ok(None),
            origin: Ok(None),
            site: Ok(None),
            navigates: false,
            reads: false,
            ticket: false,
            own_pages_only: false,
            forwarded: None,
        }
    }
}

/// By which name a request came.
#[derive(Debug)]
enum Called {
    /// It named none, as no browser does.
    Not,
    /// By a name of this server, or one that a trusted proxy vouches for.
    By(Authority),
    /// By a name that a proxy has put there.
    Replaced(Authority),
}

impl Called {
    fn host(&self) -> String {
        match self {
            Self::Not => String::new(),
            Self::By(host) | Self::Replaced(host) => host.to_string(),
        }
    }
}

/// A policy in the form in which it is asked.
#[derive(Debug)]
struct Rules {
    origins: Vec<OriginPattern>,
    hosts: Vec<HostPattern>,
    trusted: Networks,
}

impl Rules {
    fn new(policy: &OriginPolicy) -> Self {
        let origins = policy.allow_origins.iter();
        let hosts = policy.allow_hosts.iter();
        Self {
            origins: origins
                .filter_map(|text| OriginPattern::parse(text))
                .collect(),
            hosts: hosts.filter_map(|text| HostPattern::parse(text)).collect(),
            trusted: policy.trusted_proxies.clone(),
        }
    }

    fn judge(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let called = self.called(asked)?;
        self.judge_page(asked, &called)
    }

    fn is_own_name(&self, host: &Authority) -> bool {
        match &host.name {
            Name::Address(_) => true,
            Name::Text(name) if name == "localhost" => true,
            Name::Text(_) => self.hosts.iter().any(|allowed| allowed.matches(host)),
        }
    }

    /// Whether the request has come through a trusted proxy. A browser on the proxy's own machine connects from the same
    /// address, and a page that it has by a rebound name may add any header but `Host`: that names this listener's port.
    fn is_proxied(&self, peer: Option<IpAddr>, local_port: Option<u16>, host: Field<'_>) -> bool {
        let Some(peer) = peer.filter(|peer| self.trusted.contains(*peer)) else {
            return false;
        };
        let Ok(Some(host)) = host.map(|host| host.and_then(Authority::parse)) else {
            return true;
        };
        let is_near = peer.to_canonical().is_loopback();
        self.is_own_name(&host)
            || (host.name.is_single_label() && !is_near)
            || !names_port(&host, local_port)
    }

    fn called(&self, asked: &Asked<'_>) -> Result<Called, Refusal> {
        let Some(text) = asked.host.map_err(|()| Refusal::NoHost)? else {
            return Ok(Called::Not);
        };
        let host = Authority::parse(text).ok_or(Refusal::NoHost)?;
        if let Some(forwarded) = &asked.forwarded {
            let (text, named) = match &forwarded.host {
                Some((text, named)) => (text.as_str(), named.clone().ok_or(Refusal::NoHost)?),
                None => (text, host.clone()),
            };
            if self.hosts.is_empty() {
                return Ok(Called::By(named));
            }
            // A page may have added the name, where the proxy passes that on, but not changed `Host`.
            let is_listed =
                |host: &Authority| self.is_own_name(host) || host.name.is_single_label();
            return match (self.is_own_name(&named), is_listed(&host)) {
                (true, true) => Ok(Called::By(named)),
                (true, false) => Err(Refusal::Host {
                    host: host.to_string(),
                }),
                (false, _) => Err(Refusal::Host {
                    host: text.to_owned(),
                }),
            };
        }
        if self.is_own_name(&host) {
            Ok(Called::By(host))
        } else if host.name.is_single_label()
            && asked.local_port.is_some()
            && !names_port(&host, asked.local_port)
        {
            Ok(Called::Replaced(host))
        } else {
            Err(Refusal::Host {
                host: text.to_owned(),
            })
        }
    }

    fn judge_page(&self, asked: &Asked<'_>, called: &Called) -> Result<(), Refusal> {
        let refused = |origin: &str| Refusal::Origin {
            origin: origin.to_owned(),
            host: called.host(),
        };
        let text = asked.origin.map_err(|()| refused("?"))?;
        let origin = match text {
            Some(text) => Some((text, Origin::parse(text).ok_or_else(|| refused(text))?)),
            None => None,
        };
        if let Some((_, origin)) = &origin
            && !asked.own_pages_only
            && self.origins.iter().any(|allowed| allowed.matches(origin))
        {
            return Ok(());
        }
        // Twice is as good as a hostile one.
        match asked.site.unwrap_or(Some("cross-site")) {
            Some("same-origin") => match origin {
                Some((text, origin)) if !self.cannot_be_rebound(called, &origin) => {
                    Err(refused(text))
                }
                _ => Ok(()),
            },
            None | Some("none") => match (origin, called) {
                (Some((text, origin)), _) => {
                    let same = self.is_same(asked, called, &origin);
                    same.then_some(()).ok_or_else(|| refused(text))
                }
                // A read that names no page may be one of a browser.
                (None, Called::Replaced(host)) if asked.reads && asked.site != Ok(Some("none")) => {
                    Err(Refusal::Replaced {
                        host: host.to_string(),
                    })
                }
                (None, _) => Ok(()),
            },
            Some(_) => match origin {
                Some((text, _)) => Err(refused(text)),
                // The user has followed a link.
                None if asked.navigates && asked.reads => Ok(()),
                None => Err(Refusal::CrossSite),
            },
        }
    }

    /// Whether a page of this origin, which the browser takes for this server, can be what it seems: not where nothing
    /// else shows the name by which it came and that may be anyone's. A name that was rebound has no certificate.
    fn cannot_be_rebound(&self, called: &Called, origin: &Origin) -> bool {
        match called {
            Called::By(_) => true,
            Called::Not | Called::Replaced(_) => {
                origin.is_https()
                    || origin
                        .web_host()
                        .is_some_and(|host| self.is_own_name(&host))
            }
        }
    }

    fn is_same(&self, asked: &Asked<'_>, called: &Called, origin: &Origin) -> bool {
        let Some(page) = origin.web_host() else {
            return false;
        };
        if asked.ticket && (origin.is_https() || self.is_own_name(&page)) {
            return true;
        }
        let (Called::By(host) | Called::Replaced(host)) = called else {
            return false;
        };
        let forwarded = asked.forwarded.as_ref();
        let https = forwarded.and_then(|forwarded| forwarded.https);
        let https = https.or(asked.is_secure.then_some(true));
        if page.name != host.name || https.is_some_and(|https| https != origin.is_https()) {
            return false;
        }
        let own = scheme_port(if origin.is_https() { "https" } else { "http" });
        if let Some(port) = host.port {
            return page.port == Some(port);
        }
        let seen = forwarded.and_then(|forwarded| forwarded.port);
        let is_left_out = match asked.local_port {
            _ if seen.is_some() => page.port == seen,
            Some(local) => !matches!(local, 80 | 443),
            None => false,
        };
        page.port == own || is_left_out
    }
}

/// Whether a host goes with the port of the listener: so a browser writes it that connects by itself.
fn names_port(host: &Authority, local_port: Option<u16>) -> bool {
    match host.port {
        Some(port) => local_port.is_none_or(|local| local == port),
        None => local_port.is_none_or(|local| matches!(local, 80 | 443)),
    }
}

#[cfg(test)]
mod tests;
