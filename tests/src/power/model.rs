//! What a bus must know: a plain model of its state, fed with the same messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use latchbus_bus::Delivery;
use latchbus_core::clicks::{ClickTopic, Counter, FOLD_WINDOW_BOOTS, Incarnation};

/// A message of the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// State; empty: a clear.
    State {
        topic: String,
        payload: Vec<u8>,
        /// When its time is over, in milliseconds since the Unix epoch.
        expires_at: Option<u64>,
        /// It may be lost: it was published at QoS 0.
        light: bool,
    },
    Count {
        device: String,
        incarnation: Incarnation,
        counter: Counter,
    },
    /// The topic of a count is cleared, which says nothing of the count.
    ClearCount {
        device: String,
        incarnation: Incarnation,
    },
    Press {
        device: String,
        red: u64,
        id: Option<String>,
    },
    /// Not kept.
    Event { payload: Vec<u8> },
}

/// Topics below it keep so many values.
pub(super) const HISTORY: (&str, u16) = ("history/", 4);

/// What is known of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Device {
    counts: BTreeMap<Incarnation, Counter>,
    /// Those whose topics are there.
    shown: BTreeSet<Incarnation>,
    floor: u32,
    pressed: u64,
    ids: BTreeSet<String>,
}

/// The payload, when its time is over, and which client has published it.
type Value = (Vec<u8>, Option<u64>, usize);

/// Topics and bytes that a client holds.
pub(super) type Held = (i64, i64);

/// Everything that is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    topics: BTreeMap<String, VecDeque<Value>>,
    devices: BTreeMap<String, Device>,
}

/// What a bus shows, or ought to: the payloads of each topic, oldest first. Of counts and values the number
/// matters, not how it is written; what the hub derives otherwise is left out.
pub(super) type Shown = BTreeMap<String, Vec<Vec<u8>>>;

const fn is_alive(expires_at: Option<u64>, now: u64) -> bool {
    match expires_at {
        Some(at) => at > now,
        None => true,
    }
}

impl Model {
    pub(super) fn take(&mut self, message: &Message, client: usize) {
        match message {
            Message::State { topic, payload, .. } if payload.is_empty() => {
                self.topics.remove(topic);
            }
            Message::State {
                topic,
                payload,
                expires_at,
                ..
            } => {
                let most = if topic.starts_with(HISTORY.0) {
                    HISTORY.1
                } else {
                    1
                };
                let values = self.topics.entry(topic.clone()).or_default();
                values.push_back((payload.clone(), *expires_at, client));
                if values.len() > most.into() {
                    values.pop_front();
                }
            }
            Message::Count {
                device,
                incarnation,
                counter,
            } => self.device(device).report(*incarnation, *counter),
            Message::ClearCount {
                device,
                incarnation,
            } => {
                self.device(device).shown.remove(incarnation);
            }
            Message::Press { device, red, id } => {
                let device = self.device(device);
                if id.as_ref().is_none_or(|id| device.ids.insert(id.clone())) {
                    device.pressed += red;
                }
            }
            Message::Event { .. } => {}
        }
    }

    /// Values whose time is over are gone; a topic of many values keeps none of them when its newest is.
    pub(super) fn shown(&self, now: u64) -> Shown {
        let mut shown = Shown::new();
        for (topic, values) in &self.topics {
            let values: Vec<_> = values
                .iter()
                .filter(|(_, expires_at, _)| is_alive(*expires_at, now))
                .map(|(payload, _, _)| payload.clone())
                .collect();
            if !values.is_empty() {
                shown.insert(topic.clone(), values);
            }
        }
        let mut total = Counter::ZERO;
        for (name, device) in &self.devices {
            for incarnation in &device.shown {
                let topic = count_topic(name, *incarnation);
                shown.insert(topic, vec![device.counts[incarnation].to_string().into()]);
            }
            if device.pressed > 0 {
                let pressed = Counter::new(device.pressed, 0);
                let topic = ClickTopic::Pressed {
                    room: "main",
                    device: name,
                };
                shown.insert(topic.to_string(), vec![pressed.to_string().into()]);
            }
            let value = device
                .counts
                .values()
                .fold(Counter::new(device.pressed, 0), |sum, count| {
                    sum.saturating_add(*count)
                });
            total = total.saturating_add(value);
        }
        shown.insert("clicks/main/values".into(), vec![total.to_string().into()]);
        shown
    }

    /// What a client holds, of the messages that it may hold at all: at least, without the values whose time is over, and at most.
    pub(super) fn held(&self, client: usize, now: u64) -> (Held, Held) {
        let sum = |counts: &dyn Fn(&Value) -> bool| {
            let mut held = (0, 0);
            for values in self.topics.values() {
                let own = values
                    .iter()
                    .filter(|value| value.2 == client && counts(value));
                held.1 += own.map(|value| value.0.len() as i64).sum::<i64>();
                let newest = values
                    .back()
                    .filter(|value| value.2 == client && counts(value));
                held.0 += i64::from(newest.is_some());
            }
            held
        };
        (sum(&|value| is_alive(value.1, now)), sum(&|_| true))
    }

    fn device(&mut self, name: &str) -> &mut Device {
        self.devices.entry(name.to_owned()).or_default()
    }
}

impl Device {
    fn report(&mut self, incarnation: Incarnation, counter: Counter) {
        if incarnation.boot() <= self.floor {
            return;
        }
        let known = self.counts.entry(incarnation).or_default();
        *known = known.join(counter);
        self.shown.insert(incarnation);
        let floor = incarnation.boot().saturating_sub(FOLD_WINDOW_BOOTS);
        self.floor = self.floor.max(floor);
        self.shown
            .retain(|incarnation| incarnation.boot() > self.floor);
    }
}

pub(super) fn count_topic(device: &str, incarnation: Incarnation) -> String {
    let room = "main";
    ClickTopic::Count {
        room,
        device,
        incarnation,
    }
    .to_string()
}

/// What a delivery adds to what is shown, in the form of the model; none for what the model leaves out.
pub(super) fn in_form(delivery: &Delivery) -> Option<(String, Vec<u8>)> {
    let (topic, payload) = (delivery.topic.as_str(), delivery.payload.bytes());
    let payload = match ClickTopic::parse(topic).unwrap() {
        None => payload.to_vec(),
        Some(ClickTopic::Count { .. } | ClickTopic::Values { .. } | ClickTopic::Pressed { .. }) => {
            if payload.is_empty() {
                Vec::new()
            } else {
                Counter::parse(payload).unwrap().to_string().into()
            }
        }
        Some(_) => return None,
    };
    Some((topic.to_owned(), payload))
}
