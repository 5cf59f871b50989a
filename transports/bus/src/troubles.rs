//! What devices have sent that could not be read, since the start of the hub.

use core::fmt::{self, Display};
use std::collections::{BTreeSet, HashMap};

use latchbus_core::clicks::is_name;

use crate::frames::json::quoted;
use crate::rooms::Rooms;

/// Devices with troubles that have never counted: one more is counted in the metrics alone, like a topic
/// that names no device. Those that have are bounded as devices are.
const STRANGERS: usize = 1_000;

/// Characters of a reason that are shown.
const REASON_CHARS: usize = 200;

type Device = (Box<str>, Box<str>);

/// The malformed reports of each device, by room and name.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    devices: HashMap<Device, Trouble>,
    /// Those of the devices that had never counted when they were seen first.
    strangers: usize,
    changed: BTreeSet<Device>,
}

/// What is shown of one device. `Display` writes it as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Its malformed reports and presses.
    malformed: u64,
    /// When the last of them came, in Unix milliseconds.
    at: u64,
    /// What was wrong with it.
    reason: String,
}

impl Troubles {
    /// Takes note of a malformed report if its topic names a device.
    pub(crate) fn note(&mut self, topic: &str, reason: &dyn Display, now_ms: u64, rooms: &Rooms) {
        let Some((room, device)) = device_of(topic) else {
            return;
        };
        let device: Device = (room.into(), device.into());
        if !self.devices.contains_key(&device) && !rooms.knows(&device.0, &device.1) {
            if self.strangers >= STRANGERS {
                return;
            }
            self.strangers += 1;
        }
        let trouble = self.devices.entry(device.clone()).or_default();
        trouble.malformed += 1;
        trouble.at = now_ms;
        trouble.reason = reason.to_string();
        self.changed.insert(device);
    }

    /// Forgets what a device that was removed has sent.
    pub(crate) fn forget(&mut self, room: &str, device: &str) {
        let key: Device = (room.into(), device.into());
        self.devices.remove(&key);
        self.changed.remove(&key);
    }

    /// What has changed since this was last asked for: room, device, and the whole of it.
    pub(crate) fn changed(&mut self) -> Vec<(Box<str>, Box<str>, Trouble)> {
        let changed = core::mem::take(&mut self.changed).into_iter();
        changed
            .filter_map(|device| {
                let trouble = self.devices.get(&device)?.clone();
                Some((device.0, device.1, trouble))
            })
            .collect()
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            malformed,
            at,
            reason,
        } = self;
        let reason: String = reason.chars().take(REASON_CHARS).collect();
        let reason = quoted(&reason);
        write!(
            f,
            r#"{{"malformed":{malformed},"at":{at},"reason":{reason}}}"#
        )
    }
}

/// The room and the device that a topic below `clicks/` names, whatever follows them.
pub(crate) fn device_of(topic: &str) -> Option<(&str, &str)> {
    let (room, rest) = topic.strip_prefix("clicks/")?.split_once('/')?;
    let (device, _) = rest.split_once('/')?;
    (is_name(room) && is_name(device)).then_some((room, device))
}

#[cfg(test)]
mod tests {
    use latchbus_core::clicks::Counter;

    use super::*;
    use crate::ClickLimits;

    fn rooms() -> Rooms {
        Rooms::new(ClickLimits::default(), "1-00000001".parse().unwrap())
    }

    fn shown(troubles: &mut Troubles) -> Vec<String> {
        let changed = troubles.changed().into_iter();
        changed
            .map(|(room, device, trouble)| format!("{room} {device} {trouble}"))
            .collect()
    }

    #[test]
    fn a_device_is_shown_once_with_its_last_reason() {
        let (mut troubles, rooms) = (Troubles::default(), rooms());
        troubles.note("clicks/main/k/press", &"a", 1, &rooms);
        troubles.note("clicks/main/k/count/x", &"say \"b\"", 2, &rooms);
        troubles.note("clicks/main/j/press", &"c", 3, &rooms);
        assert_eq!(
            shown(&mut troubles),
            [
                r#"main j {"malformed":1,"at":3,"reason":"c"}"#,
                r#"main k {"malformed":2,"at":2,"reason":"say \"b\""}"#,
            ]
        );
        assert_eq!(shown(&mut troubles), [""; 0]);
        troubles.note("clicks/main/k/press", &"d", 4, &rooms);
        assert_eq!(
            shown(&mut troubles),
            [r#"main k {"malformed":3,"at":4,"reason":"d"}"#]
        );
    }

    #[test]
    fn only_names_of_devices_are_noted() {
        let (mut troubles, rooms) = (Troubles::default(), rooms());
        for topic in [
            "clicks/main/a b/press",
            "clicks/my room/k/press",
            "clicks//k/press",
            "clicks/main/press",
            "lab/main/k/press",
        ] {
            troubles.note(topic, &"x", 1, &rooms);
        }
        assert_eq!(shown(&mut troubles), [""; 0]);
    }

    #[test]
    fn strangers_are_bounded_and_devices_that_count_find_room() {
        let (mut troubles, mut rooms) = (Troubles::default(), rooms());
        let counter = Counter::new(1, 0);
        let boot = "1-00000007".parse().unwrap();
        rooms.report(("main", "known"), boot, counter, 0).unwrap();
        for n in 0..=STRANGERS {
            troubles.note(&format!("clicks/main/s{n}/press"), &"x", 1, &rooms);
        }
        assert_eq!(troubles.changed().len(), STRANGERS);
        troubles.note("clicks/main/another/press", &"x", 1, &rooms);
        troubles.note("clicks/main/s0/press", &"x", 1, &rooms);
        troubles.note("clicks/main/known/press", &"x", 1, &rooms);
        let devices = troubles.changed();
        let names: Vec<_> = devices.iter().map(|(_, device, _)| &**device).collect();
        assert_eq!(names, ["known", "s0"]);
    }
}
