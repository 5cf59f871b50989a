//! What a client wants the server to know, and how far that has come. No I/O: events in, requests out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::watch;

use super::messages::{Inbox, Message};

/// The wishes of one client.
#[derive(Debug)]
pub(crate) struct Model {
    online: bool,
    max_topics: usize,
    max_events: usize,
    kept: HashMap<Arc<str>, Kept>,
    /// Topics whose newest value is to be sent; each is in here once.
    changed: VecDeque<Arc<str>>,
    events: VecDeque<Outbound>,
    subscriptions: Vec<Wanted>,
    /// Requests that were handed over and have no packet identifier yet, in order.
    handed: VecDeque<Item>,
    subscribing: VecDeque<Arc<str>>,
    in_flight: HashMap<u16, Item>,
    asked: HashMap<u16, Arc<str>>,
}

/// State of one topic: the newest value alone is worth sending.
#[derive(Debug)]
struct Kept {
    payload: Bytes,
    repeat: bool,
    /// It is in `changed`.
    queued: bool,
    /// A publish of it is under way, whose acknowledgement is awaited.
    under_way: bool,
    confirmed: watch::Sender<Option<Bytes>>,
}

/// A QoS 1 publish, until it is acknowledged.
#[derive(Debug)]
enum Item {
    State(Arc<str>, Bytes),
    Event(Outbound),
}

/// A message that is not kept.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
}

#[derive(Debug)]
struct Wanted {
    filter: TopicFilter<Arc<str>>,
    asked: bool,
    inboxes: Vec<Weak<Inbox>>,
}

/// What is to be handed to the event loop next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Subscribe(Arc<str>),
    State(Arc<str>, Bytes),
    Event(Arc<str>, Bytes),
}

/// A bound of the client is reached; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client holds {limit} already")]
pub struct Full {
    /// The bound.
    pub limit: usize,
}

impl Model {
    pub(crate) fn new(max_topics: usize, max_events: usize) -> Self {
        Self {
            online: false,
            max_topics,
            max_events,
            kept: HashMap::new(),
            changed: VecDeque::new(),
            events: VecDeque::new(),
            subscriptions: Vec::new(),
            handed: VecDeque::new(),
            subscribing: VecDeque::new(),
            in_flight: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    pub(crate) fn set(
        &mut self,
        topic: &TopicName<&str>,
        payload: Bytes,
        repeat: bool,
    ) -> Result<(), Full> {
        let topic = self.topic(topic.as_str())?;
        if let Some(kept) = self.kept.get_mut(&topic) {
            kept.payload = payload;
            kept.repeat = repeat;
        }
        self.change(&topic);
        Ok(())
    }

    pub(crate) fn confirmed(
        &mut self,
        topic: &TopicName<&str>,
    ) -> Option<watch::Receiver<Option<Bytes>>> {
        Some(self.kept.get(topic.as_str())?.confirmed.subscribe())
    }

    pub(crate) fn event(&mut self, topic: &TopicName<&str>, payload: Bytes) -> Result<(), Full> {
        if self.events.len() >= self.max_events {
            return Err(Full {
                limit: self.max_events,
            });
        }
        let topic = topic.as_str().into();
        self.events.push_back(Outbound { topic, payload });
        Ok(())
    }

    pub(crate) fn subscribe(&mut self, filter: &TopicFilter<&str>, inbox: Weak<Inbox>) {
        let same = |wanted: &&mut Wanted| wanted.filter.as_str() == filter.as_str();
        if let Some(wanted) = self.subscriptions.iter_mut().find(same) {
            wanted.inboxes.push(inbox);
            // Again, for the retained messages.
            wanted.asked = false;
            return;
        }
        self.subscriptions.push(Wanted {
            filter: filter.map(Arc::from),
            asked: false,
            inboxes: vec![inbox],
        });
    }

    /// Values that are to be repeated are sent again.
    pub(crate) fn repeat(&mut self) {
        let repeated = self.kept.iter().filter(|(_, kept)| kept.repeat);
        let topics: Vec<_> = repeated.map(|(topic, _)| Arc::clone(topic)).collect();
        for topic in topics {
            self.change(&topic);
        }
    }

    /// CONNACK. A server that has forgotten the session is told everything again.
    pub(crate) fn connected(&mut self, session_present: bool) {
        self.online = true;
        if !session_present {
            for wanted in &mut self.subscriptions {
                wanted.asked = false;
            }
            let topics: Vec<_> = self.kept.keys().cloned().collect();
            for topic in topics {
                self.change(&topic);
            }
        }
    }

    /// The connection is lost; what was under way is to be sent again, of each topic the newest.
    pub(crate) fn disconnected(&mut self) {
        self.online = false;
        let ids = {
            let mut ids: Vec<_> = self.in_flight.keys().copied().collect();
            ids.sort_unstable();
            ids
        };
        let flying: Vec<_> = ids
            .iter()
            .filter_map(|id| self.in_flight.remove(id))
            .collect();
        let handed = core::mem::take(&mut self.handed);
        let mut events = VecDeque::new();
        for item in flying.into_iter().chain(handed) {
            match item {
                Item::State(topic, _) => {
                    if let Some(kept) = self.kept.get_mut(&topic) {
                        kept.under_way = false;
                    }
                    self.change(&topic);
                }
                Item::Event(event) => events.push_back(event),
            }
        }
        events.append(&mut self.events);
        self.events = events;
        let unanswered = self.asked.drain().map(|(_, filter)| filter);
        for filter in unanswered.chain(self.subscribing.drain(..)) {
            for wanted in &mut self.subscriptions {
                wanted.asked &= *wanted.filter.inner() != filter;
            }
        }
    }

    /// What to hand to the event loop; [`handed`](Self::handed) takes it off the list.
    pub(crate) fn next(&mut self) -> Option<Command> {
        if !self.online {
            return None;
        }
        if let Some(wanted) = self.subscriptions.iter().find(|wanted| !wanted.asked) {
            return Some(Command::Subscribe(Arc::clone(wanted.filter.inner())));
        }
        if let Some(topic) = self.changed.front() {
            let kept = self.kept.get(topic)?;
            return Some(Command::State(Arc::clone(topic), kept.payload.clone()));
        }
        let event = self.events.front()?;
        Some(Command::Event(
            Arc::clone(&event.topic),
            event.payload.clone(),
        ))
    }

    /// The event loop has taken a command.
    pub(crate) fn handed(&mut self, command: Command) {
        match command {
            Command::Subscribe(filter) => {
                let same = |wanted: &&mut Wanted| *wanted.filter.inner() == filter;
                if let Some(wanted) = self.subscriptions.iter_mut().find(same) {
                    wanted.asked = true;
                }
                self.subscribing.push_back(filter);
            }
            Command::State(topic, payload) => {
                self.changed.pop_front();
                if let Some(kept) = self.kept.get_mut(&topic) {
                    kept.queued = false;
                    kept.under_way = true;
                }
                self.handed.push_back(Item::State(topic, payload));
            }
            Command::Event(topic, payload) => {
                self.events.pop_front();
                let event = Outbound { topic, payload };
                self.handed.push_back(Item::Event(event));
            }
        }
    }

    /// A publish goes out, under this packet identifier. They go in the order in which they were handed
    /// over.
    pub(crate) fn publishing(&mut self, id: u16) {
        if let Some(item) = self.handed.pop_front() {
            self.in_flight.insert(id, item);
        }
    }

    pub(crate) fn subscribing(&mut self, id: u16) {
        if let Some(filter) = self.subscribing.pop_front() {
            self.asked.insert(id, filter);
        }
    }

    /// PUBACK.
    pub(crate) fn acknowledged(&mut self, id: u16) {
        if let Some(Item::State(topic, payload)) = self.in_flight.remove(&id)
            && let Some(kept) = self.kept.get_mut(&topic)
        {
            kept.under_way = false;
            let newer = kept.payload != payload;
            kept.confirmed.send_replace(Some(payload));
            if newer {
                self.change(&topic);
            }
        }
    }

    /// SUBACK. A refused subscription ends its streams.
    pub(crate) fn answered(&mut self, id: u16, granted: bool) {
        let Some(filter) = self.asked.remove(&id) else {
            return;
        };
        if granted {
            return;
        }
        self.subscriptions.retain(|wanted| {
            let refused = *wanted.filter.inner() == filter;
            if refused {
                for inbox in wanted.inboxes.iter().filter_map(Weak::upgrade) {
                    inbox.end(true);
                }
            }
            !refused
        });
    }

    /// A message from the server, for every stream whose filter matches.
    pub(crate) fn received(&mut self, message: &Message) {
        for wanted in &mut self.subscriptions {
            if wanted.filter.matches(&message.topic) {
                wanted.inboxes.retain(|inbox| {
                    let inbox = inbox.upgrade();
                    inbox.map(|inbox| inbox.push(message.clone())).is_some()
                });
            }
        }
    }

    /// Filters whose streams have all been dropped, which are now forgotten.
    pub(crate) fn abandoned(&mut self) -> Vec<Arc<str>> {
        let mut abandoned = Vec::new();
        self.subscriptions.retain_mut(|wanted| {
            wanted.inboxes.retain(|inbox| inbox.strong_count() > 0);
            if wanted.inboxes.is_empty() {
                abandoned.push(Arc::clone(wanted.filter.inner()));
            }
            !wanted.inboxes.is_empty()
        });
        abandoned
    }

    /// Whether every state and event has been acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.changed.is_empty()
            && self.events.is_empty()
            && self.handed.is_empty()
            && self.in_flight.is_empty()
    }

    pub(crate) fn end(&mut self) {
        self.online = false;
        for wanted in self.subscriptions.drain(..) {
            for inbox in wanted.inboxes.iter().filter_map(Weak::upgrade) {
                inbox.end(false);
            }
        }
    }

    /// The shared name of a kept topic, which is made if need be.
    fn topic(&mut self, topic: &str) -> Result<Arc<str>, Full> {
        if let Some((topic, _)) = self.kept.get_key_value(topic) {
            return Ok(Arc::clone(topic));
        }
        if self.kept.len() >= self.max_topics {
            return Err(Full {
                limit: self.max_topics,
            });
        }
        let topic: Arc<str> = topic.into();
        let kept = Kept {
            payload: Bytes::new(),
            repeat: false,
            queued: false,
            under_way: false,
            confirmed: watch::Sender::new(None),
        };
        self.kept.insert(Arc::clone(&topic), kept);
        Ok(topic)
    }

    /// Queues a topic, unless it is queued or a publish of it is under way.
    fn change(&mut self, topic: &Arc<str>) {
        if let Some(kept) = self.kept.get_mut(topic)
            && !kept.queued
            && !kept.under_way
        {
            kept.queued = true;
            self.changed.push_back(Arc::clone(topic));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(topic: &str) -> TopicName<&str> {
        TopicName::parse(topic).unwrap()
    }

    /// Hands over all there is, as packets 1, 2, …
    fn send_all(model: &mut Model) -> Vec<Command> {
        let mut sent = Vec::new();
        let mut id = 0;
        while let Some(command) = model.next() {
            match &command {
                Command::Subscribe(filter) => sent.push(Command::Subscribe(Arc::clone(filter))),
                Command::State(topic, payload) => {
                    sent.push(Command::State(Arc::clone(topic), payload.clone()));
                }
                Command::Event(topic, payload) => {
                    sent.push(Command::Event(Arc::clone(topic), payload.clone()));
                }
            }
            let publish = !matches!(command, Command::Subscribe(_));
            model.handed(command);
            id += 1;
            if publish {
                model.publishing(id);
            } else {
                model.subscribing(id);
            }
        }
        sent
    }

    fn state(topic: &str, payload: &'static str) -> Command {
        Command::State(topic.into(), payload.into())
    }

    #[test]
    fn of_a_topic_the_newest_value_is_sent_and_one_at_a_time() {
        let mut model = Model::new(10, 10);
        model.set(&name("a"), "1".into(), false).unwrap();
        model.set(&name("a"), "2".into(), false).unwrap();
        assert_eq!(model.next(), None, "offline");
        model.connected(false);
        assert_eq!(send_all(&mut model), [state("a", "2")]);
        model.set(&name("a"), "3".into(), false).unwrap();
        model.set(&name("a"), "4".into(), false).unwrap();
        assert_eq!(model.next(), None, "one is under way");
        let confirmed = model.confirmed(&name("a")).unwrap();
        assert_eq!(*confirmed.borrow(), None);
        model.acknowledged(1);
        assert_eq!(*confirmed.borrow(), Some("2".into()));
        assert_eq!(send_all(&mut model), [state("a", "4")]);
        assert!(!model.is_settled());
        model.acknowledged(1);
        assert!(model.is_settled());
    }

    #[test]
    fn what_was_under_way_is_sent_again_after_a_cut() {
        let mut model = Model::new(10, 10);
        model.connected(false);
        model.set(&name("a"), "1".into(), false).unwrap();
        model.set(&name("b"), "1".into(), false).unwrap();
        model.event(&name("e"), "x".into()).unwrap();
        let event = || Command::Event("e".into(), "x".into());
        assert_eq!(
            send_all(&mut model),
            [state("a", "1"), state("b", "1"), event()]
        );
        model.acknowledged(1);
        model.disconnected();
        model.connected(true);
        assert_eq!(send_all(&mut model), [state("b", "1"), event()]);
        model.disconnected();
        model.connected(false);
        let mut sent = send_all(&mut model);
        sent.sort_by_key(|command| format!("{command:?}"));
        assert_eq!(sent, [event(), state("a", "1"), state("b", "1")]);
    }

    #[test]
    fn values_that_are_marked_are_repeated() {
        let mut model = Model::new(10, 10);
        model.connected(false);
        model.set(&name("a"), "1".into(), true).unwrap();
        model.set(&name("b"), "1".into(), false).unwrap();
        send_all(&mut model);
        model.repeat();
        assert_eq!(model.next(), None, "still under way");
        model.acknowledged(1);
        model.acknowledged(2);
        model.repeat();
        assert_eq!(send_all(&mut model), [state("a", "1")]);
    }

    #[test]
    fn bounds_refuse() {
        let mut model = Model::new(1, 1);
        model.set(&name("a"), "1".into(), false).unwrap();
        model.set(&name("a"), "2".into(), false).unwrap();
        assert_eq!(
            model.set(&name("b"), "1".into(), false),
            Err(Full { limit: 1 })
        );
        model.event(&name("e"), "1".into()).unwrap();
        assert_eq!(model.event(&name("e"), "2".into()), Err(Full { limit: 1 }));
    }

    #[test]
    fn subscriptions_are_asked_for_again_where_the_server_does_not_know_them() {
        let mut model = Model::new(1, 1);
        let inbox = Arc::new(Inbox::new(4));
        let filter = TopicFilter::parse("a/+").unwrap();
        model.subscribe(&filter, Arc::downgrade(&inbox));
        model.connected(false);
        let subscribe = || Command::Subscribe("a/+".into());
        assert_eq!(send_all(&mut model), [subscribe()]);
        model.disconnected();
        model.connected(true);
        assert_eq!(send_all(&mut model), [subscribe()], "no SUBACK had come");
        model.answered(1, true);
        model.disconnected();
        model.connected(true);
        assert_eq!(model.next(), None);
        model.disconnected();
        model.connected(false);
        assert_eq!(send_all(&mut model), [subscribe()]);
        drop(inbox);
        assert_eq!(model.abandoned(), ["a/+".into()]);
    }
}
