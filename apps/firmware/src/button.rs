//! The counter, and the hub that carries it to the link and the room's values to the display.

use core::fmt::Write;

use heapless::String;
use latchbus_core::clicks::{ClickTopic, Color, Counter, Incarnation};
use latchbus_core::hub::{FixedHub, Mode, Retain, Start, Step, SubscriptionId};
use latchbus_core::topic::{TopicFilter, TopicName};

use crate::debounce::Debouncer;
use crate::names::{DEVICE, MAX_TOPIC_BYTES, ROOM};

/// Two topics are kept, the device's count and the room's values, and there is one subscription for each.
type Hub = latchbus_core::fixed_hub! {
    retained: 2,
    tombstones: 1,
    recent: 2,
    subscriptions: 2,
    topic_bytes: MAX_TOPIC_BYTES,
    payload_bytes: Counter::MAX_JSON_BYTES,
};

/// A topic of this device or its room.
pub type Topic = String<MAX_TOPIC_BYTES>;

/// What the hub's own revisions count in; nobody outside sees them. With 0 the button is all zeros at its start, and
/// takes no flash for its initial value.
const EPOCH: u64 = 0;

/// A button for each colour.
#[derive(Debug)]
pub struct Button {
    pins: [Debouncer; Color::COUNT],
    counter: Counter,
    /// Known once this boot is.
    count_topic: Option<Topic>,
    hub: Hub,
    subscriptions: Option<Subscriptions>,
}

#[derive(Debug, Clone, Copy)]
struct Subscriptions {
    counts: SubscriptionId,
    values: SubscriptionId,
}

impl Button {
    /// No clicks yet.
    pub const fn new() -> Self {
        Self {
            pins: [Debouncer::new(); Color::COUNT],
            counter: Counter::ZERO,
            count_topic: None,
            hub: FixedHub::new(EPOCH),
            subscriptions: None,
        }
    }

    /// Takes the levels of all pins, in the order of [`Color::ALL`]; true is closed. To be called every
    /// [`SAMPLE_MS`](crate::debounce::SAMPLE_MS).
    pub fn sample(&mut self, closed: [bool; Color::COUNT]) {
        let mut clicked = false;
        let pins = self.pins.iter_mut().zip(closed);
        for ((pin, closed), color) in pins.zip(Color::ALL) {
            if pin.sample(closed) {
                self.counter.add(color, 1);
                clicked = true;
            }
        }
        if clicked {
            self.publish_count();
        }
    }

    /// Which buttons are down, in the order of [`Color::ALL`].
    pub fn pressed(&self) -> [bool; Color::COUNT] {
        self.pins.map(|pin| pin.is_pressed())
    }

    /// The clicks of this boot.
    pub fn counter(&self) -> Counter {
        self.counter
    }

    /// Whether it is known which boot this is.
    pub fn has_begun(&self) -> bool {
        self.count_topic.is_some()
    }

    /// This boot is known: from now on clicks can be published, and those made before as well.
    pub fn begin(&mut self, incarnation: Incarnation) {
        let mut topic = Topic::new();
        let count = ClickTopic::Count {
            room: ROOM,
            device: DEVICE,
            incarnation,
        };
        // The names were checked to leave room for it.
        if write!(topic, "{count}").is_ok() {
            self.count_topic = Some(topic);
            self.publish_count();
        }
    }

    /// Takes a message from the bus. Only the room's values are of interest.
    pub fn heard(&mut self, topic: &str, payload: &[u8]) {
        if let Some(ClickTopic::Values { room: ROOM }) = ClickTopic::recognise(topic)
            && let Ok(topic) = TopicName::parse(topic)
        {
            // What is longer than any counter is none.
            let _kept = self.hub.publish(topic, payload, Retain::LAST, 0);
        }
    }

    /// The room's values, when they have changed since the last call.
    pub fn news(&mut self) -> Option<Counter> {
        let id = self.subscriptions()?.values;
        let mut newest = None;
        while let Ok(Some(step)) = self.hub.next(id) {
            if let Step::Entry { entry, .. } = step {
                newest = Counter::parse(entry.payload).ok().or(newest);
            }
        }
        newest
    }

    /// The newest count to be published, and whether it has changed since the last call. None before
    /// [`begin`](Self::begin).
    pub fn report(&mut self) -> Option<Report<'_>> {
        let id = self.subscriptions()?.counts;
        let mut changed = false;
        while let Ok(Some(step)) = self.hub.next(id) {
            changed |= matches!(step, Step::Entry { .. });
        }
        let topic = self.count_topic.as_deref()?;
        let last = self.hub.last(TopicName::parse(topic).ok()?)?;
        Some(Report {
            topic,
            payload: last.payload,
            total: Counter::parse(last.payload).ok()?.total(),
            changed,
        })
    }

    fn publish_count(&mut self) {
        let Some(topic) = self.count_topic.as_deref() else {
            return;
        };
        let mut payload = [0; Counter::MAX_POSTCARD_BYTES];
        if let (Ok(topic), Some(payload)) = (
            TopicName::parse(topic),
            self.counter.encode_postcard(&mut payload),
        ) {
            // There is a place for each of the two topics.
            let _kept = self.hub.publish(topic, payload, Retain::LAST, 0);
        }
    }

    fn subscriptions(&mut self) -> Option<Subscriptions> {
        if self.subscriptions.is_none() {
            let mut subscribe = |filter| {
                let filter = TopicFilter::parse(filter).ok()?;
                self.hub
                    .subscribe(filter, Mode::Latest, Start::Snapshot)
                    .ok()
            };
            self.subscriptions = Some(Subscriptions {
                counts: subscribe("clicks/+/+/count/+")?,
                values: subscribe("clicks/+/values")?,
            });
        }
        self.subscriptions
    }
}

impl Default for Button {
    fn default() -> Self {
        Self::new()
    }
}

/// What is to be published of the device's clicks: retained, and again until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a> {
    /// The count topic of this boot.
    pub topic: &'a str,
    /// The counter.
    pub payload: &'a [u8],
    /// The clicks in it. It never decreases, so an acknowledgement of this many covers all before.
    pub total: u64,
    /// Whether this is news since the last look.
    pub changed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(button: &mut Button, which: usize) {
        for closed in [true, false] {
            for _ in 0..4 {
                let mut levels = [false; Color::COUNT];
                levels[which] = closed;
                button.sample(levels);
            }
        }
    }

    #[test]
    fn clicks_before_the_boot_is_known_are_reported_after() {
        let mut button = Button::new();
        press(&mut button, 0);
        press(&mut button, 1);
        press(&mut button, 0);
        assert_eq!(button.report(), None);
        button.begin(Incarnation::new(3, 0x0bad_cafe).unwrap());
        let report = button.report().unwrap();
        assert_eq!(report.topic, "clicks/main/button/count/3-0badcafe");
        assert_eq!(Counter::parse(report.payload), Ok(Counter::new(2, 1)));
        assert_eq!((report.total, report.changed), (3, true));
        assert!(!button.report().unwrap().changed);
        press(&mut button, 1);
        press(&mut button, 1);
        let report = button.report().unwrap();
        assert_eq!(
            (report.total, report.changed),
            (5, true),
            "the newest alone"
        );
    }

    #[test]
    fn values_of_the_room_are_news_once() {
        let mut button = Button::new();
        assert_eq!(button.news(), None);
        button.heard("clicks/main/values", br#"{"red":1,"blue":2}"#);
        button.heard("clicks/main/values", br#"{"red":3,"blue":2}"#);
        button.heard("clicks/other/values", br#"{"red":9,"blue":9}"#);
        button.heard("clicks/main/share", br#"{"red":60.0,"blue":40.0}"#);
        assert_eq!(button.news(), Some(Counter::new(3, 2)));
        assert_eq!(button.news(), None);
        button.heard("clicks/main/values", b"nonsense");
        assert_eq!(button.news(), None);
    }

    #[test]
    fn both_pins_at_once_are_two_clicks() {
        let mut button = Button::new();
        for _ in 0..4 {
            button.sample([true, true]);
        }
        assert_eq!(button.counter(), Counter::new(1, 1));
        assert_eq!(button.pressed(), [true, true]);
    }
}
