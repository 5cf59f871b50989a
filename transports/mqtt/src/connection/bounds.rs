//! The bounds of a connection.

use core::time::Duration;
use std::sync::Arc;

use latchbus_core::topic::TopicFilter;

/// The bounds of a connection.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The largest packet that is read, in bytes. A larger one ends its connection. Default 1 MiB and 32 KiB,
    /// which is room for the longest payload of a bus as it is by default.
    pub max_packet_bytes: usize,
    /// QoS 1 and 2 messages that a client may leave unacknowledged before it gets no more; a client of
    /// MQTT 5 may ask for less. Default 256.
    pub in_flight: u16,
    /// QoS 1 and 2 messages that a client of MQTT 5 is told that it may have unacknowledged by the server, or of QoS 2
    /// not released. Default 256.
    pub receive_maximum: u16,
    /// So many of them end the connection, if that is more. A client of 3.1.1 cannot be told how many it may have, and
    /// may send many before it reads; widespread ones of MQTT 5 do not look at what they are told. But each of QoS 2 that is not
    /// released is remembered, on disk too. Default 4,096.
    pub receive_tolerance: u16,
    /// The longest that a session outlives its connection; what a client of 3.1.1 gets that asks for a
    /// persistent session. Default one day.
    pub session_expiry: Duration,
    /// Topic aliases that a client of MQTT 5 may use, and the most that it is given. Default 16.
    pub topic_aliases: u16,
    /// The longest interval of a keep-alive. A client of MQTT 5 that asks for more, or for none, is told
    /// to keep this one; in 3.1.1 it cannot be told. Default none.
    pub keep_alive: Option<Duration>,
    /// The longest client identifier, in bytes. Default 1,024.
    pub client_id_bytes: usize,
    /// Filters of subscriptions that are refused with 0x80: these, and those without wildcards that one
    /// of these matches. For tests of clients, which want to see a refusal; no access control, which is the bus's
    /// [`Authorizer`](latchbus_bus::Authorizer): what matches is delivered to wider filters. Default none.
    pub refused_filters: Arc<[TopicFilter<String>]>,
    /// Whether a publish that a rule forbids ends the connection of a client of 3.1.1, which cannot be told. If
    /// not, it is acknowledged and dropped (MQTT 3.1.1 §3.3.5). Default no.
    pub disconnect_on_denied: bool,
    /// Whether messages at QoS 0 wait for a client whose session outlives its connection. If not, it gets what comes
    /// while it is connected, as from Mosquitto, and what is retained when it subscribes (MQTT 3.1.1 §4.1, MQTT 5
    /// §4.1 leave it open). Default yes.
    pub queue_qos0: bool,
    /// Bytes that wait to be written, from which on no more messages are taken, and, at four times as
    /// many, no more packets read. Default 64 KiB.
    pub write_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_packet_bytes: (1 << 20) + (32 << 10),
            in_flight: 256,
            receive_maximum: 256,
            receive_tolerance: 4_096,
            session_expiry: Duration::from_secs(24 * 60 * 60),
            topic_aliases: 16,
            keep_alive: None,
            client_id_bytes: 1_024,
            refused_filters: Arc::default(),
            disconnect_on_denied: false,
            queue_qos0: true,
            write_bytes: 64 << 10,
        }
    }
}
