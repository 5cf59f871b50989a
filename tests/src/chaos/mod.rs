//! Chaos against the real programs: a `latchbus`, ten `latchbus-device`, and between them networks and a disk
//! that fail. Whatever is done to them, in the end the room shows the clicks that were made, exactly.
//!
//! | module | what it holds |
//! |---|---|
//! | `schedule` | what happens when, by seed |
//! | `proxy`, `frames` | a device's network: cuts, delays, half-open connections, doubled publishes |
//! | `replay` | publishes that come again on other connections, late and in any order |
//! | `kiosk` | a device that is fed, killed, and fed from where it was |
//! | `disk` | the server's disk, and when it is full |
//! | `observer` | who looks at the room all the time |
//! | `outcome` | what was done, and how it ended |
//!
//! A seed repeats the schedule and every choice of the proxies; the processes run in real time, so that what
//! a kill meets may differ by a moment.

mod disk;
mod frames;
mod kiosk;
mod observer;
mod outcome;
mod proxy;
mod replay;
mod schedule;

pub use self::outcome::{Counts, Outcome};
pub use self::proxy::{Network, Proxy};

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use fastrand::Rng;
use latchbus_core::clicks::Counter;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::disk::Disk;
use self::kiosk::{Feed, Kiosk, Plan};
use self::observer::{Observer, VALUES};
use self::schedule::{Act, Schedule};
use crate::deadline::within;
use crate::http;
use crate::program::Server;

/// Devices in a run: every other one over MQTT, the rest over WebSocket.
pub const DEVICES: usize = 10;

/// How likely a publish is doubled, on every network.
const DOUBLED: f64 = 0.2;

/// How long the devices may take to be acknowledged when everything works again.
const QUIET_WITHIN: Duration = Duration::from_secs(180);

/// Values that a full disk is tried with, and how many at most: many times the room that a store has in reserve.
const LARGE_BYTES: usize = 32 << 10;
const MOST_LARGE: usize = 1_000;

/// Runs one seed: chaos of this length, then quiet, then one more kill of the server.
///
/// # Panics
/// When a value was shown that was not made by then or that is below one that was shown before, when a device
/// has lost or doubled an accepted line, or when the server is not back in time.
pub async fn run(seed: u64, length: Duration) -> Outcome {
    let mut random = Rng::with_seed(seed);
    let schedule = Schedule::new(&mut random, DEVICES, length);
    let mut chaos = Chaos::begin(random, length).await;
    let begun = Instant::now();
    for (at, act) in schedule.acts {
        sleep_until(begun + at).await;
        assert!(!chaos.observer.has_ended(), "something wrong was shown");
        chaos.act(act).await;
    }
    chaos.end().await
}

struct Chaos {
    directory: TempDir,
    disk: Disk,
    server: Option<Server>,
    http: SocketAddr,
    mqtt: SocketAddr,
    networks: Vec<Arc<Proxy>>,
    kiosks: Vec<Kiosk>,
    observer: Observer,
    counts: Arc<Counts>,
    /// What ends by itself: slow networks, replays.
    passing: JoinSet<()>,
}

impl Chaos {
    async fn begin(mut random: Rng, length: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path());
        let server = Server::start(&["--data-dir", disk.data().to_str().unwrap()]).await;
        let (http, mqtt) = (server.http, server.mqtt);
        let counts = Arc::new(Counts::default());
        let (mut networks, mut kiosks) = (Vec::new(), Vec::new());
        for n in 0..DEVICES {
            let behind = if n % 2 == 0 { mqtt } else { http };
            let network = Proxy::start(behind, random.u64(..), Arc::clone(&counts)).await;
            network.duplicate(DOUBLED);
            let url = match n % 2 {
                0 => format!("mqtt://{}", network.address),
                _ => format!("ws://{}/ws", network.address),
            };
            // Clicks for about the whole run.
            let simulated = 20 * length.as_secs() + 50;
            let plan = Plan {
                id: format!("device-{n}"),
                url,
                feed: if n % 4 < 2 {
                    Feed::Lines
                } else {
                    Feed::Simulation(simulated)
                },
                seed: random.u64(..=i64::MAX.unsigned_abs()),
            };
            kiosks.push(Kiosk::start(plan, directory.path(), Arc::clone(&counts)));
            networks.push(Arc::new(network));
        }
        let states = kiosks.iter().map(|kiosk| kiosk.state.clone()).collect();
        Self {
            observer: Observer::start(http, states),
            directory,
            disk,
            server: Some(server),
            http,
            mqtt,
            networks,
            kiosks,
            counts,
            passing: JoinSet::new(),
        }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::KillServer { back } => {
                self.kill_server().await;
                sleep(back).await;
                self.start_server().await;
            }
            Act::KillDevice { device, back } => self.kiosks[device].kill(back),
            Act::Cut { device } => self.networks[device].cut(),
            Act::Slow {
                device,
                most,
                lasts,
            } => self.weather(device, Network::Slow(most), lasts),
            Act::HalfOpen { device, lasts } => {
                self.counts.half_opens.add(1);
                self.weather(device, Network::HalfOpen, lasts);
            }
            Act::Outage { device, lasts } => {
                self.counts.outages.add(1);
                self.weather(device, Network::Down, lasts);
            }
            Act::Replay { device } => {
                let (server, counts) = (self.mqtt, Arc::clone(&self.counts));
                let said = self.networks[device].remembered();
                self.passing.spawn(async move {
                    let name = format!("replay-{device}");
                    let replayed =
                        timeout(QUIET_WITHIN, replay::replay(server, &name, &said)).await;
                    counts
                        .replays
                        .add(replayed.expect("acknowledgements or an end"));
                });
            }
            Act::FillDisk { lasts, kill } if self.disk.can_be_full() => {
                self.disk.fill();
                within("the server says that it cannot store", unhealthy(self.http)).await;
                self.counts.full_disks.add(1);
                sleep(lasts).await;
                if kill {
                    self.kill_server().await;
                }
                self.disk.free();
                if kill {
                    self.start_server().await;
                }
            }
            Act::FillDisk { .. } => {}
        }
    }

    /// A device's network is like this for a while.
    fn weather(&mut self, device: usize, network: Network, lasts: Duration) {
        let proxy = Arc::clone(&self.networks[device]);
        proxy.set(network);
        self.passing.spawn(async move {
            sleep(lasts).await;
            proxy.set(Network::Up);
        });
    }

    async fn kill_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill().await;
            self.counts.server_kills.add(1);
        }
    }

    async fn start_server(&mut self) {
        let data = self.disk.data();
        let arguments = ["--data-dir", data.to_str().unwrap()];
        self.server = Some(Server::start_on(self.http, self.mqtt, &arguments).await);
    }

    /// Everything works again, until all is acknowledged and shown; and once more after a kill.
    async fn end(mut self) -> Outcome {
        while let Some(ended) = self.passing.join_next().await {
            ended.unwrap();
        }
        let mut fed = Counter::ZERO;
        for kiosk in core::mem::take(&mut self.kiosks) {
            let clicks = timeout(QUIET_WITHIN, kiosk.finish()).await;
            fed = fed.saturating_add(clicks.expect("the device is acknowledged in time"));
        }
        self.kill_server().await;
        self.start_server().await;
        let counted = http::last(self.http, VALUES).await.unwrap();
        let counted = Counter::parse(counted.as_bytes()).unwrap();
        let last = self.observer.last();
        let shown = self.observer.stop().await;
        assert_eq!(counted.join(last), counted, "{last} was shown before");
        let status = within("the server stops", self.server.unwrap().stop()).await;
        assert_eq!(status.code(), Some(0));
        drop(self.disk);
        self.directory.close().unwrap();
        Outcome::new(&self.counts, shown, fed, counted)
    }
}

/// Waits until the server says that it cannot store. It gets more to store meanwhile: counts alone go for long
/// into the room that its file has already.
async fn unhealthy(http: SocketAddr) {
    let mut large = JoinSet::new();
    for n in 0.. {
        let health = http::request(http, "GET", "/healthz", "").await.unwrap();
        if health.status == 503 {
            return;
        }
        assert!(
            n < MOST_LARGE,
            "the server stores {n} large values on a full disk"
        );
        large.spawn(async move {
            let path = format!("/api/v1/topics/large/{n}");
            http::request(http, "PUT", &path, &"x".repeat(LARGE_BYTES)).await
        });
        sleep(Duration::from_millis(20)).await;
    }
}
