//! Hosts and origins as browsers write them, and the patterns in which settings name them.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// A host and a port, as far as one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) name: Name,
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Address(IpAddr),
    /// In lower case.
    Text(String),
}

impl Name {
    /// A name without a dot, which no public name server answers for.
    pub(crate) fn is_single_label(&self) -> bool {
        matches!(self, Self::Text(name) if !name.contains('.'))
    }

    fn parse(name: &str) -> Option<Self> {
        // Whatever else may stand in an authority (a user, percent signs) has no place in these headers.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || !name.bytes().all(allowed) {
            return None;
        }
        Some(match name.parse() {
            Ok(address) => Self::Address(IpAddr::V4(address)),
            Err(_) => Self::Text(name.to_ascii_lowercase()),
        })
    }
}

impl Authority {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, port) = split(text)?;
        let port = match port {
            Some(digits) => Some(parse_port(digits)?),
            None => None,
        };
        Some(Self { name, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Name::Address(address) => address.fmt(f)?,
            Name::Text(name) => f.write_str(name)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The origin of a page (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// What a browser sends for pages that have none: files, sandboxed frames, some redirects.
    Null,
    Tuple {
        /// In lower case.
        scheme: String,
        name: Name,
        /// The scheme's own where none is written; none where the scheme has none.
        port: Option<u16>,
    },
}

impl Origin {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme = parse_scheme(scheme)?;
        let Authority { name, port } = Authority::parse(authority)?;
        let port = port.or(scheme_port(&scheme));
        Some(Self::Tuple { scheme, name, port })
    }

    pub(crate) fn is_https(&self) -> bool {
        matches!(self, Self::Tuple { scheme, .. } if scheme == "https")
    }

    /// The host, where it is of a web server.
    pub(crate) fn web_host(&self) -> Option<Authority> {
        match self {
            Self::Tuple { scheme, name, port } if scheme == "http" || scheme == "https" => {
                Some(Authority {
                    name: name.clone(),
                    port: *port,
                })
            }
            _ => None,
        }
    }
}

/// A host that a setting names: exactly, or with `*.` all that is below it; with a port that one alone, without or
/// with `:*` every port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPattern {
    name: NamePattern,
    port: Option<u16>,
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, port) = split_pattern(text)?;
        let port = match port {
            None | Some("*") => None,
            Some(digits) => Some(parse_port(digits)?),
        };
        Some(Self { name, port })
    }

    pub(crate) fn matches(&self, host: &Authority) -> bool {
        self.name.matches(&host.name) && (self.port.is_none() || self.port == host.port)
    }
}

/// An origin that a setting names: `null`, or a scheme and a host with its port, or with `:*` on every port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OriginPattern {
    Null,
    Tuple {
        scheme: String,
        name: NamePattern,
        port: PortPattern,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortPattern {
    Any,
    Only(Option<u16>),
}

impl OriginPattern {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme = parse_scheme(scheme)?;
        let (name, port) = split_pattern(authority)?;
        let port = match port {
            Some("*") => PortPattern::Any,
            Some(digits) => PortPattern::Only(Some(parse_port(digits)?)),
            None => PortPattern::Only(scheme_port(&scheme)),
        };
        Some(Self::Tuple { scheme, name, port })
    }

    pub(crate) fn matches(&self, origin: &Origin) -> bool {
        match (self, origin) {
            (Self::Null, Origin::Null) => true,
            (
                Self::Tuple { scheme, name, port },
                Origin::Tuple {
                    scheme: s,
                    name: n,
                    port: p,
                },
            ) => {
                scheme == s
                    && name.matches(n)
                    && match port {
                        PortPattern::Any => true,
                        PortPattern::Only(port) => port == p,
                    }
            }
            _ => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamePattern {
    Exact(Name),
    /// With its leading dot, in lower case.
    Below(String),
}

impl NamePattern {
    fn matches(&self, name: &Name) -> bool {
        match (self, name) {
            (Self::Exact(ours), theirs) => ours == theirs,
            (Self::Below(suffix), Name::Text(name)) => {
                name.len() > suffix.len() && name.ends_with(suffix.as_str())
            }
            (Self::Below(_), Name::Address(_)) => false,
        }
    }
}

/// A name and what stands behind its colon.
fn split(text: &str) -> Option<(Name, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':')?),
        };
        return Some((Name::Address(address.into()), port));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    Some((Name::parse(name)?, port))
}

fn split_pattern(text: &str) -> Option<(NamePattern, Option<&str>)> {
    let Some(below) = text.strip_prefix("*.") else {
        let (name, port) = split(text)?;
        return Some((NamePattern::Exact(name), port));
    };
    match split(below)? {
        (Name::Text(name), port) => Some((NamePattern::Below(format!(".{name}")), port)),
        (Name::Address(_), _) => None,
    }
}

/// RFC 3986 §3.1. In lower case.
fn parse_scheme(scheme: &str) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let begins = scheme.bytes().next()?.is_ascii_alphabetic();
    (begins && scheme.bytes().all(allowed)).then(|| scheme.to_ascii_lowercase())
}

pub(crate) fn scheme_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Digits alone: `u16::from_str` takes a sign.
pub(crate) fn parse_port(digits: &str) -> Option<u16> {
    let only_digits = digits.bytes().all(|b| b.is_ascii_digit());
    only_digits.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns() {
        for (pattern, host, expected) in [
            ("Bus.Example.com", "bus.example.com", true),
            ("bus.example.com", "bus.example.com:81", true),
            ("bus.example.com:81", "bus.example.com:81", true),
            ("bus.example.com:81", "bus.example.com", false),
            ("bus.example.com:*", "bus.example.com:9", true),
            ("*.local", "lab.local", true),
            ("*.local", "a.lab.LOCAL:3000", true),
            ("*.local", "local", false),
            ("*.local", "evil-local", false),
            ("*.local", "lab.local.evil.example", false),
            ("*.local:80", "lab.local:81", false),
            ("*.0.1", "127.0.0.1", false),
        ] {
            let matches = HostPattern::parse(pattern)
                .is_some_and(|p| p.matches(&Authority::parse(host).unwrap()));
            assert_eq!(matches, expected, "{pattern} {host}");
        }
        for wrong in [
            "",
            "*",
            "*.",
            "a.*",
            "*a.b",
            "*.*.b",
            "https://a",
            "a:",
            "a b",
        ] {
            assert_eq!(HostPattern::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn origin_patterns() {
        for (pattern, origin, expected) in [
            (
                "https://Dash.example.com:443",
                "https://dash.example.com",
                true,
            ),
            ("https://dash.example.com", "http://dash.example.com", false),
            (
                "https://dash.example.com",
                "https://dash.example.com:8443",
                false,
            ),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://a.example.com:444", false),
            (
                "https://*.example.com",
                "https://a.example.com.evil.example",
                false,
            ),
            (
                "https://*.example.com:444",
                "https://a.example.com:444",
                true,
            ),
            ("http://localhost:*", "http://localhost:5173", true),
            ("http://localhost:*", "https://localhost:5173", false),
            ("http://localhost:*", "http://localhost.evil.example", false),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("capacitor://localhost", "http://localhost", false),
            ("capacitor://localhost", "capacitor://localhost:80", false),
            ("null", "null", true),
            ("https://null", "null", false),
            ("http://[::1]:80", "http://[::1]", true),
        ] {
            let pattern = OriginPattern::parse(pattern).unwrap();
            assert_eq!(
                pattern.matches(&Origin::parse(origin).unwrap()),
                expected,
                "{pattern:?} {origin}"
            );
        }
        for wrong in [
            "",
            "*",
            "https://*",
            "*://a",
            "dash.example.com",
            "https://a/",
            "https://a@b",
            "1a://b",
        ] {
            assert_eq!(OriginPattern::parse(wrong), None, "{wrong}");
        }
    }
}
