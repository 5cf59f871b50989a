//! Where the server is.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// MQTT's registered ports, without TLS and with it.
const MQTT_PORT: u16 = 1883;
const MQTTS_PORT: u16 = 8883;
/// Those of HTTP, for a WebSocket address without one.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Where a Latchbus server takes WebSockets.
const WS_PATH: &str = "/ws";
/// The longest name of a host (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 255;

/// The address of a server, and with it the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `mqtt://host[:port]`, or `mqtts` with TLS. The host of an IPv6 address is without its brackets.
    Mqtt {
        host: String,
        port: u16,
        is_secure: bool,
    },
    /// `ws://host[:port][/path]`, or `wss` with TLS, written out with port and path.
    Ws { url: String, is_secure: bool },
}

impl Address {
    /// Whether TLS is spoken there.
    pub(crate) const fn is_secure(&self) -> bool {
        match self {
            Self::Mqtt { is_secure, .. } | Self::Ws { is_secure, .. } => *is_secure,
        }
    }
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum AddressError {
    #[error("expected mqtt://host:port or ws://host:port/ws, or mqtts or wss for TLS")]
    Scheme,
    #[error(
        "a user name is not part of the address: it is named by --user, a password by --password-file"
    )]
    Credentials,
    #[error("the host is missing or not a host name or IP address")]
    Host,
    #[error("the port is not a number from 1 to 65535")]
    Port,
    #[error("an mqtt address has no path")]
    MqttPath,
    #[error("the path holds a character that must be percent-encoded")]
    Path,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at_checked(at).ok_or(AddressError::Host)?,
            None => (rest, ""),
        };
        match scheme {
            "mqtt" | "mqtts" => {
                let is_secure = scheme == "mqtts";
                let usual = if is_secure { MQTTS_PORT } else { MQTT_PORT };
                let (host, port) = host_and_port(authority, usual)?;
                if !matches!(path, "" | "/") {
                    return Err(AddressError::MqttPath);
                }
                let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
                let host = bare.unwrap_or(host).to_owned();
                Ok(Self::Mqtt {
                    host,
                    port,
                    is_secure,
                })
            }
            "ws" | "wss" => {
                let is_secure = scheme == "wss";
                let usual = if is_secure { HTTPS_PORT } else { HTTP_PORT };
                let (host, port) = host_and_port(authority, usual)?;
                let path = if matches!(path, "" | "/") {
                    WS_PATH
                } else {
                    path
                };
                // Printable ASCII without what ends a path (RFC 3986 §3.3) or breaks a request line.
                if !path
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&b))
                {
                    return Err(AddressError::Path);
                }
                Ok(Self::Ws {
                    url: format!("{scheme}://{host}:{port}{path}"),
                    is_secure,
                })
            }
            _ => Err(AddressError::Scheme),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mqtt {
                host,
                port,
                is_secure,
            } => {
                let scheme = if *is_secure { "mqtts" } else { "mqtt" };
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}"),
                    false => write!(f, "{scheme}://{host}:{port}"),
                }
            }
            Self::Ws { url, .. } => f.write_str(url),
        }
    }
}

/// Splits `host[:port]`; an IPv6 address keeps its brackets.
fn host_and_port(authority: &str, default: u16) -> Result<(&str, u16), AddressError> {
    if authority.contains('@') {
        return Err(AddressError::Credentials);
    }
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(AddressError::Host)?;
        let (host, port) = authority
            .split_at_checked(end + 1)
            .ok_or(AddressError::Host)?;
        let inner = host.trim_start_matches('[').trim_end_matches(']');
        inner
            .parse::<core::net::Ipv6Addr>()
            .map_err(|_| AddressError::Host)?;
        (host, port)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at_checked(end).ok_or(AddressError::Host)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if host.is_empty() || host.len() > MAX_HOST_BYTES || !host.bytes().all(plain) {
            return Err(AddressError::Host);
        }
        (host, port)
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, default)),
        None => Err(AddressError::Host),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port != 0 => Ok((host, port)),
            _ => Err(AddressError::Port),
        },
        Some(_) => Err(AddressError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_transports_are_read() {
        let mqtt = |host: &str, port| Address::Mqtt {
            host: host.to_owned(),
            port,
            is_secure: false,
        };
        let mqtts = |host: &str, port| Address::Mqtt {
            host: host.to_owned(),
            port,
            is_secure: true,
        };
        let ws = |url: &str| Address::Ws {
            url: url.to_owned(),
            is_secure: url.starts_with("wss"),
        };
        for (text, address) in [
            ("mqtt://127.0.0.1:1883", mqtt("127.0.0.1", 1883)),
            ("mqtt://broker.example", mqtt("broker.example", 1883)),
            ("mqtt://[::1]:2883/", mqtt("::1", 2883)),
            ("mqtts://broker.example", mqtts("broker.example", 8883)),
            ("mqtts://[::1]:1", mqtts("::1", 1)),
            ("wss://broker.example", ws("wss://broker.example:443/ws")),
            ("wss://[::1]:3443/a", ws("wss://[::1]:3443/a")),
            ("ws://127.0.0.1:3000/ws", ws("ws://127.0.0.1:3000/ws")),
            ("ws://localhost:3000", ws("ws://localhost:3000/ws")),
            ("ws://localhost", ws("ws://localhost:80/ws")),
            ("ws://[::1]:3000/a/b?c=d", ws("ws://[::1]:3000/a/b?c=d")),
        ] {
            let parsed: Result<Address, _> = text.parse();
            assert_eq!(parsed.as_ref(), Ok(&address), "{text}");
            // What is printed is read again.
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        use AddressError::{Credentials, Host, MqttPath, Path, Port, Scheme};
        for (text, error) in [
            ("", Scheme),
            ("localhost:1883", Scheme),
            ("http://localhost", Scheme),
            ("MQTT://localhost", Scheme),
            ("mqtts://u:p@localhost", Credentials),
            ("mqtts://localhost/topic", MqttPath),
            ("wss://", Host),
            ("mqtt://", Host),
            ("mqtt://:1883", Host),
            ("mqtt://a b", Host),
            ("mqtt://caf\u{e9}", Host),
            ("mqtt://::1", Host),
            ("mqtt://[::1", Host),
            ("mqtt://[::1]1883", Host),
            ("mqtt://[localhost]", Host),
            ("mqtt://u:p@localhost", Credentials),
            ("mqtt://localhost:", Port),
            ("mqtt://localhost:0", Port),
            ("mqtt://localhost:+80", Port),
            ("mqtt://localhost:65536", Port),
            ("mqtt://localhost/topic", MqttPath),
            ("ws://localhost/a b", Path),
            ("ws://localhost/#x", Path),
            ("ws://localhost/\u{e9}", Path),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
