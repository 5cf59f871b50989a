//! The state machine of a session against a perfect client, over connections that are cut anywhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use latchbus_bus::{Bus, Delivery, Event, Options, Publish, Request};
use latchbus_core::hub::Start;
use latchbus_core::topic::TopicName;
use latchbus_mqtt::restore::restore;
use latchbus_mqtt::{Bounds, Connection, Note, Progress, Session};
use proptest::prelude::*;
use rmqtt_codec::types::{Publish as PublishPacket, QoS};
use rmqtt_codec::v3::{Codec, Packet};
use support::persistent;
use tokio_util::codec::{Decoder, Encoder};

/// Messages 0, 1, … of QoS 1 and 2 in turn, as the bus hands them out.
fn deliveries(count: usize) -> Vec<Delivery> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bus = Bus::open(Options::default()).unwrap();
        let mut deliveries = Vec::new();
        for number in 0..count {
            let topic = TopicName::parse("t".to_owned()).unwrap();
            let publish = Publish {
                qos: 1 + (number % 2) as u8,
                ..Publish::state(topic.clone(), number.to_string())
            };
            bus.publish(publish).await.unwrap();
            deliveries.push(bus.last(topic.borrowed()).unwrap());
        }
        deliveries
    })
}

/// A client that keeps its side of the session over cuts.
#[derive(Default)]
struct Client {
    /// QoS 2 identifiers that it has received and the server has not released.
    received: BTreeSet<u16>,
    taken: Vec<(QoS, usize)>,
    /// The identifier that each message has come with.
    identifiers: BTreeMap<usize, u16>,
    /// Its own QoS 2 publishes: identifier to (payload, released).
    sent: BTreeMap<u16, (usize, bool)>,
    to_publish: VecDeque<usize>,
    last_id: u16,
}

impl Client {
    fn handle(&mut self, packet: Packet, out: &mut BytesMut) {
        let id_of = |id: core::num::NonZeroU16| id.get();
        let answer = match packet {
            Packet::Publish(publish) => {
                let number = core::str::from_utf8(&publish.payload)
                    .unwrap()
                    .parse()
                    .unwrap();
                let packet_id = publish.packet_id.unwrap();
                if let Some(before) = self.identifiers.insert(number, packet_id.get()) {
                    // MQTT-4.4.0-1, MQTT-3.3.1-1
                    assert_eq!((before, true), (packet_id.get(), publish.dup), "{number}");
                }
                match publish.qos {
                    QoS::ExactlyOnce => {
                        if self.received.insert(packet_id.get()) {
                            self.taken.push((QoS::ExactlyOnce, number));
                        }
                        Packet::PublishReceived { packet_id }
                    }
                    qos => {
                        self.taken.push((qos, number));
                        Packet::PublishAck { packet_id }
                    }
                }
            }
            Packet::PublishRelease { packet_id } => {
                self.received.remove(&id_of(packet_id));
                Packet::PublishComplete { packet_id }
            }
            Packet::PublishReceived { packet_id } => {
                if let Some(sent) = self.sent.get_mut(&id_of(packet_id)) {
                    sent.1 = true;
                }
                Packet::PublishRelease { packet_id }
            }
            Packet::PublishComplete { packet_id } => {
                self.sent.remove(&id_of(packet_id));
                return;
            }
            _ => return,
        };
        encode(answer, out);
    }

    /// After a reconnect: everything that is open goes out again.
    fn repeat(&self, out: &mut BytesMut) {
        for (&id, &(number, released)) in &self.sent {
            if released {
                encode(
                    Packet::PublishRelease {
                        packet_id: id.try_into().unwrap(),
                    },
                    out,
                );
            } else {
                encode(self.publish(id, number, true), out);
            }
        }
    }

    fn publish_next(&mut self, out: &mut BytesMut) {
        if let Some(number) = self.to_publish.pop_front() {
            self.last_id += 1;
            self.sent.insert(self.last_id, (number, false));
            encode(self.publish(self.last_id, number, false), out);
        }
    }

    fn publish(&self, id: u16, number: usize, dup: bool) -> Packet {
        Packet::Publish(Box::new(PublishPacket {
            dup,
            retain: false,
            qos: QoS::ExactlyOnce,
            topic: "in".into(),
            packet_id: id.try_into().ok(),
            payload: number.to_string().into(),
            properties: None,
        }))
    }
}

fn encode(packet: Packet, out: &mut BytesMut) {
    Codec::default().encode(packet, out).unwrap();
}

/// One step of a schedule.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The bus hands over a message, if the connection takes it.
    Deliver,
    ClientPublishes,
    /// So many bytes reach the server.
    ToServer(usize),
    /// So many bytes reach the client.
    ToClient(usize),
    /// The bus answers its oldest open request.
    Answer,
    /// The client repeats what is not acknowledged, as MQTT 3.1.1 lets it.
    Repeat,
    /// What is on the way is lost.
    Cut,
    /// The disk has written a batch.
    Store,
    /// It is noted how far the client has come.
    Mark,
    /// The server is killed; what the disk was writing is there afterwards, or is not.
    Crash(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Deliver),
        2 => Just(Step::ClientPublishes),
        4 => (1_usize..40).prop_map(Step::ToServer),
        4 => (1_usize..40).prop_map(Step::ToClient),
        2 => Just(Step::Answer),
        1 => Just(Step::Repeat),
        1 => Just(Step::Cut),
    ]
}

/// The same, and a server that is killed.
fn step_with_a_disk() -> impl Strategy<Value = Step> {
    prop_oneof![
        17 => step(),
        4 => Just(Step::Store),
        1 => Just(Step::Mark),
        1 => any::<bool>().prop_map(Step::Crash),
    ]
}

struct World {
    connection: Option<Connection>,
    client: Client,
    /// Bytes that have arrived at the server and are not whole packets yet.
    server_input: BytesMut,
    client_input: BytesMut,
    to_server: BytesMut,
    to_client: BytesMut,
    /// What the bus was asked to publish and has not answered.
    open: VecDeque<(u64, usize, Vec<Note>)>,
    /// What it has published, in order.
    published: Vec<usize>,
    waiting: VecDeque<Delivery>,
    /// All that there ever was for the subscription.
    log: Vec<Delivery>,
    disk: Option<BTreeMap<Bytes, Bytes>>,
    storing: Vec<Note>,
}

const WINDOW: u16 = 3;

impl World {
    fn new(with_a_disk: bool) -> Self {
        let mut world = Self {
            log: Vec::new(),
            disk: with_a_disk.then(BTreeMap::new),
            storing: Vec::new(),
            connection: None,
            client: Client::default(),
            server_input: BytesMut::new(),
            client_input: BytesMut::new(),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            open: VecDeque::new(),
            published: Vec::new(),
            waiting: VecDeque::new(),
        };
        world.connect(None);
        let subscribe = Packet::Subscribe {
            packet_id: 1.try_into().unwrap(),
            topic_filters: vec![("t".into(), QoS::ExactlyOnce)],
        };
        encode(subscribe, &mut world.to_server);
        world.drain();
        world
    }

    fn connect(&mut self, kept: Option<Session>) {
        let bounds = Bounds {
            in_flight: WINDOW,
            write_bytes: 64,
            ..Bounds::default()
        };
        let mut connection = Connection::accept(persistent(), kept, false, bounds, Instant::now());
        if self.disk.is_some() {
            connection = connection.on_disk(false);
        }
        self.connection = Some(connection);
    }

    fn write(&mut self, notes: impl IntoIterator<Item = Note>) {
        let disk = self.disk.as_mut().unwrap();
        for note in notes {
            match note {
                Note::Keep { part, value } => drop(disk.insert(part, value)),
                Note::Forget { part } => drop(disk.remove(&part)),
                Note::ForgetAll => disk.clear(),
            }
        }
    }

    /// The bus answers a publish, which is on disk with its note.
    fn publish(&mut self, hears: bool) {
        if let Some((id, number, note)) = self.open.pop_front() {
            self.published.push(number);
            if self.disk.is_some() {
                self.write(note);
            }
            if hears {
                self.connection()
                    .handle_event(Event::Published { id, rev: 1 });
            }
        }
    }

    /// The disk takes a batch, and has written the one before.
    fn store(&mut self) {
        if self.disk.is_none() {
            return;
        }
        if !self.storing.is_empty() {
            let stored = core::mem::take(&mut self.storing);
            self.write(stored);
            self.connection().notes_stored();
        }
        self.storing = self.connection().take_notes();
    }

    fn crash(&mut self, written: bool) {
        if self.disk.is_none() {
            return;
        }
        self.connection = None;
        let storing = core::mem::take(&mut self.storing);
        if written {
            self.write(storing);
            self.publish(false);
        }
        self.open.clear();
        self.lose_what_is_on_the_way();
        let restored = restore(
            self.disk
                .as_ref()
                .unwrap()
                .iter()
                .map(|(part, value)| (&**part, value)),
            7,
        );
        let restored = restored.session.expect("a session");
        let [subscription] = &restored.subscriptions[..] else {
            panic!("{:?}", restored.subscriptions);
        };
        let Start::Resume(cursor) = subscription.start else {
            panic!("{subscription:?}");
        };
        let given = self.log.len() - self.waiting.len();
        let owed = self.log[..given]
            .iter()
            .filter(|delivery| delivery.rev > cursor.rev);
        let owed: Vec<_> = owed.cloned().collect();
        for delivery in owed.into_iter().rev() {
            self.waiting.push_front(delivery);
        }
        self.connect(Some(restored.session));
        self.client.repeat(&mut self.to_server);
    }

    fn lose_what_is_on_the_way(&mut self) {
        self.server_input.clear();
        self.client_input.clear();
        self.to_server.clear();
        self.to_client.clear();
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().unwrap()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Deliver => {
                if self.connection().credit() > 0
                    && let Some(delivery) = self.waiting.pop_front()
                {
                    self.connection().handle_event(Event::Message {
                        subscription: 1,
                        delivery,
                        retained: false,
                    });
                }
            }
            Step::ClientPublishes => self.client.publish_next(&mut self.to_server),
            Step::ToServer(most) => {
                let most = most.min(self.to_server.len());
                let bytes = self.to_server.split_to(most);
                self.server_input.extend_from_slice(&bytes);
                self.poll();
            }
            Step::ToClient(most) => {
                self.take_output();
                let most = most.min(self.to_client.len());
                let bytes = self.to_client.split_to(most);
                self.client_input.extend_from_slice(&bytes);
                // The codec remembers a header, so it starts anew on a copy.
                loop {
                    let mut copy = self.client_input.clone();
                    let Some((packet, _)) = Codec::default().decode(&mut copy).unwrap() else {
                        break;
                    };
                    self.client_input = copy;
                    self.client.handle(packet, &mut self.to_server);
                }
            }
            Step::Answer => self.publish(true),
            Step::Store => self.store(),
            Step::Mark => {
                let later = Instant::now() + core::time::Duration::from_secs(10);
                self.connection().handle_timeout(later).unwrap();
            }
            Step::Crash(written) => self.crash(written),
            Step::Repeat => self.client.repeat(&mut self.to_server),
            Step::Cut => self.cut(),
        }
        assert!(self.connection().credit() <= usize::from(WINDOW));
    }

    fn poll(&mut self) {
        loop {
            let connection = self.connection.as_mut().unwrap();
            match connection
                .poll_request(&mut self.server_input, Instant::now())
                .unwrap()
            {
                Progress::Request(Request::Publish { id, publish }) => {
                    let number = core::str::from_utf8(&publish.payload)
                        .unwrap()
                        .parse()
                        .unwrap();
                    let note = connection.notes_of(id);
                    self.open.push_back((id.unwrap(), number, note));
                }
                Progress::Request(Request::Subscribe { id, subscriptions }) => {
                    let results = subscriptions
                        .iter()
                        .map(|asked| (asked.id, Ok(())))
                        .collect();
                    connection.handle_event(Event::Subscribed { id, results });
                }
                Progress::Request(other) => panic!("{other:?}"),
                Progress::NeedsBytes => return,
                Progress::Left => panic!("nobody left"),
            }
        }
    }

    fn take_output(&mut self) {
        let mut out = BytesMut::new();
        self.connection().take_output(&mut out);
        self.to_client.extend_from_slice(&out);
    }

    fn cut(&mut self) {
        // What the bus was asked it answers, also when nobody hears of it.
        while !self.open.is_empty() {
            self.publish(true);
        }
        let remains = self.connection.take().unwrap().end();
        assert!(remains.session.unacknowledged() <= usize::from(WINDOW));
        self.lose_what_is_on_the_way();
        if self.disk.is_some() {
            let storing = core::mem::take(&mut self.storing);
            self.write(storing);
            self.write(remains.notes);
        }
        self.connect(Some(remains.session));
        self.client.repeat(&mut self.to_server);
    }

    /// Runs until nothing moves any more.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            let steps = [
                Step::Deliver,
                Step::ClientPublishes,
                Step::ToServer(1_000),
                Step::Answer,
                Step::Store,
                Step::Mark,
                Step::ToClient(1_000),
            ];
            for step in steps {
                self.run(step);
            }
            let quiet = self.to_server.is_empty()
                && self.to_client.is_empty()
                && self.open.is_empty()
                && self.client.to_publish.is_empty()
                && self.storing.is_empty()
                && !self.connection().has_notes()
                && !self.connection().has_output();
            if quiet && (self.waiting.is_empty() || self.connection().credit() == 0) {
                return;
            }
        }
        panic!("never quiet");
    }
}

/// What is true when all is quiet, however the schedule went.
fn check(mut world: World, count: usize) -> Result<(), TestCaseError> {
    world.drain();
    prop_assert!(world.client.sent.is_empty() && world.client.received.is_empty());
    let remains = world.connection.take().unwrap().end();
    prop_assert_eq!(remains.session.unacknowledged(), 0);
    if world.disk.is_some() {
        world.write(remains.notes);
    }
    if let Some(disk) = &world.disk {
        let tags: Vec<_> = disk
            .keys()
            .filter_map(|part| part.first().copied())
            .collect();
        prop_assert_eq!(tags, [b'f', b'm', b's'], "nothing is left on disk");
    }
    let of = |qos: QoS| -> Vec<usize> {
        world
            .client
            .taken
            .iter()
            .filter(|taken| taken.0 == qos)
            .map(|taken| taken.1)
            .collect()
    };
    let twice: Vec<usize> = (0..count).filter(|number| number % 2 == 1).collect();
    prop_assert_eq!(of(QoS::ExactlyOnce), twice, "QoS 2 once each and in order");
    let mut seen = BTreeSet::new();
    let first: Vec<usize> = of(QoS::AtLeastOnce)
        .into_iter()
        .filter(|number| seen.insert(*number))
        .collect();
    let once: Vec<usize> = (0..count).filter(|number| number % 2 == 0).collect();
    prop_assert_eq!(first, once, "QoS 1 each, first in order");
    world.published.sort_unstable();
    prop_assert_eq!(
        world.published,
        (0..count).collect::<Vec<_>>(),
        "each of the client's once"
    );
    Ok(())
}

fn world(count: usize, with_a_disk: bool) -> World {
    let mut world = World::new(with_a_disk);
    world.client.to_publish = (0..count).collect();
    world.log = deliveries(count);
    world.waiting = world.log.iter().cloned().collect();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn qos_1_and_2_over_cuts(steps in proptest::collection::vec(step(), 0..200), count in 1_usize..20) {
        let mut world = world(count, false);
        for step in steps {
            world.run(step);
        }
        check(world, count)?;
    }

    #[test]
    fn qos_1_and_2_over_kills(steps in proptest::collection::vec(step_with_a_disk(), 0..300), count in 1_usize..20) {
        let mut world = world(count, true);
        for step in steps {
            world.run(step);
        }
        check(world, count)?;
    }
}
