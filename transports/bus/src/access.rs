//! Who may do what: the one place where a connect, a publish or a subscribe is allowed or refused.

use core::net::SocketAddr;

use latchbus_core::topic::{TopicFilter, TopicName};

/// Who asks: it comes with everything that a [`Client`](crate::Client) does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// Who that is, as far as it is known.
    pub identity: Identity,
    /// The transport's name, for example `mqtt`.
    pub transport: &'static str,
    /// What the client calls itself: an MQTT client id, or empty. Anyone may call itself anything.
    pub client_id: String,
    /// Where it connects from; none inside the process.
    pub address: Option<SocketAddr>,
}

/// Who a [`Principal`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// Nobody has asked.
    Anonymous,
    /// A user whose name was proved.
    User(String),
    /// The program that holds the bus.
    Process,
}

impl Principal {
    /// The program that holds the bus in its own process.
    pub fn process() -> Self {
        Self {
            identity: Identity::Process,
            ..Self::anonymous("in-process")
        }
    }

    /// Someone whom nobody has asked for a name, on a transport of this name.
    pub const fn anonymous(transport: &'static str) -> Self {
        Self {
            identity: Identity::Anonymous,
            transport,
            client_id: String::new(),
            address: None,
        }
    }

    /// A user whose name was proved, on a transport of this name.
    pub fn user(user: String, transport: &'static str) -> Self {
        Self {
            identity: Identity::User(user),
            ..Self::anonymous(transport)
        }
    }

    /// The same with what the client calls itself.
    #[must_use]
    pub fn with_client_id(self, client_id: impl Into<String>) -> Self {
        let client_id = client_id.into();
        Self { client_id, ..self }
    }

    /// The same with where it connects from.
    #[must_use]
    pub fn with_address(self, address: impl Into<Option<SocketAddr>>) -> Self {
        let address = address.into();
        Self { address, ..self }
    }

    /// What tells it from others in a [`LogLimit`](crate::LogLimit): its client id, or where it has none its
    /// address without the port, which changes with each connection.
    pub fn log_key(&self, what: &str) -> String {
        let (transport, client_id) = (self.transport, &self.client_id);
        match self.address {
            Some(address) if client_id.is_empty() => format!("{what} {transport} {}", address.ip()),
            _ => format!("{what} {transport} {client_id}"),
        }
    }
}

/// Who may do what. Every transport asks the same rules, through [`Client`](crate::Client).
///
/// A publish to a topic that the hub itself writes ([`is_reserved`](crate::clicks::is_reserved)) is rejected before anyone
/// is asked: no authorizer can allow it.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether this principal may be here at all.
    fn authorize_connect(&self, _principal: &Principal) -> bool {
        true
    }

    /// Whether it may publish to this topic.
    fn authorize_publish(&self, _principal: &Principal, _topic: TopicName<&str>) -> bool {
        true
    }

    /// Whether it may subscribe with this filter.
    fn authorize_subscribe(&self, _principal: &Principal, _filter: TopicFilter<&str>) -> bool {
        true
    }
}

/// The rules without users: everyone may do everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {}
