//! What trusted proxies say about a request: `Forwarded` (RFC 7239), or else the `X-Forwarded-…` headers.

use core::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use latchbus_bus::proxy::Networks;

use super::pattern::{Authority, parse_port};

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What the proxy next to the client has seen, as far as the proxies can be trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) client: Option<SocketAddr>,
    /// The host as the header says it, and as it can be read.
    pub(crate) host: Option<(String, Option<Authority>)>,
    /// The port that the client has connected to, which a proxy may leave out of the host.
    pub(crate) port: Option<u16>,
    pub(crate) https: Option<bool>,
    /// Begins with a slash and does not end with one; not empty.
    pub(crate) prefix: Option<String>,
}

impl Forwarded {
    /// Of a request whose peer is a trusted proxy. Each proxy writes behind what it was given, so the values are read
    /// from the right as long as they are of a proxy that is trusted. Most proxies pass the header that they do not write on
    /// as the client sent it: what the two say differently is not believed.
    pub(crate) fn read(headers: &HeaderMap, trusted: &Networks) -> Self {
        let prefix = last(headers, &PREFIX, 0).and_then(prefix);
        let by_standard = headers.contains_key(FORWARDED);
        let by_custom = [FOR, HOST, PROTO]
            .iter()
            .any(|name| headers.contains_key(name));
        let read = match (by_standard, by_custom) {
            (true, false) => standard(headers, trusted),
            (true, true) => custom(headers, trusted).agreed(standard(headers, trusted)),
            (false, _) => custom(headers, trusted),
        };
        Self { prefix, ..read }
    }

    fn agreed(self, other: Self) -> Self {
        let ip = |client: &Option<SocketAddr>| client.map(|client| client.ip());
        Self {
            client: self
                .client
                .filter(|_| ip(&self.client) == ip(&other.client)),
            host: self.host.filter(|host| Some(host) == other.host.as_ref()),
            port: self.port,
            https: self.https.filter(|_| self.https == other.https),
            prefix: None,
        }
    }
}

fn custom(headers: &HeaderMap, trusted: &Networks) -> Forwarded {
    let clients: Vec<_> = values(headers, &FOR).rev().map(address).collect();
    let (hops, client) = first_untrusted(&clients, trusted);
    let host = last(headers, &HOST, hops);
    Forwarded {
        client,
        host: host.map(|text| (text.to_owned(), Authority::parse(text))),
        port: last(headers, &PORT, hops).and_then(parse_port),
        https: last(headers, &PROTO, hops).and_then(is_https),
        prefix: None,
    }
}

/// RFC 7239: one element a proxy.
fn standard(headers: &HeaderMap, trusted: &Networks) -> Forwarded {
    let elements: Vec<_> = values(headers, &FORWARDED).rev().collect();
    let parameter = |element: &str, name: &str| {
        element.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = value.trim().trim_matches('"').to_owned();
            key.trim().eq_ignore_ascii_case(name).then_some(value)
        })
    };
    let clients: Vec<_> = elements
        .iter()
        .map(|element| parameter(element, "for").as_deref().and_then(address))
        .collect();
    let (hops, client) = first_untrusted(&clients, trusted);
    let element = elements.get(hops).copied().unwrap_or_default();
    Forwarded {
        client,
        host: parameter(element, "host").map(|text| {
            let host = Authority::parse(&text);
            (text, host)
        }),
        port: None,
        https: parameter(element, "proto").as_deref().and_then(is_https),
        prefix: None,
    }
}

/// How many trusted proxies stand between, and who is behind them; the last of them where all are trusted.
fn first_untrusted(
    clients: &[Option<SocketAddr>],
    trusted: &Networks,
) -> (usize, Option<SocketAddr>) {
    let is_proxy =
        |client: &Option<SocketAddr>| client.is_some_and(|client| trusted.contains(client.ip()));
    let hops = clients.iter().take_while(|client| is_proxy(client)).count();
    let hops = hops.min(clients.len().saturating_sub(1));
    (hops, clients.get(hops).copied().flatten())
}

/// An address with a port or without. Whatever else a proxy may write (`unknown`, a name that hides it) is none.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim_matches('"');
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address: IpAddr = bare.unwrap_or(text).parse().ok()?;
    Some(SocketAddr::new(address, 0))
}

fn is_https(proto: &str) -> Option<bool> {
    match proto {
        p if p.eq_ignore_ascii_case("https") || p.eq_ignore_ascii_case("wss") => Some(true),
        p if p.eq_ignore_ascii_case("http") || p.eq_ignore_ascii_case("ws") => Some(false),
        _ => None,
    }
}

/// A path that can stand in a page.
fn prefix(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b'~');
    let is_path = text.starts_with('/') && !text.starts_with("//") && text.bytes().all(allowed);
    is_path.then(|| text.to_owned())
}

/// The values of a header that is a list, in one line or several.
fn values<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl DoubleEndedIterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
}

/// The value that is so many from the end, or the first.
fn last<'h>(headers: &'h HeaderMap, name: &HeaderName, hops: usize) -> Option<&'h str> {
    let count = values(headers, name).count();
    values(headers, name)
        .rev()
        .nth(hops.min(count.saturating_sub(1)))
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Forwarded {
        let headers = pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        let trusted = ["127.0.0.1", "10.0.0.0/8"].map(|net| net.parse().unwrap());
        Forwarded::read(&headers, &trusted.into_iter().collect())
    }

    fn host(forwarded: &Forwarded) -> String {
        let (_, host) = forwarded.host.clone().unwrap();
        host.unwrap().to_string()
    }

    #[test]
    fn one_proxy() {
        let read = read(&[
            ("x-forwarded-for", "evil, 192.0.2.1"),
            ("x-forwarded-host", "bus.example.com"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "8443"),
            ("x-forwarded-prefix", "/lb/"),
        ]);
        assert_eq!(read.client, Some("192.0.2.1:0".parse().unwrap()));
        assert_eq!(
            (host(&read).as_str(), read.port),
            ("bus.example.com", Some(8443))
        );
        assert_eq!(
            (read.https, read.prefix.as_deref()),
            (Some(true), Some("/lb"))
        );
    }

    /// What a client has written itself stands to the left of what the trusted proxies wrote.
    #[test]
    fn several_proxies() {
        let read = read(&[
            ("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.0.0.2"),
            ("x-forwarded-host", "evil.example, bus.example.com, inner"),
            ("x-forwarded-proto", "http, https, http"),
        ]);
        assert_eq!(read.client, Some("192.0.2.1:0".parse().unwrap()));
        assert_eq!(
            (host(&read), read.https),
            ("bus.example.com".to_owned(), Some(true))
        );
    }

    #[test]
    fn the_standard_header() {
        let read = read(&[
            (
                "forwarded",
                "for=6.6.6.6;host=evil.example, for=\"[2001:db8::1]:47\";HOST=\"bus.example.com:8443\"; Proto=https",
            ),
            ("forwarded", "for=10.0.0.2;proto=http"),
        ]);
        assert_eq!(read.client, Some("[2001:db8::1]:47".parse().unwrap()));
        assert_eq!(
            (host(&read), read.https),
            ("bus.example.com:8443".to_owned(), Some(true))
        );
    }

    /// A proxy writes one of the two and passes the client's own on.
    #[test]
    fn what_the_two_say_differently_is_not_believed() {
        let (bus, evil) = (
            "for=192.0.2.1;host=bus.example.com",
            "for=6.6.6.6;host=localhost",
        );
        let x = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "bus.example.com"),
        ];
        let agreed = read(&[x[0], x[1], ("forwarded", bus)]);
        assert_eq!(host(&agreed), "bus.example.com");
        assert_eq!(agreed.client, Some("192.0.2.1:0".parse().unwrap()));
        for pairs in [
            &[x[0], x[1], ("forwarded", evil)][..],
            &[x[0], ("forwarded", evil)],
            &[("forwarded", bus), ("x-forwarded-host", "localhost")],
        ] {
            let read = read(pairs);
            assert_eq!((read.host, read.client), (None, None), "{pairs:?}");
        }
    }

    #[test]
    fn what_cannot_be_read() {
        let read = read(&[
            ("x-forwarded-for", "unknown"),
            ("x-forwarded-host", "a b"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-prefix", "//evil.example"),
        ]);
        assert_eq!(read.host, Some(("a b".to_owned(), None)));
        assert_eq!((read.client, read.https, read.prefix), (None, None, None));
    }
}
