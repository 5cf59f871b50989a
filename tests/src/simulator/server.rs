//! The server: the real bus with its store, its MQTT sessions and its session loop, on a disk whose power fails.

use core::{future::pending, time::Duration};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use latchbus_bus::faulty::{self, Faults};
use latchbus_bus::memory::{self, MemoryPeer};
use latchbus_bus::simulation::{self, Commits};
use latchbus_bus::{Bus, Clock, Operate, Options, Principal, Publish, Session};
use latchbus_core::clicks::{ClickTopic, Counter};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::server::{Config, Server as Mqtt};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::ledger::{Kind, Ledger, Shown};
use super::trace::Trace;
use super::wire::{Calm, wire};
use crate::bench::topic_name;
use crate::power::{CHECKPOINT_BYTES, Disk, Promise};

/// What a message over the direct link may suffer: more than any transport does to one while its connection stands.
const FAULTS: Faults = Faults {
    drop: 0.05,
    duplicate: 0.08,
    reorder: 0.08,
    delay: 0.08,
    cut: 0.03,
    latest: Duration::from_secs(2),
};

/// When a commit has failed it is tried again after this.
const RETRY: Duration = Duration::from_millis(200);

/// Everybody's way to the server, whether it is up or not.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) clock: Clock,
    promise: Promise,
    random: Mutex<Rng>,
    disk: Mutex<Disk>,
    life: Mutex<Option<Life>>,
    /// The power of the disk has failed in the middle of something.
    pub(super) failed: Arc<Notify>,
    pub(super) calm: Calm,
    ledger: Arc<Ledger>,
    trace: Arc<Trace>,
}

#[derive(Debug)]
struct Life {
    bus: Bus,
    mqtt: Mqtt,
    tasks: JoinSet<()>,
}

impl Server {
    pub(super) fn new(
        random: Rng,
        clock: Clock,
        promise: Promise,
        ledger: Arc<Ledger>,
        trace: Arc<Trace>,
    ) -> Self {
        Self {
            clock,
            promise,
            random: Mutex::new(random),
            disk: Mutex::default(),
            life: Mutex::new(None),
            failed: Arc::default(),
            calm: Calm::default(),
            ledger,
            trace,
        }
    }

    /// Starts it on its disk, as the last failure has left it.
    pub(super) fn start(&self) {
        let (disk, seed) = (self.disk(), lock(&self.random).u64(..));
        let backend = disk.clone();
        let store = simulation::Disk::backend(move |file| Ok(backend.file(file)), CHECKPOINT_BYTES);
        let store = match self.promise {
            Promise::NotDurable => store.without_durability(),
            Promise::Kept | Promise::Lied => store,
        };
        if self.promise == Promise::Lied {
            disk.lie();
        }
        let options = Options {
            clock: self.clock.clone(),
            seed: Some(seed),
            rooms: Vec::new(),
            ..Options::default()
        };
        let (bus, commits) = match simulation::open(options, store) {
            Ok(opened) => opened,
            Err(error) => {
                return self
                    .ledger
                    .violated(format!("the server cannot start: {error}"));
            }
        };
        self.trace.note(format_args!("server starts"));
        look(&bus, &self.ledger, &self.trace);
        let mut tasks = JoinSet::new();
        tasks.spawn(store_all(Writer {
            bus: bus.clone(),
            commits,
            disk,
            random: lock(&self.random).fork(),
            failed: Arc::clone(&self.failed),
            ledger: Arc::clone(&self.ledger),
            trace: Arc::clone(&self.trace),
        }));
        let mqtt = Mqtt::new(bus.clone(), Config::default());
        *lock(&self.life) = Some(Life { bus, mqtt, tasks });
    }

    /// Its power fails, after the disk has synchronised a few times more if it does so soon. What is left on the disk is any
    /// part of what was not synchronised.
    pub(super) async fn crash(&self, after: u64) {
        let disk = self.disk();
        disk.fail_after(after);
        let _no_more_changes = timeout(Duration::from_secs(1), self.failed.notified()).await;
        disk.cut();
        let life = lock(&self.life).take();
        if let Some(mut life) = life {
            life.tasks.shutdown().await;
        }
        let image = disk.image(&mut lock(&self.random));
        self.trace.note(format_args!("server has crashed"));
        *lock(&self.disk) = Disk::holding(image);
    }

    pub(super) fn disk(&self) -> Disk {
        lock(&self.disk).clone()
    }

    /// What a room shows; none while the server is down.
    pub(super) fn shown(&self, kind: Kind) -> Option<Shown> {
        let life = lock(&self.life);
        life.as_ref().map(|life| shown(&life.bus, kind))
    }

    /// A connection of bytes to its MQTT; none while it is down.
    pub(super) fn connect_mqtt(&self) -> Option<DuplexStream> {
        let mut life = lock(&self.life);
        let Life { mqtt, tasks, .. } = life.as_mut()?;
        let (client, server, moves) = wire(lock(&self.random).fork(), Arc::clone(&self.calm));
        let mqtt = mqtt.clone();
        tasks.spawn(async move { mqtt.connection(server, None).await });
        tasks.spawn(moves);
        Some(client)
    }

    /// A link of messages to its bus; none while it is down.
    pub(super) fn connect(&self) -> Option<MemoryPeer> {
        let mut life = lock(&self.life);
        let Life { bus, tasks, .. } = life.as_mut()?;
        let (link, peer) = memory::link(64);
        let faults = match self.calm.load(core::sync::atomic::Ordering::Relaxed) {
            true => Faults::NONE,
            false => FAULTS,
        };
        let seed = lock(&self.random).u64(..);
        let mut session = Session::new(bus.client(Principal::process()).ok()?);
        tasks.spawn(async move {
            let (receiver, mut sender) = faulty::link(link.receiver, link.sender, faults, seed);
            session.run(receiver, &mut sender, pending()).await;
        });
        Some(peer)
    }

    /// An administrator does something. The server may crash before it is answered.
    pub(super) fn operate(&self, operate: Operate) {
        let mut life = lock(&self.life);
        let Some(Life { bus, tasks, .. }) = life.as_mut() else {
            return;
        };
        let Ok(client) = bus.client(Principal::process()) else {
            return;
        };
        let (ledger, trace) = (Arc::clone(&self.ledger), Arc::clone(&self.trace));
        tasks.spawn(async move {
            let kind = match &operate {
                Operate::ResetRoom { .. } => "reset_room",
                Operate::Undo { .. } => "undo",
                _ => "remove_device",
            };
            let operated = client.operate(operate).await;
            trace.note(format_args!("{operated:?}"));
            if let Ok(operated) = operated {
                ledger.operated(kind, operated.id);
            }
        });
    }

    /// Somebody else says what a device has said before.
    pub(super) fn say_again(&self, topic: &str, counter: Counter) {
        let mut life = lock(&self.life);
        let Some(Life { bus, tasks, .. }) = life.as_mut() else {
            return;
        };
        let (bus, again) = (
            bus.clone(),
            Publish::state(topic_name(topic), counter.to_string()),
        );
        tasks.spawn(async move {
            let _accepted_or_crashed = bus.publish(again).await;
        });
    }
}

/// What the writer of the store has, and what it is watched with.
struct Writer {
    bus: Bus,
    commits: Commits,
    disk: Disk,
    random: Rng,
    failed: Arc<Notify>,
    ledger: Arc<Ledger>,
    trace: Arc<Trace>,
}

/// Commits batch after batch; each step takes its time, so that a crash comes between any two.
async fn store_all(mut writer: Writer) {
    while writer.commits.next().await {
        pause(&mut writer.random).await;
        while writer.commits.commit().is_err() {
            if writer.disk.is_off() {
                writer.failed.notify_one();
                return core::future::pending().await;
            }
            writer.trace.note(format_args!("a commit has failed"));
            sleep(RETRY).await;
        }
        pause(&mut writer.random).await;
        // Nothing of it is shown yet.
        look(&writer.bus, &writer.ledger, &writer.trace);
        writer.commits.finish();
        look(&writer.bus, &writer.ledger, &writer.trace);
    }
}

async fn pause(random: &mut Rng) {
    sleep(Duration::from_micros(random.u64(..8_000))).await;
}

fn look(bus: &Bus, ledger: &Ledger, trace: &Trace) {
    for kind in [Kind::Stored, Kind::Forgetful] {
        let shown = shown(bus, kind);
        trace.note(format_args!("{kind:?} {shown:?}"));
        ledger.shown(kind, shown);
    }
}

fn shown(bus: &Bus, kind: Kind) -> Shown {
    let last = |topic: &str| {
        let last = bus.last(TopicName::parse(topic).unwrap())?;
        serde_json::from_slice::<serde_json::Value>(last.payload.bytes()).ok()
    };
    let counter = |value: Option<&serde_json::Value>| {
        value.map_or(Counter::ZERO, |value| {
            Counter::parse(value.to_string().as_bytes()).unwrap()
        })
    };
    let room = kind.room();
    let values = last(&ClickTopic::Values { room }.to_string());
    let reset = last(&format!("clicks/{room}/reset")).unwrap_or_default();
    Shown {
        value: counter(values.as_ref()),
        given: counter(reset.get("given")),
        taken: counter(reset.get("taken")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
