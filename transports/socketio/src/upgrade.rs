//! WebSocket: a session of its own, or one that takes over a session of polls.

use core::time::Duration;
use std::io;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use latchbus_ws::frame::{FrameReader, Incoming, Opcode, write_frame};
use latchbus_ws::handshake::{self, Handshake};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{interval, timeout};

use crate::engine::Packet;
use crate::server::{Refused, Server};
use crate::session::{Carrier, Shared, Stream};

/// While a WebSocket is about to take over, the poll that waits is answered with nothing, so often: the library ends polling when its
/// last poll is answered.
const NOOP_EVERY: Duration = Duration::from_millis(100);

/// What is taken from a socket in one go during the upgrade.
const READ_BYTES: usize = 512;

/// The longest frame before the session is this WebSocket's.
const PROBE_BYTES: usize = 64;

/// Answers a request for a WebSocket.
pub(crate) async fn upgrade(
    server: &Server,
    mut request: Request,
    session: Option<Arc<Shared>>,
) -> Result<Response, Refused> {
    let accepted = handshake::accept(&mut request, &server.0.guard, &[]);
    let Handshake { response, upgrade } = match accepted {
        Ok((handshake, _)) => handshake,
        Err(refused) => {
            let address = server.0.guard.client(&request);
            refused.log(&server.0.common.bus, "socketio", address, request.headers());
            return Ok(refused.into_response());
        }
    };
    let sign_in = server.sign_in(&request);
    drop(request);
    let Some(shared) = session else {
        let (session, shared, permit) = server.begin(sign_in, Carrier::WebSocket).await?;
        let running = server.clone();
        server.0.tasks.spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                    let frames = FrameReader::new(shared.common.max_message_bytes);
                    shared.state().hand_over(read, write, frames);
                    running.run(session, shared, permit).await;
                }
                Err(error) => {
                    running.forget(&shared);
                    tracing::debug!(target: "socketio", %error, "a connection ended within its handshake");
                }
            }
        });
        return Ok(response);
    };
    let may = {
        let mut state = shared.state();
        let may = state.carrier == Carrier::Polling && !state.is_over() && !state.upgrading;
        state.upgrading |= may;
        may
    };
    let server_of_task = server.clone();
    server.0.tasks.spawn(async move {
        if may {
            take_over(&server_of_task, &shared, upgrade).await;
        } else {
            close_at_once(upgrade).await;
        }
    });
    Ok(response)
}

/// A WebSocket for a session that has one: the library expects that it is accepted and closed.
async fn close_at_once(upgrade: OnUpgrade) {
    if let Ok(upgraded) = upgrade.await {
        let mut stream = TokioIo::new(upgraded);
        let mut frame = Vec::new();
        write_frame(&mut frame, Opcode::Close, &[&1000_u16.to_be_bytes()]);
        let goodbye = async {
            stream.write_all(&frame).await?;
            stream.shutdown().await?;
            let mut bytes = [0; READ_BYTES];
            while stream.read(&mut bytes).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        // Whether it listens makes no difference.
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }
}

async fn take_over(server: &Server, shared: &Arc<Shared>, upgrade: OnUpgrade) {
    let patience = shared.common.config.upgrade_timeout;
    let probed = async {
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        probe(shared, TokioIo::new(upgraded)).await
    };
    let closing = shared.common.bus.closing();
    let probed = tokio::select! {
        probed = timeout(patience, probed) => probed,
        () = closing.cancelled() => return,
    };
    match probed {
        Ok(Ok((stream, frames))) => {
            let (read, write) = tokio::io::split(stream);
            let mut state = shared.state();
            state.upgrading = false;
            if state.is_over() || state.carrier != Carrier::Polling {
                return;
            }
            state.carrier = Carrier::WebSocket;
            state.hand_over(read, write, frames);
            // A poll that came after all is answered with an error.
            state.poll = None;
            drop(state);
            server.0.metrics.upgrades.add(1);
            shared.wake_reader();
            shared.wake.wake();
        }
        failed => {
            shared.state().upgrading = false;
            // What waited for the end of the upgrade goes to the next poll.
            shared.wake.wake();
            let error = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => "it took too long".to_owned(),
            };
            tracing::debug!(target: "socketio", error, "a session stays with polling");
        }
    }
}

/// Waits for the probe, answers it, and waits for the packet that completes the upgrade.
async fn probe(shared: &Shared, mut stream: Stream) -> io::Result<(Stream, FrameReader)> {
    let mut frames = FrameReader::new(shared.common.max_message_bytes.max(PROBE_BYTES));
    let mut probed = false;
    let mut noop = interval(NOOP_EVERY);
    noop.reset();
    loop {
        while let Some(incoming) = frames.next_incoming().map_err(io::Error::other)? {
            let packet = match &incoming {
                Incoming::Text(text) => Packet::decode(text, false).map_err(io::Error::other)?,
                Incoming::Ping(payload) => {
                    send(&mut stream, Opcode::Pong, payload).await?;
                    continue;
                }
                Incoming::Pong(_) => continue,
                Incoming::Binary(_) | Incoming::Close(_) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            };
            match packet {
                Packet::Ping("probe") if !probed => {
                    probed = true;
                    send(&mut stream, Opcode::Text, b"3probe").await?;
                }
                Packet::Upgrade if probed => return Ok((stream, frames)),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let mut bytes = [0; READ_BYTES];
        tokio::select! {
            read = stream.read(&mut bytes) => match read? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => frames.feed(bytes.get(..read).unwrap_or_default()),
            },
            _ = noop.tick(), if probed => {
                if let Some(poll) = shared.state().poll.take() {
                    // A poll that waits no more has ended its session.
                    let _ = poll.send("6".to_owned());
                }
            }
        }
    }
}

async fn send(stream: &mut Stream, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::new();
    write_frame(&mut frame, opcode, &[payload]);
    stream.write_all(&frame).await?;
    stream.flush().await
}
