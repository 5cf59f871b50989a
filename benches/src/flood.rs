//! What floods of strangers do to who is signed in: the time from a publish to its delivery, quiet and within a flood.
//!
//! The flood comes from a process of its own with the lowest priority, for strangers have processors of their own. What it
//! takes of this machine all the same is measured, too: the same flood against another server.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use std::{fs, thread};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use rustls::ClientConfig;

use crate::connection::{Connection, Crowd, Target};
use crate::guarded::{Files, LOGIN, trusting};
use crate::peers::{Kind, Workshop, free_address};
use crate::process::Server;
use crate::scenario::{event, quantile};
use crate::secured::Spread;
use crate::wire::{Found, Login, Protocol, mark, marked};
use crate::{print, socket};

/// What strangers do, a thousand times a second unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flood {
    /// MQTT connections with wrong passwords, all from one address
    Connects,
    /// The same over HTTP: requests with wrong passwords
    Requests,
    /// MQTT connections with wrong passwords, from many addresses and with many names
    Crowd,
    /// TLS handshakes that do not go on behind their first bytes
    HalfOpen,
    /// Whole TLS handshakes, after which the connection is closed
    Handshakes,
}

impl Flood {
    const fn name(self) -> &'static str {
        match self {
            Self::Connects => "MQTT CONNECTs with wrong passwords, one address",
            Self::Requests => "HTTP requests with wrong passwords, one address",
            Self::Crowd => "MQTT CONNECTs with wrong passwords, many addresses and names",
            Self::HalfOpen => "TLS handshakes that are not finished",
            Self::Handshakes => "whole TLS handshakes",
        }
    }
}

/// A flood, as its own process is told of it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Attack {
    /// What
    flood: Flood,
    /// Where
    address: SocketAddr,
    /// Attempts a second
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// For how long, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The authority of the server's certificate
    #[arg(long)]
    authority: Option<PathBuf>,
}

/// What is measured, and how often.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How often each is run.
    pub(crate) rounds: usize,
    /// How long each measurement takes.
    pub(crate) time: Duration,
    /// Attempts a second.
    pub(crate) rate: u32,
    /// One flood alone.
    pub(crate) only: Option<Flood>,
}

/// Publishes of who is signed in, a second.
const PUBLISHES: u32 = 500;

/// A flood goes on for so long before it is measured: passwords are hashed at its beginning.
const BEFORE: Duration = Duration::from_millis(500);

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs all of it, prints a table, and leaves it in the workshop's folder.
///
/// # Errors
/// When a server fails.
pub(crate) fn compare(workshop: &Workshop, plan: &Plan) -> anyhow::Result<()> {
    workshop.prepare(Kind::LatchbusMqtt)?;
    let files = Files::new(workshop)?;
    let mut table = String::from(
        "| flood | quiet, µs p50 / p99 | flood of another server | flood | beside quiet, p50 | p99 | \
         beside the other, p50 | p99 | server CPU s a second |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let floods = Flood::value_variants().iter().copied();
    for flood in floods.filter(|flood| plan.only.is_none_or(|only| only == *flood)) {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            rounds.push(round(&files, plan, flood)?);
        }
        let of = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure).collect());
        let pair = |p50: fn(&Round) -> f64, p99: fn(&Round) -> f64| {
            format!("{:.0} / {:.0}", of(p50).median, of(p99).median)
        };
        let ratio = |figure: fn(&Round) -> f64| {
            let Spread {
                least,
                median,
                most,
            } = of(figure);
            format!("{median:.2} ({least:.2}–{most:.2})")
        };
        table += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {:.2} |\n",
            flood.name(),
            pair(|it| it.quiet.p50, |it| it.quiet.p99),
            pair(|it| it.elsewhere.p50, |it| it.elsewhere.p99),
            pair(|it| it.flooded.p50, |it| it.flooded.p99),
            ratio(|it| it.flooded.p50 / it.quiet.p50),
            ratio(|it| it.flooded.p99 / it.quiet.p99),
            ratio(|it| it.flooded.p50 / it.elsewhere.p50),
            ratio(|it| it.flooded.p99 / it.elsewhere.p99),
            of(|it| it.flooded.cpu).median,
        );
    }
    fs::write(workshop.folder().join("flood.md"), &table)?;
    print(&format!("\n{table}"))
}

/// What was measured in one go.
#[derive(Debug, Clone, Copy)]
struct Latency {
    /// In microseconds.
    p50: f64,
    p99: f64,
    /// The server's seconds of processor time a second.
    cpu: f64,
}

struct Round {
    quiet: Latency,
    /// While the other server is flooded.
    elsewhere: Latency,
    flooded: Latency,
}

/// Two servers, one of which is flooded at a time.
fn round(files: &Files, plan: &Plan, flood: Flood) -> anyhow::Result<Round> {
    let (mut pair, other) = (Pair::open(files)?, Pair::open(files)?);
    let quiet = pair.measure(plan.time)?;
    let attack = |pair: &Pair| Attack {
        flood,
        address: match flood {
            Flood::Requests => pair.http,
            Flood::Connects | Flood::Crowd => pair.mqtt,
            Flood::HalfOpen | Flood::Handshakes => pair.mqtt_tls,
        },
        rate: plan.rate,
        seconds: (plan.time + BEFORE).as_secs_f64(),
        authority: Some(files.authority()),
    };
    let elsewhere = pair.within(attack(&other), plan.time)?;
    let flooded = pair.within(attack(&pair), plan.time)?;
    Ok(Round {
        quiet,
        elsewhere,
        flooded,
    })
}

/// A server, and a publisher and a subscriber that are signed in there.
struct Pair {
    server: Server,
    http: SocketAddr,
    mqtt: SocketAddr,
    mqtt_tls: SocketAddr,
    crowd: Crowd,
    publisher: usize,
    next: u32,
}

impl Pair {
    fn open(files: &Files) -> anyhow::Result<Self> {
        let (http, mqtt) = (free_address()?, free_address()?);
        let (http_tls, mqtt_tls) = (free_address()?, free_address()?);
        let mut command = Files::command(files.program(), http, mqtt);
        files.with_users(&mut command, None);
        files.with_tls(&mut command, http_tls, mqtt_tls);
        let server = Server::start(command, mqtt, files.folder())?;
        let mut target = Target::open(mqtt, Protocol::Mqtt);
        target.login = Some(LOGIN);
        let mut crowd = Crowd::subscribers(&target, 1, "bench", true)?;
        let publisher = crowd.join(Connection::open(&target, "p", 0, None)?)?;
        Ok(Self {
            server,
            http,
            mqtt,
            mqtt_tls,
            crowd,
            publisher,
            next: 0,
        })
    }

    fn within(&mut self, attack: Attack, time: Duration) -> anyhow::Result<Latency> {
        let mut flood = Command::new(std::env::current_exe()?);
        let what = attack.flood.to_possible_value().context("a flood")?;
        flood
            .arg("attack")
            .arg(what.get_name())
            .arg(attack.address.to_string());
        flood.args(["--rate", &attack.rate.to_string()]);
        flood.args(["--seconds", &attack.seconds.to_string()]);
        if let Some(authority) = attack.authority {
            flood.arg("--authority").arg(authority);
        }
        let mut flood = flood.stdin(Stdio::null()).spawn()?;
        // The first passwords are hashed, and nothing is measured.
        self.measure(BEFORE)?;
        let measured = self.measure(time);
        anyhow::ensure!(flood.wait()?.success(), "the flood has failed");
        measured
    }

    /// Publishes at a fixed rate. What waits because the one before has not arrived counts from when it was due.
    fn measure(&mut self, time: Duration) -> anyhow::Result<Latency> {
        let total = (f64::from(PUBLISHES) * time.as_secs_f64()) as u32;
        let mut nanos = Vec::with_capacity(total as usize);
        let (begun, cpu) = (Instant::now(), self.server.cpu_seconds()?);
        for number in 0..total {
            let due = begun + Duration::from_secs_f64(f64::from(number) / f64::from(PUBLISHES));
            let now = Instant::now();
            let since = match due.checked_duration_since(now) {
                Some(early) => {
                    thread::sleep(early);
                    Instant::now()
                }
                None => due,
            };
            self.next += 1;
            let (next, mut came) = (self.next, false);
            let packet = event("bench", &mark(0, next), Protocol::Mqtt);
            if let Some(publisher) = self.crowd.members.get_mut(self.publisher) {
                publisher.send(&packet)?;
            }
            while !came {
                self.crowd.poll(Duration::from_millis(100), |_, found| {
                    if let Found::Message(message) = found {
                        came |= marked(message).is_some_and(|(_, number)| number == next);
                    }
                })?;
                anyhow::ensure!(self.crowd.ended() == 0, "the server ends connections");
                anyhow::ensure!(since.elapsed() < PATIENCE, "a message was not delivered");
            }
            nanos.push(since.elapsed().as_nanos() as u64);
        }
        let cpu = self.server.cpu_seconds()? - cpu;
        nanos.sort_unstable();
        Ok(Latency {
            p50: quantile(&nanos, 0.5) / 1e3,
            p99: quantile(&nanos, 0.99) / 1e3,
            cpu: cpu / begun.elapsed().as_secs_f64(),
        })
    }
}

/// Attempts that are under way at a time.
const STRANGERS: u32 = 64;

/// Connections that stay half open at a time.
const HALF_OPEN: usize = 4_000;

/// How long one of many strangers waits for an answer.
const HURRY: Duration = Duration::from_millis(20);

/// How long an attempt may take.
const ATTEMPT_TIME: Duration = Duration::from_secs(5);

/// A flood: what the process of one does. It says how it went.
///
/// # Errors
/// When the authority cannot be read.
pub(crate) fn attack(attack: &Attack) -> anyhow::Result<()> {
    // The machine's own are first; that it cannot be had is no error.
    let _ = rustix::process::nice(19);
    let tls = match &attack.authority {
        Some(authority) => Some(trusting(authority.clone())?),
        None => None,
    };
    let (answered, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let half_open = Mutex::new(VecDeque::new());
    let (begun, time) = (Instant::now(), Duration::from_secs_f64(attack.seconds));
    let tries = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..STRANGERS {
            scope.spawn(|| {
                loop {
                    let number = tries.fetch_add(1, Ordering::Relaxed);
                    let due = Duration::from_secs_f64(number as f64 / f64::from(attack.rate));
                    if due >= time || begun.elapsed() >= time {
                        return;
                    }
                    thread::sleep(due.saturating_sub(begun.elapsed()));
                    let done = attempt(attack, tls.as_ref(), &half_open);
                    match done {
                        Ok(()) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    print(&format!(
        "{}: {:.0} a second, {} failed\n",
        attack.flood.name(),
        answered.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64(),
        failed.load(Ordering::Relaxed),
    ))
}

fn attempt(
    attack: &Attack,
    tls: Option<&Arc<ClientConfig>>,
    half_open: &Mutex<VecDeque<TcpStream>>,
) -> io::Result<()> {
    let from = match attack.flood {
        // Of the addresses of loopback, none of which is the signed-in client's.
        Flood::Crowd => Ipv4Addr::from_bits(0x7f01_0000 + fastrand::u32(1..0xf_fff0)),
        _ => Ipv4Addr::new(127, 0, 0, 2),
    };
    let from = SocketAddr::from((IpAddr::V4(from), 0));
    let mut stream = socket::connected(attack.address, Some(from), None, ATTEMPT_TIME)?;
    stream.set_read_timeout(Some(ATTEMPT_TIME))?;
    let mut answer = [0; 64];
    match attack.flood {
        Flood::Connects | Flood::Crowd => {
            let client = format!("stranger-{:016x}", fastrand::u64(..));
            let name = format!("user-{:08x}", fastrand::u32(..));
            let login = Login {
                user: match attack.flood {
                    Flood::Crowd => &name,
                    _ => LOGIN.user,
                },
                password: "wrong",
                basic: "",
            };
            stream.write_all(&Protocol::Mqtt.hello(&client, Some(login)))?;
            if attack.flood == Flood::Crowd {
                stream.set_read_timeout(Some(HURRY))?;
            }
            match stream.read(&mut answer) {
                // It waits for a processor, and the next one comes all the same.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                read => refused(read?, answer.get(3) != Some(&0)),
            }
        }
        Flood::Requests => {
            // bench:wrong
            stream.write_all(
                b"GET /api/v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic YmVuY2g6d3Jvbmc=\r\n\
                  Connection: close\r\n\r\n",
            )?;
            refused(stream.read(&mut answer)?, answer.get(9) == Some(&b'4'))
        }
        Flood::HalfOpen => {
            // The beginning of a record that holds a ClientHello, and of that.
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")?;
            let mut open = half_open.lock().unwrap_or_else(PoisonError::into_inner);
            open.push_back(stream);
            if open.len() > HALF_OPEN {
                open.pop_front();
            }
            Ok(())
        }
        Flood::Handshakes => {
            let config = tls.ok_or(io::ErrorKind::InvalidInput)?;
            let mut client = socket::client(config, attack.address)?;
            while client.is_handshaking() {
                client.complete_io(&mut stream)?;
            }
            Ok(())
        }
    }
}

fn refused(read: usize, is_refusal: bool) -> io::Result<()> {
    match read > 0 && is_refusal {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
