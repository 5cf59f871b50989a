//! What single settings hold. Each is checked where it is read, so that the complaint names the place.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use core::{fmt, str::FromStr};
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;

use latchbus_bus::proxy::Network;
use latchbus_core::clicks;
use latchbus_core::topic::TopicFilter;
use latchbus_ws::OriginPolicy;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::log::LogFormat;

/// Where one listener listens: a port of which 0 is any that is free, alone on the loopback interface, or behind an IP
/// address, `localhost` or another name of this machine; the path of a Unix socket; or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Here.
    At(SocketAddr),
    /// At each of the addresses of this name; those that this machine does not have are left out.
    Name {
        /// The name, with its port.
        name: String,
        /// Its addresses.
        addresses: Vec<SocketAddr>,
    },
    /// At this socket of the file system.
    Unix(PathBuf),
    /// Not at all.
    Off,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an address and a port, as in `127.0.0.1:3000`, `localhost:3000` or \
                                `[::1]:3000`, a port alone, as in `3000`, `unix:PATH`, or `off`";
        let port = |digits: &str| {
            let only_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let port = only_digits.then(|| digits.parse::<u16>().ok()).flatten();
            port.ok_or_else(|| format!("`{text}` names no port: {EXPECTED}"))
        };
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(text, path);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::At(address));
        }
        let Some((host, digits)) = text.rsplit_once(':') else {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(text)?));
            return Ok(Self::At(address));
        };
        let port = port(digits)?;
        if matches!(host, "" | "*") {
            return Err(format!(
                "`{text}` names no address: `0.0.0.0:{port}` is every one of this machine, `[::]:{port}` those of IPv6 too, \
                 and `{port}` is for this machine alone"
            ));
        }
        let name = text.to_ascii_lowercase();
        if host.eq_ignore_ascii_case("localhost") {
            // Whatever a name server says (RFC 6761 §6.3).
            let addresses = vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
            ];
            return Ok(Self::Name { name, addresses });
        }
        let is_name = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !is_name {
            return Err(format!("`{text}` is no address: {EXPECTED}"));
        }
        let found = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("`{host}` has no address: {error}"))?;
        let mut addresses = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match addresses.is_empty() {
            true => Err(format!("`{host}` has no address")),
            false => Ok(Self::Name { name, addresses }),
        }
    }
}

#[cfg(unix)]
fn unix(text: &str, path: &str) -> Result<Listen, String> {
    match path {
        "" => Err(format!(
            "`{text}` names no file: expected one as in `unix:/run/latchbus.sock`"
        )),
        path => Ok(Listen::Unix(path.into())),
    }
}

#[cfg(not(unix))]
fn unix(text: &str, _: &str) -> Result<Listen, String> {
    Err(format!("`{text}`: this system has no Unix sockets here"))
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Name { name, .. } => f.write_str(name),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Where listeners listen: one or several, divided by commas; in the file also a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(pub Vec<Listen>);

impl Addresses {
    /// None.
    pub fn off() -> Self {
        Self(vec![Listen::Off])
    }

    /// Whether it is `off`.
    pub fn is_off(&self) -> bool {
        self.0.iter().all(|listen| *listen == Listen::Off)
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(|part| match text.contains(',') {
            true => part.trim().parse(),
            false => part.parse(),
        });
        parts.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, listen) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{listen}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrPortOrList;

        impl<'de> Visitor<'de> for TextOrPortOrList {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a port, or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Addresses, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Addresses, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Addresses, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
                let mut all = Vec::new();
                while let Some(Addresses(some)) = list.next_element()? {
                    all.extend(some);
                }
                match all.is_empty() {
                    true => Err(A::Error::custom(
                        "the list is empty: expected an address, or `off`",
                    )),
                    false => Ok(Addresses(all)),
                }
            }
        }

        deserializer.deserialize_any(TextOrPortOrList)
    }
}

/// Who may use a Unix socket: the permissions of its file, in octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixMode(pub u32);

impl FromStr for UnixMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_octal =
            (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let mode = u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| is_octal && *mode <= 0o777);
        mode.map(Self).ok_or_else(|| {
            format!("`{text}` is no mode of a file: expected octal digits, as in `0660`")
        })
    }
}

/// What is logged: a level, or a list as in `info,mqtt=debug`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter(Targets);

impl LogFilter {
    /// The filter, for a subscriber.
    pub fn targets(&self) -> Targets {
        self.0.clone()
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self(Targets::new().with_default(LevelFilter::INFO))
    }
}

impl FromStr for LogFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected off, error, warn, info, debug or trace, or a list as in \
                                `info,mqtt=debug`";
        // A target with a space before it would be none of ours.
        let trimmed = |part: &str| part.split('=').map(str::trim).collect::<Vec<_>>().join("=");
        let parts: Vec<_> = text.split(',').map(trimmed).collect();
        // A word that is no level would be taken for the name of a target, and silence all the others.
        for part in &parts {
            let level = part.rsplit('=').next().filter(|level| !level.is_empty());
            level
                .ok_or(EXPECTED)?
                .parse::<LevelFilter>()
                .map_err(|_| EXPECTED)?;
        }
        parts.join(",").parse().map(Self).map_err(|_| EXPECTED)
    }
}

/// A topic filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(pub TopicFilter<String>);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        TopicFilter::parse(text.to_owned())
            .map(Self)
            .map_err(|error| format!("`{text}` is not a topic filter: {error}"))
    }
}

/// Where a microcontroller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial(pub latchbus_serial::Address);

impl FromStr for Serial {
    type Err = latchbus_serial::AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The name of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room(pub String);

impl FromStr for Room {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if clicks::is_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "`{text}` is not a room: expected up to 64 letters, digits, `.`, `_` or `-`, beginning with a \
                 letter or digit"
            ))
        }
    }
}

/// The origin of a web page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(pub String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match OriginPolicy::is_origin(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "`{text}` is not an origin: expected one as in `https://dash.example.com`, `https://*.example.com`, \
                 `http://localhost:*`, `capacitor://localhost` or `null`"
            )),
        }
    }
}

/// A name of this server, as in the header `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match OriginPolicy::is_host(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "`{text}` is not a host: expected a name as in `bus.example.com` or `*.local`, with `:port` or without"
            )),
        }
    }
}

/// Who may show the pages in a frame: an origin, `self`, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(String);

impl Frame {
    /// As it stands in a `Content-Security-Policy`.
    pub fn source(&self) -> &str {
        match self.0.as_str() {
            "self" => "'self'",
            origin => origin,
        }
    }
}

impl FromStr for Frame {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `null` is no source there: a page without an origin cannot be named.
        let is_source = OriginPolicy::is_origin(text) && text != "null";
        match is_source || matches!(text, "self" | "*") {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "`{text}` can't frame a page: expected an origin as in `https://grafana.example.com`, `self` or `*`"
            )),
        }
    }
}

/// The address of a proxy, or a network of proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy(pub Network);

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A path that begins with a slash and does not end with one; or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(pub String);

impl FromStr for BasePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.trim_matches('/');
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~');
        let is_step = |step: &str| !matches!(step, "" | "." | "..") && step.bytes().all(allowed);
        if path.is_empty() {
            Ok(Self::default())
        } else if path.split('/').all(is_step) {
            Ok(Self(format!("/{path}")))
        } else {
            Err(format!(
                "`{text}` is not a base path: expected one as in `/lb`"
            ))
        }
    }
}

/// A `Content-Security-Policy`, or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csp(pub String);

impl FromStr for Csp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
        let mut directives = text.split(';').map(str::trim).filter(|one| !one.is_empty());
        let begin_with_names =
            directives.all(|one| one.split_whitespace().next().is_some_and(is_name));
        let is_text = text.bytes().all(|b| matches!(b, b' '..=b'~'));
        match !text.is_empty() && is_text && begin_with_names {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "`{text}` is not a Content-Security-Policy: expected one as in `default-src 'self'; img-src *`, or `off`"
            )),
        }
    }
}

/// A number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within<const MIN: usize, const MAX: usize>(pub usize);

impl<const MIN: usize, const MAX: usize> Within<MIN, MAX> {
    /// So many seconds.
    pub const fn secs(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Within<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        match usize::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ => Err(Error::custom(format_args!(
                "{number} is out of range: expected {MIN} to {MAX}"
            ))),
        }
    }
}

/// Reads a value from a string of the file as it is read from a flag.
macro_rules! deserialize_from_str {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    )*};
}

deserialize_from_str!(
    LogFilter, LogFormat, Serial, Filter, Room, Origin, HostName, Frame, Proxy, BasePath, Csp,
    UnixMode
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let parse = str::parse::<Listen>;
        for (text, address) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:3000", "[::1]:3000"),
            ("3000", "127.0.0.1:3000"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            assert_eq!(
                parse(text),
                Ok(Listen::At(address.parse().unwrap())),
                "{text}"
            );
        }
        assert_eq!(parse("off"), Ok(Listen::Off));
        for (text, name, port) in [
            ("localhost:3000", "localhost:3000", 3000),
            ("LocalHost:0", "localhost:0", 0),
        ] {
            let addresses = [
                SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
            ];
            let (name, addresses) = (name.to_owned(), addresses.to_vec());
            assert_eq!(parse(text), Ok(Listen::Name { name, addresses }));
        }
        #[cfg(unix)]
        assert_eq!(
            parse("unix:/run/a.sock"),
            Ok(Listen::Unix("/run/a.sock".into()))
        );
        for wrong in [
            "",
            "here",
            "127.0.0.1",
            "localhost",
            "::1",
            "[::1]",
            "127.0.0.1:65536",
            "65536",
            "-1",
            "+3000",
            "localhost:",
            "localhost:+1",
            "::1:3000",
            "http://localhost:3000",
            ":3000",
            "*:3000",
            " 3000",
            "unix:",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(
                error.contains('`') && !error.contains('\n'),
                "{wrong}: {error}"
            );
        }
        assert!(parse(":3000").unwrap_err().contains("`0.0.0.0:3000`"));
    }

    #[test]
    fn several_addresses() {
        let parse = str::parse::<Addresses>;
        let several = parse("127.0.0.1:3000, [::1]:3000,4000").unwrap();
        assert_eq!(
            several.to_string(),
            "127.0.0.1:3000,[::1]:3000,127.0.0.1:4000"
        );
        assert!(parse("off").unwrap().is_off() && !several.is_off());
        for wrong in ["", "3000,", ",3000", "3000,here"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn modes_of_files() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777)] {
            assert_eq!(text.parse(), Ok(UnixMode(mode)), "{text}");
        }
        for wrong in ["", "0", "1777", "0o660", "668", "-660", "00660"] {
            assert!(wrong.parse::<UnixMode>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_nobody_knows() {
        // Longer than a name can be, so that no name server is asked.
        let name = "x".repeat(300);
        let refused = format!("{name}:1").parse::<Listen>().unwrap_err();
        assert!(refused.contains(&name), "{refused}");
    }

    #[test]
    fn log_filters() {
        for right in ["info", "OFF", "warn,mqtt=debug", "latchbus_ws=trace"] {
            assert!(right.parse::<LogFilter>().is_ok(), "{right}");
        }
        let parse = str::parse::<LogFilter>;
        assert_eq!(parse(" warn , mqtt = debug"), parse("warn,mqtt=debug"));
        for wrong in ["", "loud", "info,loud", "latchbus_ws=loud", "info,"] {
            assert!(wrong.parse::<LogFilter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_and_hosts() {
        for right in [
            "https://dash.example.com",
            "http://10.0.0.1:8080",
            "https://*.example.com",
            "http://localhost:*",
            "capacitor://localhost",
        ] {
            assert!(right.parse::<Origin>().is_ok(), "{right}");
            assert_eq!(right.parse::<Frame>().unwrap().source(), right);
        }
        for wrong in [
            "",
            "dash.example.com",
            "https://dash.example.com/",
            "https://a; x",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
            assert!(wrong.parse::<Frame>().is_err(), "{wrong}");
        }
        assert!("null".parse::<Origin>().is_ok() && "null".parse::<Frame>().is_err());
        assert!("*".parse::<Origin>().is_err() && "*".parse::<Frame>().is_ok());
        assert_eq!("self".parse::<Frame>().unwrap().source(), "'self'");
        assert!("*.local".parse::<HostName>().is_ok());
        assert!("bus.example.com".parse::<HostName>().is_ok());
        assert!("bus.example.com:8080".parse::<HostName>().is_ok());
        for wrong in ["", "https://bus.example.com", "a b", "*"] {
            assert!(wrong.parse::<HostName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn base_paths() {
        for (text, expected) in [
            ("", ""),
            ("/", ""),
            ("/lb", "/lb"),
            ("lb/", "/lb"),
            ("/a/b.c/", "/a/b.c"),
        ] {
            assert_eq!(text.parse::<BasePath>().unwrap().0, expected, "{text}");
        }
        for wrong in [
            "/a//b",
            "/../a",
            "/a b",
            "/a?b",
            "/\"><script>",
            "https://a",
        ] {
            assert!(wrong.parse::<BasePath>().is_err(), "{wrong}");
        }
    }
}
