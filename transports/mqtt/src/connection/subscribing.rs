//! SUBSCRIBE and UNSUBSCRIBE: what the bus is asked, and what the client is told.

use core::num::NonZeroU16;
use std::collections::VecDeque;

use latchbus_bus::{Client, Request, Subscribe, SubscribeRefused};
use latchbus_core::hub::{Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};

use super::Connection;
use crate::decode::is_group;
use crate::encode::{self, Answers};
use crate::packet::{Options, Retained, Version};
use crate::{Reason, Violation};

/// A SUBSCRIBE that the bus has not answered.
#[derive(Debug)]
pub(super) struct Subscribing {
    id: NonZeroU16,
    filters: Vec<Asked>,
}

/// A filter of a SUBSCRIBE.
#[derive(Debug)]
enum Asked {
    /// The bus is asked; the subscription is to begin after this revision.
    Bus(String, u64, Options, u64),
    /// The subscription exists and brings no retained messages again: only its options change.
    Kept(u64, Options),
    Refused(Reason),
}

/// An UNSUBSCRIBE that the bus has not answered.
#[derive(Debug)]
pub(super) struct Unsubscribing {
    id: NonZeroU16,
    filters: Vec<(String, Option<u64>)>,
}

impl Connection {
    /// A filter of the last SUBSCRIBE that the settings refuse ([`Bounds::refused_filters`](crate::Bounds)), once.
    pub fn take_refused_filter(&mut self) -> Option<Box<str>> {
        self.refused_filter.take()
    }

    /// Looks what the subscriptions may bring at most, if the rules have changed.
    pub(super) fn follow_rules(&mut self) {
        if let Some(client) = &self.client {
            let rules = client.rules();
            if rules != self.rules {
                self.session.follow_rules(client);
                self.rules = rules;
            }
        }
    }

    pub(super) fn subscribe(
        &mut self,
        id: NonZeroU16,
        filters: Vec<(String, Options)>,
    ) -> Result<Option<Request>, Violation> {
        self.check_room_for_answers(filters.len())?;
        let is_v5 = self.version == Version::V5;
        let forbidden =
            |(filter, options): &(String, Options)| options.no_local && is_shared(filter);
        if is_v5 && filters.iter().any(forbidden) {
            // MQTT-3.8.3-4; a bridge of 3.1.1 cannot do otherwise.
            return Err(Violation::Protocol("no-local for a shared subscription"));
        }
        let mut subscriptions = Vec::new();
        let mut asked = Vec::with_capacity(filters.len());
        for (filter, options) in filters {
            asked.push(self.ask(filter, options, &mut subscriptions));
        }
        let subscribing = Subscribing { id, filters: asked };
        if subscriptions.is_empty() {
            self.answer_subscribe(subscribing, || Ok(()));
            return Ok(None);
        }
        self.subscribes.push_back(subscribing);
        Ok(Some(Request::Subscribe {
            id: id.get().into(),
            subscriptions,
        }))
    }

    fn ask(&mut self, filter: String, mut options: Options, ask: &mut Vec<Subscribe>) -> Asked {
        let (group, plain) = match shared(&filter) {
            Some((group, plain)) => (Some(group.to_owned()), plain),
            None => (None, filter.as_str()),
        };
        let has_name = group.as_deref().is_none_or(is_group);
        let (Ok(parsed), true) = (TopicFilter::parse(plain.to_owned()), has_name) else {
            // In 3.1.1: see the decoder.
            return Asked::Refused(Reason::TOPIC_FILTER_INVALID);
        };
        let name = TopicName::parse(plain);
        let is_refused = |refused: &TopicFilter<String>| {
            let matches = name.as_ref().is_ok_and(|name| refused.matches(name));
            matches || refused.as_str() == plain
        };
        if self.bounds.refused_filters.iter().any(is_refused) {
            self.refused_filter = Some(plain.into());
            return Asked::Refused(Reason::UNSPECIFIED);
        }
        if let Some(client) = &self.client {
            options.qos = options.qos.min(client.max_qos(parsed.borrowed()));
        }
        let (number, exists) = self.session.reserve(&filter);
        // One that exists and that the rules refuse now: the bus says so.
        let is_allowed = |client: &Client| client.may_subscribe(parsed.borrowed());
        let exists = exists && self.client.as_ref().is_none_or(is_allowed);
        let start = match (options.retained, exists) {
            // MQTT 5 §4.8.2: no retained messages to the group.
            _ if group.is_some() && !exists => Start::Live,
            _ if group.is_some() => return Asked::Kept(number, options),
            (Retained::Always, _) | (Retained::WhenNew, false) => Start::Snapshot,
            (Retained::Never, false) => Start::Live,
            (_, true) => return Asked::Kept(number, options),
        };
        ask.push(Subscribe {
            id: number,
            filter: parsed,
            mode: Mode::Every,
            start,
            pace: None,
            // Whatever its quality of service, which a SUBSCRIBE may raise.
            durable: group.is_none() && self.session.ledger.is_durable(),
            waits: false,
            group,
        });
        let after = match start {
            Start::Live => self.revision,
            _ => 0,
        };
        Asked::Bus(filter, number, options, after)
    }

    fn answer_subscribe(
        &mut self,
        subscribing: Subscribing,
        mut result: impl FnMut() -> Result<(), Reason>,
    ) {
        let mut codes = Vec::with_capacity(subscribing.filters.len());
        for asked in subscribing.filters {
            let outcome = match asked {
                Asked::Bus(filter, number, options, after) => match result() {
                    Ok(()) => {
                        self.session.subscribed(filter, number, options, after);
                        Ok(options.qos)
                    }
                    Err(reason) => {
                        self.session.refused(&filter, number);
                        Err(reason)
                    }
                },
                Asked::Kept(number, options) => {
                    self.session.change(number, options);
                    Ok(options.qos)
                }
                Asked::Refused(reason) => Err(reason),
            };
            codes.push(match (outcome, self.version) {
                (Ok(qos), _) => qos,
                (Err(reason), Version::V5) => reason.0,
                (Err(_), Version::V3) => 0x80,
            });
        }
        let (id, ledger) = (subscribing.id, &mut self.session.ledger);
        let out = ledger.after_notes(&mut self.out);
        encode::answers(Answers::Suback, self.version, id, &codes, out);
    }

    /// MQTT-3.1.2-24: a SUBACK or UNSUBACK cannot be cut, and what was asked is not to be done without one.
    fn check_room_for_answers(&self, filters: usize) -> Result<(), Violation> {
        let bytes = encode::answers_bytes(filters);
        match self.wire.limit.filter(|limit| bytes > *limit) {
            None => Ok(()),
            Some(limit) => Err(Violation::AnswerTooLarge { bytes, limit }),
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: NonZeroU16,
        filters: Vec<String>,
    ) -> Result<Option<Request>, Violation> {
        self.check_room_for_answers(filters.len())?;
        let filters: Vec<_> = (filters.into_iter())
            .map(|filter| {
                let number = self.session.number(&filter);
                (filter, number)
            })
            .collect();
        let subscriptions: Vec<u64> = filters.iter().filter_map(|(_, number)| *number).collect();
        let unsubscribing = Unsubscribing { id, filters };
        if subscriptions.is_empty() {
            self.answer_unsubscribe(unsubscribing, &[]);
            return Ok(None);
        }
        self.unsubscribes.push_back(unsubscribing);
        Ok(Some(Request::Unsubscribe {
            id: id.get().into(),
            subscriptions,
        }))
    }

    fn answer_unsubscribe(&mut self, unsubscribing: Unsubscribing, existed: &[bool]) {
        let mut existed = existed.iter();
        let mut codes = Vec::with_capacity(unsubscribing.filters.len());
        for (filter, number) in unsubscribing.filters {
            let existed = number.is_some() && existed.next() == Some(&true);
            codes.push(match existed {
                true => Reason::SUCCESS.0,
                false => Reason::NO_SUBSCRIPTION_EXISTED.0,
            });
            self.session.unsubscribed(&filter);
        }
        let (id, ledger) = (unsubscribing.id, &mut self.session.ledger);
        let out = ledger.after_notes(&mut self.out);
        encode::answers(Answers::Unsuback, self.version, id, &codes, out);
    }

    /// The bus has answered the oldest SUBSCRIBE.
    pub(super) fn subscribed(&mut self, results: Vec<(u64, Result<(), SubscribeRefused>)>) {
        if let Some(subscribing) = pop(&mut self.subscribes) {
            let mut results = results.into_iter().map(|(_, result)| result);
            self.answer_subscribe(subscribing, || match results.next() {
                Some(Ok(())) => Ok(()),
                Some(Err(refused)) => Err(Reason::from(&refused)),
                None => Err(Reason::UNSPECIFIED),
            });
        }
    }

    /// The bus has answered the oldest UNSUBSCRIBE.
    pub(super) fn unsubscribed(&mut self, existed: &[bool]) {
        if let Some(unsubscribing) = pop(&mut self.unsubscribes) {
            self.answer_unsubscribe(unsubscribing, existed);
        }
    }
}

/// Takes the first; an empty queue holds no memory, for subscribing is seldom.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    first
}

const SHARED: &str = "$share/";

fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARED)
}

/// The name of the group and the filter of a shared subscription (MQTT 5 §4.8.2). Clients of 3.1.1 have
/// it too: no topic that begins so is published by anybody who does not mean it.
pub(crate) fn shared(filter: &str) -> Option<(&str, &str)> {
    let rest = filter.strip_prefix(SHARED)?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}
