//! What the log says of connections, under the target `mqtt`: who has connected, who has left and why, and who was
//! refused.

use core::net::SocketAddr;

use latchbus_bus::log::{Place, place, shown};
use latchbus_bus::{Bus, Client, ConnectRefused, Ended, Principal, PublishRefused};
use tracing::{field, info, warn};

use super::Server;
use super::link::LinkError;
use crate::packet::Goodbye;
use crate::{Connect, Reason, Version, Violation};

/// What a line says of a client when it has connected.
#[derive(Debug)]
pub(super) struct Arrived {
    protocol: &'static str,
    keep_alive: u16,
    clean: bool,
    will: bool,
}

impl From<&Connect> for Arrived {
    fn from(connect: &Connect) -> Self {
        Self {
            protocol: name(connect.version),
            keep_alive: connect.keep_alive_secs,
            clean: connect.clean_start,
            will: connect.will.is_some(),
        }
    }
}

impl Arrived {
    pub(super) fn log(self, client: &Client, session_present: bool) {
        let principal = client.principal();
        let (name, user, address) = who(client, &principal);
        let Self {
            protocol,
            keep_alive,
            clean,
            will,
        } = self;
        info!(
            target: "mqtt",
            client = name,
            user,
            address,
            protocol,
            keep_alive,
            clean,
            session_present,
            will,
            "client connected"
        );
    }
}

const fn name(version: Version) -> &'static str {
    match version {
        Version::V3 => "MQTT 3.1.1",
        Version::V5 => "MQTT 5",
    }
}

/// Who a line is about: what the client calls itself, who has signed in, and from where.
fn who<'a>(client: &Client, principal: &'a Principal) -> (&'a str, Option<&'a str>, Option<Place>) {
    let (name, user) = (shown(&principal.client_id), principal.shown_user());
    (name, user, client.shown_address())
}

/// Where a connection comes from of whose client nothing is known.
fn from(address: Option<SocketAddr>) -> Option<Place> {
    place("mqtt", address)
}

/// Says that a session has ended because its client stayed away, or that it had by the end of a restart.
pub(super) fn expired(client: &Client) {
    let principal = client.principal();
    let (name, user, _) = who(client, &principal);
    info!(target: "mqtt", client = name, user, "session expired");
}

/// Says why a connection has ended. What a setting can change, and who took it over, is a warning.
pub(super) fn left(
    server: &Server,
    client: &Client,
    by: Option<SocketAddr>,
    ended: &Ended<LinkError, LinkError>,
    goodbye: Option<Goodbye>,
) {
    let principal = client.principal();
    let (name, user, address) = who(client, &principal);
    let limit = server.0.bus.log_limit();
    match ended {
        Ended::Stopped => {
            let by = by.map(field::display);
            if let Some(left_out) = limit.allow(&principal.log_key("taken over")) {
                warn!(
                    target: "mqtt",
                    client = name,
                    user,
                    address,
                    by,
                    left_out,
                    "client disconnected: another connection with the same client identifier has taken over"
                );
            }
        }
        Ended::Receiver(LinkError::Violation(Violation::TooLarge { bytes, limit: most })) => {
            if let Some(left_out) = limit.allow(&principal.log_key("packet too large")) {
                warn!(
                    target: "mqtt",
                    client = name,
                    user,
                    address,
                    bytes,
                    limit = most,
                    setting = "limits.packet_bytes",
                    left_out,
                    "client disconnected: packet too large"
                );
            }
        }
        Ended::Receiver(LinkError::Violation(Violation::Budget { limit: most })) => {
            if let Some(left_out) = limit.allow(&principal.log_key("budget")) {
                warn!(
                    target: "mqtt",
                    client = name,
                    user,
                    address,
                    limit = most,
                    setting = "limits.incoming_bytes",
                    left_out,
                    "client disconnected: no memory for its unfinished packet"
                );
            }
        }
        Ended::Left => {
            let (code, reason) = match &goodbye {
                Some(Goodbye { reason, words }) => (
                    (*reason != Reason::SUCCESS).then(|| format!("{:#04x}", reason.0)),
                    words.as_deref(),
                ),
                None => (None, None),
            };
            info!(target: "mqtt", client = name, user, address, code, reason, "client disconnected: DISCONNECT");
        }
        Ended::SignedOut(why) => {
            info!(target: "mqtt", client = name, user, address, "client disconnected: {why}");
        }
        Ended::Closing => {
            info!(target: "mqtt", client = name, user, address, "client disconnected: the server stops");
        }
        Ended::Receiver(error) | Ended::Sender(error) => {
            info!(target: "mqtt", client = name, user, address, "client disconnected: {error}");
        }
    }
}

/// Messages that a client has not been sent because they are larger than it accepts.
pub(super) fn too_large(client: &Client, messages: u64) {
    let principal = client.principal();
    if messages > 0
        && let Some(left_out) = client
            .bus()
            .log_limit()
            .allow(&principal.log_key("too large for"))
    {
        let (name, user, address) = who(client, &principal);
        warn!(
            target: "mqtt",
            client = name,
            user,
            address,
            messages,
            left_out,
            "messages not sent: larger than the Maximum Packet Size of the client"
        );
    }
}

/// A CONNECT that is refused.
pub(super) fn refused(
    server: &Server,
    (client, user, address): (&str, Option<&str>, Option<SocketAddr>),
    version: Version,
    reason: Reason,
    cause: &str,
) {
    let key = match (client, address) {
        ("", Some(address)) => format!("refused mqtt {}", address.ip()),
        _ => format!("refused mqtt {client}"),
    };
    if let Some(left_out) = server.0.bus.log_limit().allow(&key) {
        let (client, address) = (shown(client), from(address));
        let client = (!client.is_empty()).then_some(client);
        // Of a version that there is not, the answer alone has the form of 3.1.1.
        let known = reason != Reason::UNSUPPORTED_VERSION;
        let protocol = known.then(|| name(version));
        let code = format!("{:#04x}", reason.in_connack(version));
        let user = user.map(shown);
        warn!(target: "mqtt", client, user, address, protocol, code, left_out, "CONNECT refused: {cause}");
    }
}

/// A filter that the settings refuse.
pub(super) fn refused_filter(client: &Client, filter: &str) {
    let cause = "the settings refuse this filter";
    client.log_refused_filter(filter, cause, None, Some("Bounds::refused_filters"));
}

/// A message that a client has refused, which is not sent to it again.
pub(super) fn refused_message(client: &Client, reason: Reason) {
    let principal = client.principal();
    let key = principal.log_key("refuses messages");
    if let Some(left_out) = client.bus().log_limit().allow(&key) {
        let (name, user, address) = who(client, &principal);
        let code = format!("{:#04x}", reason.0);
        warn!(target: "mqtt", client = name, user, address, code, left_out, "message refused by the client");
    }
}

/// A session that is not kept over a restart, because the store does not take what is to be kept of it.
pub(super) fn not_stored(client: &Client, cause: &PublishRefused) {
    let principal = client.principal();
    let key = principal.log_key("not stored");
    if let Some(left_out) = client.bus().log_limit().allow(&key) {
        let (name, user, address) = who(client, &principal);
        warn!(
            target: "mqtt",
            client = name,
            user,
            address,
            left_out,
            "session not kept over a restart: {cause}"
        );
    }
}

/// The will of a bridge that would say on this server that the bridge is gone: `$SYS` is the server's own.
pub(super) fn bridge_will_left_out(client: &Client, topic: &str) {
    let principal = client.principal();
    let (name, user, address) = who(client, &principal);
    let topic = shown(topic);
    info!(target: "mqtt", client = name, user, address, topic, "will of a bridge left out: $SYS is the server's own");
}

/// A client whose session and will were stored, and which the rules do not allow any more.
pub(super) fn not_restored(
    bus: &Bus,
    (client, user): (&str, Option<&str>),
    cause: &ConnectRefused,
) {
    if let Some(left_out) = bus
        .log_limit()
        .allow(&format!("not restored mqtt {client}"))
    {
        let (client, user) = (shown(client), user.map(shown));
        warn!(target: "mqtt", client, user, left_out, "session and will not restored: {cause}");
    }
}

/// A session that has ended because more are away than may be: `setting` bounds their number to `most`.
pub(super) fn dropped(client: &Client, most: usize, setting: &str) {
    let principal = client.principal();
    let key = principal.log_key("session dropped");
    if let Some(left_out) = client.bus().log_limit().allow(&key) {
        let (name, user, address) = who(client, &principal);
        warn!(
            target: "mqtt",
            client = name,
            user,
            address,
            limit = most,
            setting,
            left_out,
            "session ended, with what waits for its client: others went away, and it was away the longest"
        );
    }
}

/// A connection that ends before its CONNECT is answered. One that was only opened and closed again, as health checks
/// do, is no news.
pub(super) fn not_begun(server: &Server, address: Option<SocketAddr>, error: &LinkError) {
    let quiet = match error {
        LinkError::Eof => true,
        LinkError::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        LinkError::Violation(_) | LinkError::ProxyHeader => false,
    };
    let shown = from(address);
    if quiet {
        tracing::debug!(target: "mqtt", address = shown, "connection ended before CONNECT: {error}");
        return;
    }
    let key = format!("no connect {:?}", address.map(|address| address.ip()));
    if let Some(left_out) = server.0.bus.log_limit().allow(&key) {
        match error {
            LinkError::Violation(Violation::TooLarge { bytes, limit }) => warn!(
                target: "mqtt",
                address = shown,
                bytes,
                limit,
                setting = "limits.packet_bytes",
                left_out,
                "connection closed: CONNECT too large"
            ),
            LinkError::Violation(violation) => warn!(
                target: "mqtt",
                address = shown,
                left_out,
                "connection closed: no valid CONNECT: {violation}"
            ),
            LinkError::ProxyHeader => warn!(
                target: "mqtt",
                address = shown,
                setting = "trusted_proxies",
                left_out,
                "connection closed: {error}"
            ),
            _ => {
                let after = server.0.config.connect_timeout.as_secs();
                warn!(
                    target: "mqtt",
                    address = shown,
                    left_out,
                    "connection closed: no CONNECT within {after} s"
                );
            }
        }
    }
}

/// A header of the PROXY protocol that a trusted proxy has not sent as it should.
pub(super) fn broken_header(server: &Server, proxy: Option<SocketAddr>, error: &std::io::Error) {
    let key = format!("proxy mqtt {:?}", proxy.map(|proxy| proxy.ip()));
    if let Some(left_out) = server.0.bus.log_limit().allow(&key) {
        let proxy = proxy.map(field::display);
        warn!(target: "mqtt", proxy, left_out, %error, "closed the connection of a proxy");
    }
}

/// A connection that ends before its first byte of MQTT: in a TLS handshake.
pub(super) fn not_begun_below(
    server: &Server,
    address: Option<SocketAddr>,
    error: &std::io::Error,
) {
    let shown = from(address);
    if latchbus_bus::accept::is_gone(error) {
        tracing::debug!(target: "mqtt", address = shown, "connection ended before CONNECT: {error}");
        return;
    }
    let key = format!("no connect {:?}", address.map(|address| address.ip()));
    if let Some(left_out) = server.0.bus.log_limit().allow(&key) {
        warn!(target: "mqtt", address = shown, left_out, "connection closed: {error}");
    }
}

/// A connection for which there is no room.
pub(super) fn no_room(server: &Server, address: Option<SocketAddr>) {
    if let Some(left_out) = server.0.bus.log_limit().allow("connections mqtt") {
        let (address, limit) = (from(address), server.0.config.max_connections);
        warn!(
            target: "mqtt",
            address,
            limit,
            setting = "limits.connections",
            left_out,
            "connection refused: too many connections"
        );
    }
}
