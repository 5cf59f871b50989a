//! What each user holds of what is retained.
//!
//! Whoever publishes a value holds it. A topic counts for the holder of its last value, and the bytes of each value count for
//! its own holder, until a newer value takes its place, the topic is cleared, or it expires. It is counted where the hub
//! changes, so that nothing changes it unseen, and a hub that is restored counts again.

use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::Arc;

use latchbus_core::hub::Hub;
use latchbus_core::topic::TopicName;
use serde::{Deserialize, Serialize};

use crate::access::{Identity, Principal};
use crate::backup::Kept;
use crate::quota::{Quotas, subscriber};
use crate::{Payload, Properties, Publish, PublishRefused};

/// Whose something is: a user by name, whatever the transport, and who has no name by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// The name of a user, or the subject of a token or of a certificate.
    User(String),
    /// Of IPv6, the first 64 bits.
    Address(IpAddr),
}

impl Holder {
    /// None for the process itself, and for byte links, which have neither a name nor an address.
    pub(crate) fn of(principal: &Principal) -> Option<Self> {
        match (&principal.identity, principal.identity.name()) {
            (Identity::Process, _) => None,
            (_, Some(name)) => Some(Self::User(name.to_owned())),
            (_, None) => Some(Self::Address(subscriber(principal.address?.ip()))),
        }
    }
}

/// Who has published something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    /// See [`Payload::origin`].
    pub(crate) origin: u64,
    /// Who holds it where it is retained. None where nothing is bounded.
    pub(crate) holder: Option<Arc<Holder>>,
    /// An administrator who merges a backup: each value keeps its holder, whatever that one holds.
    pub(crate) is_exempt: bool,
}

/// How much one user may hold. None: as much as there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    topics: Option<usize>,
    bytes: Option<usize>,
}

impl Bounds {
    /// None where nothing is bounded.
    pub(crate) fn new(quotas: &Quotas) -> Option<Self> {
        let (topics, bytes) = (quotas.user_retained_topics, quotas.user_retained_bytes);
        (topics.is_some() || bytes.is_some()).then_some(Self { topics, bytes })
    }

    /// Whether who holds `now` may hold `more`. What does not grow passes, also beyond a bound that was higher once.
    pub(crate) fn check(self, now: Held, more: Held) -> Result<(), PublishRefused> {
        let is_over = |limit: Option<usize>, now: i64, more: i64| {
            limit.filter(|limit| more > 0 && now + more > signed(*limit))
        };
        if let Some(limit) = is_over(self.topics, now.topics, more.topics) {
            return Err(PublishRefused::UserTopicsFull { limit });
        }
        match is_over(self.bytes, now.bytes, more.bytes) {
            Some(limit) => Err(PublishRefused::UserBytesFull { limit }),
            None => Ok(()),
        }
    }
}

/// How much somebody holds, or by how much that changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Topics whose last value it has published.
    pub(crate) topics: i64,
    /// Bytes of the payloads of its values, and of what MQTT 5 lets publishers say beside them.
    pub(crate) bytes: i64,
}

impl Held {
    /// What of the values of one topic, oldest first, somebody holds.
    pub(crate) fn of(values: &[Value], holder: &Holder) -> Self {
        let is_held = |value: &&Value| value.holder.as_deref() == Some(holder);
        let bytes = values
            .iter()
            .filter(is_held)
            .map(|value| signed(value.bytes));
        Self {
            topics: i64::from(values.last().as_ref().is_some_and(is_held)),
            bytes: bytes.sum(),
        }
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            topics: self.topics + other.topics,
            bytes: self.bytes + other.bytes,
        }
    }

    pub(crate) const fn minus(self, other: Self) -> Self {
        Self {
            topics: self.topics - other.topics,
            bytes: self.bytes - other.bytes,
        }
    }
}

/// What counts of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) holder: Option<Arc<Holder>>,
    pub(crate) bytes: usize,
}

impl Value {
    fn new(holder: Option<&Arc<Holder>>, payload: &[u8], said: Option<&Arc<Properties>>) -> Self {
        Self {
            holder: holder.cloned(),
            bytes: payload.len() + said.map_or(0, |said| said.bytes()),
        }
    }

    pub(crate) fn of(payload: &Payload) -> Self {
        Self::new(payload.holder(), payload.bytes(), payload.properties())
    }

    pub(crate) fn published(publish: &Publish, source: &Source) -> Self {
        let said = publish.properties.as_ref();
        Self::new(source.holder.as_ref(), &publish.payload, said)
    }

    pub(crate) fn merged(value: &Kept) -> Self {
        let said = value.properties.as_ref();
        Self::new(value.holder.as_ref(), &value.payload, said)
    }
}

/// The values of a topic, oldest first.
pub(crate) fn values(hub: &Hub<Payload>, topic: TopicName<&str>) -> Vec<Value> {
    let newest_first = hub.history(topic, u64::MAX, usize::MAX);
    let values = newest_first.iter().rev();
    values.map(|value| Value::of(&value.payload)).collect()
}

/// These values of a topic that keeps its last `history`, and another.
pub(crate) fn with(values: &[Value], value: Value, history: u16) -> Vec<Value> {
    let staying = usize::from(history.max(1)) - 1;
    let leaving = values.len().saturating_sub(staying);
    let staying = values.iter().skip(leaving).cloned();
    staying.chain([value]).collect()
}

/// How much each holder holds, or by how much that changes. Who holds nothing is not here.
#[derive(Debug, Default)]
pub(crate) struct Holdings(HashMap<Arc<Holder>, Held>);

impl Holdings {
    pub(crate) fn of(&self, holder: &Holder) -> Held {
        self.0.get(holder).copied().unwrap_or_default()
    }

    /// The same name, which all values of one holder share.
    pub(crate) fn shared(&self, holder: &Holder) -> Option<Arc<Holder>> {
        let (shared, _) = self.0.get_key_value(holder)?;
        Some(Arc::clone(shared))
    }

    /// A topic has these values instead of those.
    pub(crate) fn change(&mut self, before: &[Value], after: &[Value]) {
        self.count(after, Held::plus);
        self.count(before, Held::minus);
    }

    fn count(&mut self, values: &[Value], count: fn(Held, Held) -> Held) {
        let last = values.len().saturating_sub(1);
        for (n, value) in values.iter().enumerate() {
            let Some(holder) = &value.holder else {
                continue;
            };
            let held = self.0.entry(Arc::clone(holder)).or_default();
            let this = Held {
                topics: i64::from(n == last),
                bytes: signed(value.bytes),
            };
            *held = count(*held, this);
            if *held == Held::default() {
                self.0.remove(holder);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Holder, Held)> {
        self.0.iter().map(|(holder, held)| (&**holder, *held))
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX / 4)
}
