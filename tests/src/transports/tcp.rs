//! Sockets with the habits that the suite needs.

use core::{net::SocketAddr, time::Duration};
use std::io;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// What a narrow peer's socket holds unread. The kernel doubles it.
const NARROW_BYTES: u32 = 8 << 10;

pub(crate) async fn connect(address: SocketAddr, narrow: bool) -> TcpStream {
    try_connect(address, narrow).await.unwrap()
}

pub(crate) async fn try_connect(address: SocketAddr, narrow: bool) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    if narrow {
        // Before connecting, so that the window is never larger.
        socket.set_recv_buffer_size(NARROW_BYTES).unwrap();
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Ends a connection with a reset.
pub(crate) fn cut(stream: &TcpStream) {
    // On a connection that the server has ended already there is nothing to reset.
    let _ended = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
