//! Who may do what: the one place where a connect, a publish or a subscribe is allowed or refused.

use core::net::SocketAddr;

use latchbus_core::clicks;
use latchbus_core::topic::{TopicFilter, TopicName};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The transport's name, for example `mqtt`.
    pub transport: &'static str,
    /// What the peer calls itself: an MQTT client id, or empty.
    pub name: String,
    /// Where it connects from; none inside the process.
    pub address: Option<SocketAddr>,
}

impl Peer {
    /// A program that holds the bus in its own process.
    pub const fn in_process() -> Self {
        Self {
            transport: "in-process",
            name: String::new(),
            address: None,
        }
    }

    /// What tells this peer from others in a [`LogLimit`](crate::LogLimit): its name, or where it has none its
    /// address without the port, which changes with each connection.
    pub fn log_key(&self, what: &str) -> String {
        let (transport, name) = (self.transport, &self.name);
        match self.address {
            Some(address) if name.is_empty() => format!("{what} {transport} {}", address.ip()),
            _ => format!("{what} {transport} {name}"),
        }
    }
}

/// Rules for peers. Every transport asks the same rules, through [`Client`](crate::Client).
pub trait Access: Send + Sync + 'static {
    /// Whether this peer may be here at all.
    fn may_connect(&self, _peer: &Peer) -> bool {
        true
    }

    /// Whether it may publish to this topic.
    fn may_publish(&self, _peer: &Peer, _topic: TopicName<&str>) -> bool {
        true
    }

    /// Whether it may subscribe with this filter.
    fn may_subscribe(&self, _peer: &Peer, _filter: TopicFilter<&str>) -> bool {
        true
    }
}

/// The rules without users: everything is open, but for the topics that the hub itself writes
/// ([`clicks::is_reserved`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct ReservedTopics;

impl Access for ReservedTopics {
    fn may_publish(&self, _peer: &Peer, topic: TopicName<&str>) -> bool {
        !clicks::is_reserved(topic.as_str())
    }
}
