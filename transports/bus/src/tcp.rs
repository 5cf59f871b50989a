//! What every TCP connection of a server is set to.

use core::time::Duration;
use std::io;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A connection on which nothing has moved for so long is asked whether its peer is still there,
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// and so often then; on Linux nine answers that are missing end it, after two and a half minutes in all.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Sets `TCP_NODELAY`, since answers are small and somebody waits for them, and TCP keep-alive, so that a peer that has
/// lost its power is found out where its protocol asks for no word from it.
///
/// # Errors
/// When the system refuses; the connection works without.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_kept_alive() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
