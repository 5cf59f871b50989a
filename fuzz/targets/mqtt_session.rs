//! MQTT bytes of a hostile client into the session's state machine, over several connections of one session.
//!
//! Input: one byte of choices for the harness, then the bytes of the client; `CUT!` among them ends a connection, and `KILL`
//! the server, of which only what was stored comes back.
#![no_main]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use latchbus_bus::{
    Bus, Clock, Delivery, Event, Options, Properties, Publish, PublishRefused, Request,
    SignInRefused, SubscribeRefused,
};
use latchbus_core::hub::Counts;
use latchbus_core::topic::TopicName;
use latchbus_mqtt::restore::restore;
use latchbus_mqtt::{Bounds, Connection, Note, Opening, Progress, Session, opening, refusal};
use libfuzzer_sys::fuzz_target;

const CUT: &[u8] = b"CUT!";
const KILL: &[u8] = b"KILL";
const MAX_CONNECTIONS: usize = 8;
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

fuzz_target!(|input: &[u8]| {
    let Some((choices, stream)) = input.split_first() else {
        return;
    };
    let whole = drive(Choices(*choices), stream, usize::MAX);
    // However the network cuts the bytes, the bus is asked the same and the client is answered the same.
    assert_eq!(whole, drive(Choices(*choices), stream, 1));
    assert_eq!(whole, drive(Choices(*choices), stream, 7));
});

/// What the bus does, and in which bounds.
#[derive(Clone, Copy)]
struct Choices(u8);

impl Choices {
    /// Every third request is refused.
    fn refuses(self, request: usize) -> bool {
        self.0 & 1 != 0 && request % 3 == 2
    }

    /// How many requests wait for their answers at a time.
    fn waiting(self) -> usize {
        usize::from(self.0 >> 1 & 3)
    }

    /// How many messages each subscription brings after a request.
    fn messages(self) -> usize {
        usize::from(self.0 >> 3 & 3)
    }

    /// Whether there is a disk.
    fn stores(self) -> bool {
        self.0 & 0x40 != 0
    }

    fn bounds(self) -> Bounds {
        if self.0 & 0x20 == 0 {
            return Bounds::default();
        }
        Bounds {
            max_packet_bytes: 128,
            in_flight: 2,
            receive_maximum: 2,
            session_expiry: Duration::from_secs(60),
            topic_aliases: 2,
            keep_alive: Some(Duration::from_secs(60)),
            client_id_bytes: 16,
            write_bytes: 64,
            ..Bounds::default()
        }
    }
}

/// What was seen of one connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    requests: Vec<String>,
    /// Sorted: where messages of an earlier connection stand among the answers depends on when there was room.
    packets: Vec<Vec<u8>>,
    violated: bool,
}

fn drive(choices: Choices, stream: &[u8], piece: usize) -> Vec<Seen> {
    let mut world = World {
        choices,
        kept: None,
        live: BTreeSet::new(),
        disk: BTreeMap::new(),
    };
    let mut connections = Vec::new();
    for (stream, killed) in split_at_ends(stream).into_iter().take(MAX_CONNECTIONS) {
        connections.push(connect(&mut world, stream, piece, killed));
        if killed {
            world.restart();
        }
    }
    connections
}

/// The streams of the connections, and whether the server is killed at their end.
fn split_at_ends(mut stream: &[u8]) -> Vec<(&[u8], bool)> {
    let mut streams = Vec::new();
    while let Some(at) =
        (stream.windows(CUT.len())).position(|window| [CUT, KILL].contains(&window))
    {
        let (before, rest) = stream.split_at(at);
        let (end, rest) = rest.split_at(CUT.len());
        streams.push((before, end == KILL));
        stream = rest;
    }
    streams.push((stream, false));
    streams
}

/// What outlives a connection.
struct World {
    choices: Choices,
    kept: Option<Session>,
    /// The subscriptions that the bus has accepted.
    live: BTreeSet<u64>,
    disk: BTreeMap<Bytes, Bytes>,
}

impl World {
    fn write(&mut self, notes: impl IntoIterator<Item = Note>) {
        for note in notes {
            match note {
                Note::Keep { part, value } => drop(self.disk.insert(part, value)),
                Note::Forget { part } => drop(self.disk.remove(&part)),
                Note::ForgetAll => self.disk.clear(),
            }
        }
    }

    /// Only the disk is left.
    fn restart(&mut self) {
        let parts = self.disk.iter().map(|(part, value)| (&**part, value));
        let restored = restore(parts, 0xE1).session;
        let subscriptions = restored.iter().flat_map(|restored| &restored.subscriptions);
        self.live = subscriptions.map(|subscription| subscription.id).collect();
        self.kept = restored.map(|restored| restored.session);
    }
}

/// One connection from its first byte to its end.
fn connect(world: &mut World, stream: &[u8], piece: usize, killed: bool) -> Seen {
    let choices = world.choices;
    let (bounds, now) = (choices.bounds(), Instant::now());
    let mut bytes = BytesMut::new();
    let mut pieces = stream.chunks(piece.min(stream.len()).max(1));
    let connect = loop {
        let Some(piece) = pieces.next() else {
            return Seen::default();
        };
        bytes.extend_from_slice(piece);
        match opening(&mut bytes, bounds.max_packet_bytes) {
            Ok(None) => {}
            Ok(Some(Opening::Connect(connect))) => break connect,
            Ok(Some(Opening::Refuse {
                version,
                reason,
                limit,
                ..
            })) => {
                let mut out = BytesMut::new();
                refusal(version, reason, limit, &mut out);
                assert!(limit.is_none_or(|limit| out.len() <= limit));
                let packets = packets(&out);
                assert!(packets.len() <= 1);
                assert!(packets.iter().all(|packet| packet[0] >> 4 == CONNACK));
                return Seen {
                    packets,
                    ..Seen::default()
                };
            }
            Err(_) => {
                return Seen {
                    violated: true,
                    ..Seen::default()
                };
            }
        }
    };
    if !Connection::can_accept(&connect, false, &bounds) {
        return Seen::default();
    }
    if connect.clean_start {
        world.kept = None;
        world.live.clear();
        world.disk.clear();
    }
    let limit = connect.maximum_packet_bytes;
    let in_flight = usize::from(bounds.in_flight);
    let mut peer = Peer {
        choices,
        connection: {
            let kept = world.kept.take();
            let connection = Connection::accept(*connect, kept, false, bounds, now).on_bus(
                1,
                0xE1,
                Clock::manual(0),
            );
            match choices.stores() {
                true => connection.on_disk(false),
                false => connection,
            }
        },
        world,
        asked: VecDeque::new(),
        output: Vec::new(),
        acks_due: 0,
        seen: Seen::default(),
    };
    peer.flush();
    let mut more = peer.read(&mut bytes, now);
    for piece in pieces {
        if !more {
            break;
        }
        bytes.extend_from_slice(piece);
        more = peer.read(&mut bytes, now);
    }
    if killed {
        return peer.killed(limit, now);
    }
    let (seen, session, notes) = peer.end(limit);
    assert!(
        session
            .as_ref()
            .is_none_or(|session| session.unacknowledged() <= in_flight)
    );
    if session.is_none() {
        world.live.clear();
        world.disk.clear();
    } else {
        world.write(notes);
    }
    world.kept = session;
    seen
}

struct Peer<'a> {
    choices: Choices,
    connection: Connection,
    world: &'a mut World,
    /// Requests that the bus has not answered.
    asked: VecDeque<Request>,
    output: Vec<u8>,
    acks_due: usize,
    seen: Seen,
}

impl Peer<'_> {
    /// Whether the connection goes on.
    fn read(&mut self, bytes: &mut BytesMut, now: Instant) -> bool {
        loop {
            match self.connection.poll_request(bytes, now) {
                Ok(Progress::Request(request)) => {
                    self.seen.requests.push(format!("{request:?}"));
                    self.asked.push_back(request);
                    while self.asked.len() > self.choices.waiting() {
                        self.answer();
                    }
                    self.deliver();
                }
                Ok(Progress::NeedsBytes) => {
                    self.flush();
                    return true;
                }
                Ok(Progress::Left) => return false,
                Err(_) => {
                    self.seen.violated = true;
                    return false;
                }
            }
        }
    }

    /// Answers the oldest request, as the bus does.
    fn answer(&mut self) {
        let number = self.seen.requests.len() - self.asked.len();
        let refuses = self.choices.refuses(number);
        let Some(request) = self.asked.pop_front() else {
            return;
        };
        let event = match request {
            Request::Subscribe { id, subscriptions } => {
                let results = subscriptions.into_iter().map(|subscription| {
                    if refuses {
                        return (
                            subscription.id,
                            Err(SubscribeRefused::SessionFull { limit: 1 }),
                        );
                    }
                    self.world.live.insert(subscription.id);
                    (subscription.id, Ok(()))
                });
                Event::Subscribed {
                    id,
                    results: results.collect(),
                }
            }
            Request::Unsubscribe { id, subscriptions } => {
                let existed = subscriptions
                    .iter()
                    .map(|subscription| self.world.live.remove(subscription));
                Event::Unsubscribed {
                    id,
                    existed: existed.collect(),
                }
            }
            Request::Publish { id, publish } => {
                self.acks_due += usize::from(publish.qos == 1);
                if !refuses {
                    let notes = self.connection.notes_of(id);
                    self.world.write(notes);
                }
                match id {
                    id if refuses => Event::Refused {
                        id,
                        refused: PublishRefused::Closed,
                    },
                    Some(id) => Event::Published { id, rev: 1 },
                    None => return,
                }
            }
            Request::SignIn { id, .. } => Event::SignedIn {
                id,
                result: match refuses {
                    true => Err(SignInRefused::Expired),
                    false => Ok(()),
                },
            },
            // MQTT has no packet for it.
            Request::History { .. } => return,
            Request::Ping { id } => Event::Pong {
                id,
                counts: Counts::default(),
            },
            Request::Bad { id, code, message } => Event::Bad { id, code, message },
        };
        self.connection.handle_event(event);
        self.flush();
    }

    /// What the subscriptions bring, as far as the client takes it.
    fn deliver(&mut self) {
        for subscription in self.world.live.clone() {
            for delivery in deliveries()
                .iter()
                .cycle()
                .skip(self.seen.requests.len())
                .take(self.choices.messages())
            {
                if self.connection.credit() == 0 {
                    return;
                }
                let (delivery, retained) = (
                    Delivery::clone(delivery),
                    self.seen.requests.len().is_multiple_of(2),
                );
                self.connection.handle_event(Event::Message {
                    subscription,
                    delivery,
                    retained,
                });
                self.flush();
            }
        }
    }

    /// Everything that can be written is written.
    fn flush(&mut self) {
        let mut bytes = BytesMut::new();
        for _ in 0..1_000 {
            if self.connection.has_notes() {
                let notes = self.connection.take_notes();
                self.world.write(notes);
                self.connection.notes_stored();
            }
            if !self.connection.has_output() && !self.connection.has_notes() {
                return;
            }
            bytes.clear();
            self.connection.take_output(&mut bytes);
            self.output.extend_from_slice(&bytes);
        }
        panic!("the output has no end");
    }

    /// The server ends in the middle, and nobody says goodbye. What was acknowledged in the last second may come again,
    /// which depends on how the bytes were cut: a second passes first.
    fn killed(mut self, limit: Option<usize>, now: Instant) -> Seen {
        let _silent_or_not = self.connection.handle_timeout(now + Duration::from_secs(1));
        self.flush();
        self.check(limit);
        self.seen
    }

    fn end(mut self, limit: Option<usize>) -> (Seen, Option<Session>, Vec<Note>) {
        while !self.asked.is_empty() {
            self.answer();
        }
        self.connection.close(None);
        self.flush();
        self.check(limit);
        let remains = self.connection.end();
        (
            self.seen,
            (!remains.session_expiry.is_zero()).then_some(remains.session),
            remains.notes,
        )
    }

    /// What was written is whole packets, and each publish has its answer.
    fn check(&mut self, limit: Option<usize>) {
        let mut packets = packets(&self.output);
        assert_eq!(packets[0][0] >> 4, CONNACK);
        for packet in &packets {
            assert!(
                packet[0] >> 4 != PUBLISH || is_whole_publish(packet, limit),
                "{packet:x?}"
            );
            // MQTT 5, MQTT-3.1.2-24
            assert!(
                limit.is_none_or(|limit| packet.len() <= limit),
                "{packet:x?}"
            );
        }
        let acks = packets
            .iter()
            .filter(|packet| packet[0] >> 4 == PUBACK)
            .count();
        assert_eq!(acks, self.acks_due);
        packets.sort();
        self.seen.packets = packets;
    }
}

/// Divides what the server writes by the lengths in the fixed headers (MQTT 3.1.1 §2.2.3).
fn packets(mut out: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while !out.is_empty() {
        let length_bytes = out[1..]
            .iter()
            .position(|byte| byte & 0x80 == 0)
            .expect("a length")
            + 1;
        assert!(length_bytes <= 4);
        let digits = out[1..=length_bytes].iter().rev();
        let length = digits.fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        let (packet, rest) = out.split_at(1 + length_bytes + length);
        packets.push(packet.to_vec());
        out = rest;
    }
    packets
}

fn is_whole_publish(packet: &[u8], limit: Option<usize>) -> bool {
    let qos = packet[0] >> 1 & 3;
    let header = 1
        + packet[1..]
            .iter()
            .position(|byte| byte & 0x80 == 0)
            .expect("a length")
        + 1;
    let (topic, rest) = packet[header + 2..]
        .split_at(usize::from(packet[header]) << 8 | usize::from(packet[header + 1]));
    let topic = str::from_utf8(topic).expect("a topic");
    // Where it is empty an alias stands for it.
    (topic.is_empty()
        || deliveries()
            .iter()
            .any(|delivery| delivery.topic.as_str() == topic))
        && limit.is_none_or(|limit| packet.len() <= limit)
        && qos < 3
        && (qos == 0 || rest[..2] != [0, 0])
}

/// Messages as a bus shares them: each quality of service, short and long.
fn deliveries() -> &'static [Delivery] {
    static DELIVERIES: OnceLock<Vec<Delivery>> = OnceLock::new();
    DELIVERIES.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let bus = Bus::open(Options::default()).expect("a bus in memory");
            let mut deliveries = Vec::new();
            for (number, (topic, bytes)) in
                [("a", 0), ("a/b", 3), ("é/x", 40), ("a", 300), ("b", 2)]
                    .into_iter()
                    .enumerate()
            {
                let name = TopicName::parse(topic.to_owned()).expect("a topic");
                let payload = vec![b'x'; bytes + 1];
                let properties = Properties {
                    content_type: Some("text/plain".into()),
                    user: vec![("k".into(), "v".into())],
                    ..Properties::default()
                };
                let publish = Publish {
                    qos: (number % 3) as u8,
                    properties: (number > 2).then(|| Arc::new(properties)),
                    expires_in: (number > 3).then_some(Duration::from_secs(3_600)),
                    ..Publish::state(name, payload)
                };
                bus.publish(publish).await.expect("room for a value");
                deliveries.extend(bus.last(TopicName::parse(topic).expect("a topic")));
            }
            deliveries
        })
    })
}
