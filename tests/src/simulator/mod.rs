//! A whole room under one seed: the clock, the networks, the disks, the devices and every fault come from it. The
//! server is the real bus with its real store, its MQTT sessions and its session loop; the devices are the client's
//! own state machine. Time is virtual, there are no threads and no sockets, and a seed is a run.
//!
//! | module | what it holds |
//! |---|---|
//! | `server` | the server, its disk and its crashes |
//! | `life`, `link` | a device from its start to its kill, and its connection |
//! | `wire` | a connection of bytes that is slow, hangs, and ends anywhere |
//! | `ledger` | what was clicked, sent and acknowledged, and what must never be shown |
//! | `trace` | what has happened, as a hash |

mod ledger;
mod life;
mod link;
mod server;
mod trace;
mod wire;

use core::fmt;
use core::ops::AddAssign;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;

use fastrand::Rng;
use latchbus_bus::{Clock, Operate};
use latchbus_core::clicks::Counter;
use tokio::runtime::Builder;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::ledger::{Kind, Ledger};
use self::life::{Body, Life};
use self::server::Server;
use self::trace::Trace;
use crate::power::Promise;

/// Devices of each kind.
const DEVICES: usize = 3;

/// How long things go wrong, in virtual time.
const CHAOS: Duration = Duration::from_secs(20);

/// When all works again, everything must have been told within this virtual time.
const QUIET_WITHIN: Duration = Duration::from_secs(600);

/// When the simulated clocks begin, in milliseconds since the Unix epoch.
const BEGINNING: u64 = 1_700_000_000_000;

/// What a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Runs.
    pub seeds: u64,
    /// Crashes of the server, each with a power cut.
    pub crashes: u64,
    /// Devices killed.
    pub kills: u64,
    /// Times that the disk was full.
    pub full: u64,
    /// Resets of rooms that were answered.
    pub resets: u64,
    /// Removals of devices.
    pub removals: u64,
    /// Operations that were undone.
    pub undone: u64,
    /// Clicks made and counted, of devices that store.
    pub stored: u64,
    /// Clicks made by devices without storage.
    pub forgetful: u64,
    /// Of these, clicks that died unsent.
    pub died: u64,
    /// The same for the same run.
    pub trace: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.crashes += other.crashes;
        self.kills += other.kills;
        self.full += other.full;
        self.resets += other.resets;
        self.removals += other.removals;
        self.undone += other.undone;
        self.stored += other.stored;
        self.forgetful += other.forgetful;
        self.died += other.died;
        self.trace ^= other.trace;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} power cuts of the server, {} kills of devices, {} full disks, {} resets of \
             rooms, {} removals of devices, {} of them undone; with storage {} clicks made and counted, without {} made, of which {} died unsent; never one more",
            self.seeds,
            self.crashes,
            self.kills,
            self.full,
            self.resets,
            self.removals,
            self.undone,
            self.stored,
            self.forgetful,
            self.died
        )
    }
}

/// Runs one seed.
///
/// # Errors
/// What must never be, in words.
pub fn run(seed: u64, promise: Promise) -> Result<Outcome, String> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // All of it inside: outside there is no virtual time.
    runtime.block_on(async { World::new(seed, promise).run().await })
}

struct World {
    random: Rng,
    server: Arc<Server>,
    ledger: Arc<Ledger>,
    trace: Arc<Trace>,
    /// Not a `watch`: that wakes its receivers in an order of its own chance.
    quiet: CancellationToken,
    bodies: Vec<Body>,
    lives: JoinSet<()>,
    alive: Vec<AbortHandle>,
    clock: Ticking,
    outcome: Outcome,
}

/// The server's clock, which jumps.
struct Ticking {
    clock: Clock,
    begun: Instant,
    jumped_ms: i64,
}

impl Ticking {
    fn tick(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
        let now = (BEGINNING + elapsed).saturating_add_signed(self.jumped_ms);
        self.clock.set(now);
    }
}

impl World {
    fn new(seed: u64, promise: Promise) -> Self {
        let mut random = Rng::with_seed(seed);
        let (ledger, trace) = (Arc::new(Ledger::default()), Arc::new(Trace::begin()));
        let clock = Clock::manual(BEGINNING);
        let server = Server::new(
            random.fork(),
            clock.clone(),
            promise,
            Arc::clone(&ledger),
            Arc::clone(&trace),
        );
        let (server, quiet) = (Arc::new(server), CancellationToken::new());
        let bodies = (0..2 * DEVICES).map(|n| {
            let kind = if n < DEVICES {
                Kind::Stored
            } else {
                Kind::Forgetful
            };
            Body {
                kind,
                name: format!("device-{n}"),
                // Whoever has no file must be told the floor, so nothing of that may be lost.
                mqtt: kind == Kind::Forgetful || n % 2 == 0,
                file: Arc::default(),
                server: Arc::clone(&server),
                ledger: Arc::clone(&ledger),
                trace: Arc::clone(&trace),
                quiet: quiet.clone(),
            }
        });
        Self {
            bodies: bodies.collect(),
            random,
            server,
            ledger,
            trace,
            quiet,
            lives: JoinSet::new(),
            alive: Vec::new(),
            clock: Ticking {
                clock,
                begun: Instant::now(),
                jumped_ms: 0,
            },
            outcome: Outcome {
                seeds: 1,
                ..Outcome::default()
            },
        }
    }

    async fn run(mut self) -> Result<Outcome, String> {
        self.server.start();
        for n in 0..self.bodies.len() {
            let life = Life::begin(self.bodies[n].clone(), self.random.fork());
            self.alive.push(self.lives.spawn(life.live()));
        }
        let begun = Instant::now();
        while begun.elapsed() < CHAOS && self.ledger.violations().is_empty() {
            let wait = Duration::from_millis(self.random.u64(20..1_500));
            sleep(wait).await;
            self.clock.tick();
            self.act().await;
        }
        self.settle().await;
        self.judge()
    }

    async fn act(&mut self) {
        match self.random.u8(..15) {
            0..2 => {
                let (after, down) = (self.random.u64(..3), self.random.u64(..3_000));
                self.server.crash(after).await;
                self.outcome.crashes += 1;
                sleep(Duration::from_millis(down)).await;
                self.server.start();
            }
            2..7 => {
                let n = self.random.usize(..self.bodies.len());
                self.alive[n].abort();
                self.outcome.kills += 1;
                self.trace.note(format_args!("device-{n} is killed"));
                sleep(Duration::from_millis(self.random.u64(..1_000))).await;
                let life = Life::begin(self.bodies[n].clone(), self.random.fork());
                self.alive[n] = self.lives.spawn(life.live());
            }
            7 => {
                let disk = self.server.disk();
                disk.limit(Some(0));
                self.outcome.full += 1;
                sleep(Duration::from_millis(self.random.u64(100..3_000))).await;
                disk.limit(None);
            }
            12.. => self.operate(),
            8 => {
                let hour = 3_600_000;
                self.clock.jumped_ms = self.random.i64(-hour..hour);
                self.clock.tick();
            }
            _ => {
                if let Some((topic, counter)) = self.ledger.any_sent(&mut self.random) {
                    self.server.say_again(&topic, counter);
                }
            }
        }
    }

    /// An administrator resets a room, removes a device, or undoes something.
    fn operate(&mut self) {
        let body = &self.bodies[self.random.usize(..self.bodies.len())];
        let room = body.kind.room().to_owned();
        let device = body.name.clone();
        let undoable = self.ledger.undoable();
        let operate = match self.random.u8(..4) {
            0 => Operate::ResetRoom {
                room,
                counts: Counter::new(self.random.u64(..3), self.random.u64(..3)),
            },
            1 if !undoable.is_empty() => Operate::Undo {
                id: undoable[self.random.usize(..undoable.len())],
            },
            _ => Operate::RemoveDevice { room, device },
        };
        self.trace.note(format_args!("{operate:?}"));
        self.server.operate(operate);
    }

    /// Everything works, until every device is told.
    async fn settle(&mut self) {
        self.server.calm.store(true, Ordering::Relaxed);
        // What is open is as bad as it was: it ends with the server.
        self.server.crash(0).await;
        self.outcome.crashes += 1;
        self.server.start();
        self.quiet.cancel();
        let lives = core::mem::take(&mut self.lives);
        let told = timeout(QUIET_WITHIN, all(lives)).await;
        match told {
            Ok(Ok(())) => {}
            Ok(Err(panicked)) => self.ledger.violated(panicked),
            Err(_) => self
                .ledger
                .violated("a device is not acknowledged".to_owned()),
        }
    }

    fn judge(mut self) -> Result<Outcome, String> {
        if let Some(violation) = self.ledger.violations().first() {
            return Err(violation.clone());
        }
        let shown = |kind| self.server.shown(kind).unwrap_or_default();
        let both = [Kind::Stored, Kind::Forgetful].map(|kind| (kind, shown(kind)));
        for (kind, shown) in both {
            self.trace.note(format_args!("at last {kind:?} {shown:?}"));
            self.ledger.shown(kind, shown);
        }
        let [(_, stored), _] = both;
        let stored = stored.counted().unwrap_or_default();
        let (made, unsent) = self.ledger.made_and_unsent(Kind::Stored);
        if stored != made || unsent != Counter::ZERO {
            return Err(format!(
                "{made} were made by devices that store, and {stored} counted"
            ));
        }
        if let Some(violation) = self.ledger.violations().first() {
            return Err(violation.clone());
        }
        let (made, died) = self.ledger.made_and_unsent(Kind::Forgetful);
        self.outcome.stored = stored.total();
        self.outcome.forgetful = made.total();
        self.outcome.died = died.total();
        let [resets, removals, undone] =
            ["reset_room", "remove_device", "undo"].map(|kind| self.ledger.operations(kind));
        (
            self.outcome.resets,
            self.outcome.removals,
            self.outcome.undone,
        ) = (resets, removals, undone);
        self.outcome.trace = self.trace.hash();
        Ok(self.outcome)
    }
}

/// Waits for all; a panic is an error, a kill is not.
async fn all(mut lives: JoinSet<()>) -> Result<(), String> {
    while let Some(ended) = lives.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            return Err(format!("a device has panicked: {error}"));
        }
    }
    Ok(())
}
