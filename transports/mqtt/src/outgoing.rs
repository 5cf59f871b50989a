//! The QoS 1 and 2 messages on their way to one client, in order.

use core::num::NonZeroU16;
use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::BytesMut;
use latchbus_bus::Delivery;
use latchbus_core::topic::TopicName;

use crate::Reason;
use crate::encode::{self, Ack};
use crate::ledger::Ledger;
use crate::message::{Message, Wire};
use crate::packet::{Options, Service, Version};
use crate::record::{MessageRecord, OutgoingRecord, Part};

/// Messages that the client has not acknowledged. They stay while it is away and are sent again, in the
/// same order and with the same identifiers, when it returns (MQTT 3.1.1 §4.4).
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    flights: VecDeque<Flight>,
    /// So many from the front were sent over the present connection; the others are sent again, up to the
    /// first that has to be stored before.
    sent: usize,
    last_id: u16,
    last_order: u64,
}

#[derive(Debug)]
struct Flight {
    service: Service,
    stage: Stage,
    repeated: bool,
    subscription: u64,
    rev: u64,
    /// Its place among all that there were.
    order: u64,
    gate: Gate,
}

/// Whether what a flight sends next may be sent: in a session that is kept on disk, a message is on its way, and
/// one of QoS 2 is released, only when the disk knows it. So it has its identifier over a restart (MQTT-4.4.0-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// It is to be stored.
    Wanted,
    /// It is being stored.
    Asked,
}

#[derive(Debug)]
enum Stage {
    /// Waits for PUBACK or PUBREC.
    Published(Message),
    /// PUBREL was sent, PUBCOMP is to come.
    Released,
    /// The time of a QoS 2 message that was sent is over, or the rules forbid it now, and no PUBREC has come: it is not sent again. The client may
    /// have it, and keeps its identifier then: PUBREL was sent over one connection, for which PUBCOMP is to come.
    Expired,
}

impl Flight {
    /// What is stored of it.
    fn part(&self) -> Option<Part> {
        match self.service {
            Service::Zero => None,
            Service::One(id) => Some(Part::OutgoingOnce(id)),
            Service::Two(id) => Some(Part::Outgoing(id)),
        }
    }

    /// Whether its time is over before the client has said that it has it.
    fn has_expired(&self, wire: &Wire) -> bool {
        match &self.stage {
            Stage::Published(message) => {
                (message.delivery.payload).has_expired(wire.clock.deadline_ms())
            }
            Stage::Released | Stage::Expired => false,
        }
    }

    /// Whether the client may not be sent it any more.
    fn is_forbidden(&self, may_receive: impl Fn(TopicName<&str>) -> bool) -> bool {
        match &self.stage {
            Stage::Published(message) => !may_receive(message.delivery.topic.borrowed()),
            Stage::Released | Stage::Expired => false,
        }
    }

    /// Whether the client may wait for a PUBREL.
    fn may_be_received(&self) -> bool {
        self.repeated && self.service.qos() == 2
    }
}

impl Outgoing {
    /// How many unacknowledged messages there are.
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether all that there was before this connection has been sent over it.
    pub(crate) fn caught_up(&self) -> bool {
        self.sent == self.flights.len()
    }

    /// Whether something waits to be sent again and the client takes it.
    pub(crate) fn may_resend(&self, window: usize) -> bool {
        let next = self.flights.get(self.sent);
        self.sent < window && next.is_some_and(|flight| flight.gate == Gate::Open)
    }

    /// A new connection: everything is to be sent again.
    pub(crate) fn rewind(&mut self) {
        let sent = core::mem::take(&mut self.sent);
        for (place, flight) in self.flights.iter_mut().enumerate() {
            flight.repeated |= place < sent;
            if flight.gate == Gate::Asked {
                flight.gate = Gate::Wanted;
            }
        }
    }

    /// Lets go what is at QoS 0 and was not sent.
    pub(crate) fn drop_qos0(&mut self) {
        self.flights
            .retain(|flight| flight.service != Service::Zero);
    }

    /// Writes down what is to be stored before it may be sent.
    pub(crate) fn note(&mut self, ledger: &mut Ledger) {
        for flight in &mut self.flights {
            if flight.gate == Gate::Wanted
                && let Some(part) = flight.part()
            {
                flight.gate = Gate::Asked;
                ledger.note(part.keep(&OutgoingRecord {
                    subscription: flight.subscription,
                    rev: flight.rev,
                    order: flight.order,
                    message: match &flight.stage {
                        Stage::Published(message) => {
                            Some(MessageRecord::new(&message.delivery, message.retain))
                        }
                        Stage::Released | Stage::Expired => None,
                    },
                }));
            }
        }
    }

    /// Whether something is to be stored before it may be sent.
    pub(crate) fn has_notes(&self) -> bool {
        (self.flights.iter()).any(|flight| flight.gate == Gate::Wanted)
    }

    /// What was written down is stored.
    pub(crate) fn stored(&mut self) {
        for flight in &mut self.flights {
            if flight.gate == Gate::Asked {
                flight.gate = Gate::Open;
            }
        }
    }

    /// The connection has ended: what was stored and never sent is new to the client, whenever it comes.
    pub(crate) fn forget_unsent(&mut self, ledger: &mut Ledger) {
        for flight in self.flights.iter_mut().skip(self.sent) {
            if !flight.repeated
                && flight.gate != Gate::Wanted
                && let Some(part) = flight.part()
            {
                flight.gate = Gate::Wanted;
                ledger.note(part.forget());
            }
        }
    }

    /// The session is no longer kept on disk: nothing waits for that.
    pub(crate) fn open_all(&mut self) {
        for flight in &mut self.flights {
            flight.gate = Gate::Open;
        }
    }

    /// Puts back what was stored, in any order; `false` where the record says nothing.
    pub(crate) fn restore(
        &mut self,
        service: Service,
        record: OutgoingRecord,
        options: Option<Options>,
    ) -> bool {
        let (subscription, rev) = (record.subscription, record.rev);
        let stage = match record.message {
            None if service.qos() < 2 => return false,
            None => Stage::Released,
            Some(message) => {
                let retain = message.retain;
                let Some(delivery) = message.delivery(rev) else {
                    return false;
                };
                Stage::Published(Message {
                    subscription,
                    delivery,
                    retain,
                    // Where the subscription has ended, what was sent is completed all the same.
                    options: options.unwrap_or(Options::NONE),
                })
            }
        };
        let place = self
            .flights
            .partition_point(|other| other.order < record.order);
        self.flights.insert(
            place,
            Flight {
                service,
                stage,
                repeated: true,
                subscription,
                rev,
                order: record.order,
                gate: Gate::Open,
            },
        );
        if record.order >= self.last_order {
            self.last_order = record.order;
            self.last_id = service.id().map_or(0, NonZeroU16::get);
        }
        true
    }

    /// The oldest unfinished revision of each subscription.
    pub(crate) fn oldest(&self) -> HashMap<u64, u64> {
        let mut oldest = HashMap::new();
        for flight in &self.flights {
            let rev = oldest.entry(flight.subscription).or_insert(flight.rev);
            *rev = flight.rev.min(*rev);
        }
        oldest
    }

    /// Sends what is unacknowledged from earlier connections, and what has waited for the disk, as far as `window` and
    /// `room` allow. The rules may have changed since it was taken: what the client may not have any more ends as what has
    /// expired does. How many messages were larger than the client accepts.
    pub(crate) fn resend(
        &mut self,
        window: usize,
        wire: &mut Wire,
        room: usize,
        out: &mut BytesMut,
        ledger: &mut Ledger,
        may_receive: impl Fn(TopicName<&str>) -> bool,
    ) -> u64 {
        let mut too_large = 0;
        while self.sent < window
            && out.len() < room
            && let Some(flight) = self.flights.get(self.sent)
            && flight.gate == Gate::Open
        {
            let once = flight.service == Service::Zero;
            let is_over = flight.has_expired(wire) || flight.is_forbidden(&may_receive);
            // A client that does not expect the PUBREL may end the connection: it is told once.
            if (is_over && !flight.may_be_received()) || matches!(flight.stage, Stage::Expired) {
                let flight = self.flights.remove(self.sent);
                self.finished(flight, ledger);
                continue;
            }
            let fits = match (&flight.stage, flight.service.id()) {
                (Stage::Published(message), _) if !is_over => {
                    message.encode(flight.service, flight.repeated, wire, out)
                }
                (_, Some(id)) => {
                    encode::ack(Ack::Pubrel, wire.version, id, Reason::SUCCESS, out);
                    true
                }
                (_, None) => false,
            };
            if is_over && let Some(flight) = self.flights.get_mut(self.sent) {
                flight.stage = Stage::Expired;
            }
            too_large += u64::from(!fits);
            if fits && !once {
                self.sent += 1;
            } else {
                // MQTT 5 §3.1.2.11.4: as if it had been delivered.
                let flight = self.flights.remove(self.sent);
                self.finished(flight, ledger);
            }
        }
        too_large
    }

    /// Sends a new message, behind those that are not sent yet; false when it is larger than the client accepts.
    pub(crate) fn publish(
        &mut self,
        qos: u8,
        message: Message,
        wire: &mut Wire,
        out: &mut BytesMut,
        durable: bool,
    ) -> bool {
        let service = match qos {
            0 if self.caught_up() => return message.encode(Service::Zero, false, wire, out),
            0 => Service::Zero,
            1 => Service::One(self.free_id()),
            _ => Service::Two(self.free_id()),
        };
        let gate = match durable && qos > 0 {
            true => Gate::Wanted,
            false => Gate::Open,
        };
        if self.caught_up() && gate == Gate::Open {
            if !message.encode(service, false, wire, out) {
                return false;
            }
            self.sent += 1;
        }
        self.last_order += 1;
        self.flights.push_back(Flight {
            service,
            subscription: message.subscription,
            rev: message.delivery.rev,
            stage: Stage::Published(message),
            repeated: false,
            order: self.last_order,
            gate,
        });
        true
    }

    /// What the client will not finish, by subscription, when the session ends: another client may have it.
    /// Not so a QoS 2 message that was sent, which it may have got (MQTT-4.8.2-5).
    pub(crate) fn unfinished(self) -> BTreeMap<u64, Vec<Delivery>> {
        let mut unfinished = BTreeMap::<_, Vec<_>>::new();
        for (place, flight) in self.flights.into_iter().enumerate() {
            let sent = place < self.sent || flight.repeated;
            if let Stage::Published(message) = flight.stage
                && !(sent && flight.service.qos() == 2)
            {
                let deliveries = unfinished.entry(message.subscription).or_default();
                deliveries.push(message.delivery);
            }
        }
        unfinished
    }

    /// PUBACK; false when the message is not known.
    pub(crate) fn acknowledged(&mut self, id: NonZeroU16, ledger: &mut Ledger) -> bool {
        let place = self.place(Service::One(id));
        if let Some(place) = place {
            self.remove(place, ledger);
        }
        place.is_some()
    }

    /// PUBREC; false when the message is not known. It is answered also then: the client is to forget it too.
    pub(crate) fn received(
        &mut self,
        id: NonZeroU16,
        refused: bool,
        version: Version,
        out: &mut BytesMut,
        ledger: &mut Ledger,
    ) -> bool {
        let mut reason = Reason::PACKET_IDENTIFIER_NOT_FOUND;
        let place = self.place(Service::Two(id));
        if let Some(place) = place {
            if refused {
                self.remove(place, ledger);
                return true;
            }
            if let Some(flight) = self.flights.get_mut(place) {
                flight.stage = Stage::Released;
                if ledger.is_durable() {
                    flight.gate = Gate::Wanted;
                    encode::ack(
                        Ack::Pubrel,
                        version,
                        id,
                        Reason::SUCCESS,
                        ledger.with_next(),
                    );
                    return true;
                }
            }
            reason = Reason::SUCCESS;
        } else if refused {
            return false;
        }
        encode::ack(Ack::Pubrel, version, id, reason, out);
        place.is_some()
    }

    /// PUBCOMP.
    pub(crate) fn completed(&mut self, id: NonZeroU16, ledger: &mut Ledger) {
        if let Some(place) = self.place(Service::Two(id))
            && (self.flights.get(place))
                .is_some_and(|flight| !matches!(flight.stage, Stage::Published(_)))
        {
            self.remove(place, ledger);
        }
    }

    /// Where a message is that was sent over this connection. Clients acknowledge in order, so it is
    /// found at the front.
    fn place(&self, service: Service) -> Option<usize> {
        (self.flights.iter().take(self.sent)).position(|flight| flight.service == service)
    }

    fn remove(&mut self, place: usize, ledger: &mut Ledger) {
        let flight = self.flights.remove(place);
        self.sent -= 1;
        self.finished(flight, ledger);
        if self.flights.is_empty() {
            // An idle session keeps no buffer.
            self.flights = VecDeque::new();
        }
    }

    /// A flight is over: a QoS 2 message is not to come again, whatever happens to the server. For one of QoS 1 no
    /// commit is made: it goes with the next one, or with that of the marks.
    fn finished(&self, flight: Option<Flight>, ledger: &mut Ledger) {
        if let Some(flight) = flight
            && ledger.is_durable()
            && let Some(part) = flight.part()
        {
            let qos = flight.service.qos();
            let others = self.flights.iter();
            let oldest = others
                .filter(|other| other.subscription == flight.subscription)
                .map(|other| other.rev)
                .min();
            match qos {
                1 => ledger.note_later(part.forget()),
                _ => ledger.note(part.forget()),
            }
            ledger.finish(flight.subscription, flight.rev, qos, oldest);
        }
    }

    /// The next identifier that is not in use. There is one: the window is smaller than their number.
    fn free_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id)
                && !self
                    .flights
                    .iter()
                    .any(|flight| flight.service.id() == Some(id))
            {
                return id;
            }
        }
    }
}
