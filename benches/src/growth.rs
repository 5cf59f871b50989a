//! What more subscribers, topics and filters cost.

use core::time::Duration;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use futures_util::StreamExt;
use latchbus_bus::{Bus, Options, Publish};
use latchbus_core::hub::{Limits, Mode, Start, Step};
use latchbus_core::topic::{TopicFilter, TopicName};

use crate::peers::{Kind, Workshop};
use crate::process;
use crate::{every_one, print, scenario};

const SUBSCRIBERS: [usize; 4] = [100, 1_000, 5_000, 10_000];
const TOPICS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Publishes that are timed.
const PUBLISHES: u32 = 20_000;

/// Runs all of it and prints tables in Markdown.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(workshop: &Workshop) -> anyhow::Result<()> {
    print("| subscribers | WebSocket, CPU s a million deliveries | MQTT |\n|---:|---:|---:|\n")?;
    workshop.prepare(Kind::LatchbusWs)?;
    for subscribers in SUBSCRIBERS {
        let mut line = format!("| {subscribers} |");
        for kind in [Kind::LatchbusWs, Kind::LatchbusMqtt] {
            let running = workshop.start(kind, false)?;
            let time = Duration::from_secs(2);
            let figures = scenario::fan_out(
                &running.server,
                &running.target,
                every_one(subscribers, 1),
                time,
            )?;
            let cpu = figures.first().map_or(0.0, |(_, value)| *value);
            line += &format!(" {cpu:.2} |");
        }
        print(&(line + "\n"))?;
    }
    print(
        "\n| topics | bytes a topic | whole snapshot, ms | publish, µs | beside 10,000 subscriptions to another topic | \
         beside 10,000 other filters |\n|---:|---:|---:|---:|---:|---:|\n",
    )?;
    for topics in TOPICS {
        // Each in a process of its own, whose memory is its own too.
        let status = Command::new(std::env::current_exe()?)
            .args(["grown", &topics.to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "the bus with {topics} topics has failed");
    }
    Ok(())
}

/// One row: a bus in this process, with so many topics.
///
/// # Errors
/// When the bus refuses something.
pub(crate) fn grown(topics: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let limits = Limits {
            places: topics + 100_000,
            ..Limits::default()
        };
        let bus = Bus::open(Options {
            limits,
            ..Options::default()
        })?;
        let names: Vec<_> = (0..topics)
            .map(|number| TopicName::parse(format!("site/{}/sensor/{number}", number % 1000)))
            .collect::<Result<_, _>>()?;
        let before = process::own_resident_kib()?;
        for name in &names {
            bus.publish(Publish::state(name.clone(), "21.5")).await?;
        }
        let bytes = (process::own_resident_kib()? - before) * 1024 / topics as u64;
        let alone = publish(&bus, &names).await?;

        let begun = Instant::now();
        let mut all =
            bus.subscribe(TopicFilter::parse("site/#")?, Mode::Latest, Start::Snapshot)?;
        let mut taken = 0;
        while !matches!(
            all.next().await.context("the bus has closed")?,
            Step::Synced { .. }
        ) {
            taken += 1;
        }
        let snapshot = begun.elapsed();
        anyhow::ensure!(taken == topics, "the snapshot has {taken} of {topics}");
        drop(all);

        // Subscriptions of others: one filter that all share, then as many filters as subscriptions.
        let mut subscriptions = Vec::new();
        for _ in 0..10_000 {
            let filter = TopicFilter::parse("elsewhere/#")?;
            subscriptions.push(bus.subscribe(filter, Mode::Latest, Start::Snapshot)?);
        }
        let idle = publish(&bus, &names).await?;
        subscriptions.clear();
        for number in 0..10_000 {
            let filter = format!("elsewhere/{number}/+");
            let filter = TopicFilter::parse(filter.as_str())?;
            subscriptions.push(bus.subscribe(filter, Mode::Latest, Start::Snapshot)?);
        }
        let distinct = publish(&bus, &names).await?;
        print(&format!(
            "| {topics} | {bytes} | {:.1} | {alone:.2} | {idle:.2} | {distinct:.2} |\n",
            snapshot.as_secs_f64() * 1e3
        ))
    })
}

/// The time of a publish to a topic that has a value, in microseconds.
async fn publish(bus: &Bus, names: &[TopicName<String>]) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut place = 0;
    for _ in 0..PUBLISHES {
        // A stride that is prime visits all topics in an order that no cache likes.
        place = (place + 7_919) % names.len();
        let name = names.get(place).context("no topics")?;
        bus.publish(Publish::state(name.clone(), "22.0")).await?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(PUBLISHES))
}
