//! Handshakes, as clients see them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use core::net::SocketAddr;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use latchbus_bus::accept::{Connection, MemoryConnector, memory};
use latchbus_bus::proxy::Networks;
use latchbus_tls::accept::{HandshakeError, TlsAcceptor, TlsConnection};
use latchbus_tls::client;
use latchbus_tls::files::FileError;
use latchbus_tls::server::{ClientCertificates, Limits, Options, Protocol, Server};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, ReadHalf,
    WriteHalf, split,
};

use self::support::{Authority, within};

type Accepted = TlsConnection<DuplexStream>;

/// Takes note of the threads that read it.
struct Watched {
    stream: DuplexStream,
    readers: Arc<Mutex<HashSet<ThreadId>>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.readers.lock().unwrap().insert(thread::current().id());
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connection for Watched {
    type Reader = ReadHalf<Self>;
    type Writer = WriteHalf<Self>;

    fn peer(&self) -> Option<SocketAddr> {
        None
    }

    fn into_split(self) -> (Self::Reader, Self::Writer) {
        split(self)
    }
}

#[tokio::test]
async fn threads_of_their_own_do_the_handshakes() {
    let authority = Authority::new("ours");
    let (certificate, key) = authority.server(&["localhost"]);
    let server = Server::open(Options::new(certificate, key)).unwrap();
    let (near, stream) = tokio::io::duplex(64 << 10);
    let readers = Arc::default();
    let watched = Watched {
        stream,
        readers: Arc::clone(&readers),
    };
    let mut far = TlsConnection::new(watched, server, Protocol::Mqtt);
    let client = authority.client(None);
    let connects = client.connect("localhost", near, Protocol::Mqtt);
    let networks = Networks::default();
    let (near, begun) = within(async { tokio::join!(connects, far.begin(&networks)) }).await;
    begun.unwrap();
    let here = thread::current().id();
    let shook = core::mem::take(&mut *readers.lock().unwrap());
    // The first bytes, which say whether it is TLS at all, are read here.
    assert!(shook.iter().any(|thread| *thread != here), "{shook:?}");
    // What follows is read here.
    let mut near = near.unwrap();
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    within(far.read_exact(&mut [0; 4])).await.unwrap();
    assert_eq!(*readers.lock().unwrap(), HashSet::from([here]));
}

#[tokio::test]
async fn a_handshake_ends_with_its_connection() {
    let authority = Authority::new("ours");
    let (certificate, key) = authority.server(&["localhost"]);
    let server = Server::open(Options::new(certificate, key)).unwrap();
    let (mut near, stream) = tokio::io::duplex(64 << 10);
    let mut far = TlsConnection::new(stream, server, Protocol::Mqtt);
    let networks = Networks::default();
    let gives_up = tokio::time::timeout(Duration::from_millis(5), far.begin(&networks));
    assert!(gives_up.await.is_err());
    drop(far);
    assert_eq!(within(near.read(&mut [0; 4])).await.unwrap(), 0);
}

/// Accepts one connection after the other; each is begun in a task of its own.
struct Listener {
    connector: MemoryConnector,
    begun: tokio::sync::mpsc::Receiver<io::Result<Accepted>>,
}

impl Listener {
    fn new(server: &Server, protocol: Protocol) -> Self {
        use latchbus_bus::accept::Acceptor as _;

        let (acceptor, connector) = memory(64 << 10);
        let mut acceptor = TlsAcceptor::new(acceptor, server.clone(), protocol);
        let (sender, begun) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(mut connection) = acceptor.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let begins = connection.begin(&Networks::default()).await;
                    let _ = sender.send(begins.map(|_| connection)).await;
                });
            }
        });
        Self { connector, begun }
    }

    async fn connect(&self) -> DuplexStream {
        self.connector.connect().await.unwrap()
    }

    async fn begun(&mut self) -> io::Result<Accepted> {
        within(self.begun.recv()).await.unwrap()
    }

    async fn failed(&mut self) -> HandshakeError {
        let error = self.begun().await.unwrap_err();
        *error.into_inner().unwrap().downcast().unwrap()
    }
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_client_is_known_by_its_certificate() {
    let authority = Authority::new("ours");
    let server = authority.server(&["localhost"]);
    for (certificates, client, subject) in [
        (ClientCertificates::Off, None, None),
        (
            ClientCertificates::Optional(authority.file.clone()),
            None,
            None,
        ),
        (
            ClientCertificates::Optional(authority.file.clone()),
            Some("anna"),
            Some("anna"),
        ),
        (
            ClientCertificates::Required(authority.file.clone()),
            Some("anna"),
            Some("anna"),
        ),
    ] {
        let server = Server::open(Options {
            client_certificates: certificates,
            ..Options::new(&server.0, &server.1)
        })
        .unwrap();
        let mut listener = Listener::new(&server, Protocol::Mqtt);
        let client = authority.client(client);
        let connects = client.connect("localhost", listener.connect().await, Protocol::Mqtt);
        let (near, far) = within(async { tokio::join!(connects, listener.begun()) }).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        let certificate = far.certificate();
        let name = certificate
            .as_ref()
            .map(|shown| shown.common_name.as_deref());
        assert_eq!(name, subject.map(Some));
        assert!(far.is_secure());
        near.write_all(b"ping").await.unwrap();
        near.flush().await.unwrap();
        let mut bytes = [0; 4];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        let (mut reader, mut writer) = far.into_split();
        writer.write_all(b"pong").await.unwrap();
        writer.flush().await.unwrap();
        near.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"pong");
        near.shutdown().await.unwrap();
        assert_eq!(reader.read(&mut bytes).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn who_is_not_let_in_and_why() {
    let authority = Authority::new("ours");
    let files = authority.server(&["localhost"]);
    let server = Server::open(Options {
        client_certificates: ClientCertificates::Required(authority.file.clone()),
        ..Options::new(&files.0, &files.1)
    })
    .unwrap();
    let mut listener = Listener::new(&server, Protocol::Mqtt);

    // No certificate, and one of another authority.
    let other = Authority::new("another");
    for (client, expected) in [
        (authority.client(None), "NoCertificate"),
        (
            client::Client::open(&client::Options {
                authorities: Some(authority.file.clone()),
                certificate: Some(other.client_files("anna")),
            })
            .unwrap(),
            "Certificate",
        ),
    ] {
        let stream = listener.connect().await;
        let connects = client.connect("localhost", stream, Protocol::Mqtt);
        let (near, failed) = within(async { tokio::join!(connects, listener.failed()) }).await;
        // With TLS 1.3 the client has sent its part and hears of it at its first read.
        if let Ok(mut near) = near {
            assert!(near.read_u8().await.is_err());
        }
        let name = format!("{failed:?}");
        assert!(name.starts_with(expected), "{name}");
    }

    // A client that does not trust us, by the authority and by the name.
    for (client, host) in [
        (other.client(Some("anna")), "localhost"),
        (authority.client(Some("anna")), "elsewhere.example"),
    ] {
        let stream = listener.connect().await;
        let connects = client.connect(host, stream, Protocol::Mqtt);
        let (near, failed) = within(async { tokio::join!(connects, listener.failed()) }).await;
        assert!(near.is_err());
        assert!(
            matches!(failed, HandshakeError::NotTrusted(_)),
            "{failed:?}"
        );
    }

    // Another protocol; none is fine, as `client` names none for MQTT.
    let stream = listener.connect().await;
    let client = authority.client(Some("anna"));
    let connects = client.connect("localhost", stream, Protocol::Http);
    let (near, failed) = within(async { tokio::join!(connects, listener.failed()) }).await;
    assert!(near.is_err());
    assert!(
        matches!(failed, HandshakeError::Protocol("mqtt")),
        "{failed:?}"
    );
}

#[tokio::test]
async fn plain_bytes_are_closed_and_named() {
    let authority = Authority::new("ours");
    let files = authority.server(&["localhost"]);
    let server = Server::open(Options::new(&files.0, &files.1)).unwrap();
    for (protocol, bytes, expected) in [
        (
            Protocol::Mqtt,
            &b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab"[..],
            "plain MQTT on the TLS listener",
        ),
        (
            Protocol::Http,
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "plain HTTP on the TLS listener",
        ),
        (
            Protocol::Mqtt,
            b"GET / HTTP/1.1\r\n\r\n",
            "plain HTTP on the TLS listener",
        ),
        (
            Protocol::Http,
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "a PROXY header",
        ),
        (Protocol::Http, b"\0\0\0\0", "plain bytes"),
    ] {
        let mut listener = Listener::new(&server, protocol);
        let mut near = listener.connect().await;
        near.write_all(bytes).await.unwrap();
        let answers = async {
            let mut answer = String::new();
            // Read to its end, then closed.
            near.read_to_string(&mut answer).await.unwrap();
            near.shutdown().await.unwrap();
            answer
        };
        let (answer, failed) = within(async { tokio::join!(answers, listener.failed()) }).await;
        let said = failed.to_string();
        assert!(said.starts_with(expected), "{said}");
        let is_told = protocol == Protocol::Http && bytes.starts_with(b"GET");
        assert_eq!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            is_told,
            "{answer}"
        );
        if is_told {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        } else {
            assert_eq!(answer, "\u{15}\u{3}\u{3}\0\u{2}\u{2}\n");
        }
    }
    // Opened and closed again, as health checks do.
    let mut listener = Listener::new(&server, Protocol::Mqtt);
    drop(listener.connect().await);
    let error = listener.begun().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn old_versions_are_refused() {
    // What `openssl s_client -tls1_1` sends, without its extensions: version 3.2, one cipher suite.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut record = vec![22, 3, 1, 0, (hello.len() + 4) as u8];
    record.extend([1, 0, 0, hello.len() as u8]);
    record.extend(hello);
    let authority = Authority::new("ours");
    let files = authority.server(&["localhost"]);
    let server = Server::open(Options::new(&files.0, &files.1)).unwrap();
    let mut listener = Listener::new(&server, Protocol::Mqtt);
    let mut near = listener.connect().await;
    near.write_all(&record).await.unwrap();
    let failed = listener.failed().await;
    assert!(matches!(failed, HandshakeError::Version), "{failed:?}");
    // An alert: protocol_version (70), or handshake_failure (40).
    let mut alert = [0; 7];
    near.read_exact(&mut alert).await.unwrap();
    assert!(alert[0] == 21 && [40, 70].contains(&alert[6]), "{alert:?}");
}

#[tokio::test]
async fn whoever_sends_nothing_is_cut_and_keeps_nobody_out() {
    let authority = Authority::new("ours");
    let files = authority.server(&["localhost"]);
    let server = |limits| {
        let options = Options::new(&files.0, &files.1);
        Server::open(Options { limits, ..options }).unwrap()
    };
    let hasty = server(Limits {
        timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut listener = Listener::new(&hasty, Protocol::Mqtt);
    let silent = listener.connect().await;
    assert!(matches!(listener.failed().await, HandshakeError::Slow(_)));
    drop(silent);

    // Nobody would be cut before the test gives up, if nobody waited.
    let crowded = server(Limits {
        handshakes: 2,
        timeout: Duration::from_secs(60),
        crowded_timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut listener = Listener::new(&crowded, Protocol::Mqtt);
    let silent = [listener.connect().await, listener.connect().await];
    let client = authority.client(None);
    let stream = listener.connect().await;
    let connects = client.connect("localhost", stream, Protocol::Mqtt);
    let begins = async {
        loop {
            if let Ok(begun) = listener.begun.recv().await.unwrap() {
                return begun;
            }
        }
    };
    let (near, _far) = within(async { tokio::join!(connects, begins) }).await;
    near.unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let old = Authority::new("old");
    let new = Authority::new("new");
    let files = old.server(&["localhost"]);
    let server = Server::open(Options::new(&files.0, &files.1)).unwrap();
    let mut listener = Listener::new(&server, Protocol::Mqtt);
    let client = old.client(None);
    let connects = client.connect("localhost", listener.connect().await, Protocol::Mqtt);
    let (near, far) = within(async { tokio::join!(connects, listener.begun()) }).await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    assert!(!server.reload_if_changed().unwrap());

    // Half of a pair changes nothing, and is said once.
    let replacement = new.server(&["localhost"]);
    std::fs::copy(&replacement.0, &files.0).unwrap();
    let refused = server.reload_if_changed();
    assert!(matches!(refused, Err(FileError::KeyDoesNotMatch { .. })));
    assert!(!server.reload_if_changed().unwrap());
    let connects = client.connect("localhost", listener.connect().await, Protocol::Mqtt);
    let (still, _) = within(async { tokio::join!(connects, listener.begun()) }).await;
    still.unwrap();

    std::fs::copy(&replacement.1, &files.1).unwrap();
    assert!(server.reload_if_changed().unwrap());
    let connects = client.connect("localhost", listener.connect().await, Protocol::Mqtt);
    let (refused, _) = within(async { tokio::join!(connects, listener.begun()) }).await;
    assert!(refused.is_err());
    let trusting = new.client(None);
    let connects = trusting.connect("localhost", listener.connect().await, Protocol::Mqtt);
    let (fresh, _) = within(async { tokio::join!(connects, listener.begun()) }).await;
    fresh.unwrap();

    // The open connection goes on.
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    let mut bytes = [0; 4];
    far.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

#[test]
fn what_can_be_wrong_with_files() {
    let authority = Authority::new("ours");
    let (certificate, key) = authority.server(&["localhost"]);
    let (_, other_key) = authority.server(&["localhost"]);
    let file = |name: &str, text: &str| {
        let path = authority.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let empty = file("empty", "");
    let broken = file(
        "broken",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let encrypted = file(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let large = file("large", &"x".repeat((1 << 20) + 1));
    let missing = authority.directory.path().join("missing");
    let open = |certificate: &std::path::Path,
                key: &std::path::Path|
     -> Result<Server, FileError> { Server::open(Options::new(certificate, key)) };
    assert!(open(&certificate, &key).is_ok());
    let refused = |certificate, key| open(certificate, key).unwrap_err();
    assert!(matches!(refused(&missing, &key), FileError::Read { .. }));
    assert!(matches!(
        refused(&certificate, &missing),
        FileError::Read { .. }
    ));
    assert!(matches!(
        refused(&empty, &key),
        FileError::NoCertificate { .. }
    ));
    // Taken for one another.
    assert!(matches!(
        refused(&key, &certificate),
        FileError::NoCertificate { .. }
    ));
    assert!(matches!(
        refused(&broken, &key),
        FileError::Malformed { .. }
    ));
    assert!(matches!(
        refused(&certificate, &empty),
        FileError::NoKey { .. }
    ));
    assert!(matches!(
        refused(&certificate, &encrypted),
        FileError::EncryptedKey { .. }
    ));
    assert!(matches!(refused(&large, &key), FileError::TooLarge { .. }));
    assert!(matches!(
        refused(&certificate, &other_key),
        FileError::KeyDoesNotMatch { .. }
    ));
    let clients = Options {
        client_certificates: ClientCertificates::Required(empty),
        ..Options::new(&certificate, &key)
    };
    assert!(matches!(
        Server::open(clients),
        Err(FileError::NoCertificate { .. })
    ));
}
