//! PUBLISH from the client: what the bus is asked, and how it is acknowledged.

use core::num::NonZeroU16;

use latchbus_bus::{Publish as BusPublish, PublishRefused, Request};
use latchbus_core::topic::TopicName;

use super::Connection;
use crate::encode::{self, Ack};
use crate::packet::{Publish, Service, Version};
use crate::session::Arrival;
use crate::{Reason, Violation};

/// A longer topic gets no alias from a client, which bounds what aliases take.
const ALIASED_TOPIC_BYTES: usize = 4_096;

impl Connection {
    pub(super) fn publish(&mut self, publish: Publish) -> Result<Option<Request>, Violation> {
        let service = publish.service;
        let topic = self.topic(publish.topic, publish.alias)?;
        if let Service::Two(id) = service {
            match self.session.incoming.arrive(id) {
                Arrival::New => {}
                Arrival::Pending => return Ok(None),
                Arrival::Repeated => {
                    encode::ack(
                        Ack::Pubrec,
                        self.version,
                        id,
                        Reason::SUCCESS,
                        &mut self.out,
                    );
                    return Ok(None);
                }
            }
        }
        self.unanswered += usize::from(service.qos() == 1);
        let in_flight = self.unanswered + self.session.incoming.len();
        let most = (self.bounds.receive_maximum).max(self.bounds.receive_tolerance);
        if in_flight > usize::from(most) {
            return Err(Violation::ReceiveMaximum(most));
        }
        Ok(Some(Request::Publish {
            id: request_id(service),
            publish: BusPublish {
                topic,
                payload: publish.payload,
                retain: publish.retain,
                qos: service.qos(),
                properties: publish.properties,
                expires_in: publish.expires_in,
                expected: None,
                notes: Box::default(),
            },
        }))
    }

    /// What a PUBLISH names as its topic, by itself or by an alias (MQTT 5 §3.3.2.3.4).
    fn topic(
        &mut self,
        topic: String,
        alias: Option<NonZeroU16>,
    ) -> Result<TopicName<String>, Violation> {
        let Some(alias) = alias else {
            if topic.is_empty() && self.version == Version::V5 {
                return Err(Violation::Protocol("neither a topic nor an alias"));
            }
            return TopicName::parse(topic).map_err(|_| Violation::TopicName);
        };
        if alias.get() > self.bounds.topic_aliases || topic.len() > ALIASED_TOPIC_BYTES {
            return Err(Violation::TopicAlias);
        }
        if topic.is_empty() {
            let unknown = Violation::Protocol("a topic alias that stands for nothing");
            return self.aliases.get(&alias).cloned().ok_or(unknown);
        }
        let topic = TopicName::parse(topic).map_err(|_| Violation::TopicName)?;
        self.aliases.insert(alias, topic.clone());
        Ok(topic)
    }

    /// The bus has rejected a publish. MQTT 5 is told so; who publishes too fast is disconnected with 0x96, which no
    /// acknowledgement has (§2.4). (A client of 3.1.1 is read more slowly instead.) For 3.1.1, which has no words for it, what a rule forbids
    /// is acknowledged and dropped (MQTT 3.1.1 §3.3.5), where the bounds have it so; what cannot be taken otherwise
    /// ends the connection: the client keeps the message, and its user finds out.
    pub(super) fn rejected(&mut self, id: Option<u64>, rejected: &PublishRefused) {
        let denied = matches!(rejected, PublishRefused::NotAllowed(..));
        let tolerated = denied && !self.bounds.disconnect_on_denied;
        let too_fast = matches!(rejected, PublishRefused::RateLimited { .. });
        if (self.version == Version::V5 && !too_fast) || tolerated {
            if let Some(id) = id {
                self.published(id, Some(rejected));
            }
            return;
        }
        match id.and_then(service) {
            Some(Service::One(_)) => self.unanswered = self.unanswered.saturating_sub(1),
            // It is new when it comes again.
            Some(Service::Two(id)) => self.session.incoming.refused(id),
            _ => {}
        }
        if too_fast {
            (self.ending).get_or_insert(Violation::RateLimited);
            return;
        }
        let cause = match rejected {
            PublishRefused::NotAllowed(..) => "not allowed",
            PublishRefused::Malformed { .. } => "malformed",
            rejected if rejected.is_too_large() => "too large",
            _ => "full",
        };
        (self.ending).get_or_insert(Violation::PublishRejected(cause));
    }

    /// The bus has answered a publish.
    pub(super) fn published(&mut self, id: u64, refused: Option<&PublishRefused>) {
        let reason = match (self.version, refused) {
            (Version::V5, Some(refused)) => Reason::from(refused),
            _ => Reason::SUCCESS,
        };
        let ack = match service(id) {
            Some(Service::One(id)) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                (Ack::Puback, id)
            }
            Some(Service::Two(id)) => {
                if reason.is_error() {
                    self.session.incoming.refused(id);
                } else {
                    self.session.incoming.accepted(id);
                }
                (Ack::Pubrec, id)
            }
            _ => return,
        };
        let words = refused.filter(|_| self.problem_information && reason.is_error());
        let (kind, id) = ack;
        match words.map(ToString::to_string) {
            Some(words) => {
                let limit = self.wire.limit;
                encode::refusing_ack(kind, id, reason, Some(&words), limit, &mut self.out);
            }
            None => encode::ack(kind, self.version, id, reason, &mut self.out),
        }
    }
}

/// A publish's packet identifier and quality of service as the id of its request.
fn request_id(service: Service) -> Option<u64> {
    Some(u64::from(service.qos()) << 16 | u64::from(service.id()?.get()))
}

/// The packet identifier of a QoS 2 publish.
pub(super) fn qos_2(request_id: u64) -> Option<NonZeroU16> {
    match service(request_id) {
        Some(Service::Two(id)) => Some(id),
        _ => None,
    }
}

fn service(request_id: u64) -> Option<Service> {
    let id = NonZeroU16::new((request_id & 0xFFFF) as u16)?;
    match request_id >> 16 {
        1 => Some(Service::One(id)),
        2 => Some(Service::Two(id)),
        _ => None,
    }
}
