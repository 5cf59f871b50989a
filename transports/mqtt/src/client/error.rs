//! Why a client has no connection, in words that tell what to do about it.

use core::time::Duration;
use std::io;

use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Options;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host's name has no address.
    #[error("the host name cannot be found ({0})")]
    NameNotFound(String),
    /// Nothing listens on that port.
    #[error("connection refused: nothing listens on that port")]
    ConnectionRefused,
    /// There was no answer to the connection or to the CONNECT.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// It closed the connection in place of a CONNACK.
    #[error("the server closed the connection without an answer")]
    HungUp,
    /// What answers is an HTTP server.
    #[error("what answers there is an HTTP server, not MQTT: is it the port of the web page?")]
    Http,
    /// What answers wants TLS.
    #[error("what answers there wants TLS: is it the port for mqtts?")]
    Tls,
    /// The TLS handshake has failed.
    #[error(transparent)]
    Handshake(#[from] latchbus_tls::client::HandshakeError),
    /// What answers is neither of these.
    #[error("what answers there does not speak MQTT")]
    NotMqtt,
    /// Return code 1.
    #[error("the server refuses the protocol version, MQTT 3.1.1")]
    ProtocolVersion,
    /// Return code 2.
    #[error("the server refuses the client id")]
    ClientId,
    /// Return code 3.
    #[error(
        "the server is not available, or delays sign-ins after wrong passwords (return code 3)"
    )]
    Unavailable,
    /// Return code 4.
    #[error("the server refuses the user name or password")]
    BadCredentials,
    /// Return code 5.
    #[error("the server says: not authorized")]
    NotAuthorized,
    /// The connection was there and was cut.
    #[error("the server closed the connection")]
    Cut,
    /// Anything else, in the words of the system.
    #[error("{0}")]
    Other(String),
}

/// What the error of an attempt means; `was_connected` if it ended a connection.
pub(super) fn of(error: &ConnectionError, was_connected: bool, limit: Duration) -> ConnectError {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::RefusedProtocolVersion => ConnectError::ProtocolVersion,
            ConnectReturnCode::BadClientId => ConnectError::ClientId,
            ConnectReturnCode::ServiceUnavailable => ConnectError::Unavailable,
            ConnectReturnCode::BadUserNamePassword => ConnectError::BadCredentials,
            ConnectReturnCode::NotAuthorized => ConnectError::NotAuthorized,
            ConnectReturnCode::Success => ConnectError::NotMqtt,
        },
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
            ConnectError::TimedOut(limit)
        }
        ConnectionError::NotConnAck(_) => ConnectError::NotMqtt,
        ConnectionError::Io(error) | ConnectionError::Tls(TlsError::Io(error)) => {
            of_io(error, was_connected)
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => closed(was_connected),
        ConnectionError::MqttState(StateError::Io(error)) => of_io(error, was_connected),
        ConnectionError::MqttState(StateError::Deserialization(error)) => match error {
            rumqttc::mqttbytes::Error::Io(error) => of_io(error, was_connected),
            _ if was_connected => ConnectError::Other(error.to_string()),
            _ => ConnectError::NotMqtt,
        },
        other => ConnectError::Other(other.to_string()),
    }
}

fn of_io(error: &io::Error, was_connected: bool) -> ConnectError {
    if let Some(handshake) = latchbus_tls::client::explain(error) {
        return handshake.into();
    }
    let words = error.to_string();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::ConnectionRefused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => closed(was_connected),
        _ => match words.strip_prefix("failed to lookup address information: ") {
            Some(why) => ConnectError::NameNotFound(why.to_owned()),
            // What a stream that ends within a packet says.
            None if words.contains("bytes remaining on stream") => closed(was_connected),
            None if words == "could not resolve to any address" => {
                ConnectError::NameNotFound("no address".to_owned())
            }
            None => ConnectError::Other(words),
        },
    }
}

fn closed(was_connected: bool) -> ConnectError {
    if was_connected {
        ConnectError::Cut
    } else {
        ConnectError::HungUp
    }
}

/// How long a server may take to show what it is.
const PROBE_TIME: Duration = Duration::from_secs(1);
/// No packet that begins a connection of MQTT, no request of HTTP, no record of TLS, and the end of a request's head:
/// who speaks something else than MQTT says so.
const PROBE: &[u8] = b"\xc0\x00\r\n\r\n";

/// Asks a server that gave no answer of MQTT what it is.
pub(super) async fn probe(error: ConnectError, options: &Options) -> ConnectError {
    let unclear = matches!(
        error,
        ConnectError::NotMqtt | ConnectError::HungUp | ConnectError::TimedOut(_)
    );
    // A server that speaks TLS says nothing without it.
    if !unclear || options.tls.is_some() {
        return error;
    }
    let mut answer = [0; 8];
    let asking = async {
        let mut server = TcpStream::connect((options.host.as_str(), options.port)).await?;
        server.write_all(PROBE).await?;
        server.read(&mut answer).await
    };
    let read = match timeout(PROBE_TIME, asking).await {
        Ok(Ok(read)) => answer.get(..read).unwrap_or_default(),
        _ => &[],
    };
    match read {
        [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => ConnectError::Http,
        // A record of the type alert.
        [0x15, 3, ..] => ConnectError::Tls,
        [] => error,
        _ => ConnectError::NotMqtt,
    }
}
