//! What the bus does by the clock: rates every second, `$SYS` topics every ten.

use core::{fmt::Display, time::Duration};
use std::sync::Weak;

use bytes::Bytes;
use latchbus_core::hub::Retain;
use latchbus_core::topic::TopicName;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::bus::{Behind, Bus, Inner};
use crate::json::json_text;
use crate::shared::Changes;
use crate::{Payload, Publish};

const TICK: Duration = Duration::from_secs(1);
const TICKS_PER_REPORT: u64 = 10;
/// Clients that a report names.
const CLIENTS: usize = 16;
/// Characters of a client's name that it shows.
const NAME_CHARS: usize = 64;

/// Runs until the bus closes or its last handle is gone.
pub(crate) async fn run(bus: Weak<Inner>) {
    let started = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        ticks.tick().await;
        let Some(bus) = Bus::upgrade(&bus).filter(|bus| !bus.is_closed()) else {
            return;
        };
        bus.tick();
        // The log hears of it.
        let _capacity = bus.capacity();
        if tick % TICKS_PER_REPORT == 0 {
            report(&bus, started);
        }
    }
}

/// Has what was shown before it is on disk brought there, until the bus closes or its last handle is gone.
pub(crate) async fn sync(bus: Weak<Inner>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(bus) = Bus::upgrade(&bus).filter(|bus| !bus.is_closed()) else {
            return;
        };
        bus.sync();
    }
}

/// Publishes the `$SYS` topics, in the names that mosquitto uses where it has one.
fn report(bus: &Bus, started: Instant) {
    let (metrics, hub) = (bus.metrics(), bus.hub_counts());
    let (kept, subscriptions) = bus.read(|hub| (hub.places_taken(), hub.subscriptions()));
    let (lost, behind) = (bus.lost(), behind(&bus.behind(CLIENTS)));
    let at = bus.clock().unix_ms();
    bus.shared().change(|changes| {
        let mut show = |name: &str, value: &dyn Display| show(changes, name, value, at);
        show("version", &concat!("latchbus ", env!("CARGO_PKG_VERSION")));
        show(
            "uptime",
            &format_args!("{} seconds", started.elapsed().as_secs()),
        );
        show("clients/connected", &metrics.connections.get());
        show("clients/total", &metrics.connections_accepted.get());
        show("messages/received", &metrics.messages_received.get());
        show("messages/sent", &metrics.messages_sent.get());
        show("publish/messages/accepted", &hub.accepted);
        show("publish/messages/dropped", &metrics.publishes_refused.get());
        show("publish/messages/conflated", &lost.conflated);
        show("publish/messages/skipped", &lost.skipped);
        show("publish/messages/expired", &lost.expired);
        show("clients/behind", &behind);
        show("retained messages/count", &kept);
        show("subscriptions/count", &subscriptions);
    });
}

/// The clients that have lost most, as a JSON array.
fn behind(clients: &[Behind]) -> String {
    let one = |client: &Behind| {
        let name = json_text(&client.peer.name, NAME_CHARS);
        let transport = client.peer.transport;
        let (conflated, skipped) = (client.conflated, client.skipped);
        format!(
            r#"{{"client":{name},"transport":"{transport}","conflated":{conflated},"skipped":{skipped}}}"#
        )
    };
    let clients: Vec<_> = clients.iter().map(one).collect();
    format!("[{}]", clients.join(","))
}

fn show(changes: &mut Changes<'_>, name: &str, value: &dyn Display, at: u64) {
    let topic = format!("$SYS/broker/{name}");
    let Ok(topic) = TopicName::parse(topic.as_str()) else {
        return;
    };
    if !changes.may_go_on() {
        return;
    }
    let text = value.to_string();
    let unchanged = |last: crate::Delivery| *last.payload.bytes() == text.as_bytes();
    if changes.hub().last(topic).is_some_and(unchanged) {
        return;
    }
    let payload = Payload::new(Bytes::from(text), Publish::STATE_QOS);
    if let Err(error) = changes.publish(topic, payload, Retain::LAST, at) {
        tracing::debug!(%error, "no room for $SYS topics");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Peer;

    #[test]
    fn names_of_any_characters_are_json() {
        let client = Behind {
            peer: Peer {
                transport: "mqtt",
                name: "a\"b\\c\n\u{e9}".into(),
                address: None,
            },
            conflated: 3,
            skipped: 4,
        };
        assert_eq!(
            behind(&[client]),
            r#"[{"client":"a\"b\\c\u000aé","transport":"mqtt","conflated":3,"skipped":4}]"#
        );
        assert_eq!(behind(&[]), "[]");
    }
}
