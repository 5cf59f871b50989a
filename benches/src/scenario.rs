//! The scenarios, S1 to S6b, each against one server.

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

use crate::connection::{Connection, Crowd, Target};
use crate::process::Server;
use crate::wire::{Found, PAYLOAD_BYTES, Protocol, Publication, mark, marked, number_behind};

/// How long a scenario waits for what does not come.
const PATIENCE: Duration = Duration::from_secs(12);

/// What a scenario found: names and figures.
pub(crate) type Figures = Vec<(&'static str, f64)>;

pub(crate) fn event(topic: &str, payload: &str, protocol: Protocol) -> Vec<u8> {
    protocol.publish(Publication {
        topic,
        payload,
        retain: false,
        acknowledged: None,
    })
}

fn per_million(cpu_seconds: f64, count: u64) -> f64 {
    cpu_seconds * 1e6 / count.max(1) as f64
}

/// The value below which a share of the others lies.
pub(crate) fn quantile(sorted: &[u64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0) as f64
}

/// Who takes part in S1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FanOut {
    /// What each subscribes to; it matches `bench`.
    pub(crate) filter: &'static str,
    /// How many there are.
    pub(crate) subscribers: usize,
    /// How many messages are under way at a time.
    pub(crate) window: usize,
}

/// S1: the next message goes out when every subscriber has the one that is `window` before it.
///
/// # Errors
/// When the server fails.
pub(crate) fn fan_out(
    server: &Server,
    target: &Target,
    fan_out: FanOut,
    time: Duration,
) -> anyhow::Result<Figures> {
    let FanOut {
        filter,
        subscribers,
        window,
    } = fan_out;
    let mut crowd = Crowd::subscribers(target, subscribers, filter, true)?;
    let publisher = crowd.join(Connection::open(target, "p", 0, None)?)?;
    let (mut next, mut delivered) = (0_u32, 0_u64);
    // How often each message under way was delivered, oldest first.
    let mut under_way: VecDeque<usize> = VecDeque::new();
    let (mut measured, mut begun) = (None, Instant::now());
    let warm = time / 4;
    let mut heard = Instant::now();
    loop {
        let mut burst = Vec::new();
        while under_way.len() < window {
            under_way.push_back(0);
            burst.extend(event("bench", &mark(0, next), target.protocol));
            next += 1;
        }
        if let (false, Some(publisher)) = (burst.is_empty(), crowd.members.get_mut(publisher)) {
            publisher.send(&burst)?;
        }
        let oldest = next - under_way.len() as u32;
        crowd.poll(Duration::from_millis(100), |_, found| {
            if let Found::Message(message) = found
                && let Some((_, number)) = marked(message)
                && let Some(count) = under_way.get_mut(number.wrapping_sub(oldest) as usize)
            {
                *count += 1;
                delivered += 1;
            }
        })?;
        while under_way.front().is_some_and(|count| *count >= subscribers) {
            under_way.pop_front();
            heard = Instant::now();
        }
        anyhow::ensure!(crowd.ended() == 0, "the server ends connections");
        anyhow::ensure!(
            heard.elapsed() < PATIENCE,
            "a message was not delivered to all"
        );
        match measured {
            None if begun.elapsed() >= warm => {
                measured = Some((server.cpu_seconds()?, delivered));
                begun = Instant::now();
            }
            Some((cpu, before)) if begun.elapsed() >= time => {
                let count = delivered - before;
                return Ok(vec![
                    (
                        "cpu_s_per_million",
                        per_million(server.cpu_seconds()? - cpu, count),
                    ),
                    (
                        "deliveries_per_s",
                        count as f64 / begun.elapsed().as_secs_f64(),
                    ),
                ]);
            }
            _ => {}
        }
    }
}

/// S2: messages at a fixed rate, whatever the server does; how long each takes to each subscriber.
///
/// # Errors
/// When the server fails.
pub(crate) fn latency(
    server: &Server,
    target: &Target,
    (subscribers, rate): (usize, u32),
    time: Duration,
) -> anyhow::Result<Figures> {
    let mut crowd = Crowd::subscribers(target, subscribers, "bench", true)?;
    let publisher = crowd.join(Connection::open(target, "p", 0, None)?)?;
    let total = (f64::from(rate) * time.as_secs_f64()) as u32;
    let warm = total / 8;
    let mut micros = Vec::with_capacity(total as usize * subscribers);
    let (begun, cpu) = (Instant::now(), server.cpu_seconds()?);
    let (mut next, mut delivered) = (0, 0_u64);
    let wanted = u64::from(total) * subscribers as u64;
    while delivered < wanted && begun.elapsed() < time + PATIENCE {
        while next < total && begun.elapsed().as_secs_f64() >= f64::from(next) / f64::from(rate) {
            let payload = mark(begun.elapsed().as_nanos() as u64, next);
            if let Some(publisher) = crowd.members.get_mut(publisher) {
                publisher.send(&event("bench", &payload, target.protocol))?;
            }
            next += 1;
        }
        let due = begun + Duration::from_secs_f64(f64::from(next) / f64::from(rate));
        let wait = due
            .saturating_duration_since(Instant::now())
            .min(Duration::from_millis(20));
        crowd.poll(wait, |_, found| {
            if let Found::Message(message) = found
                && let Some((sent, number)) = marked(message)
            {
                delivered += 1;
                if number >= warm {
                    micros.push((begun.elapsed().as_nanos() as u64).saturating_sub(sent) / 1000);
                }
            }
        })?;
    }
    micros.sort_unstable();
    Ok(vec![
        ("p50_ms", quantile(&micros, 0.5) / 1e3),
        ("p99_ms", quantile(&micros, 0.99) / 1e3),
        ("lost", (wanted - delivered) as f64),
        (
            "cpu_s_per_million",
            per_million(server.cpu_seconds()? - cpu, delivered),
        ),
    ])
}

/// S3: connections that are subscribed and get nothing.
///
/// # Errors
/// When the server fails.
pub(crate) fn idle(server: &Server, target: &Target, count: usize) -> anyhow::Result<Figures> {
    let (before, cpu) = (server.resident_kib()?, server.cpu_seconds()?);
    let begun = Instant::now();
    let crowd = Crowd::subscribers(target, count, "bench", true)?;
    let opened = begun.elapsed();
    std::thread::sleep(Duration::from_millis(1500));
    anyhow::ensure!(crowd.ended() == 0, "the server ends connections");
    let grown = server.resident_kib()?.saturating_sub(before);
    Ok(vec![
        ("kib_per_connection", grown as f64 / count as f64),
        ("connections_per_s", count as f64 / opened.as_secs_f64()),
        (
            "cpu_us_per_connection",
            (server.cpu_seconds()? - cpu) * 1e6 / count as f64,
        ),
    ])
}

/// S4: devices that publish at QoS 1, each with one message unacknowledged, to one consumer. What is
/// `retained` a server with a store must write before it acknowledges.
///
/// # Errors
/// When the server fails.
pub(crate) fn fan_in(
    server: &Server,
    target: &Target,
    (devices, retained): (usize, bool),
    time: Duration,
) -> anyhow::Result<Figures> {
    let mut crowd = Crowd::subscribers(target, 1, "bench", true)?;
    let publication = |number: u16| {
        target.protocol.publish(Publication {
            topic: "bench",
            payload: &mark(0, 0),
            retain: retained,
            acknowledged: Some(number),
        })
    };
    let packets: Vec<_> = (1..=8).map(publication).collect();
    for number in 0..devices {
        let device = crowd.join(Connection::open(target, "d", number, None)?)?;
        let (device, packet) = (crowd.members.get_mut(device), packets.first());
        if let (Some(device), Some(packet)) = (device, packet) {
            device.send(packet)?;
        }
    }
    let warm = time / 4;
    let (mut acknowledged, mut delivered) = (0_usize, 0_u64);
    let (mut measured, mut begun) = (None, Instant::now());
    let mut free = Vec::new();
    loop {
        crowd.poll(Duration::from_millis(100), |member, found| match found {
            Found::Acknowledged => free.push(member),
            Found::Message(_) => delivered += 1,
            _ => {}
        })?;
        for member in free.drain(..) {
            acknowledged += 1;
            let packet = packets.get(acknowledged % packets.len());
            if let (Some(device), Some(packet)) = (crowd.members.get_mut(member), packet) {
                device.send(packet)?;
            }
        }
        match measured {
            None if begun.elapsed() >= warm => {
                measured = Some((server.cpu_seconds()?, acknowledged));
                begun = Instant::now();
            }
            Some((cpu, before)) if begun.elapsed() >= time => {
                let count = (acknowledged - before) as u64;
                anyhow::ensure!(
                    count > 0 && delivered > 0,
                    "nothing is acknowledged or delivered"
                );
                return Ok(vec![
                    (
                        "cpu_s_per_million",
                        per_million(server.cpu_seconds()? - cpu, count),
                    ),
                    ("acks_per_s", count as f64 / begun.elapsed().as_secs_f64()),
                ]);
            }
            _ => {}
        }
    }
}

/// The shape of a storm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm<'a> {
    /// What dashboards subscribe to.
    pub(crate) filter: &'a str,
    /// What stands before the total in a message.
    pub(crate) key: &'a str,
    /// Dashboards, a tenth of which read slowly.
    pub(crate) dashboards: usize,
    /// Devices that click.
    pub(crate) devices: usize,
    /// Clicks a second, of all devices together.
    pub(crate) rate: u32,
    /// How long.
    pub(crate) time: Duration,
}

/// What a slow dashboard reads at a time, and how often.
const SLOW: (usize, Duration) = (128, Duration::from_millis(100));
/// Its receive buffer, in bytes.
const SLOW_BUFFER: usize = 4096;

/// S5: many devices click, and dashboards, some of them slow, show the total.
///
/// # Errors
/// When the server fails.
pub(crate) fn storm(server: &Server, target: &Target, storm: Storm<'_>) -> anyhow::Result<Figures> {
    let slow_from = storm.dashboards - storm.dashboards / 10;
    let mut crowd = Crowd::subscribers(target, slow_from, storm.filter, false)?;
    let mut slow = Vec::new();
    for number in slow_from..storm.dashboards {
        let mut connection = Connection::open(target, "s", number, Some(SLOW_BUFFER))?;
        connection.subscribe(storm.filter, false)?;
        slow.push(connection);
    }
    let mut devices = Vec::new();
    for number in 0..storm.devices {
        devices.push((
            Connection::open(target, "d", number, None)?,
            target.protocol.click(number),
        ));
    }
    let key = storm.key.as_bytes();
    let cpu = server.cpu_seconds()?;
    let mut most_kib = server.resident_kib()?;
    // The total that each dashboard shows, and since when.
    let mut shown = vec![(0_u64, Instant::now()); storm.dashboards];
    let total = (f64::from(storm.rate) * storm.time.as_secs_f64()) as u64;
    let (begun, mut clicks, mut frames) = (Instant::now(), 0_u64, 0_u64);
    let (mut ended, mut next_slow) = (None, Instant::now() + SLOW.1);
    let mut room = [0; SLOW.0];
    loop {
        let due = (begun.elapsed().as_secs_f64() * f64::from(storm.rate)) as u64;
        while clicks < due.min(total) {
            if let Some((device, packet)) = devices.get_mut(clicks as usize % storm.devices) {
                // A server that does not read keeps its devices waiting; none of their clicks is left out.
                device.send(packet)?;
            }
            clicks += 1;
        }
        if clicks == total && ended.is_none() {
            let mut waits = false;
            for (device, _) in &mut devices {
                waits |= !device.flush()?;
            }
            ended = (!waits).then(Instant::now);
        }
        let mut note = |dashboard: usize, found: Found<'_>| {
            if let Found::Message(message) = found
                && let Some(number) = number_behind(message, key)
                && let Some(shown) = shown.get_mut(dashboard)
            {
                frames += 1;
                if number > shown.0 {
                    *shown = (number, Instant::now());
                }
            }
        };
        crowd.poll(Duration::from_millis(1), &mut note)?;
        if Instant::now() >= next_slow {
            next_slow += SLOW.1;
            for (number, dashboard) in slow.iter_mut().enumerate() {
                dashboard.read(&mut room, |found| note(slow_from + number, found))?;
            }
            most_kib = most_kib.max(server.resident_kib()?);
        }
        if let Some(ended) = ended
            && (shown.iter().all(|(number, _)| *number >= total) || ended.elapsed() > PATIENCE)
        {
            let stale = |shown: &[(u64, Instant)]| {
                let of = |(number, since): &(u64, Instant)| match *number >= total {
                    true => since.saturating_duration_since(ended).as_secs_f64() * 1e3,
                    false => f64::INFINITY,
                };
                shown.iter().map(of).fold(0.0, f64::max)
            };
            let (fast, slow) = shown.split_at_checked(slow_from).unwrap_or_default();
            let exact = shown.iter().map(|(number, _)| *number).max() == Some(total);
            return Ok(vec![
                ("cpu_s", server.cpu_seconds()? - cpu),
                ("fast_final_ms", stale(fast)),
                ("slow_final_ms", stale(slow)),
                ("every_click_counted", f64::from(u8::from(exact))),
                ("frames", frames as f64),
                ("most_mib", most_kib as f64 / 1024.0),
            ]);
        }
    }
}

/// Publishes state and waits until all of it is acknowledged.
fn preload(target: &Target, topics: &[String]) -> anyhow::Result<()> {
    let mut publisher = Connection::open(target, "p", 0, None)?;
    for (first, batch) in topics.chunks(100).enumerate() {
        let mut bytes = Vec::new();
        for (number, topic) in batch.iter().enumerate() {
            bytes.extend(target.protocol.publish(Publication {
                topic,
                payload: &mark(0, (first * 100 + number) as u32),
                retain: true,
                acknowledged: Some(number as u16 + 1),
            }));
        }
        publisher.send_all(&bytes)?;
        let mut missing = batch.len();
        publisher.wait(|found| {
            missing -= usize::from(*found == Found::Acknowledged);
            missing == 0
        })?;
    }
    Ok(())
}

/// S6: how long a subscription takes until it has all that is retained. Values are published to `source`.
///
/// # Errors
/// When the server fails.
pub(crate) fn late_joiner(
    server: &Server,
    (source, target): (&Target, &Target),
    topics: usize,
) -> anyhow::Result<Figures> {
    let names: Vec<_> = (0..topics).map(|number| format!("r/{number}")).collect();
    preload(source, &names)?;
    let cpu = server.cpu_seconds()?;
    let (mut times, mut fewest) = (Vec::new(), usize::MAX);
    for round in 0..5 {
        let mut crowd = Crowd::new()?;
        let member = crowd.join(Connection::open(target, "s", round, None)?)?;
        let mut seen = vec![false; topics];
        let (mut count, mut last) = (0, Instant::now());
        let begun = Instant::now();
        if let Some(member) = crowd.members.get_mut(member) {
            member.send(&target.protocol.subscribe("r/#", true))?;
        }
        while count < topics && last.elapsed() < Duration::from_secs(3) {
            crowd.poll(Duration::from_millis(50), |_, found| {
                if let Found::Message(message) = found
                    && let Some((_, number)) = marked(message)
                    && let Some(seen) = seen.get_mut(number as usize)
                    && !core::mem::replace(seen, true)
                {
                    (count, last) = (count + 1, Instant::now());
                }
            })?;
        }
        times.push(last.duration_since(begun).as_micros() as u64);
        fewest = fewest.min(count);
    }
    times.sort_unstable();
    Ok(vec![
        ("all_ms", quantile(&times, 0.5) / 1e3),
        ("received", fewest as f64),
        ("cpu_ms", (server.cpu_seconds()? - cpu) * 200.0),
    ])
}

/// S6b: from the connection to the first value.
///
/// # Errors
/// When the server fails.
pub(crate) fn first_value((source, target): (&Target, &Target)) -> anyhow::Result<Figures> {
    preload(source, &["one".to_owned()])?;
    let mut times = Vec::new();
    for round in 0..200 {
        let begun = Instant::now();
        let mut connection = Connection::open(target, "s", round, None)?;
        connection.send_all(&target.protocol.subscribe("one", true))?;
        connection.wait(
            |found| matches!(found, Found::Message(message) if message.len() >= PAYLOAD_BYTES),
        )?;
        times.push(begun.elapsed().as_micros() as u64);
    }
    times.sort_unstable();
    Ok(vec![
        ("p50_ms", quantile(&times, 0.5) / 1e3),
        ("p99_ms", quantile(&times, 0.99) / 1e3),
    ])
}
