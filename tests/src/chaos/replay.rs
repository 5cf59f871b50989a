//! What devices have published, said again by somebody else, later and in any order: as a network or a
//! broker would that had kept it.

use core::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::Published;
use crate::transports::mqtt_packet::{self as packet, Packet};

/// Publishes all of it at QoS 1 and waits for the acknowledgements; gives their number. A server that goes
/// away meanwhile ends it.
pub(super) async fn replay(server: SocketAddr, name: &str, said: &[Published]) -> u64 {
    let mut acknowledged = 0;
    let _ended = publish(server, name, said, &mut acknowledged).await;
    acknowledged
}

async fn publish(
    server: SocketAddr,
    name: &str,
    said: &[Published],
    acknowledged: &mut u64,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&packet::connect(4, name, false)).await?;
    for (published, id) in said.iter().zip(1..) {
        let message = (published.topic.as_bytes(), published.payload.as_ref());
        let bytes = packet::publish(4, message, Some(id), published.retain, false);
        stream.write_all(&bytes).await?;
    }
    let mut bytes = BytesMut::new();
    while *acknowledged < said.len() as u64 {
        if stream.read_buf(&mut bytes).await? == 0 {
            break;
        }
        while let Some(packet) = packet::take(4, &mut bytes) {
            *acknowledged += u64::from(matches!(packet, Packet::Puback { .. }));
        }
    }
    stream.write_all(&packet::disconnect()).await
}
