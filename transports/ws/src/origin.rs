//! Which web pages may talk to this server.
//!
//! A browser lets any page open a WebSocket to, and send simple requests to, any address that its user can
//! reach, this machine's loopback included. Two headers that a page cannot forge tell them apart: `Origin`
//! names the page's own server, and `Host` the name by which the page reaches this one. The second stands
//! against DNS rebinding, where a hostile name is made to point here, so that origin and host agree.
//!
//! Programs that are no browsers send no `Origin` and are not restricted by it.

use core::net::{IpAddr, Ipv6Addr};

/// The rules. The default allows pages that this server itself has delivered, by an IP address or as
/// `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// Origins of other servers whose pages are welcome, as browsers write them:
    /// `https://dash.example.com`, with `:port` where it is not the scheme's own.
    pub allow_origins: Vec<String>,
    /// Names by which this server may be called, as in `bus.example.com`; with `:port`, by that port
    /// alone.
    pub allow_hosts: Vec<String>,
}

/// Why a request is refused. The answer is HTTP 403.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Host`, or none that can be read.
    #[error("the Host header is missing or malformed")]
    NoHost,
    /// The `Host` is a name that is not in [`OriginPolicy::allow_hosts`].
    #[error("the Host is neither an IP address nor localhost nor in allow_hosts")]
    Host,
    /// The page is of another origin that is not in [`OriginPolicy::allow_origins`].
    #[error("the Origin is neither this server nor in allow_origins")]
    Origin,
}

impl OriginPolicy {
    /// Checks the headers `Host` and `Origin` of a request. A page is of the same origin when the host
    /// and the port of its origin are those of `Host`, over `http` or `https`: behind a proxy that ends
    /// TLS this server does not see the scheme.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
        let host = host.and_then(Authority::parse).ok_or(Refusal::NoHost)?;
        if !self.is_own_name(&host) {
            return Err(Refusal::Host);
        }
        let Some(origin) = origin else {
            return Ok(());
        };
        let origin = Origin::parse(origin).ok_or(Refusal::Origin)?;
        let mut allowed = self.allow_origins.iter();
        if origin.is_of(&host) || allowed.any(|o| Origin::parse(o).as_ref() == Some(&origin)) {
            Ok(())
        } else {
            Err(Refusal::Origin)
        }
    }

    fn is_own_name(&self, host: &Authority) -> bool {
        match &host.name {
            Name::Address(_) => true,
            Name::Text(name) if name == "localhost" => true,
            Name::Text(_) => self.allow_hosts.iter().any(|allowed| {
                Authority::parse(allowed).is_some_and(|allowed| {
                    allowed.name == host.name
                        && (allowed.port.is_none() || allowed.port == host.port)
                })
            }),
        }
    }
}

/// A host and a port, as far as one is named.
#[derive(Debug, PartialEq, Eq)]
struct Authority {
    name: Name,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Address(IpAddr),
    /// In lower case.
    Text(String),
}

impl Authority {
    fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = match rest {
                "" => None,
                rest => Some(port(rest.strip_prefix(':')?)?),
            };
            return Some(Self {
                name: Name::Address(address.into()),
                port,
            });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, digits)) => (name, Some(port(digits)?)),
            None => (text, None),
        };
        // Whatever else may stand in an authority (a user, percent signs) has no place in these headers.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || !name.bytes().all(allowed) {
            return None;
        }
        let name = match name.parse() {
            Ok(address) => Name::Address(IpAddr::V4(address)),
            Err(_) => Name::Text(name.to_ascii_lowercase()),
        };
        Some(Self { name, port })
    }
}

/// The origin of a page (RFC 6454), of the schemes that pages come by.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    https: bool,
    name: Name,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let https = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return None;
        };
        let Authority { name, port } = Authority::parse(authority)?;
        let port = port.unwrap_or(scheme_port(https));
        Some(Self { https, name, port })
    }

    fn is_of(&self, host: &Authority) -> bool {
        self.name == host.name && self.port == host.port.unwrap_or(scheme_port(self.https))
    }
}

const fn scheme_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Digits alone: `u16::from_str` takes a sign.
fn port(digits: &str) -> Option<u16> {
    let only_digits = digits.bytes().all(|b| b.is_ascii_digit());
    only_digits.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(host: &str, origin: &str) -> Result<(), Refusal> {
        OriginPolicy::default().check(Some(host), Some(origin))
    }

    #[test]
    fn own_pages_pass() {
        for (host, origin) in [
            ("127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("localhost:3000", "http://localhost:3000"),
            ("LOCALHOST:3000", "http://localhost:3000"),
            ("[::1]:3000", "http://[::1]:3000"),
            ("[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
            ("192.168.1.7", "http://192.168.1.7"),
            ("192.168.1.7", "http://192.168.1.7:80"),
            ("192.168.1.7:80", "http://192.168.1.7"),
            ("192.168.1.7", "https://192.168.1.7"),
            ("192.168.1.7:443", "https://192.168.1.7"),
        ] {
            assert_eq!(check(host, origin), Ok(()), "{host} {origin}");
        }
    }

    #[test]
    fn other_pages_do_not() {
        for (host, origin) in [
            ("127.0.0.1:3000", "http://evil.example"),
            ("127.0.0.1:3000", "http://127.0.0.1:3001"),
            ("127.0.0.1:3000", "http://127.0.0.1"),
            ("127.0.0.1:3000", "http://localhost:3000"),
            ("127.0.0.1:3000", "http://127.0.0.1:3000.evil.example"),
            ("127.0.0.1:3000", "http://127.0.0.1:3000@evil.example"),
            ("127.0.0.1:3000", "http://127.0.0.1:3000/"),
            ("127.0.0.1:3000", "http://127.0.0.1:+3000"),
            ("127.0.0.1:443", "http://127.0.0.1"),
            ("127.0.0.1:3000", "ftp://127.0.0.1:3000"),
            ("127.0.0.1:3000", "null"),
            ("127.0.0.1:3000", "file://"),
            ("127.0.0.1:3000", ""),
        ] {
            assert_eq!(check(host, origin), Err(Refusal::Origin), "{host} {origin}");
        }
    }

    #[test]
    fn programs_send_no_origin() {
        let policy = OriginPolicy::default();
        assert_eq!(policy.check(Some("127.0.0.1:3000"), None), Ok(()));
        assert_eq!(policy.check(Some("bus.local"), None), Err(Refusal::Host));
    }

    #[test]
    fn names_of_the_server_are_listed() {
        // What a rebinding attack looks like: origin and host agree.
        assert_eq!(
            check("evil.example:3000", "http://evil.example:3000"),
            Err(Refusal::Host)
        );
        assert_eq!(
            check("localhost.evil.example", "http://localhost.evil.example"),
            Err(Refusal::Host)
        );
        let policy = OriginPolicy {
            allow_hosts: vec!["Bus.Example.com".to_owned(), "lab.local:8080".to_owned()],
            ..OriginPolicy::default()
        };
        let check = |host, origin| policy.check(Some(host), Some(origin));
        assert_eq!(check("bus.example.com", "https://bus.example.com"), Ok(()));
        assert_eq!(
            check("bus.example.com:81", "http://bus.example.com:81"),
            Ok(())
        );
        assert_eq!(check("lab.local:8080", "http://lab.local:8080"), Ok(()));
        assert_eq!(check("lab.local", "http://lab.local"), Err(Refusal::Host));
    }

    #[test]
    fn other_origins_are_listed() {
        let policy = OriginPolicy {
            allow_origins: vec!["https://Dash.example.com:443".to_owned()],
            ..OriginPolicy::default()
        };
        let check = |origin| policy.check(Some("10.0.0.1:3000"), Some(origin));
        assert_eq!(check("https://dash.example.com"), Ok(()));
        assert_eq!(check("http://dash.example.com"), Err(Refusal::Origin));
        assert_eq!(check("https://dash.example.com:8443"), Err(Refusal::Origin));
        // A listed page still has to call this server by its name.
        assert_eq!(
            policy.check(Some("evil.example"), Some("https://dash.example.com")),
            Err(Refusal::Host)
        );
    }

    #[test]
    fn hosts_that_cannot_be_read() {
        let policy = OriginPolicy::default();
        assert_eq!(policy.check(None, None), Err(Refusal::NoHost));
        for host in [
            "",
            ":80",
            "[::1",
            "[::1]80",
            "a b",
            "127.0.0.1:",
            "::1",
            "a@b",
        ] {
            let refused = policy.check(Some(host), None);
            // A port without digits names none: the empty string of digits does not parse.
            assert_eq!(refused, Err(Refusal::NoHost), "{host}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(host in any::<String>(), origin in any::<String>()) {
            let _ = OriginPolicy::default().check(Some(&host), Some(&origin));
        }

        #[test]
        fn only_the_same_host_and_port_pass(a in 0_u8..3, b in 0_u8..3, p in 1_u16..4, q in 1_u16..4) {
            let passed = check(&format!("10.0.0.{a}:{p}"), &format!("http://10.0.0.{b}:{q}")).is_ok();
            prop_assert_eq!(passed, a == b && p == q);
        }
    }
}
