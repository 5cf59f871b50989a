//! Why a client has no connection, in words that tell what to do about it.

use core::fmt::{self, Display};
use core::time::Duration;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::header::{CONTENT_TYPE, LOCATION};
use tokio_tungstenite::tungstenite::http::{Response, StatusCode, Uri};

use super::message::DecodeError;

/// Why a connection did not come about, or has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// In the words of the library, until [`explained`](Self::explained).
    #[error(transparent)]
    Socket(#[from] tungstenite::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the host name cannot be found ({0})")]
    NameNotFound(String),
    #[error("connection refused: nothing listens on that port")]
    ConnectionRefused,
    #[error("no answer within {0:?}")]
    NotConnected(Duration),
    #[error("the server closed the connection without an answer")]
    HungUp,
    #[error("what answers there wants TLS: is it the port for wss?")]
    Tls,
    #[error(transparent)]
    Handshake(#[from] latchbus_tls::client::HandshakeError),
    #[error("what answers there is an MQTT server, not HTTP: is it the port for MQTT?")]
    Mqtt,
    #[error("what answers there does not speak HTTP")]
    NotHttp,
    #[error("{0}")]
    Answered(Answer),
    #[error("what answers there speaks WebSocket, but it is no Latchbus server")]
    NotLatchbus,
    #[error("the server says: not authorized{}", Reason(.0))]
    Unauthorized(String),
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error("the server stops")]
    GoingAway,
    #[error("the server closed the connection with code {code}{}", Reason(.reason))]
    Closed { code: u16, reason: String },
    #[error("the server closed the connection")]
    Cut,
    #[error("a message cannot be encoded")]
    Encode(#[from] latchbus_core::wire::WireError),
}

/// An answer of HTTP in place of a WebSocket.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    /// What it says in words, or where it sends the client to.
    words: Option<String>,
    /// Whether it says that HTTPS is spoken there.
    wants_tls: bool,
}

/// What a server says of its reason, if it does.
struct Reason<'a>(&'a str);

/// Bytes of a server's own words that are passed on.
const WORDS_BYTES: usize = 400;

impl Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            reason => write!(f, ": {reason}"),
        }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, words, .. } = self;
        let code = status.as_u16();
        match *status {
            status if status.is_redirection() => {
                let to = words.as_deref().unwrap_or("elsewhere");
                return write!(f, "the server sends the client to {to} ({code})");
            }
            StatusCode::UNAUTHORIZED => write!(f, "the server says: not authorized (401)")?,
            StatusCode::FORBIDDEN => write!(f, "the server refuses this client (403)")?,
            StatusCode::SERVICE_UNAVAILABLE => write!(f, "the server has no room (503)")?,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                return write!(
                    f,
                    "a proxy answers, which does not reach the server ({code})"
                );
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                return write!(
                    f,
                    "what answers there is an HTTP server that has no WebSocket at this path ({code}): is it a Latchbus \
                     server, and the path right?"
                );
            }
            status if status.is_success() => {
                return write!(
                    f,
                    "what answers there is an HTTP server and no WebSocket ({code}): is it a Latchbus server, and the path \
                     right?"
                );
            }
            _ => write!(f, "the server does not open a WebSocket ({code})")?,
        }
        Reason(words.as_deref().unwrap_or_default()).fmt(f)
    }
}

impl From<&Response<Option<Vec<u8>>>> for Answer {
    fn from(response: &Response<Option<Vec<u8>>>) -> Self {
        let header = |name| {
            let value = response.headers().get(name);
            value.and_then(|value| value.to_str().ok())
        };
        let words = match response.status().is_redirection() {
            true => header(LOCATION).map(str::to_owned),
            false => {
                let is_text =
                    header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/plain"));
                let body = response.body().as_deref().filter(|_| is_text);
                body.and_then(|body| core::str::from_utf8(body).ok())
                    .and_then(|text| text.lines().next())
                    .map(str::to_owned)
            }
        };
        let body = response.body().as_deref().unwrap_or_default();
        Self {
            status: response.status(),
            words: words.map(|words| printable(&words)),
            wants_tls: response.status() == StatusCode::BAD_REQUEST && mentions_https(body),
        }
    }
}

impl Lost {
    /// The code and the words of a close frame.
    pub(super) fn closed(code: u16, reason: &str) -> Self {
        match code {
            1001 => Self::GoingAway,
            code => Self::Closed {
                code,
                reason: printable(reason),
            },
        }
    }

    pub(super) fn unauthorized(words: &str) -> Self {
        Self::Unauthorized(printable(words))
    }

    /// The same in words for the user; `was_live` if it ended a connection. Of an unclear answer the server at `url` is
    /// asked what it is, which takes no longer than [`PROBE_TIME`].
    pub(super) async fn explained(self, was_live: bool, url: &str) -> Self {
        let lost = match self {
            Self::Socket(error) => of_socket(error, was_live),
            Self::Decode(_) if !was_live => Self::NotLatchbus,
            Self::Cut if !was_live => Self::HungUp,
            lost => lost,
        };
        match lost {
            Self::NotHttp | Self::HungUp | Self::NotConnected(_) => probe(lost, url).await,
            Self::Answered(answer) if answer.wants_tls => Self::Tls,
            lost => lost,
        }
    }
}

fn of_socket(error: tungstenite::Error, was_live: bool) -> Lost {
    use tungstenite::Error;
    match error {
        Error::Io(error) => of_io(error, was_live),
        Error::Http(response) => Lost::Answered(Answer::from(&*response)),
        Error::ConnectionClosed | Error::AlreadyClosed if was_live => Lost::Cut,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) if was_live => Lost::Cut,
        error if was_live => Lost::Socket(error),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(
            ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
        ) => Lost::HungUp,
        Error::Protocol(
            ProtocolError::HttparseError(_)
            | ProtocolError::WrongHttpVersion
            | ProtocolError::JunkAfterRequest,
        )
        | Error::HttpFormat(_)
        | Error::Utf8(_)
        | Error::AttackAttempt => Lost::NotHttp,
        Error::Protocol(_) | Error::Capacity(_) => Lost::NotLatchbus,
        error => Lost::Socket(error),
    }
}

fn of_io(error: io::Error, was_live: bool) -> Lost {
    if let Some(handshake) = latchbus_tls::client::explain(&error) {
        return handshake.into();
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Lost::ConnectionRefused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => match was_live {
            true => Lost::Cut,
            false => Lost::HungUp,
        },
        _ => {
            let words = error.to_string();
            match words.strip_prefix("failed to lookup address information: ") {
                Some(why) => Lost::NameNotFound(why.to_owned()),
                None => Lost::Socket(error.into()),
            }
        }
    }
}

/// As servers of HTTPS do that answer plain HTTP in HTTP.
fn mentions_https(body: &[u8]) -> bool {
    body.windows(5)
        .any(|word| word.eq_ignore_ascii_case(b"https"))
}

/// A server's own words, cut, and without what a terminal takes for a command.
fn printable(words: &str) -> String {
    let mut kept = String::new();
    for character in words.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() > WORDS_BYTES {
            break;
        }
        kept.push(character);
    }
    kept
}

/// How long a server may take to show what it is.
pub(super) const PROBE_TIME: Duration = Duration::from_secs(1);
/// A CONNECT of MQTT 3.1.1, for a clean session without a name; no request of HTTP, no record of TLS.
const PROBE: &[u8] = b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0";

/// Asks a server that gave no answer of HTTP what it is.
async fn probe(lost: Lost, url: &str) -> Lost {
    // A server that speaks TLS says nothing without it.
    let plain = (!url.starts_with("wss:")).then(|| host_and_port(url));
    let Some((host, port)) = plain.flatten() else {
        return lost;
    };
    let mut answer = [0; 4];
    let asking = async {
        let mut server = TcpStream::connect((host.as_str(), port)).await?;
        server.write_all(PROBE).await?;
        server.read(&mut answer).await
    };
    let read = match timeout(PROBE_TIME, asking).await {
        Ok(Ok(read)) => answer.get(..read).unwrap_or_default(),
        _ => &[],
    };
    match read {
        // A record of the type alert.
        [0x15, 3, ..] => Lost::Tls,
        // A CONNACK.
        [0x20, 2 | 3, ..] => Lost::Mqtt,
        _ => lost,
    }
}

pub(super) fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url: Uri = url.parse().ok()?;
    let usual = match url.scheme_str() {
        Some("wss") => 443,
        _ => 80,
    };
    let host = url.host()?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Some((
        bare.unwrap_or(host).to_owned(),
        url.port_u16().unwrap_or(usual),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(status: u16, kind: &str, body: &str) -> String {
        let response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, kind)
            .header(LOCATION, "https://other/ws")
            .body(Some(body.as_bytes().to_vec()))
            .unwrap();
        of_socket(tungstenite::Error::Http(Box::new(response)), false).to_string()
    }

    #[test]
    fn an_answer_of_http_says_what_it_means() {
        for (status, words) in [
            (200, "no WebSocket (200)"),
            (301, "https://other/ws (301)"),
            (308, "https://other/ws (308)"),
            (400, "(400): a reason"),
            (401, "not authorized (401): a reason"),
            (403, "refuses this client (403): a reason"),
            (404, "no WebSocket at this path (404)"),
            (426, "(426): a reason"),
            (500, "(500): a reason"),
            (502, "a proxy answers"),
            (503, "no room (503): a reason"),
            (504, "a proxy answers"),
        ] {
            let said = says(status, "text/plain; charset=utf-8", "a reason\nand more");
            assert!(said.contains(words), "{status}: {said}");
        }
    }

    #[test]
    fn pages_are_not_passed_on_and_words_are_bounded() {
        assert_eq!(
            says(503, "text/html", "<html>"),
            "the server has no room (503)"
        );
        let said = says(503, "text/plain", &"\u{1b}[31mé".repeat(1_000));
        assert!(
            said.len() < WORDS_BYTES + 50 && !said.contains('\u{1b}'),
            "{said}"
        );
    }

    #[test]
    fn the_address_is_taken_from_the_url() {
        for (url, host, port) in [
            ("ws://a/ws", "a", 80),
            ("wss://a/ws", "a", 443),
            ("ws://127.0.0.1:3000/ws", "127.0.0.1", 3000),
            ("ws://[::1]:3000/ws", "::1", 3000),
        ] {
            assert_eq!(host_and_port(url), Some((host.to_owned(), port)));
        }
    }
}
