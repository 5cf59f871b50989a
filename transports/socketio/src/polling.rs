//! HTTP long-polling: a GET waits for packets, a POST brings some.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use latchbus_bus::Hold;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::{Packet, SEPARATOR};
use crate::machine::Fault;
use crate::server::Refused;
use crate::session::{Carrier, Cause, Inbox, Shared};

/// The answer to a poll.
pub(crate) fn body(body: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=UTF-8")], body).into_response()
}

/// Answers with the next packets, as soon as there are some.
pub(crate) async fn poll(shared: Arc<Shared>) -> Result<Response, Refused> {
    let (answer, mut answered) = oneshot::channel();
    {
        let mut state = shared.state();
        if state.is_over() || state.carrier != Carrier::Polling {
            return Err(Refused::Session);
        }
        if state.poll.is_some() {
            drop(state);
            // The library counts on it: both ends learn that something is wrong with the other.
            shared.fail(Cause::SecondPoll);
            return Err(Refused::Request);
        }
        state.poll = Some(answer);
    }
    shared.wake.wake();
    let mut waiting = Waiting {
        shared: &shared,
        waits: true,
    };
    let packets = (&mut answered).await;
    waiting.waits = false;
    // Nobody answers when the session has gone over to a WebSocket.
    packets.map(body).map_err(|_| Refused::Request)
}

/// A poll that waits: when it is cancelled, what it might have been sent is lost.
struct Waiting<'a> {
    shared: &'a Shared,
    waits: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.shared.fail(Cause::PollCancelled);
        }
    }
}

/// Takes the packets that are posted, and answers when they were taken.
pub(crate) async fn post(shared: Arc<Shared>, request: Request) -> Result<Response, Refused> {
    if shared.state().is_over() {
        return Err(Refused::Session);
    }
    let (body, hold) =
        match timeout(shared.common.config.body_timeout, read(&shared, request)).await {
            Ok(Ok(read)) => read,
            Ok(Err(refused)) => {
                shared.fail(Cause::Body);
                return Err(refused);
            }
            Err(_) => {
                shared.fail(Cause::Body);
                return Err(Refused::Request);
            }
        };
    let packets = body
        .split(SEPARATOR)
        .map(|packet| Packet::decode(packet, true));
    if let Some(error) = packets.filter_map(Result::err).next() {
        shared.fail(Cause::Fault(Fault::from(error)));
        return Err(Refused::Request);
    }
    let (taken, was_taken) = oneshot::channel();
    {
        let mut state = shared.state();
        if state.is_over() || state.carrier != Carrier::Polling {
            return Err(Refused::Session);
        }
        if state.inbox.is_some() {
            drop(state);
            shared.fail(Cause::SecondBody);
            return Err(Refused::Request);
        }
        state.inbox = Some(Inbox {
            body,
            _hold: hold,
            _taken: taken,
        });
    }
    shared.wake_reader();
    // It is dropped when all was taken.
    let _ = was_taken.await;
    let state = shared.state();
    match state.carrier == Carrier::Closed && !state.left && state.cause.is_none() {
        true => Err(Refused::Request),
        false => Ok(body_ok()),
    }
}

fn body_ok() -> Response {
    body("ok".to_owned())
}

async fn read(shared: &Shared, request: Request) -> Result<(String, Hold), Refused> {
    let bus = &shared.common.bus;
    let mut hold = bus.incoming().hold();
    let mut pieces = request.into_body().into_data_stream();
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Refused::Request)?;
        if body.len() + piece.len() > shared.common.max_message_bytes {
            return Err(Refused::TooLarge);
        }
        body.extend_from_slice(&piece);
        hold.set(body.len()).map_err(|_| Refused::Full)?;
    }
    bus.metrics().bytes_received.add(body.len() as u64);
    let body = String::from_utf8(body).map_err(|_| Refused::Request)?;
    Ok((body, hold))
}
