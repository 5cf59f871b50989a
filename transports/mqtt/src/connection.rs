//! One connection of a session: bytes and events in, requests and bytes out, without I/O.

mod bounds;
mod last_will;
mod noting;
mod publishing;
mod signing_in;
pub(crate) mod subscribing;

use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use latchbus_bus::{Client, Clock, Event, Request};
use latchbus_core::hub::Kind;
use latchbus_core::topic::TopicName;

pub use self::bounds::Bounds;
pub(crate) use self::last_will::LastWill;
use self::subscribing::{Subscribing, Unsubscribing};
use crate::decode::Decoder;
use crate::encode::{self, Ack, Welcome};
use crate::message::{Aliases, Message, Wire};
use crate::packet::{Goodbye, Packet, Version, Will};
use crate::record::{Note, Part};
use crate::session::{Release, Session};
use crate::{Connect, Reason, Violation};

/// The state machine of one connection, from CONNACK to its end.
///
/// Input: [`poll_request`](Self::poll_request) with the bytes that have come,
/// [`handle_event`](Self::handle_event) with the bus's answers and messages,
/// [`handle_timeout`](Self::handle_timeout) at the [`deadline`](Self::deadline). After any of them:
/// [`take_output`](Self::take_output). At the end: [`close`](Self::close), then [`end`](Self::end).
#[derive(Debug)]
pub struct Connection {
    version: Version,
    wire: Wire,
    window: usize,
    bounds: Arc<Bounds>,
    decoder: Decoder,
    session: Session,
    session_expiry: Duration,
    keep_alive: Option<Duration>,
    heard: Instant,
    will: LastWill,
    /// QoS 1 publishes of the client that the bus has not answered.
    unanswered: usize,
    /// Asked of the bus and not answered; bounded by the requests that the bus takes unanswered.
    subscribes: VecDeque<Subscribing>,
    unsubscribes: VecDeque<Unsubscribing>,
    /// The revision of the hub, before the requests that are asked now.
    revision: u64,
    /// See [`away_to`](Self::away_to).
    away_to: u64,
    /// See [`of_client`](Self::of_client).
    client: Option<Client>,
    /// The rules by which its subscriptions have their greatest quality of service.
    rules: u64,
    /// When it is to be noted how far the subscriptions have come.
    mark_at: Option<Instant>,
    /// Whether what the CONNECT has changed is not on disk yet: nothing goes out before, the CONNACK first.
    opening: bool,
    marks: Vec<(u64, u64)>,
    /// What the client's topic aliases stand for.
    aliases: BTreeMap<NonZeroU16, TopicName<String>>,
    problem_information: bool,
    /// Whether the client may prove anew who it is.
    by_token: bool,
    /// What the bus writes beside the messages of this client.
    origin: u64,
    out: BytesMut,
    ending: Option<Violation>,
    too_large: u64,
    /// A filter that the settings refuse, for the log.
    refused_filter: Option<Box<str>>,
    /// The code with which the client has refused a message, for the log.
    refused_message: Option<Reason>,
    /// The client's DISCONNECT, for the log.
    goodbye: Option<Goodbye>,
}

/// What the bytes so far ask for.
#[derive(Debug)]
pub enum Progress {
    /// A request for the bus.
    Request(Request),
    /// Nothing more until more bytes come.
    NeedsBytes,
    /// The client has said goodbye.
    Left,
}

/// What is left of a connection.
#[derive(Debug)]
pub struct Remains {
    /// What the client and the server remember of each other.
    pub session: Session,
    /// How long that is worth keeping; zero: not at all.
    pub session_expiry: Duration,
    /// What is to be published.
    pub will: Option<Will>,
    /// What is still to be stored.
    pub notes: Vec<Note>,
    /// See [`Connection::take_marks`].
    pub marks: Vec<(u64, u64)>,
    /// Messages that were not sent because they are larger than the client accepts.
    pub too_large: u64,
    /// The client's DISCONNECT, for the log.
    pub goodbye: Option<Goodbye>,
}

/// How often it is noted how far the subscriptions of a session that is kept on disk have come.
const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// Where the client leaves a message unacknowledged, those behind it that it has finished are remembered one by one:
/// from so many windows on it gets no more until it acknowledges.
const DONE_WINDOWS: usize = 16;

impl Connection {
    /// Whether the client can be told why its connection ends.
    pub fn can_be_told(&self) -> bool {
        self.version == Version::V5
    }

    /// The keep-alive interval that holds; none: the client may be silent as long as it likes.
    pub fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive.map(|longest| longest * 2 / 3)
    }

    /// How many QoS 1 and 2 messages the client has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.session.unacknowledged()
    }

    /// Whether the CONNACK that accepts a client is no larger than what the client takes (MQTT-3.1.2-24).
    pub fn can_accept(connect: &Connect, assigned: bool, bounds: &Bounds) -> bool {
        connect.maximum_packet_bytes.is_none_or(|limit| {
            let mut out = BytesMut::new();
            let (welcome, _) = welcome(connect, false, assigned, bounds);
            encode::welcome(connect, &welcome, &mut out);
            out.len() <= limit
        })
    }

    /// Accepts a client that [can be accepted](Self::can_accept): the first output is its CONNACK, followed by what an earlier connection of the
    /// session has left unacknowledged. `kept` is the session to go on with; `assigned` says that the
    /// client's identifier was chosen by the server.
    pub fn accept(
        connect: Connect,
        kept: Option<Session>,
        assigned: bool,
        bounds: impl Into<Arc<Bounds>>,
        now: Instant,
    ) -> Self {
        let bounds = bounds.into();
        let (welcome, agreed) = welcome(&connect, kept.is_some(), assigned, &bounds);
        let mut out = BytesMut::new();
        encode::welcome(&connect, &welcome, &mut out);
        let mut session = kept.unwrap_or_default();
        session.outgoing.rewind();
        if !bounds.queue_qos0 {
            session.outgoing.drop_qos0();
        }
        // MQTT 3.1.1 §3.1.2.10: one and a half times the interval.
        let keep_alive = Duration::from_secs(agreed.keep_alive_secs.into()) * 3 / 2;
        Self {
            version: connect.version,
            wire: Wire {
                version: connect.version,
                limit: connect.maximum_packet_bytes,
                epoch: 0,
                clock: Clock::system(),
                aliases: Aliases::new(connect.topic_alias_maximum.min(bounds.topic_aliases)),
            },
            window: usize::from(bounds.in_flight.min(connect.receive_maximum).max(1)),
            decoder: Decoder {
                version: connect.version,
                bridge: connect.bridge,
                max_packet_bytes: bounds.max_packet_bytes,
            },
            bounds,
            session,
            session_expiry: Duration::from_secs(agreed.session_expiry_secs.into()),
            keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
            heard: now,
            will: LastWill::new(connect.will),
            unanswered: 0,
            subscribes: VecDeque::new(),
            unsubscribes: VecDeque::new(),
            revision: 0,
            away_to: 0,
            client: None,
            rules: 0,
            mark_at: None,
            opening: false,
            marks: Vec::new(),
            aliases: BTreeMap::new(),
            problem_information: connect.problem_information,
            by_token: connect.by_token,
            origin: 0,
            out,
            ending: None,
            too_large: 0,
            refused_filter: None,
            refused_message: None,
            goodbye: None,
        }
    }

    /// Says who this is on the bus ([`latchbus_bus::Client::origin`]), which the option no-local
    /// needs, the epoch of the hub, for `latchbus-rev`, and its clock, for what is left of the time of a
    /// message that expires.
    #[must_use]
    pub fn on_bus(mut self, origin: u64, epoch: u64, clock: Clock) -> Self {
        self.origin = origin;
        (self.wire.epoch, self.wire.clock) = (epoch, clock);
        self
    }

    /// Names the client whose rules say what it may be sent, and with which quality of service.
    #[must_use]
    pub fn of_client(mut self, client: Client) -> Self {
        self.rules = client.rules();
        self.session.follow_rules(&client);
        self.client = Some(client);
        self
    }

    /// Says how far the hub has come while the client was away, at most: what is newer comes to a client that is
    /// connected.
    #[must_use]
    pub const fn away_to(mut self, revision: u64) -> Self {
        self.away_to = revision;
        self
    }

    /// The code with which the client has refused the last message that it refused, once. Such a message is not sent
    /// again (MQTT 5 §4.4).
    pub fn take_refused_message(&mut self) -> Option<Reason> {
        self.refused_message.take()
    }

    /// Sets the revision of the hub, before [`poll_request`](Self::poll_request): a subscription without
    /// retained messages begins there, as far as a restart is concerned.
    pub fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// Takes packets from the front of `bytes` up to the first that needs the bus. Packets that do not
    /// are answered on the way.
    ///
    /// # Errors
    /// When the client breaks the protocol: the connection is to end.
    pub fn poll_request(
        &mut self,
        bytes: &mut BytesMut,
        now: Instant,
    ) -> Result<Progress, Violation> {
        if let Some(ending) = self.ending.clone() {
            return Err(ending);
        }
        while let Some(packet) = self.note(|this| this.decoder.next(bytes))? {
            self.heard = now;
            match packet {
                Packet::Disconnect {
                    goodbye,
                    session_expiry_secs,
                } => {
                    self.note(|this| this.leave(goodbye.reason, session_expiry_secs))?;
                    self.goodbye = Some(goodbye);
                    return Ok(Progress::Left);
                }
                packet => {
                    let acknowledges =
                        matches!(packet, Packet::Acknowledged { .. } | Packet::Complete(_));
                    if acknowledges && self.session.ledger.is_durable() {
                        self.mark_at.get_or_insert(now + MARK_INTERVAL);
                    }
                    if let Some(request) = self.note(|this| this.handle(packet))? {
                        return Ok(Progress::Request(request));
                    }
                }
            }
        }
        Ok(Progress::NeedsBytes)
    }

    /// Says that bytes have come, also if they are no whole packet yet: a client that sends a large one slowly is not
    /// silent.
    pub const fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// What the bus answers, and what its subscriptions bring.
    pub fn handle_event(&mut self, event: Event) {
        match event {
            Event::Message {
                subscription,
                delivery,
                retained,
            } => {
                self.follow_rules();
                let Some(options) = self.session.options(subscription) else {
                    return;
                };
                let own = options.no_local && delivery.payload.origin() == self.origin;
                if self.session.ledger.is_durable()
                    && !self.session.ledger.bring(subscription, delivery.rev)
                {
                    return;
                }
                // That the time of a value is over is no message (MQTT 5 §3.3.2.3.3).
                if own || delivery.payload.is_expiry() {
                    return;
                }
                let granted = options.qos.min(options.max_qos);
                let qos = granted.min(delivery.payload.qos());
                let missed = !retained && delivery.rev <= self.away_to;
                if qos == 0 && missed && !self.bounds.queue_qos0 {
                    return;
                }
                let was_retained = delivery.kind != Kind::Event || delivery.payload.is_clear();
                let message = Message {
                    subscription,
                    retain: retained || (options.retain_as_published && was_retained),
                    options,
                    delivery,
                };
                let durable = self.session.ledger.is_durable();
                let outgoing = &mut self.session.outgoing;
                let fits = outgoing.publish(qos, message, &mut self.wire, &mut self.out, durable);
                self.too_large += u64::from(!fits);
            }
            Event::Published { id, .. } => self.published(id, None),
            Event::Refused { id, refused } => self.rejected(id, &refused),
            Event::Subscribed { results, .. } => self.subscribed(results),
            Event::Unsubscribed { existed, .. } => self.unsubscribed(&existed),
            // MQTT has no words for these.
            Event::Synced { .. } | Event::Gap { .. } | Event::Reset { .. } => {}
            Event::SignedIn { result, .. } => self.signed_in(result),
            Event::Pong { .. } | Event::Bad { .. } | Event::History { .. } => {}
        }
    }

    /// How many more messages may be handed to [`handle_event`](Self::handle_event) now. At 0 there will
    /// be room when the output has been taken, or when the client has acknowledged messages.
    pub fn credit(&self) -> usize {
        let outgoing = &self.session.outgoing;
        if self.opening || !outgoing.caught_up() || self.out.len() >= self.bounds.write_bytes {
            return 0;
        }
        let held_back =
            outgoing.len() > 0 && self.session.ledger.done() > self.window * DONE_WINDOWS;
        if held_back {
            return 0;
        }
        self.window.saturating_sub(outgoing.len())
    }

    /// Moves what is to be written into `bytes`, which is empty.
    pub fn take_output(&mut self, bytes: &mut BytesMut) {
        if self.opening {
            return;
        }
        let room = self.bounds.write_bytes;
        let Session {
            outgoing, ledger, ..
        } = &mut self.session;
        let (window, client) = (self.window, self.client.as_ref());
        let may_receive =
            |topic: TopicName<&str>| client.is_none_or(|client| client.may_receive(topic));
        let (wire, out) = (&mut self.wire, &mut self.out);
        self.too_large += outgoing.resend(window, wire, room, out, ledger, may_receive);
        core::mem::swap(&mut self.out, bytes);
    }

    /// Whether there is something to be written.
    pub fn has_output(&self) -> bool {
        !self.opening && (!self.out.is_empty() || self.session.outgoing.may_resend(self.window))
    }

    /// Whether something is left that the client may still get, or acknowledge: to close on bytes that were not read
    /// may cost it what it has not read either.
    pub fn has_unsent(&self) -> bool {
        self.has_output() || self.has_notes() || self.session.outgoing.len() > 0
    }

    /// The will, for whoever publishes it if the server stops before the connection ends.
    pub(crate) fn last_will(&self) -> LastWill {
        self.will.clone()
    }

    /// Whether the session outlives the server, and with it the delay of a will.
    pub(crate) fn outlives_the_server(&self) -> bool {
        self.is_durable() && !self.session_expiry.is_zero()
    }

    /// Whether the client takes its answers so slowly that no more of its packets should be read.
    pub fn is_clogged(&self) -> bool {
        let waiting = self.out.len() + self.session.ledger.waiting_bytes();
        waiting >= self.bounds.write_bytes.saturating_mul(4)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let silence = self.silent_from();
        [silence, self.mark_at].into_iter().flatten().min()
    }

    fn silent_from(&self) -> Option<Instant> {
        Some(self.heard + self.keep_alive?)
    }

    /// Looks whether the client was silent for too long, and notes how far its subscriptions have come.
    ///
    /// # Errors
    /// When it was: the connection is to end.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Violation> {
        if self.mark_at.take_if(|at| *at <= now).is_some() {
            self.marks = self.session.mark();
        }
        let silent = self.silent_from().is_some_and(|from| now >= from);
        self.note(|_| {
            if silent {
                Err(Violation::KeepAlive)
            } else {
                Ok(())
            }
        })
    }

    /// Says that it is to end for what was wrong outside of it, which [`close`](Self::close) then says.
    pub fn break_off(&mut self, violation: Violation) {
        self.ending.get_or_insert(violation);
    }

    /// Whether it is to end, for what [`poll_request`](Self::poll_request) says.
    pub const fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Says goodbye, where the version has words for it. A violation goes before any other `reason`.
    pub fn close(&mut self, reason: Option<Reason>) {
        let (version, limit, out) = (self.version, self.wire.limit, &mut self.out);
        if let Some(violation) = self.ending.take() {
            let words = violation.to_string();
            encode::disconnect(version, violation.reason(), &words, limit, out);
        } else if let Some(reason) = reason {
            encode::disconnect(version, reason, "", limit, out);
        }
    }

    /// Whether the session goes on, and the bus has QoS 2 publishes that it has not answered: the client repeats
    /// them, and they are new only if the bus has refused them.
    pub fn is_owed(&self) -> bool {
        !self.session_expiry.is_zero() && self.session.incoming.is_pending()
    }

    /// Ends the connection. The bus has answered all requests that it is going to answer.
    pub fn end(mut self) -> Remains {
        self.session.settle();
        let (notes, marks) = self.session.end_notes();
        Remains {
            notes,
            marks,
            session: self.session,
            session_expiry: self.session_expiry,
            will: self.will.take(),
            too_large: self.too_large,
            goodbye: self.goodbye,
        }
    }

    /// Remembers a violation for the goodbye.
    fn note<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        step(self).inspect_err(|violation| self.ending = Some(violation.clone()))
    }

    fn handle(&mut self, packet: Packet) -> Result<Option<Request>, Violation> {
        let Session {
            outgoing,
            ledger,
            incoming,
            ..
        } = &mut self.session;
        match packet {
            Packet::Publish(publish) => return self.publish(publish),
            Packet::Subscribe { id, filters } => return self.subscribe(id, filters),
            Packet::Unsubscribe { id, filters } => return self.unsubscribe(id, filters),
            Packet::Acknowledged { id, reason } => {
                let known = outgoing.acknowledged(id, ledger);
                if known && reason.is_error() {
                    self.refused_message = Some(reason);
                }
            }
            Packet::Received { id, reason } => {
                let refused = reason.is_error();
                let known = outgoing.received(id, refused, self.version, &mut self.out, ledger);
                if known && refused {
                    self.refused_message = Some(reason);
                }
            }
            Packet::Complete(id) => outgoing.completed(id, ledger),
            Packet::Release(id) => {
                let reason = match incoming.release(id) {
                    Release::Released => Reason::SUCCESS,
                    Release::Unknown => Reason::PACKET_IDENTIFIER_NOT_FOUND,
                    Release::TooEarly => return Err(Violation::Protocol("PUBREL before PUBREC")),
                };
                if ledger.is_durable() {
                    // Also where it is not known: it may be on disk still.
                    ledger.note(Part::Incoming(id).forget());
                }
                let out = ledger.after_notes(&mut self.out);
                encode::ack(Ack::Pubcomp, self.version, id, reason, out);
            }
            Packet::Ping => encode::pong(&mut self.out),
            Packet::Authenticate { method, data } => {
                return self.authenticate(&method, data.as_deref()).map(Some);
            }
            Packet::Disconnect { .. } => {}
        }
        Ok(None)
    }

    /// DISCONNECT.
    fn leave(&mut self, reason: Reason, session_expiry_secs: Option<u32>) -> Result<(), Violation> {
        if reason == Reason::SUCCESS {
            // MQTT 3.1.1 §3.14.4, MQTT 5 §3.14.4
            drop(self.will.take());
        }
        if let Some(asked) = session_expiry_secs {
            if self.session_expiry.is_zero() && asked > 0 {
                // MQTT 5 §3.14.2.2.2
                return Err(Violation::Protocol(
                    "a session that was to end may not be kept",
                ));
            }
            let asked = Duration::from_secs(asked.into());
            self.session_expiry = asked.min(self.bounds.session_expiry);
        }
        Ok(())
    }
}

/// What a client gets of what it asks for.
struct Agreed {
    session_expiry_secs: u32,
    keep_alive_secs: u16,
}

fn welcome(
    connect: &Connect,
    session_present: bool,
    assigned: bool,
    bounds: &Bounds,
) -> (Welcome, Agreed) {
    let bound_secs = u32::try_from(bounds.session_expiry.as_secs()).unwrap_or(u32::MAX);
    let session_expiry_secs = match connect.session_expiry_secs {
        Some(asked) => asked.min(bound_secs),
        None if connect.clean_start => 0,
        None => bound_secs,
    };
    let announced = (connect.session_expiry_secs)
        .and_then(|asked| (asked != session_expiry_secs).then_some(session_expiry_secs));
    let keep_alive_secs = match (connect.version, bounds.keep_alive) {
        (Version::V5, Some(most)) => {
            let most = u16::try_from(most.as_secs()).unwrap_or(u16::MAX).max(1);
            let asked = connect.keep_alive_secs;
            if asked == 0 { most } else { asked.min(most) }
        }
        _ => connect.keep_alive_secs,
    };
    let welcome = Welcome {
        keep_alive_secs: (keep_alive_secs != connect.keep_alive_secs).then_some(keep_alive_secs),
        topic_alias_maximum: bounds.topic_aliases,
        session_present,
        assigned_client_id: assigned,
        session_expiry_secs: announced,
        receive_maximum: bounds.receive_maximum.max(1),
        max_packet_bytes: u32::try_from(bounds.max_packet_bytes).unwrap_or(u32::MAX),
    };
    let agreed = Agreed {
        session_expiry_secs,
        keep_alive_secs,
    };
    (welcome, agreed)
}
