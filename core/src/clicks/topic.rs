use core::fmt;

use super::incarnation::Incarnation;
use super::misspelt::{self, MalformedTopic, NearMiss};

/// The longest name of a room or device, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// A topic that the click model gives a meaning. `Display` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClickTopic<'a> {
    /// `clicks/<room>/<device>/count/<boot>-<nonce>`: a device's [`Counter`](super::Counter), retained.
    Count {
        /// Where the device counts.
        room: &'a str,
        /// Whose clicks they are.
        device: &'a str,
        /// Which of its runs.
        incarnation: Incarnation,
    },
    /// `clicks/<room>/<device>/floor`: the hub's [`FloorRecord`](super::FloorRecord), retained.
    Floor {
        /// Where the device counts.
        room: &'a str,
        /// Whose clicks they are.
        device: &'a str,
    },
    /// `clicks/<room>/<device>/press`: a [`Press`](super::Press), an event.
    Press {
        /// Where the press counts.
        room: &'a str,
        /// On whose behalf.
        device: &'a str,
    },
    /// `clicks/<room>/<device>/pressed`: the hub's count of this device's presses, retained.
    Pressed {
        /// Where the presses count.
        room: &'a str,
        /// On whose behalf.
        device: &'a str,
    },
    /// `clicks/<room>/<device>/status`: `online` or `offline`, retained.
    Status {
        /// Where the device counts.
        room: &'a str,
        /// Whose presence it is.
        device: &'a str,
    },
    /// `clicks/<room>/<device>/trouble`: what of this device's the hub could not read, retained.
    Trouble {
        /// Where the device counts.
        room: &'a str,
        /// Whose reports were malformed.
        device: &'a str,
    },
    /// `clicks/<room>/values`: the hub's sum of all devices, retained.
    Values {
        /// Whose sum.
        room: &'a str,
    },
    /// `clicks/<room>/share`: the hub's [`Shares`](super::Shares), retained.
    Share {
        /// Whose shares.
        room: &'a str,
    },
    /// `clicks/<room>/rate`: the hub's [`PerSecond`](super::PerSecond), retained.
    Rate {
        /// Whose rate.
        room: &'a str,
    },
}

impl<'a> ClickTopic<'a> {
    /// The most bytes of such a topic with valid names.
    pub const MAX_BYTES: usize = "clicks/".len()
        + MAX_NAME_BYTES
        + 1
        + MAX_NAME_BYTES
        + "/count/".len()
        + Incarnation::MAX_BYTES;

    /// A click topic as it is to be; none for any other topic, also for one that was to be a click topic and is malformed.
    /// For readers of what a hub has accepted: a microcontroller needs no more. See [`parse`](Self::parse).
    #[must_use]
    pub fn recognise(topic: &'a str) -> Option<Self> {
        Self::recognise_below(topic.strip_prefix("clicks/")?)
    }

    /// The same for what stands below `clicks/`.
    pub(super) fn recognise_below(below: &'a str) -> Option<Self> {
        let (room, rest) = below.split_once('/')?;
        if !is_name(room) {
            return None;
        }
        let Some((device, rest)) = rest.split_once('/') else {
            return match rest {
                "values" => Some(Self::Values { room }),
                "share" => Some(Self::Share { room }),
                "rate" => Some(Self::Rate { room }),
                _ => None,
            };
        };
        if !is_name(device) {
            return None;
        }
        match rest {
            "press" => Some(Self::Press { room, device }),
            "pressed" => Some(Self::Pressed { room, device }),
            "floor" => Some(Self::Floor { room, device }),
            "status" => Some(Self::Status { room, device }),
            "trouble" => Some(Self::Trouble { room, device }),
            _ => Some(Self::Count {
                room,
                device,
                incarnation: rest.strip_prefix("count/")?.parse().ok()?,
            }),
        }
    }

    /// Recognises a click topic, and one that was to be one. `Ok(None)` is an ordinary topic, which the click model leaves
    /// alone.
    ///
    /// # Errors
    /// [`MalformedTopic`] for a topic in the place of a count or a press that names no valid room,
    /// device or incarnation, or too many or too few of them, or whose `count` or `press` is one slip of the keyboard
    /// away. A publish to it must change nothing: passed on as an ordinary topic, its clicks would be lost in silence.
    pub fn parse(topic: &'a str) -> Result<Option<Self>, MalformedTopic> {
        let Some(below) = topic.strip_prefix("clicks/") else {
            return Ok(None);
        };
        match Self::recognise_below(below) {
            Some(known) => Ok(Some(known)),
            None => misspelt::malformed(below).map_or(Ok(None), Err),
        }
    }

    /// What an ordinary topic may have been meant to be: one whose `count` or `press` is two slips of the keyboard away,
    /// and a count or a press below a misspelt `clicks`. They are somebody else's as well as not, so that a publish is
    /// accepted, and its publisher ought to be told. With a slash before it, as a path begins, `clicks` is another topic too.
    #[must_use]
    pub fn near_miss(topic: &str) -> Option<NearMiss> {
        misspelt::near_miss(topic)
    }

    /// The room of the topic.
    #[must_use]
    pub const fn room(self) -> &'a str {
        match self {
            Self::Count { room, .. }
            | Self::Floor { room, .. }
            | Self::Press { room, .. }
            | Self::Pressed { room, .. }
            | Self::Status { room, .. }
            | Self::Trouble { room, .. }
            | Self::Values { room }
            | Self::Share { room }
            | Self::Rate { room } => room,
        }
    }
}

impl fmt::Display for ClickTopic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clicks/{}/", self.room())?;
        match self {
            Self::Count {
                device,
                incarnation,
                ..
            } => write!(f, "{device}/count/{incarnation}"),
            Self::Floor { device, .. } => write!(f, "{device}/floor"),
            Self::Press { device, .. } => write!(f, "{device}/press"),
            Self::Pressed { device, .. } => write!(f, "{device}/pressed"),
            Self::Status { device, .. } => write!(f, "{device}/status"),
            Self::Trouble { device, .. } => write!(f, "{device}/trouble"),
            Self::Values { .. } => f.write_str("values"),
            Self::Share { .. } => f.write_str("share"),
            Self::Rate { .. } => f.write_str("rate"),
        }
    }
}

/// Whether this names a room or a device: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME_BYTES
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether only the hub may publish to this topic: `values`, `share`, `rate` and `reset` of a room, `floor`,
/// `pressed`, `trouble` and `zero` of a device, and `$SYS` with everything below it.
///
/// The levels of room and device may be anything here, valid names or not, so that a subscriber to
/// `clicks/+/values` never sees a forged one.
#[must_use]
pub fn is_reserved(topic: &str) -> bool {
    if let Some(below) = topic.strip_prefix("$SYS") {
        return below.is_empty() || below.starts_with('/');
    }
    let Some(levels) = topic.strip_prefix("clicks/") else {
        return false;
    };
    let mut levels = levels.split('/').skip(1);
    match (levels.next(), levels.next(), levels.next()) {
        (Some(kind), None, _) => matches!(kind, "values" | "share" | "rate" | "reset"),
        (Some(_), Some(kind), None) => matches!(kind, "floor" | "pressed" | "trouble" | "zero"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn click_topics_are_recognised_and_written() {
        let (room, device) = ("main", "kiosk-1");
        let incarnation = Incarnation::new(3, 0x0bad_cafe).unwrap();
        for (text, topic) in [
            (
                "clicks/main/kiosk-1/count/3-0badcafe",
                ClickTopic::Count {
                    room,
                    device,
                    incarnation,
                },
            ),
            (
                "clicks/main/kiosk-1/floor",
                ClickTopic::Floor { room, device },
            ),
            (
                "clicks/main/kiosk-1/press",
                ClickTopic::Press { room, device },
            ),
            (
                "clicks/main/kiosk-1/pressed",
                ClickTopic::Pressed { room, device },
            ),
            (
                "clicks/main/kiosk-1/status",
                ClickTopic::Status { room, device },
            ),
            (
                "clicks/main/kiosk-1/trouble",
                ClickTopic::Trouble { room, device },
            ),
            ("clicks/main/values", ClickTopic::Values { room }),
            ("clicks/main/share", ClickTopic::Share { room }),
            ("clicks/main/rate", ClickTopic::Rate { room }),
        ] {
            assert_eq!(ClickTopic::parse(text), Ok(Some(topic)));
            assert_eq!(topic.to_string(), text);
            assert_eq!(topic.room(), room);
        }
        let long = "n".repeat(MAX_NAME_BYTES);
        let longest = std::format!("clicks/{long}/{long}/count/4294967295-ffffffff");
        assert_eq!(longest.len(), ClickTopic::MAX_BYTES);
        assert!(matches!(ClickTopic::parse(&longest), Ok(Some(_))));
    }

    #[test]
    fn ordinary_topics_pass() {
        for topic in [
            "",
            "/",
            "lab/temp",
            "clicks",
            "clicks/",
            "clicks/main",
            "clicks/main/",
            "clicks/main/kiosk-1",
            "clicks/main/counts",
            "clicks/pressure",
            "clicks/main/presses",
            "clicks/main/kiosk-1/",
            "clicks/main/kiosk-1/counts/1",
            "clicks/main/kiosk-1/x/pres",
            "clicks/main/kiosk-1/x/count/1",
            "clicks/main/kiosk-1/mount/x",
            "clicks/main/kiosk-1/state",
            "clicks/main/kiosk-1/stats",
            "clicks/main/kiosk-1/pressure",
            "clicks/main/kiosk-1/presses",
            "clicks/main/kiosk-1/express",
            "clicks/my room/kiosk-1/pressed",
            "clicks/main/kiosk-1/floor/x",
            "clicks/main/values/x",
            "clicks/my room/values",
            "clicks/my room/kiosk-1/status",
            "/clicks/main/kiosk-1/press",
            "Clicks/main/kiosk-1/press",
            "clicks2/main/kiosk-1/count/1-0",
        ] {
            assert_eq!(ClickTopic::parse(topic), Ok(None), "{topic}");
        }
    }

    #[test]
    fn counts_and_presses_in_the_wrong_form_are_malformed() {
        for topic in [
            "clicks/main/kiosk-1/count",
            "clicks/main/kiosk-1/count/",
            "clicks/main/kiosk-1/count/1",
            "clicks/main/kiosk-1/count/0-0badcafe",
            "clicks/main/kiosk-1/count/1-0BADCAFE",
            "clicks/main/kiosk-1/count/1-0badcafe/",
            "clicks/main/kiosk-1/count/1-0badcafe/x",
        ] {
            assert_eq!(
                ClickTopic::parse(topic),
                Err(MalformedTopic::Incarnation),
                "{topic}"
            );
        }
        let long = "n".repeat(MAX_NAME_BYTES + 1);
        for name in ["", ".", "-a", "_a", "a b", "caf\u{e9}", "a+", "$a", &long] {
            assert!(!is_name(name), "{name}");
            for topic in [
                std::format!("clicks/{name}/kiosk-1/press"),
                std::format!("clicks/main/{name}/press"),
                std::format!("clicks/main/{name}/count/1-0badcafe"),
                std::format!("clicks/{name}/kiosk-1/count/1-0badcafe"),
            ] {
                assert_eq!(
                    ClickTopic::parse(&topic),
                    Err(MalformedTopic::Name),
                    "{topic}"
                );
            }
        }
        for name in ["a", "0", "A.b_c-9", &long[1..]] {
            assert!(is_name(name), "{name}");
        }
    }

    #[test]
    fn a_slip_is_told_from_another_topic() {
        for word in [
            "pres", "press ", " press", "presss", "prses", "perss", "Press", "PRESS", "prezs",
            "ress",
        ] {
            for topic in [
                std::format!("clicks/main/k1/{word}"),
                std::format!("clicks/my room/k1/{word}"),
            ] {
                let slip = MalformedTopic::Slip { meant: "press" };
                assert_eq!(ClickTopic::parse(&topic), Err(slip), "{topic}");
            }
        }
        for word in ["counts", "cuont", "coun", "Count", "COUNT"] {
            let topic = std::format!("clicks/main/k1/{word}/1-0badcafe");
            let slip = MalformedTopic::Slip { meant: "count" };
            assert_eq!(ClickTopic::parse(&topic), Err(slip), "{topic}");
        }
        let error = ClickTopic::parse("clicks/main/k1/pres").unwrap_err();
        assert_eq!(error.to_string(), "did you mean `press`?");
        for word in ["counts", "conut", "coun", "Count", " count ", "cont"] {
            let topic = std::format!("clicks/main/k1/{word}");
            let slip = MalformedTopic::Slip { meant: "count" };
            assert_eq!(ClickTopic::parse(&topic), Err(slip), "{topic}");
        }
        for topic in [
            "clicks/press",
            "clicks/Press",
            "clicks/count",
            "clicks/main/count",
            "clicks/main/PRESS",
            "clicks/count/1-0badcafe",
            "clicks/main/count/1-0badcafe",
            "clicks/main/k1/x/press",
            "clicks/main/floor2/k1/x/press",
            "clicks/main/k1/x/count/1-0badcafe",
            "clicks/main/floor2/k1/x/count/1-0badcafe",
        ] {
            assert_eq!(
                ClickTopic::parse(topic),
                Err(MalformedTopic::Depth),
                "{topic}"
            );
        }
        for (topic, error) in [
            ("clicks/main/press", MalformedTopic::Depth),
            ("clicks/main/k1/press/red", MalformedTopic::BehindPress),
            ("clicks/main/k1/press/", MalformedTopic::BehindPress),
        ] {
            assert_eq!(ClickTopic::parse(topic), Err(error), "{topic}");
        }
    }

    #[test]
    fn what_may_have_been_meant() {
        for (topic, meant) in [
            ("Clicks/main/k1/press", "clicks"),
            ("CLICKS/main/k1/press", "clicks"),
            ("click/main/k1/press", "clicks"),
            ("clciks/main/k1/count/1-0badcafe", "clicks"),
            ("Clicks/main/k1/pres", "clicks"),
            ("Clicks/press", "clicks"),
            ("clicks/main/k1/prs", "press"),
            ("clicks/main/k1/presses", "press"),
            ("clicks/main/k1/rpess2", "press"),
            ("clicks/main/k1/ocutn", "count"),
            ("clicks/main/k1/counter", "count"),
            ("clicks/main/k1/counter/1-0badcafe", "count"),
        ] {
            assert_eq!(ClickTopic::parse(topic), Ok(None), "{topic}");
            assert_eq!(
                ClickTopic::near_miss(topic),
                Some(NearMiss::Word(meant)),
                "{topic}"
            );
        }
        for topic in [
            "/clicks/main/k1/press",
            "/clicks/main/k1/pres",
            "/clicks/main/k1/count/1-0badcafe",
            "/clicks/press",
            "/Clicks/main/k1/press",
        ] {
            assert_eq!(
                ClickTopic::near_miss(topic),
                Some(NearMiss::LeadingSlash),
                "{topic}"
            );
        }
        for topic in [
            "",
            "/",
            "/clicks",
            "//clicks/main/k1/press",
            "/clicks/main/k1/temperature",
            "/clicks/main/values",
            "/lab/main/k1/press",
            "clicks",
            "lab/main/k1/press",
            "Clicks/main/k1/temperature",
            "Clicks/main/values",
            "clacks2/main/k1/press",
            "clicks/main/k1/press",
            "clicks/main/k1/pressed",
            "clicks/main/k1/pressure",
            "clicks/main/k1/pres",
            "clicks/main/k1/counts",
            "clicks/press",
            "clicks/main/k1/state",
            "clicks/main/k1/status",
            "clicks/main/k1/count/1-0badcafe",
            "clicks/main/k1/counter/1",
            "clicks/main/k1/x/prs",
        ] {
            assert_eq!(ClickTopic::near_miss(topic), None, "{topic}");
        }
    }

    #[test]
    fn only_the_hub_writes_what_it_derives() {
        for topic in [
            "clicks/main/values",
            "clicks/main/share",
            "clicks/main/rate",
            "clicks/main/kiosk-1/floor",
            "clicks/main/kiosk-1/pressed",
            "clicks/main/kiosk-1/trouble",
            "clicks/main/kiosk-1/zero",
            "clicks/main/reset",
            "clicks//values",
            "clicks/my room/rate",
            "clicks/main//floor",
            "$SYS",
            "$SYS/",
            "$SYS/broker/uptime",
        ] {
            assert!(is_reserved(topic), "{topic}");
        }
        for topic in [
            "",
            "$SYSTEM",
            "$sys/broker",
            "x/$SYS/y",
            "clicks/values",
            "clicks/main/floor",
            "clicks/main/kiosk-1/values",
            "clicks/main/values/x",
            "clicks/main/kiosk-1/floor/x",
            "clicks/main/trouble",
            "clicks/main/zero",
            "clicks/main/kiosk-1/reset",
            "clicks/main/kiosk-1/press",
            "clicks/main/kiosk-1/status",
            "clicks/main/kiosk-1/count/1-0badcafe",
        ] {
            assert!(!is_reserved(topic), "{topic}");
        }
    }
}
