//! What someone may do.

use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::watch;

use super::principal::{Identity, Principal};
use super::reader::Reader;

/// Who may do what. Every transport asks the same rules, through [`Client`](crate::Client).
///
/// A publish to a topic that the hub itself writes ([`is_reserved`](crate::clicks::is_reserved)) is rejected before anyone
/// is asked: no authorizer can allow it. To read such a topic is the rules' to allow, as any.
///
/// What may be subscribed to and what may be read are two questions. A subscription whose filter is wider than what its
/// principal may read (`#`) is accepted or refused as a whole by [`authorize_subscribe`](Self::authorize_subscribe); what it then
/// brings is what the [`reader`](Self::reader) lets through: of live messages, snapshots, histories, resumed sessions and shared
/// subscriptions alike.
///
/// For an example see [`Authenticator`](crate::Authenticator).
pub trait Authorizer: Send + Sync + 'static {
    /// Whether this principal may be here at all.
    fn authorize_connect(&self, _principal: &Principal) -> bool {
        true
    }

    /// Whether it may publish this.
    fn authorize_publish(&self, _principal: &Principal, _publish: &PublishRequest<'_>) -> bool {
        true
    }

    /// Whether it may subscribe with this filter, and with which quality of service. None: it may not.
    fn authorize_subscribe(
        &self,
        _principal: &Principal,
        _filter: TopicFilter<&str>,
    ) -> Option<Grant> {
        Some(Grant::default())
    }

    /// What it may read. None: everything. Principals with the same rules are best given the same reader: what one of them
    /// has looked up is looked up for all, and their subscriptions share what the hub keeps for a filter.
    fn reader(&self, _principal: &Principal) -> Option<Reader> {
        None
    }

    /// Whether it may do what operators do: see who is connected, end connections, remove devices.
    fn is_admin(&self, principal: &Principal) -> bool {
        principal.identity == Identity::Process
    }

    /// Whether there is any topic that it may publish to; when in doubt: true. Who may publish nowhere is not offered to.
    fn may_publish_anything(&self, _principal: &Principal) -> bool {
        true
    }

    /// Changes its value whenever any of these answers may have changed: all that is open is then checked again. None: they
    /// never change.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
}

/// A publish, as an [`Authorizer`] is asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishRequest<'a> {
    /// Where it goes.
    pub topic: TopicName<&'a str>,
    /// Whether it is state, which the topic keeps.
    pub retain: bool,
    /// The quality of service of an MQTT publisher, 0 to 2; [`Publish::STATE_QOS`](crate::Publish::STATE_QOS) of others.
    pub qos: u8,
}

impl<'a> PublishRequest<'a> {
    /// A publish to this topic.
    pub const fn new(topic: TopicName<&'a str>, retain: bool, qos: u8) -> Self {
        Self { topic, retain, qos }
    }
}

/// A subscription is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The greatest quality of service that an MQTT client may be granted, 0 to 2.
    pub max_qos: u8,
}

impl Grant {
    /// With a quality of service of up to this.
    pub const fn up_to(max_qos: u8) -> Self {
        Self { max_qos }
    }
}

impl Default for Grant {
    /// With any quality of service.
    fn default() -> Self {
        Self::up_to(2)
    }
}

/// The rules without users: everyone may do everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn is_admin(&self, _principal: &Principal) -> bool {
        true
    }
}
