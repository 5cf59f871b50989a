//! What the bus does by the clock: rates every second, `$SYS` topics every ten.

mod load;

use core::{fmt::Display, time::Duration};
use std::sync::Weak;

use bytes::Bytes;
use latchbus_core::hub::Retain;
use latchbus_core::topic::TopicName;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::load::Loads;
use crate::audit;
use crate::bus::{Behind, Bus, Inner};
use crate::frames::json::quoted;
use crate::shared::Changes;
use crate::{Payload, Publish};

/// How often the `$SYS` topics are published, unless the options say otherwise. Mosquitto's interval.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_secs(1);
/// What nobody follows is not worth a place in the recent ring, where messages wait for sessions that are away, so often.
const LOADS_UNFOLLOWED_EVERY: Duration = Duration::from_secs(60);
const PREFIX: &str = "$SYS/broker/";
/// Clients that a report names.
const CLIENTS: usize = 16;
/// Characters of a client's name that it shows.
const NAME_CHARS: usize = 64;

/// Runs until the bus closes or its last handle is gone.
pub(crate) async fn run(bus: Weak<Inner>, every: Option<Duration>) {
    let mut report = Report::new(Instant::now());
    let mut ticks =
        interval(every.map_or(TICK, |every| TICK.min(every).max(Duration::from_millis(1))));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = Instant::now();
    loop {
        let now = ticks.tick().await;
        let Some(bus) = Bus::upgrade(&bus).filter(|bus| !bus.is_closed()) else {
            return;
        };
        bus.tick();
        audit::left_out(&bus);
        // The log hears of it.
        let _capacities = bus.capacities();
        if let Some(every) = every.filter(|_| now >= due) {
            due = now + every;
            report.publish(&bus, now);
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

/// What the `$SYS` topics say that is not counted elsewhere.
#[derive(Debug)]
struct Report {
    started: Instant,
    /// The most clients that a report has seen.
    clients_maximum: u64,
    loads: Loads,
    /// When the loads were published that nobody follows.
    loads_shown: Option<Instant>,
}

impl Report {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            clients_maximum: 0,
            loads: Loads::new(now),
            loads_shown: None,
        }
    }

    /// Publishes the `$SYS` topics: those of mosquitto in its names and with its meaning, and then our own. See "`$SYS`" in
    /// `docs/mqtt.md`.
    fn publish(&mut self, bus: &Bus, now: Instant) {
        let (metrics, hub) = (bus.metrics(), bus.hub_counts());
        let (kept, kept_bytes, subscriptions) =
            bus.read(|hub| (hub.places_taken(), hub.kept_bytes(), hub.subscriptions()));
        let (groups, members) = bus.shared().groups();
        let (lost, behind) = (bus.lost(), behind(&bus.behind(CLIENTS)));
        let (connected, away) = (metrics.connections.get(), metrics.sessions_away.get());
        self.clients_maximum = self.clients_maximum.max(connected + away);
        // What a bound has kept from its receivers, on either side of the hub.
        let dropped = metrics.publishes_dropped.get() + lost.skipped;
        let accepted = metrics.connections_accepted.get();
        self.loads.update(
            now,
            [
                metrics.packets_received.get(),
                metrics.packets_sent.get(),
                dropped,
                metrics.messages_received.get(),
                metrics.messages_sent.get(),
                metrics.bytes_received.get(),
                metrics.bytes_sent.get(),
                accepted + metrics.connections_refused.get(),
                accepted,
            ],
        );
        let at = bus.clock().unix_ms();
        let uptime = now.duration_since(self.started).as_secs();
        bus.shared().change(|changes| {
            let mut show = |name: &str, value: &dyn Display| show(changes, name, value, at);
            show("version", &concat!("latchbus ", env!("CARGO_PKG_VERSION")));
            show("uptime", &format_args!("{uptime} seconds"));
            for (name, value) in [
                ("clients/connected", connected),
                ("clients/active", connected),
                ("clients/disconnected", away),
                ("clients/inactive", away),
                ("clients/total", connected + away),
                ("clients/maximum", self.clients_maximum),
                ("clients/expired", metrics.sessions_expired.get()),
                ("messages/received", metrics.packets_received.get()),
                ("messages/sent", metrics.packets_sent.get()),
                ("bytes/received", metrics.bytes_received.get()),
                ("bytes/sent", metrics.bytes_sent.get()),
                ("publish/messages/received", metrics.messages_received.get()),
                ("publish/messages/sent", metrics.messages_sent.get()),
                ("publish/messages/dropped", dropped),
                (
                    "publish/bytes/received",
                    metrics.payload_bytes_received.get(),
                ),
                ("publish/bytes/sent", metrics.payload_bytes_sent.get()),
                ("messages/stored", kept as u64),
                ("store/messages/count", kept as u64),
                ("store/messages/bytes", kept_bytes as u64),
                ("retained messages/count", kept as u64),
                (
                    "subscriptions/count",
                    (subscriptions - groups.min(subscriptions)) as u64,
                ),
                ("shared_subscriptions/count", members as u64),
                // Our own.
                ("publish/messages/accepted", hub.accepted),
                ("publish/messages/refused", metrics.publishes_refused.get()),
                ("publish/messages/conflated", lost.conflated),
                ("publish/messages/skipped", lost.skipped),
                ("publish/messages/expired", lost.expired),
            ] {
                show(name, &value);
            }
            show("clients/behind", &behind);
            let is_due = self
                .loads_shown
                .is_none_or(|at| now.duration_since(at) >= LOADS_UNFOLLOWED_EVERY);
            if is_due {
                self.loads_shown = Some(now);
            }
            self.loads.each(|name, value| {
                let name = format!("load/{name}");
                if is_due || is_followed(changes, &name) {
                    self::show(changes, &name, &format_args!("{value:.2}"), at);
                }
            });
        });
    }
}

/// The clients that have lost most, as a JSON array.
fn behind(clients: &[Behind]) -> String {
    let one = |client: &Behind| {
        let name: String = client
            .principal
            .client_id
            .chars()
            .take(NAME_CHARS)
            .collect();
        let name = quoted(&name);
        let transport = client.principal.transport;
        let (conflated, skipped) = (client.conflated, client.skipped);
        format!(
            r#"{{"client":{name},"transport":"{transport}","conflated":{conflated},"skipped":{skipped}}}"#
        )
    };
    let clients: Vec<_> = clients.iter().map(one).collect();
    format!("[{}]", clients.join(","))
}

fn is_followed(changes: &mut Changes<'_>, name: &str) -> bool {
    let topic = format!("{PREFIX}{name}");
    TopicName::parse(topic.as_str()).is_ok_and(|topic| changes.is_followed(topic))
}

fn show(changes: &mut Changes<'_>, name: &str, value: &dyn Display, at: u64) {
    let topic = format!("{PREFIX}{name}");
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
        tracing::debug!(target: "bus", %error, "no room for $SYS topics");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Principal;

    #[test]
    fn names_of_any_characters_are_json() {
        let client = Behind {
            principal: Principal::anonymous("mqtt").with_client_id("a\"b\\c\n\u{e9}"),
            conflated: 3,
            skipped: 4,
        };
        assert_eq!(
            behind(&[client]),
            r#"[{"client":"a\"b\\c\né","transport":"mqtt","conflated":3,"skipped":4}]"#
        );
        assert_eq!(behind(&[]), "[]");
    }
}
