//! `/metrics`: what was counted, as Prometheus reads it (text format 0.0.4).

use core::fmt::{Display, Write as _};

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use latchbus_bus::{Histogram, Principal, Table};
use latchbus_core::hub::Hub;

use super::App;
use super::error::ApiError;
use super::sign_in::client;

/// Clients that are named for what they have lost.
const CLIENTS_SHOWN: usize = 16;

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who reads it signs in, where that is asked for. Clients are named to administrators only.
pub(super) async fn metrics(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    let names_clients = client(&app, &request).await?.may_administer();
    Ok(([(CONTENT_TYPE, FORMAT)], text(&app, names_clients)).into_response())
}

fn text(app: &App, names_clients: bool) -> String {
    let (bus, counts) = (&app.0.bus, &app.0.counts);
    let (metrics, hub, mqtt) = (bus.metrics(), bus.hub_counts(), app.0.mqtt.metrics());
    let (kept, subscriptions) = bus.read(|hub: &Hub<_>| (hub.places_taken(), hub.subscriptions()));
    let lost = bus.lost();

    let mut out = Page::default();
    out.family("build_info", "gauge", "The version of this program.");
    out.sample(
        "build_info",
        concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
        1,
    );

    out.gauge(
        "connections",
        "MQTT and WebSocket connections that are open.",
        metrics.connections.get(),
    );
    out.counter(
        "connections_accepted_total",
        "MQTT and WebSocket connections that were accepted.",
        metrics.connections_accepted.get(),
    );
    out.counter(
        "connections_refused_total",
        "MQTT and WebSocket connections that a bound or a rule refused.",
        metrics.connections_refused.get(),
    );
    out.family(
        "sign_ins_refused_total",
        "counter",
        "Sign-ins that were refused, over all transports.",
    );
    for (cause, refused) in metrics.sign_ins_refused.by_cause() {
        let labels = format!("{{cause=\"{cause}\"}}");
        out.sample("sign_ins_refused_total", &labels, refused);
    }
    out.counter(
        "messages_received_total",
        "Messages that peers published.",
        metrics.messages_received.get(),
    );
    out.counter(
        "messages_sent_total",
        "Messages that were sent to subscribers.",
        metrics.messages_sent.get(),
    );
    for (name, help, value) in [
        (
            "received_bytes_total",
            "Bytes that were read from MQTT, WebSocket and serial connections.",
            &metrics.bytes_received,
        ),
        (
            "sent_bytes_total",
            "Bytes that were written to MQTT, WebSocket and serial connections.",
            &metrics.bytes_sent,
        ),
        (
            "received_packets_total",
            "MQTT packets, WebSocket messages and serial frames that came.",
            &metrics.packets_received,
        ),
        (
            "sent_packets_total",
            "MQTT packets, WebSocket messages and serial frames that were sent.",
            &metrics.packets_sent,
        ),
    ] {
        out.counter(name, help, value.get());
    }
    out.counter(
        "messages_conflated_total",
        "Values that subscriptions did not take because a newer one had replaced them.",
        lost.conflated,
    );
    out.counter(
        "messages_skipped_total",
        "Events that subscriptions did not take before they were gone.",
        lost.skipped,
    );
    out.counter(
        "messages_expired_total",
        "Messages that were not delivered because their time was over.",
        lost.expired,
    );
    out.family(
        "client_lost",
        "gauge",
        "Values conflated and events skipped for each of the clients that lost the most.",
    );
    let behind = names_clients.then(|| bus.behind(CLIENTS_SHOWN));
    for behind in behind.into_iter().flatten() {
        let Principal {
            transport,
            client_id,
            ..
        } = &behind.principal;
        let labels = format!(
            "{{transport=\"{transport}\",client=\"{}\"}}",
            escaped(client_id)
        );
        out.sample("client_lost", &labels, behind.lost());
    }

    out.counter(
        "publishes_accepted_total",
        "Publishes and clears that the hub accepted.",
        hub.accepted,
    );
    out.counter(
        "publishes_dropped_total",
        "Of the refused publishes, those that found a table full: retained values, rooms, devices.",
        metrics.publishes_dropped.get(),
    );
    out.counter(
        "publishes_refused_total",
        "Publishes that a rule, a bound or a wrong form refused.",
        metrics.publishes_refused.get(),
    );
    out.counter(
        "publishes_not_allowed_total",
        "Of the refused publishes, those that a rule refused.",
        metrics.publishes_not_allowed.get(),
    );
    out.counter(
        "publishes_too_large_total",
        "Of the refused publishes, those above a limit for payload, topic or properties.",
        metrics.publishes_too_large.get(),
    );
    out.counter(
        "publishes_rate_limited_total",
        "Of the refused publishes, those that came faster than their user may publish.",
        metrics.publishes_rate_limited.get(),
    );
    out.counter(
        "publishes_delayed_total",
        "Publishes of MQTT 3.1.1 that were read later because they came faster.",
        metrics.publishes_delayed.get(),
    );
    out.counter(
        "connections_over_quota_total",
        "Connections refused because their user or address has as many as it may.",
        metrics.connections_over_quota.get(),
    );
    out.counter(
        "subscriptions_over_quota_total",
        "Subscriptions refused because their user has as many as it may.",
        metrics.subscriptions_over_quota.get(),
    );
    out.counter(
        "publishes_over_quota_total",
        "Of the publishes that found a table full, those whose user holds as many retained topics or bytes as it may.",
        metrics.publishes_over_quota.get(),
    );
    out.counter(
        "serial_messages_too_large_total",
        "Messages that were not sent over a serial link because they are too long for a device.",
        metrics.serial_messages_too_large.get(),
    );
    out.gauge(
        "kept_values",
        "Values that are kept, over all topics.",
        kept,
    );
    let incoming = bus.incoming();
    out.gauge(
        "incoming_bytes",
        "Bytes of messages that are half received, of those that count.",
        incoming.held(),
    );
    out.gauge(
        "incoming_bytes_limit",
        "How many there may be over all connections (limits.incoming_bytes).",
        incoming.limit(),
    );
    for capacity in bus.capacities() {
        let (name, help) = match capacity.table {
            Table::Retained => (
                "kept_values_of_peers",
                "Of the kept values, those that count for their limit: all but the hub's own topics.",
            ),
            Table::Rooms => ("rooms", "Rooms that are known."),
            Table::RoomDevices => (
                "room_devices",
                "Devices that are known of the room that has the most.",
            ),
            Table::DeviceIncarnations => (
                "device_incarnations",
                "Incarnations that are known of the device that has the most.",
            ),
            _ => continue,
        };
        out.gauge(name, help, capacity.taken);
        let setting = capacity.table.setting();
        let limit = setting.trim_start_matches("limits.");
        out.gauge(
            &format!("{limit}_limit"),
            &format!("How many there may be ({setting})."),
            capacity.limit,
        );
    }
    out.gauge("subscriptions", "Subscriptions.", subscriptions);
    out.counter(
        "subscriptions_refused_total",
        "Subscriptions that a bound refused.",
        hub.subscriptions_refused,
    );

    out.gauge(
        "devices",
        "Devices that are known, over all rooms.",
        metrics.devices.get(),
    );
    out.counter(
        "clicks_malformed_total",
        "Click reports and presses that were malformed.",
        metrics.clicks_malformed.get(),
    );
    out.counter(
        "clicks_stale_total",
        "Click reports of incarnations that were folded before.",
        metrics.clicks_stale.get(),
    );
    out.counter(
        "presses_repeated_total",
        "Presses that had been counted before, by their id.",
        metrics.presses_repeated.get(),
    );

    out.gauge(
        "store_healthy",
        "1 while state can be made durable, or nothing is to be stored.",
        u8::from(bus.health().is_ok()),
    );
    out.counter(
        "store_commits_total",
        "Commits to the store.",
        metrics.commits.get(),
    );
    out.counter(
        "store_commits_failed_total",
        "Commits that failed and were tried again.",
        metrics.commits_failed.get(),
    );
    out.histogram(
        "store_commit_seconds",
        "How long commits to the store took, those that failed too.",
        &metrics.commit_time,
    );
    out.gauge(
        "store_bytes",
        "The size of the store on disk.",
        metrics.store_bytes.get(),
    );
    out.gauge(
        "store_loaded",
        "Values, clears, events and devices that were loaded at the start.",
        metrics.loaded.get(),
    );
    out.gauge(
        "store_load_seconds",
        "How long that took.",
        metrics.load_micros.get() as f64 / 1e6,
    );

    out.gauge(
        "mqtt_sessions_away",
        "MQTT sessions that are kept while their clients are away.",
        mqtt.sessions_away.get(),
    );
    out.counter(
        "mqtt_sessions_restored_total",
        "MQTT sessions that were there again after the start.",
        mqtt.sessions_restored.get(),
    );
    out.counter(
        "mqtt_sessions_dropped_total",
        "MQTT sessions that were dropped because there were too many.",
        mqtt.sessions_dropped.get(),
    );
    out.counter(
        "mqtt_takeovers_total",
        "MQTT connections that another one of the same client id has ended.",
        mqtt.takeovers.get(),
    );
    out.counter(
        "mqtt_turned_away_total",
        "MQTT connections beyond the bound that were told so.",
        mqtt.turned_away.get(),
    );
    out.counter(
        "mqtt_connect_timeouts_total",
        "MQTT connections whose CONNECT did not come in time.",
        mqtt.connect_timeouts.get(),
    );
    out.counter(
        "mqtt_violations_total",
        "MQTT connections that ended because the client broke the protocol or was silent too long.",
        mqtt.violations.get(),
    );
    out.counter(
        "mqtt_rejected_publish_disconnects_total",
        "Connections of MQTT 3.1.1 that ended because a publish was rejected, which that version cannot be told.",
        mqtt.rejected_publish_disconnects.get(),
    );
    out.counter(
        "mqtt_messages_too_large_total",
        "Messages that were not sent because they are larger than the MQTT client accepts.",
        mqtt.messages_too_large.get(),
    );

    if let Some(socketio) = &app.0.socketio {
        let socketio = socketio.metrics();
        out.gauge(
            "socketio_sessions",
            "Socket.IO sessions, over polls and over WebSocket.",
            socketio.sessions.get(),
        );
        out.counter(
            "socketio_upgrades_total",
            "Socket.IO sessions that went over from polls to WebSocket.",
            socketio.upgrades.get(),
        );
        out.counter(
            "socketio_ping_timeouts_total",
            "Socket.IO sessions that ended because no pong came in time.",
            socketio.ping_timeouts.get(),
        );
        out.counter(
            "socketio_violations_total",
            "Socket.IO sessions that ended because the client broke the protocol.",
            socketio.violations.get(),
        );
    }

    out.gauge(
        "http_connections",
        "HTTP connections that are open and have not become WebSockets.",
        counts.connections.get(),
    );
    out.counter(
        "http_connections_refused_total",
        "HTTP connections that a bound refused.",
        counts.connections_refused.get(),
    );
    out.family(
        "http_responses_total",
        "counter",
        "Answers over HTTP, by the class of their status.",
    );
    for (class, answers) in counts.answers() {
        out.sample(
            "http_responses_total",
            &format!("{{class=\"{class}xx\"}}"),
            answers,
        );
    }
    out.0
}

/// A label's value, in which the format gives three characters a meaning.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

/// The text as it grows. That a string grows cannot fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            let label = format!("{{le=\"{}\"}}", bound.as_secs_f64());
            self.sample(&bucket, &label, count);
        }
        let count = histogram.count();
        self.sample(&bucket, "{le=\"+Inf\"}", count);
        let sum = format!("{name}_sum");
        self.sample(&sum, "", histogram.sum().as_secs_f64());
        self.sample(&format!("{name}_count"), "", count);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(
            self.0,
            "# HELP latchbus_{name} {help}\n# TYPE latchbus_{name} {kind}"
        );
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "latchbus_{name}{labels} {value}");
    }
}
