//! Messages as clients send them: counts that grow, come twice and late, of devices that reboot; presses with ids
//! that come again; state, histories, clears, values that expire; events.

use core::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use latchbus_bus::Publish;
use latchbus_core::clicks::{Counter, Incarnation};

use super::model::{HISTORY, Message, count_topic};
use crate::bench::topic_name;

const DEVICES: usize = 5;

/// What the clients are about.
#[derive(Debug)]
pub(super) struct Traffic {
    random: Rng,
    devices: Vec<Device>,
    /// Grows with each message, so that no two say the same.
    next: u64,
}

#[derive(Debug)]
struct Device {
    name: String,
    incarnation: Incarnation,
    count: Counter,
    presses: u64,
}

impl Traffic {
    pub(super) fn new(mut random: Rng) -> Self {
        let devices = (0..DEVICES).map(|n| Device {
            name: format!("device-{n}"),
            incarnation: Incarnation::new(1, random.u32(..)).unwrap(),
            count: Counter::ZERO,
            presses: 0,
        });
        Self {
            devices: devices.collect(),
            random,
            next: 0,
        }
    }

    /// The messages of a batch: some of everything, or state that may be lost.
    pub(super) fn batch(&mut self, now: u64) -> Vec<Message> {
        let messages = self.random.usize(1..12);
        let light = self.random.u8(..3) == 0;
        let message = |_| match light {
            true => self.light(now),
            false => self.message(now),
        };
        (0..messages).map(message).collect()
    }

    fn light(&mut self, now: u64) -> Message {
        loop {
            let mut message = self.message(now);
            if let Message::State { light, .. } = &mut message {
                *light = true;
                return message;
            }
        }
    }

    fn message(&mut self, now: u64) -> Message {
        self.next += 1;
        let next = self.next;
        let Self {
            random, devices, ..
        } = self;
        let index = random.usize(..DEVICES);
        let device = &mut devices[index];
        match random.usize(..20) {
            0..8 => device.report(random),
            8 => Message::ClearCount {
                device: device.name.clone(),
                incarnation: device.incarnation,
            },
            9..12 => device.press(random),
            12..15 => Message::State {
                topic: format!("state/{}", random.usize(..12)),
                payload: payload(random, next),
                expires_at: random.bool().then(|| now + random.u64(1..20_000)),
                light: false,
            },
            15..17 => Message::State {
                topic: format!("{}{}", HISTORY.0, random.usize(..3)),
                payload: payload(random, next),
                expires_at: None,
                light: false,
            },
            17 => Message::State {
                topic: match random.bool() {
                    true => format!("state/{}", random.usize(..12)),
                    false => format!("{}{}", HISTORY.0, random.usize(..3)),
                },
                payload: Vec::new(),
                expires_at: None,
                light: false,
            },
            _ => Message::Event {
                payload: payload(random, next),
            },
        }
    }
}

impl Device {
    fn report(&mut self, random: &mut Rng) -> Message {
        if random.u8(..12) == 0 {
            let boot = self.incarnation.boot() + 1;
            self.incarnation = Incarnation::new(boot, random.u32(..)).unwrap();
            self.count = Counter::ZERO;
        }
        // Now and then nothing new, or what was said long ago.
        let clicks = Counter::new(random.u64(..4), random.u64(..4));
        self.count = self.count.saturating_add(clicks);
        let counter = match random.u8(..10) {
            0 => Counter::new(
                random.u64(..=self.count.red()),
                random.u64(..=self.count.blue()),
            ),
            _ => self.count,
        };
        Message::Count {
            device: self.name.clone(),
            incarnation: self.incarnation,
            counter,
        }
    }

    fn press(&mut self, random: &mut Rng) -> Message {
        let id = match random.u8(..4) {
            0 => None,
            // Again, if there was one.
            1 => Some(self.presses.saturating_sub(random.u64(..5))),
            _ => {
                self.presses += 1;
                Some(self.presses)
            }
        };
        Message::Press {
            device: self.name.clone(),
            red: random.u64(1..4),
            id: id.map(|id| id.to_string()),
        }
    }
}

/// Mostly short, now and then longer than a page of the store.
fn payload(random: &mut Rng, next: u64) -> Vec<u8> {
    let length = match random.u8(..12) {
        0 => random.usize(1_000..6_000),
        _ => random.usize(1..60),
    };
    let mut payload = next.to_string().into_bytes();
    payload.resize(payload.len() + length, b'.');
    payload
}

/// The message as it is published.
pub(super) fn publish(message: &Message, now: u64) -> Publish {
    match message {
        Message::State {
            topic,
            payload,
            expires_at,
            light,
        } => Publish {
            qos: match light {
                true => 0,
                false => Publish::STATE_QOS,
            },
            expires_in: expires_at.map(|at| Duration::from_millis(at - now)),
            ..Publish::state(topic_name(topic), Bytes::from(payload.clone()))
        },
        Message::Count {
            device,
            incarnation,
            counter,
        } => Publish::state(
            topic_name(&count_topic(device, *incarnation)),
            counter.to_string(),
        ),
        Message::ClearCount {
            device,
            incarnation,
        } => Publish::state(topic_name(&count_topic(device, *incarnation)), ""),
        Message::Press { device, red, id } => {
            let topic = topic_name(&format!("clicks/main/{device}/press"));
            let id = id
                .as_ref()
                .map_or_else(String::new, |id| format!(r#","id":"{id}""#));
            Publish::event(topic, format!(r#"{{"color":"red","n":{red}{id}}}"#))
        }
        Message::Event { payload } => {
            Publish::event(topic_name("event"), Bytes::from(payload.clone()))
        }
    }
}
