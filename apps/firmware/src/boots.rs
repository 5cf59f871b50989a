//! Which boot this is. A device without storage takes the highest boot that it finds on the bus, and one.

use latchbus_core::clicks::{ClickTopic, FloorRecord};

use crate::names::{DEVICE, ROOM};

/// What a device has found of its own earlier boots.
///
/// It is not sure before two complete walks through its topics have found the same: what one walk has missed on a
/// bad line, the next is unlikely to miss too. A boot that was taken twice would do no harm, as the nonce
/// tells the two apart; but one at or below the floor would never be counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boots {
    highest: u32,
    /// What the walk before this one has found.
    before: Option<u32>,
}

impl Boots {
    /// Nothing found.
    pub const fn new() -> Self {
        Self {
            highest: 0,
            before: None,
        }
    }

    /// Takes a retained message. What is not one of this device's count or floor topics is passed over.
    pub fn found(&mut self, topic: &str, payload: &[u8]) {
        let boot = match ClickTopic::recognise(topic) {
            Some(ClickTopic::Count {
                room: ROOM,
                device: DEVICE,
                incarnation,
            }) => incarnation.boot(),
            Some(ClickTopic::Floor {
                room: ROOM,
                device: DEVICE,
            }) => match FloorRecord::parse(payload) {
                Ok(record) => record.floor,
                Err(_) => return,
            },
            _ => return,
        };
        self.highest = self.highest.max(boot);
    }

    /// A walk is complete. Gives this boot when it is sure: when the walk before has found the same.
    pub fn walked(&mut self) -> Option<u32> {
        let before = self.before.replace(self.highest);
        // After 2^32 boots the nonce alone has to do.
        (before == Some(self.highest)).then_some(self.highest.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_boot_is_taken_when_two_walks_agree() {
        let mut boots = Boots::new();
        boots.found("clicks/main/button/count/4-0badcafe", b"");
        assert_eq!(boots.walked(), None);
        boots.found("clicks/main/button/count/4-0badcafe", b"");
        boots.found("clicks/main/button/count/6-00000000", b"");
        assert_eq!(boots.walked(), None, "the first walk has missed one");
        assert_eq!(boots.walked(), Some(7));
    }

    #[test]
    fn the_floor_counts_and_others_do_not() {
        let mut boots = Boots::new();
        boots.found(
            "clicks/main/button/floor",
            br#"{"floor":9,"red":40,"blue":2}"#,
        );
        boots.found("clicks/main/button/floor", b"12");
        boots.found("clicks/main/other/count/20-0badcafe", b"");
        boots.found("clicks/other/button/count/20-0badcafe", b"");
        boots.found("clicks/main/button/count/20", b"");
        boots.walked();
        assert_eq!(boots.walked(), Some(10));
    }

    #[test]
    fn a_device_that_was_never_seen_begins_with_one() {
        let mut boots = Boots::new();
        assert_eq!((boots.walked(), boots.walked()), (None, Some(1)));
    }
}
