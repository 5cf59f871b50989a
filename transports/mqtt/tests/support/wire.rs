//! Packets byte by byte, and what the server makes of them.

use core::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::DEADLINE;

pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

/// What a packet leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connection goes on: the PINGREQ behind the packet was answered.
    Lives,
    /// The connection ends, with the code of a DISCONNECT or of a refusing CONNACK where there is one.
    Ends(Option<u8>),
}

/// A packet with the remaining length of its body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    bytes.extend(varint(body.len()));
    bytes.extend(body);
    bytes
}

pub(crate) fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        bytes.push(if value == 0 { byte } else { byte | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

/// A string or binary data behind its length.
pub(crate) fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// Properties behind their length.
pub(crate) fn properties(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len()), bytes].concat()
}

/// The body of a CONNECT up to its properties, or to its payload in 3.1.1.
pub(crate) fn connect_head(level: u8, flags: u8) -> Vec<u8> {
    [&text("MQTT")[..], &[level, flags, 0, 0]].concat()
}

/// A CONNECT with a clean start and nothing else.
pub(crate) fn connect(level: u8, id: &str) -> Vec<u8> {
    let properties = if level == 5 { &[0][..] } else { &[] };
    packet(
        0x10,
        &[&connect_head(level, 2)[..], properties, &text(id)].concat(),
    )
}

/// Sends `bytes` over a connection of its own, and a PINGREQ behind them.
pub(crate) async fn outcome_of(address: SocketAddr, bytes: &[u8]) -> Outcome {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    // The server may have closed already.
    let _ = stream.write_all(&PINGREQ).await;
    let mut code = None;
    loop {
        match next(&mut stream).await {
            None => return Outcome::Ends(code),
            Some((0xD0, _)) => return Outcome::Lives,
            Some((0xE0, body)) => code = body.first().copied(),
            Some((0x20, body)) => code = body.get(1).copied().filter(|code| *code != 0),
            Some(_) => {}
        }
    }
}

/// The same behind a CONNECT of `level`.
pub(crate) async fn outcome(address: SocketAddr, level: u8, bytes: &[u8]) -> Outcome {
    let connect = connect(level, "");
    outcome_of(address, &[&connect, bytes].concat()).await
}

/// The first byte and the body of the next packet; none when the connection has ended.
pub(crate) async fn next(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let reading = async {
        let first = stream.read_u8().await.ok()?;
        let mut length = 0;
        for place in 0.. {
            let byte = stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    };
    timeout(DEADLINE, reading).await.expect("in time")
}
