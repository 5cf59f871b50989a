//! What a client and the server remember of each other beyond a connection (MQTT 3.1.1 §4.1).

use core::num::NonZeroU16;
use std::collections::{BTreeMap, HashMap};

use latchbus_bus::{Client, Delivery, VecMap};
use latchbus_core::topic::TopicFilter;

use crate::connection::subscribing::shared;
use crate::ledger::Ledger;
use crate::outgoing::Outgoing;
use crate::packet::Options;
use crate::record::{Note, Part, SubscriptionRecord};

/// A client's subscriptions and its messages in flight. Together with the bus's
/// [`Session`](latchbus_bus::Session), which holds the cursors, it outlives the connection.
#[derive(Debug, Default)]
pub struct Session {
    /// The bus knows subscriptions by number; the client by filter.
    numbers: HashMap<String, u64>,
    options: VecMap<Options>,
    last_number: u64,
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    pub(crate) ledger: Ledger,
}

impl Session {
    /// The number by which the bus knows a filter's subscription, also while the bus is being asked.
    pub(crate) fn number(&self, filter: &str) -> Option<u64> {
        self.numbers.get(filter).copied()
    }

    /// Puts back a subscription that was stored.
    pub(crate) fn restore(&mut self, filter: String, number: u64, options: Options, mark: u64) {
        self.numbers.insert(filter, number);
        self.options.insert(number, options);
        self.last_number = self.last_number.max(number);
        self.ledger.restore(number, mark);
    }

    /// The number of a filter that is about to be subscribed, and whether it already is.
    pub(crate) fn reserve(&mut self, filter: &str) -> (u64, bool) {
        if let Some(number) = self.number(filter) {
            return (number, self.options.contains(number));
        }
        self.last_number += 1;
        self.numbers.insert(filter.to_owned(), self.last_number);
        (self.last_number, false)
    }

    /// The greatest quality of service of each subscription is what the rules say now.
    pub(crate) fn follow_rules(&mut self, client: &Client) {
        for (filter, number) in &self.numbers {
            let plain = shared(filter).map_or(filter.as_str(), |(_, plain)| plain);
            if let Some(options) = self.options.get_mut(*number)
                && let Ok(filter) = TopicFilter::parse(plain)
            {
                options.max_qos = client.max_qos(filter);
            }
        }
    }

    pub(crate) fn options(&self, number: u64) -> Option<Options> {
        self.options.get(number).copied()
    }

    /// The bus has accepted a subscription, which begins after revision `after`. It bounds their number.
    pub(crate) fn subscribed(&mut self, filter: String, number: u64, options: Options, after: u64) {
        if self.ledger.is_durable() {
            let record = SubscriptionRecord::new(&filter, options);
            self.ledger.note(Part::Subscription(number).keep(&record));
            // The same again brings the retained messages once more, and no event: what was finished stays so.
            if !self.options.contains(number) {
                self.ledger.begin(number, after);
            }
        }
        self.numbers.insert(filter, number);
        self.options.insert(number, options);
    }

    /// The bus has refused a subscription; one that was there before stays.
    pub(crate) fn refused(&mut self, filter: &str, number: u64) {
        if !self.options.contains(number) {
            self.numbers.remove(filter);
        }
    }

    /// Other options for a subscription that exists.
    pub(crate) fn change(&mut self, number: u64, options: Options) {
        if let Some(old) = self.options.get_mut(number) {
            *old = options;
        }
        if self.ledger.is_durable()
            && let Some((filter, _)) = self.numbers.iter().find(|(_, other)| **other == number)
        {
            let record = SubscriptionRecord::new(filter, options);
            self.ledger.note(Part::Subscription(number).keep(&record));
        }
    }

    pub(crate) fn unsubscribed(&mut self, filter: &str) {
        if let Some(number) = self.numbers.remove(filter) {
            self.options.remove(number);
            if self.ledger.is_durable() {
                self.ledger.end(number);
            }
        }
    }

    /// Notes how far the subscriptions have come.
    pub(crate) fn mark(&mut self) -> Vec<(u64, u64)> {
        let oldest = self.outgoing.oldest();
        self.ledger.mark_all(&oldest)
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.outgoing.len() == 0 && self.incoming.len() == 0
    }

    /// Whether it is kept on disk.
    pub fn is_durable(&self) -> bool {
        self.ledger.is_durable()
    }

    /// The connection has ended: what is still to be stored.
    pub(crate) fn end_notes(&mut self) -> (Vec<Note>, Vec<(u64, u64)>) {
        let mut marks = Vec::new();
        if self.ledger.is_durable() {
            marks = self.mark();
            self.outgoing.forget_unsent(&mut self.ledger);
        }
        (self.ledger.rest(), marks)
    }

    /// Forgets what the bus has not answered when a connection ends.
    pub(crate) fn settle(&mut self) {
        let options = &self.options;
        self.numbers.retain(|_, number| options.contains(*number));
        self.incoming.settle();
    }

    /// The session ends: what its client has not finished, by subscription.
    pub fn unfinished(self) -> BTreeMap<u64, Vec<Delivery>> {
        self.outgoing.unfinished()
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.numbers.len()
    }

    /// How many QoS 1 and 2 messages the client has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.outgoing.len()
    }
}

/// The QoS 2 messages that have come from the client and that it has not released, by packet identifier.
/// While an identifier is here, a publish with it is a repetition.
#[derive(Debug, Default)]
pub(crate) struct Incoming(BTreeMap<NonZeroU16, Stage>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Handed to the bus.
    Asked,
    /// Accepted by the bus: PUBREC was sent.
    Received,
}

/// What a QoS 2 publish is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    /// Repeated while the bus still has it; the answer will come.
    Pending,
    /// Repeated because the answer was lost.
    Repeated,
}

/// What a PUBREL finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    Released,
    /// The client releases what it has no PUBREC for.
    TooEarly,
    Unknown,
}

impl Incoming {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the bus has one that it has not answered.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.values().any(|stage| *stage == Stage::Asked)
    }

    pub(crate) fn arrive(&mut self, id: NonZeroU16) -> Arrival {
        match self.0.get(&id) {
            Some(Stage::Received) => Arrival::Repeated,
            Some(Stage::Asked) => Arrival::Pending,
            None => {
                self.0.insert(id, Stage::Asked);
                Arrival::New
            }
        }
    }

    pub(crate) fn accepted(&mut self, id: NonZeroU16) {
        self.0.insert(id, Stage::Received);
    }

    pub(crate) fn refused(&mut self, id: NonZeroU16) {
        self.0.remove(&id);
    }

    /// What was stored.
    pub(crate) fn restore(&mut self, id: NonZeroU16) {
        self.accepted(id);
    }

    pub(crate) fn release(&mut self, id: NonZeroU16) -> Release {
        match self.0.get(&id) {
            Some(Stage::Received) => {
                self.0.remove(&id);
                Release::Released
            }
            Some(Stage::Asked) => Release::TooEarly,
            None => Release::Unknown,
        }
    }

    /// The connection has ended, and the bus has answered all that it is going to answer. What it did
    /// not answer was never published, and is new when the client repeats it.
    pub(crate) fn settle(&mut self) {
        self.0.retain(|_, stage| *stage == Stage::Received);
    }
}
