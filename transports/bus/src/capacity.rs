//! How full the hub is: what peers may fill of it, what its own topics take beside that, and when to warn.

use core::fmt;

use latchbus_core::hub::{Hub, Limits};
use latchbus_core::topic::TopicFilter;
use tracing::{info, warn};

use crate::bus::ClickLimits;
use crate::{Metrics, Payload};

/// Places for the hub's own topics besides those of the rooms: `$SYS`, floors, presses, resets.
const OWN_PLACES: usize = 4_096;

/// Values, share and rate.
const PLACES_OF_A_ROOM: usize = 3;

/// From so many hundredths of what may be retained on there is a warning, and below so many it is over.
const WARN_PERCENT: usize = 80;
const CALM_PERCENT: usize = 75;

/// The bounds of the hub itself, of which peers may fill as much as `limits` says: its own topics come on top, so that
/// peers who fill it do not end them.
pub(crate) fn with_own_places(limits: Limits, clicks: ClickLimits) -> Limits {
    let own = OWN_PLACES.saturating_add(PLACES_OF_A_ROOM.saturating_mul(clicks.rooms));
    Limits {
        places: limits.places.saturating_add(own),
        ..limits
    }
}

/// Values that are retained for peers: all but `$SYS` and what is derived of the rooms.
pub(crate) fn taken_by_peers(hub: &Hub<Payload>, metrics: &Metrics) -> usize {
    let system = TopicFilter::parse("$SYS/#").map_or(0, |filter| hub.kept(filter).len());
    let rooms = usize::try_from(metrics.rooms.get()).unwrap_or(usize::MAX);
    let own = system.saturating_add(PLACES_OF_A_ROOM.saturating_mul(rooms));
    hub.places_taken().saturating_sub(own)
}

/// A table that peers may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Table {
    /// Values that are retained for peers.
    Retained,
    /// Rooms.
    Rooms,
    /// Devices of the room that has the most.
    RoomDevices,
    /// Incarnations of the device that has the most.
    DeviceIncarnations,
}

impl Table {
    /// The setting of the `latchbus` program that bounds it.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Retained => "limits.kept_values",
            Self::Rooms => "limits.rooms",
            Self::RoomDevices => "limits.room_devices",
            Self::DeviceIncarnations => "limits.device_incarnations",
        }
    }
}

/// How much of a table is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Which.
    pub table: Table,
    /// How much is taken.
    pub taken: usize,
    /// How much may be.
    pub limit: usize,
}

impl Capacity {
    fn percent(self) -> usize {
        self.taken.saturating_mul(100) / self.limit.max(1)
    }

    /// Whether that is so much that somebody should know.
    pub fn is_near_full(self) -> bool {
        self.percent() >= WARN_PERCENT
    }

    /// Whether what is new is rejected.
    pub const fn is_full(self) -> bool {
        self.taken >= self.limit
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            taken,
            limit,
        } = self;
        let (what, rejected) = match table {
            Table::Retained => ("values are retained", "publishes to new topics"),
            Table::Rooms => ("rooms are known", "clicks in other rooms"),
            Table::RoomDevices => (
                "devices are known in the fullest room",
                "clicks of its other devices",
            ),
            Table::DeviceIncarnations => (
                "incarnations of one device are known",
                "counts of its other incarnations",
            ),
        };
        write!(f, "{taken} of {limit} {what} ({})", table.setting())?;
        match self.is_full() {
            true => write!(f, "; {rejected} are rejected"),
            false => Ok(()),
        }
    }
}

/// What was said of it last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Calm,
    Near,
    Full,
}

/// Warns when a table becomes full, once at each step.
#[derive(Debug, Default)]
pub(crate) struct Watch(Level);

impl Watch {
    pub(crate) fn look(&mut self, capacity: Capacity) {
        let level = self.next(capacity);
        if level > self.0 {
            warn!(target: "bus", "{capacity}");
        } else if level == Level::Calm && self.0 != Level::Calm {
            info!(target: "bus", "{capacity}");
        }
        self.0 = level;
    }

    fn next(&self, capacity: Capacity) -> Level {
        match capacity {
            capacity if capacity.is_full() => Level::Full,
            capacity if capacity.is_near_full() => Level::Near.max(match capacity.percent() {
                // Between full and a little less there is no news.
                95.. => self.0,
                _ => Level::Near,
            }),
            capacity if capacity.percent() >= CALM_PERCENT => self.0.min(Level::Near),
            _ => Level::Calm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_fills_warns_once_at_each_step() {
        let mut watch = Watch::default();
        let mut levels = Vec::new();
        for taken in [0, 79, 80, 90, 100, 99, 100, 80, 79, 75, 74, 79, 80] {
            watch.look(Capacity {
                table: Table::Rooms,
                taken,
                limit: 100,
            });
            levels.push(watch.0);
        }
        use Level::{Calm, Full, Near};
        let expected = [
            Calm, Calm, Near, Near, Full, Full, Full, Near, Near, Near, Calm, Calm, Near,
        ];
        assert_eq!(levels, expected);
    }
}
