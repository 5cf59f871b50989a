//! The bytes of what a hub keeps are counted as values come and go.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![cfg(feature = "alloc")]

use latchbus_core::hub::{Hub, Limits, Retain};
use latchbus_core::topic::{TopicFilter, TopicName};

#[test]
fn kept_bytes_are_those_of_the_kept_values() {
    let mut hub: Hub<Vec<u8>> = Hub::new(1, Limits::default());
    let check = |hub: &Hub<Vec<u8>>, expected: usize| {
        let kept = hub.kept(TopicFilter::parse("#").unwrap());
        let bytes: usize = kept.iter().map(|entry| entry.payload.len()).sum();
        assert_eq!((hub.kept_bytes(), bytes), (expected, expected));
    };
    let publish = |hub: &mut Hub<Vec<u8>>, topic: &str, bytes: usize, retain: Retain| {
        let topic = TopicName::parse(topic).unwrap();
        hub.publish(topic, vec![7; bytes], retain, 0).unwrap();
    };

    check(&hub, 0);
    publish(&mut hub, "a", 10, Retain::LAST);
    publish(&mut hub, "a", 4, Retain::LAST);
    check(&hub, 4);
    publish(&mut hub, "event", 100, Retain::No);
    check(&hub, 4);
    for bytes in [1, 2, 3, 4] {
        publish(&mut hub, "several", bytes, Retain::Last(3));
    }
    check(&hub, 4 + 9);
    publish(&mut hub, "several", 5, Retain::Last(1));
    check(&hub, 4 + 5);
    publish(&mut hub, "a", 0, Retain::LAST);
    check(&hub, 5);
    publish(&mut hub, "a", 6, Retain::LAST);
    check(&hub, 5 + 6);
}
