//! One message on its way to one client, in the form that the client wants.

use core::num::NonZeroU16;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use latchbus_bus::{Clock, Delivery, Encoding};

use crate::encode;
use crate::packet::{Options, Service, Version};
use crate::properties::{Added, write_said};

/// Under this name a delivery keeps what its publisher said, as the properties of MQTT 5 that all subscribers share.
const SAID: Encoding = Encoding::new("mqtt 5 properties");

/// A message as one subscription brings it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) subscription: u64,
    pub(crate) delivery: Delivery,
    pub(crate) retain: bool,
    pub(crate) options: Options,
}

/// How the peer wants its packets.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) version: Version,
    /// The largest packet that it takes, in bytes.
    pub(crate) limit: Option<usize>,
    /// The epoch of the hub.
    pub(crate) epoch: u64,
    /// Tells what is left of the time of a message.
    pub(crate) clock: Clock,
    pub(crate) aliases: Aliases,
}

/// The topics that have an alias on a connection: the first that were sent, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    most: u16,
    topics: BTreeMap<Arc<str>, NonZeroU16>,
}

impl Aliases {
    pub(crate) fn new(most: u16) -> Self {
        Self {
            most,
            topics: BTreeMap::new(),
        }
    }

    /// The alias of a topic, and whether the peer knows it.
    fn of(&self, topic: &str) -> Option<(NonZeroU16, bool)> {
        if self.most == 0 {
            return None;
        }
        if let Some(alias) = self.topics.get(topic) {
            return Some((*alias, true));
        }
        let next = u16::try_from(self.topics.len() + 1).ok()?;
        let next = NonZeroU16::new(next).filter(|next| next.get() <= self.most)?;
        Some((next, false))
    }
}

impl Message {
    /// Appends a PUBLISH; false when it is larger than the client accepts.
    pub(crate) fn encode(
        &self,
        service: Service,
        dup: bool,
        wire: &mut Wire,
        out: &mut BytesMut,
    ) -> bool {
        let topic = self.delivery.topic.inner();
        let packet = encode::Outgoing {
            topic,
            payload: self.delivery.payload.bytes(),
            qos: service.qos(),
            id: service.id(),
            retain: self.retain,
            dup,
            said: Bytes::new(),
            added: Added::default(),
        };
        if wire.version == Version::V3 {
            return packet.encode(wire.version, wire.limit, out);
        }
        let packet = encode::Outgoing {
            said: self.said(),
            added: self.added(wire),
            ..packet
        };
        let Some((alias, is_known)) = wire.aliases.of(topic) else {
            return packet.encode(wire.version, wire.limit, out);
        };
        let aliased = encode::Outgoing {
            topic: if is_known { "" } else { topic },
            said: packet.said.clone(),
            added: Added {
                alias: Some(alias),
                ..self.added(wire)
            },
            ..packet
        };
        if aliased.encode(wire.version, wire.limit, out) {
            if !is_known {
                wire.aliases.topics.insert(Arc::clone(topic), alias);
            }
            return true;
        }
        // Without the bytes of the alias it may fit.
        packet.encode(wire.version, wire.limit, out)
    }

    fn said(&self) -> Bytes {
        let payload = &self.delivery.payload;
        let said = payload.properties();
        said.map_or_else(Bytes::new, |said| {
            payload.encoded(SAID, || write_said(said)).clone()
        })
    }

    fn added(&self, wire: &Wire) -> Added {
        let (delivery, options) = (&self.delivery, &self.options);
        // MQTT-3.3.2-6: what is left.
        let expires_in_secs = delivery.payload.expires_at().map(|at| {
            let left = at
                .get()
                .saturating_sub(wire.clock.deadline_ms())
                .div_ceil(1_000);
            u32::try_from(left).unwrap_or(u32::MAX).max(1)
        });
        Added {
            expires_in_secs,
            identifier: options.identifier,
            alias: None,
            rev: (options.rev).then(|| format!("{:x}:{}", wire.epoch, delivery.rev)),
            at: (options.at).then(|| delivery.at.to_string()),
        }
    }
}
