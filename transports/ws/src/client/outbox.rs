//! What is to be published, and who waits for its acknowledgement.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use latchbus_bus::Backoff;
use latchbus_core::topic::TopicName;
use latchbus_core::wire::{ErrorCode, Limits};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::machine::{Ids, Live};
use super::message::{Outgoing, Refused};
use super::{Confirmed, Full, PublishError};

/// Who is told how a publish ends.
pub(super) type Done = oneshot::Sender<Result<u64, PublishError>>;

/// The bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Topics with state.
    pub(super) topics: usize,
    /// Publishes whose caller waits.
    pub(super) waiting: usize,
    /// Publishes without an answer.
    pub(super) in_flight: usize,
}

/// The first and the longest wait before state is sent again that the server had no room for.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

#[derive(Debug)]
pub(super) struct Outbox {
    bounds: Bounds,
    states: HashMap<String, State>,
    /// Topics whose state is to be sent, each once.
    unsent: VecDeque<String>,
    /// Topics whose state is to be sent at `retry_at`.
    later: Vec<String>,
    retry: Backoff,
    retry_at: Option<Instant>,
    /// Events that were not sent.
    events: VecDeque<Event>,
    in_flight: HashMap<u64, Flight>,
    /// Publishes whose caller waits, in all of these.
    waiting: usize,
    closed: bool,
}

/// The newest state of one topic.
#[derive(Debug, Default)]
struct State {
    /// None: nobody has published it, somebody only watches.
    wanted: Option<Bytes>,
    /// Counts what was wanted.
    version: u64,
    /// The newest version that the server has acknowledged or refused for good, and in which epoch.
    settled: u64,
    settled_in: u64,
    /// On the list of what is to be sent, now or later.
    queued: bool,
    in_flight: bool,
    /// This client owns the topic: a server that has begun anew is told again.
    owned: bool,
    waiting: Vec<(u64, Done)>,
    confirmed: watch::Sender<Confirmed>,
}

#[derive(Debug)]
struct Event {
    topic: TopicName<String>,
    payload: Bytes,
    done: Done,
}

#[derive(Debug)]
enum Flight {
    State {
        topic: String,
        version: u64,
        payload: Bytes,
    },
    Event(Done),
}

impl Outbox {
    pub(super) fn new(bounds: Bounds, random: fastrand::Rng) -> Self {
        Self {
            bounds,
            states: HashMap::new(),
            unsent: VecDeque::new(),
            later: Vec::new(),
            retry: Backoff::with_random(RETRY.0, RETRY.1, random),
            retry_at: None,
            events: VecDeque::new(),
            in_flight: HashMap::new(),
            waiting: 0,
            closed: false,
        }
    }

    /// The newest state of an owned topic.
    pub(super) fn set(&mut self, topic: TopicName<String>, payload: Bytes) -> Result<(), Full> {
        let state = self.state(topic.as_str())?;
        state.owned = true;
        state.want(payload);
        self.queue(topic.into_inner());
        Ok(())
    }

    pub(super) fn confirmed(&mut self, topic: &str) -> Result<watch::Receiver<Confirmed>, Full> {
        Ok(self.state(topic)?.confirmed.subscribe())
    }

    pub(super) fn publish(
        &mut self,
        topic: TopicName<String>,
        payload: Bytes,
        retain: bool,
        done: Done,
    ) -> Result<(), PublishError> {
        if self.closed {
            return Err(PublishError::Closed);
        }
        if self.waiting >= self.bounds.waiting {
            return Err(Full("waiting publishes").into());
        }
        if retain {
            let state = self.state(topic.as_str())?;
            state.want(payload);
            state.waiting.push((state.version, done));
            self.queue(topic.into_inner());
        } else {
            self.events.push_back(Event {
                topic,
                payload,
                done,
            });
        }
        self.waiting += 1;
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// A connection is live: state that its server does not have is to be sent.
    pub(super) fn welcome(&mut self, epoch: u64) {
        let again = self.states.iter().filter(|(_, state)| {
            let elsewhere = state.owned && state.settled_in != epoch;
            state.wanted.is_some() && (state.settled < state.version || elsewhere)
        });
        for topic in again.map(|(topic, _)| topic.clone()).collect::<Vec<_>>() {
            self.queue(topic);
        }
    }

    /// The connection has ended. State that was in flight is sent again; of an event nobody knows whether
    /// the server has it.
    pub(super) fn disconnected(&mut self) {
        self.retry_at = None;
        self.unsent.extend(self.later.drain(..));
        for (_, flight) in self.in_flight.drain() {
            if let Flight::Event(done) = flight {
                finish(&mut self.waiting, done, Err(PublishError::Unconfirmed));
            }
        }
        for state in self.states.values_mut() {
            state.in_flight = false;
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.unsent.clear();
        let states = self.states.drain().flat_map(|(_, state)| state.waiting);
        let states = states.map(|(_, done)| done);
        for done in states.chain(self.events.drain(..).map(|event| event.done)) {
            finish(&mut self.waiting, done, Err(PublishError::Closed));
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.retry_at.is_some() || !self.unsent.is_empty() || !self.events.is_empty()
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// What to publish next, as far as more may be in flight.
    pub(super) fn next_publish(
        &mut self,
        live: Live,
        ids: &mut Ids,
        now: Instant,
    ) -> Option<Outgoing> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.unsent.extend(self.later.drain(..));
        }
        let server_takes = usize::try_from(live.limits.in_flight).unwrap_or(usize::MAX);
        let most = self.bounds.in_flight.min(server_takes).max(1);
        while self.in_flight.len() < most {
            let outgoing = match self.unsent.pop_front() {
                Some(topic) => self.send_state(topic, live, ids),
                None => {
                    let event = self.events.pop_front()?;
                    self.send_event(event, live.limits, ids)
                }
            };
            if outgoing.is_some() {
                return outgoing;
            }
        }
        None
    }

    /// The server's answer to a publish.
    pub(super) fn answer(
        &mut self,
        id: u64,
        result: Result<u64, Refused>,
        epoch: u64,
        now: Instant,
    ) {
        let (topic, version, payload) = match self.in_flight.remove(&id) {
            None => return,
            Some(Flight::Event(done)) => {
                return finish(
                    &mut self.waiting,
                    done,
                    result.map_err(PublishError::Refused),
                );
            }
            Some(Flight::State {
                topic,
                version,
                payload,
            }) => (topic, version, payload),
        };
        let Some(state) = self.states.get_mut(&topic) else {
            return;
        };
        state.in_flight = false;
        match &result {
            Ok(rev) => {
                self.retry.reset();
                state.acknowledge(*rev, payload);
            }
            Err(refused) => state.refuse(refused),
        }
        state.end_waiting(version, result.as_ref().copied(), &mut self.waiting);
        if state.owned && result.is_err_and(|refused| is_passing(refused.code)) {
            state.queued = true;
            self.later.push(topic);
            let wait = self.retry.next_wait();
            self.retry_at.get_or_insert(now + wait);
            return;
        }
        (state.settled, state.settled_in) = (version, epoch);
        if version < state.version {
            self.queue(topic);
        } else if state.is_idle() {
            self.states.remove(&topic);
        }
    }

    fn state(&mut self, topic: &str) -> Result<&mut State, Full> {
        if !self.states.contains_key(topic) {
            if self.states.len() >= self.bounds.topics {
                self.states.retain(|_, state| !state.is_idle());
            }
            if self.closed || self.states.len() >= self.bounds.topics {
                return Err(Full("topics with state"));
            }
        }
        Ok(self.states.entry(topic.to_owned()).or_default())
    }

    /// Puts a topic on the list of what is to be sent, unless it is there or in flight.
    fn queue(&mut self, topic: String) {
        if let Some(state) = self.states.get_mut(&topic)
            && !state.queued
            && !state.in_flight
        {
            state.queued = true;
            self.unsent.push_back(topic);
        }
    }

    fn send_state(&mut self, topic: String, live: Live, ids: &mut Ids) -> Option<Outgoing> {
        let state = self.states.get_mut(&topic)?;
        state.queued = false;
        let payload = state.wanted.clone()?;
        let name = TopicName::parse(topic.clone()).ok()?;
        let version = state.version;
        if let Some(refused) = too_large(&topic, &payload, live.limits) {
            state.refuse(&refused);
            state.end_waiting(version, Err(&refused), &mut self.waiting);
            (state.settled, state.settled_in) = (version, live.epoch);
            return None;
        }
        state.in_flight = true;
        let id = ids.next();
        let flight = Flight::State {
            topic,
            version,
            payload: payload.clone(),
        };
        self.in_flight.insert(id, flight);
        Some(Outgoing::Publish {
            id,
            topic: name,
            payload,
            retain: true,
        })
    }

    fn send_event(&mut self, event: Event, limits: Limits, ids: &mut Ids) -> Option<Outgoing> {
        let Event {
            topic,
            payload,
            done,
        } = event;
        if let Some(refused) = too_large(topic.as_str(), &payload, limits) {
            finish(&mut self.waiting, done, Err(refused.into()));
            return None;
        }
        let id = ids.next();
        self.in_flight.insert(id, Flight::Event(done));
        Some(Outgoing::Publish {
            id,
            topic,
            payload,
            retain: false,
        })
    }
}

impl State {
    fn want(&mut self, payload: Bytes) {
        self.wanted = Some(payload);
        self.version += 1;
    }

    /// Nobody would notice if it were forgotten.
    fn is_idle(&self) -> bool {
        !self.owned && self.settled == self.version && self.confirmed.is_closed()
    }

    fn acknowledge(&mut self, rev: u64, payload: Bytes) {
        self.confirmed.send_replace(Confirmed {
            payload: Some(payload),
            rev: Some(rev),
            refused: None,
        });
    }

    fn refuse(&mut self, refused: &Refused) {
        let refused = Some(refused.clone());
        self.confirmed
            .send_modify(|confirmed| confirmed.refused = refused);
    }

    /// Answers those who wait for this version or an older one, which it has replaced.
    fn end_waiting(&mut self, version: u64, result: Result<u64, &Refused>, waiting: &mut usize) {
        for (_, done) in self.waiting.extract_if(.., |(v, _)| *v <= version) {
            let result = result.map_err(|refused| PublishError::Refused(refused.clone()));
            finish(waiting, done, result);
        }
    }
}

fn finish(waiting: &mut usize, done: Done, result: Result<u64, PublishError>) {
    *waiting = waiting.saturating_sub(1);
    // A caller that has gone away needs no answer.
    let _ = done.send(result);
}

/// Whether the server may take the same message later.
fn is_passing(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Full | ErrorCode::RateLimited)
}

/// A server closes the connection on what is much too large: that is not even sent.
fn too_large(topic: &str, payload: &[u8], limits: Limits) -> Option<Refused> {
    let (code, message) = if too_long(topic.len(), limits.topic_bytes) {
        (ErrorCode::InvalidTopic, "longer than the server takes")
    } else if too_long(payload.len(), limits.payload_bytes) {
        (ErrorCode::TooLarge, "larger than the server takes")
    } else {
        return None;
    };
    Some(Refused {
        code,
        message: message.to_owned(),
    })
}

pub(super) fn too_long(bytes: usize, limit: u32) -> bool {
    u32::try_from(bytes).map_or(true, |bytes| bytes > limit)
}
