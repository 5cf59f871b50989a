//! What a device knows and what it may say: its counters, without I/O.
//!
//! The owner tells what happened (`click`, `ready`, …), writes [`Device::record`] to disk whenever
//! [`Device::is_dirty`], then calls [`Device::saved`], and hands [`Device::report`] to the connection.
//! In this order a count is on disk before anybody can hear of it.
//!
//! # Taking a new incarnation
//! An incarnation belongs to one device alone, or the larger of two counts swallows the other's clicks. There are two
//! signs that this one can't go on, and with each the device goes on in a new one, above every boot that it
//! knows. A click that is counted twice can't be taken back, so what may be counted already stays behind.
//!
//! - **The hub has folded it**: it takes no report of boots at or below the floor any more. That happens when
//!   other devices use this id. What was never handed to a connection is carried over ([`Record::offered`] tells what was).
//!   Lost are clicks that reached the hub after others had left the device eight boots behind.
//! - **The hub knows more of it than was ever handed to a connection**: somebody else counts in it. The state file
//!   is an older copy that was put back, or there are two copies of it. What the file held at the start may
//!   then be a part of what the hub knows, so only this run's clicks are carried over, and of the earlier ones those that
//!   exceed what the hub knows: the other's report has everything that the two have in common. Lost are clicks of
//!   an earlier run that ended before it found a server, and clicks that two devices hand over in the same moment,
//!   before either has heard of the other.
//!
//! The new incarnation is stored, with what it carries over, before anything is said in it. Whoever is killed before
//! that write finds the old incarnation with these clicks as an earlier run's, of which it has said nothing.

use latchbus_core::clicks::{ClickTopic, Color, Counter, Incarnation};

use crate::simulation::Run;

/// What a device must not forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Under which its clicks are reported.
    pub incarnation: Incarnation,
    /// Its clicks since then.
    pub count: Counter,
    /// The part of them that a connection was, or may have been, given to send; never more than `count`.
    pub offered: Counter,
    /// The simulation that it is in.
    pub run: Option<Run>,
}

impl Record {
    /// A device that has just come into being.
    pub fn new(nonce: u32) -> Option<Self> {
        Some(Self {
            incarnation: Incarnation::new(1, nonce)?,
            count: Counter::ZERO,
            offered: Counter::ZERO,
            run: None,
        })
    }
}

/// What the hub has been heard to know of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Boots at or below it are folded.
    Floor(u32),
    /// The count of an incarnation, this one or another.
    Count(Incarnation, Counter),
}

/// A device of one room.
#[derive(Debug)]
pub struct Device {
    room: String,
    id: String,
    record: Record,
    dirty: bool,
    ready: bool,
    floor: u32,
    /// The highest boot of another incarnation.
    highest: u32,
    /// What the hub was heard to know of this incarnation.
    kept: Counter,
    /// The part of the count that was made in this run and not handed to a connection. Not stored: what a file
    /// holds, a copy of it holds too.
    fresh: Counter,
}

/// What a device has to say: retained, QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The count topic of the incarnation.
    pub topic: String,
    /// Its clicks that are offered.
    pub counter: Counter,
}

impl Device {
    /// A device that goes on from what was stored; what is new is not stored yet.
    pub fn new(room: &str, id: &str, record: Record, is_new: bool) -> Self {
        Self {
            room: room.to_owned(),
            id: id.to_owned(),
            record,
            dirty: is_new,
            ready: false,
            floor: 0,
            highest: 0,
            kept: Counter::ZERO,
            fresh: Counter::ZERO,
        }
    }

    /// What is to be stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether [`Self::record`] differs from what was stored.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// [`Self::record`] is on disk.
    pub fn saved(&mut self) {
        self.dirty = false;
    }

    /// Counts clicks. Beyond 2^53 − 1 they are not counted any more.
    pub fn click(&mut self, color: Color, n: u64) {
        self.count(color, n);
        self.offer();
    }

    /// Makes up to `n` clicks of the simulation.
    pub fn simulate(&mut self, n: u64) {
        for _ in 0..n {
            let Some(color) = self.record.run.as_mut().and_then(Run::click) else {
                break;
            };
            self.count(color, 1);
        }
        self.offer();
    }

    /// Begins a simulation, goes on with one, or forgets it.
    pub fn set_run(&mut self, run: Option<Run>) {
        self.dirty |= run != self.record.run;
        self.record.run = run;
    }

    /// A connection is up, and all that the hub knew of this device then has been [heard](Self::hear).
    pub fn ready(&mut self, nonce: impl FnOnce() -> u32) {
        self.ready = true;
        self.renew(nonce);
        self.offer();
    }

    /// The hub knows this.
    pub fn hear(&mut self, heard: Heard, nonce: impl FnOnce() -> u32) {
        match heard {
            Heard::Floor(floor) => self.floor = self.floor.max(floor),
            Heard::Count(incarnation, counter) if incarnation == self.record.incarnation => {
                self.kept = self.kept.join(counter);
            }
            Heard::Count(incarnation, _) => self.highest = self.highest.max(incarnation.boot()),
        }
        if self.ready {
            self.renew(nonce);
            self.offer();
        }
    }

    /// The connection is gone: what is counted from now on is offered to nobody.
    pub fn away(&mut self) {
        self.ready = false;
    }

    /// What to hand to the connection. Only of what is stored, and only above the floor.
    pub fn report(&self) -> Option<Report> {
        let Record {
            incarnation,
            offered,
            ..
        } = self.record;
        let speaks = self.ready && !self.dirty && !offered.is_zero() && !self.is_folded();
        speaks.then(|| Report {
            topic: self.count_topic(incarnation),
            counter: offered,
        })
    }

    /// Whether a connection is up that has told all it knew.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether a server that has acknowledged this report knows every click.
    ///
    /// The server must also have been heard to keep the count. MQTT 3.1.1 acknowledges what it refuses
    /// (§3.3.5, MQTT-3.3.5-2), for example when a room has no place for one more device.
    pub fn is_covered_by(&self, report: &Report) -> bool {
        let Record {
            incarnation, count, ..
        } = self.record;
        !self.dirty
            && !self.is_folded()
            && report.counter == count
            && self.kept.join(count) == self.kept
            && report.topic == self.count_topic(incarnation)
    }

    /// Whether there is no click that a server would have to know.
    pub fn is_silent(&self) -> bool {
        self.record.count.is_zero() && !self.dirty
    }

    /// Whether the hub takes no report of this incarnation any more, and there is no later one to take.
    pub fn is_folded(&self) -> bool {
        self.record.incarnation.boot() <= self.floor
    }

    fn count_topic(&self, incarnation: Incarnation) -> String {
        let (room, device) = (self.room.as_str(), self.id.as_str());
        ClickTopic::Count {
            room,
            device,
            incarnation,
        }
        .to_string()
    }

    fn count(&mut self, color: Color, n: u64) {
        self.record.count.add(color, n);
        self.fresh.add(color, n);
        self.dirty = true;
    }

    /// Whether somebody else counts in this incarnation: what is offered is stored before it is sent, so the
    /// hub can't have more from this device.
    fn is_shared(&self) -> bool {
        let offered = self.record.offered;
        offered.join(self.kept) != offered
    }

    /// Takes a new incarnation when this one can't go on; also when nothing was reported in it yet and others
    /// were, so that a device that lost its state file again and again folds its own past.
    fn renew(&mut self, nonce: impl FnOnce() -> u32) {
        let Record {
            incarnation,
            count,
            offered,
            ..
        } = self.record;
        let is_shared = self.is_shared();
        let unheard = offered.is_zero() && incarnation.boot() <= self.highest;
        if !self.is_folded() && !is_shared && !unheard {
            return;
        }
        let known = self.floor.max(self.highest).max(incarnation.boot());
        let boot = known.saturating_add(1);
        // At the very last boot there is no later one. The nonce alone parts two devices that share it; below
        // the floor, the device falls silent, and says so at its end.
        let parts = boot > incarnation.boot() || is_shared;
        if !parts {
            return;
        }
        let Some(incarnation) = Incarnation::new(boot, nonce()) else {
            return;
        };
        self.record.incarnation = incarnation;
        self.record.count = if is_shared {
            let earlier = count.since(self.fresh);
            let beyond = earlier.since(offered.join(self.kept));
            self.fresh.saturating_add(beyond)
        } else {
            count.since(offered)
        };
        self.record.offered = Counter::ZERO;
        self.kept = Counter::ZERO;
        self.dirty = true;
    }

    fn offer(&mut self) {
        if self.ready && !self.is_folded() && self.record.offered != self.record.count {
            self.record.offered = self.record.count;
            self.fresh = Counter::ZERO;
            self.dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u32 = 0x0bad_cafe;
    const OTHER: u32 = 0x5eed_5eed;

    fn fresh() -> Device {
        Device::new("main", "k1", Record::new(NONCE).unwrap(), true)
    }

    fn count(incarnation: &str, red: u64, blue: u64) -> Heard {
        Heard::Count(incarnation.parse().unwrap(), Counter::new(red, blue))
    }

    /// Connected to a hub that knows this.
    fn connect(device: &mut Device, heard: &[Heard], nonce: impl Fn() -> u32) {
        for heard in heard {
            device.hear(*heard, &nonce);
        }
        device.ready(nonce);
    }

    fn unneeded() -> u32 {
        panic!("no new incarnation is to be taken")
    }

    /// Stores, and takes what is said then.
    fn said(device: &mut Device) -> Option<(String, Counter)> {
        device.saved();
        device.report().map(|r| (r.topic, r.counter))
    }

    fn topic(incarnation: &str) -> String {
        format!("clicks/main/k1/count/{incarnation}")
    }

    #[test]
    fn nothing_is_said_before_it_is_stored() {
        let mut device = fresh();
        assert!(device.is_dirty());
        device.saved();
        connect(&mut device, &[], unneeded);
        assert_eq!(device.report(), None, "there is nothing to say yet");
        device.click(Color::Red, 3);
        assert!(device.is_dirty());
        assert_eq!(device.report(), None);
        let report = (topic("1-0badcafe"), Counter::new(3, 0));
        assert_eq!(said(&mut device), Some(report));
        assert_eq!(device.record().offered, Counter::new(3, 0));
    }

    #[test]
    fn clicks_made_offline_are_offered_by_the_next_connection() {
        let mut device = fresh();
        device.click(Color::Red, 1);
        device.saved();
        assert_eq!(device.report(), None);
        connect(&mut device, &[], unneeded);
        assert!(device.is_dirty(), "what is offered is stored first");
        assert_eq!(said(&mut device).unwrap().1, Counter::new(1, 0));
        device.away();
        device.click(Color::Blue, 1);
        device.saved();
        assert_eq!(device.report(), None);
        assert_eq!(device.record().offered, Counter::new(1, 0));
        connect(&mut device, &[count("1-0badcafe", 1, 0)], unneeded);
        let report = (topic("1-0badcafe"), Counter::new(1, 1));
        assert_eq!(said(&mut device), Some(report));
    }

    #[test]
    fn a_floor_above_takes_only_what_was_never_offered_to_a_new_incarnation() {
        let mut device = fresh();
        connect(&mut device, &[], unneeded);
        device.click(Color::Red, 10);
        device.saved();
        device.away();
        device.click(Color::Red, 2);
        device.click(Color::Blue, 5);
        device.saved();
        connect(
            &mut device,
            &[Heard::Floor(4), count("12-00000001", 1, 1)],
            || OTHER,
        );
        assert!(device.is_dirty());
        let report = (topic("13-5eed5eed"), Counter::new(2, 5));
        assert_eq!(said(&mut device), Some(report));

        // The floor rises while it is connected: everything had been offered.
        device.hear(Heard::Floor(21), || NONCE);
        assert_eq!(said(&mut device), None);
        assert_eq!(device.record().incarnation.boot(), 22);
        device.click(Color::Blue, 1);
        let report = (topic("22-0badcafe"), Counter::new(0, 1));
        assert_eq!(said(&mut device), Some(report));
    }

    #[test]
    fn later_boots_above_the_floor_change_nothing_once_it_has_spoken() {
        let mut device = fresh();
        connect(&mut device, &[], unneeded);
        device.click(Color::Red, 1);
        device.saved();
        device.hear(count("5-00000001", 0, 0), unneeded);
        assert_eq!(device.record().incarnation.boot(), 1);
        assert!(!device.is_dirty());
    }

    #[test]
    fn a_device_that_lost_its_state_takes_the_next_boot_with_all_its_clicks() {
        let mut device = fresh();
        device.click(Color::Red, 4);
        device.saved();
        connect(&mut device, &[count("3-00000001", 9, 9)], || OTHER);
        let report = (topic("4-5eed5eed"), Counter::new(4, 0));
        assert_eq!(said(&mut device), Some(report));
    }

    #[test]
    fn without_a_later_boot_it_says_nothing_and_keeps_its_clicks() {
        let mut device = fresh();
        device.click(Color::Red, 4);
        connect(&mut device, &[Heard::Floor(u32::MAX)], || OTHER);
        assert_eq!(device.record().incarnation.boot(), u32::MAX);
        assert_eq!(said(&mut device), None);
        assert!(device.is_folded() && !device.is_silent());
        assert_eq!(device.record().count, Counter::new(4, 0));
    }

    #[test]
    fn a_report_covers_what_it_says() {
        let mut device = fresh();
        assert!(!device.is_silent(), "its incarnation is not stored yet");
        device.saved();
        assert!(device.is_silent());
        connect(&mut device, &[], unneeded);
        device.click(Color::Red, 1);
        device.saved();
        let report = device.report().unwrap();
        assert!(!device.is_covered_by(&report), "it is not heard to be kept");
        let kept = |red| count("1-0badcafe", red, 0);
        device.hear(kept(1), unneeded);
        assert!(device.is_covered_by(&report));
        device.click(Color::Red, 1);
        assert!(!device.is_covered_by(&report));
        device.saved();
        assert!(!device.is_covered_by(&report));
        let report = device.report().unwrap();
        assert!(!device.is_covered_by(&report));
        device.hear(kept(2), unneeded);
        // Also when the connection is lost after the acknowledgement; but not when its boot is folded.
        device.away();
        assert!(device.is_covered_by(&report));
        device.hear(Heard::Floor(1), unneeded);
        assert!(!device.is_covered_by(&report));
    }

    /// Started from a file that holds so many red clicks, of which so many were offered.
    fn restarted(count: u64, offered: u64) -> Device {
        let record = Record {
            count: Counter::new(count, 0),
            offered: Counter::new(offered, 0),
            ..Record::new(NONCE).unwrap()
        };
        Device::new("main", "k1", record, false)
    }

    #[test]
    fn a_count_that_somebody_else_has_raised_swallows_no_clicks_of_this_run() {
        // Two copies of a file with 4 clicks; the other has made 5 more, and so does this one.
        let mut device = restarted(4, 4);
        device.click(Color::Red, 5);
        let heard = [count("1-0badcafe", 9, 0), count("7-00000001", 1, 0)];
        connect(&mut device, &heard, || OTHER);
        let report = (topic("8-5eed5eed"), Counter::new(5, 0));
        assert_eq!(said(&mut device), Some(report.clone()));
        // The old incarnation is another's now.
        device.hear(count("1-0badcafe", 20, 0), unneeded);
        assert_eq!(said(&mut device), Some(report.clone()));
        let (incarnation, counter) = ("8-5eed5eed", report.1);
        assert!(!device.is_covered_by(&device.report().unwrap()));
        device.hear(count(incarnation, counter.red(), 0), unneeded);
        assert!(device.is_covered_by(&device.report().unwrap()));
    }

    #[test]
    fn a_file_put_back_from_an_older_copy_invents_no_clicks() {
        // 3 of the 10 clicks were not offered when the copy was made, and have been since.
        let mut device = restarted(10, 7);
        connect(&mut device, &[count("1-0badcafe", 12, 2)], || OTHER);
        assert_eq!(device.record().incarnation.to_string(), "2-5eed5eed");
        assert_eq!(device.record().count, Counter::ZERO);
        assert_eq!(said(&mut device), None);
        device.click(Color::Blue, 1);
        let report = (topic("2-5eed5eed"), Counter::new(0, 1));
        assert_eq!(said(&mut device), Some(report));
    }

    #[test]
    fn earlier_clicks_that_the_hub_cannot_know_are_carried_over() {
        // Copied at 4; 9 more in an earlier run without a server, and 1 in this. The other has made 5.
        let mut device = restarted(13, 4);
        device.click(Color::Red, 1);
        connect(&mut device, &[count("1-0badcafe", 9, 0)], || OTHER);
        let report = (topic("2-5eed5eed"), Counter::new(5, 0));
        assert_eq!(said(&mut device), Some(report));
    }

    #[test]
    fn two_devices_with_one_incarnation_part_at_the_first_foreign_click() {
        let mut device = restarted(4, 4);
        let own = count("1-0badcafe", 4, 0);
        connect(&mut device, &[own], unneeded);
        device.hear(count("1-0badcafe", 4, 1), || OTHER);
        assert_eq!(said(&mut device), None);
        device.click(Color::Red, 2);
        let report = (topic("2-5eed5eed"), Counter::new(2, 0));
        assert_eq!(said(&mut device), Some(report));

        // While it is away it clicks on, and offers nothing of it in the incarnation that it shares.
        let mut device = restarted(4, 4);
        connect(&mut device, &[own], unneeded);
        device.click(Color::Red, 1);
        device.saved();
        device.away();
        device.click(Color::Red, 2);
        device.saved();
        connect(&mut device, &[count("1-0badcafe", 8, 0)], || OTHER);
        let report = (topic("2-5eed5eed"), Counter::new(2, 0));
        assert_eq!(said(&mut device), Some(report));
    }

    #[test]
    fn at_the_last_boot_the_nonce_parts_two_devices() {
        let mut device = fresh();
        device.record.incarnation = Incarnation::new(u32::MAX, NONCE).unwrap();
        device.click(Color::Red, 1);
        connect(&mut device, &[count("4294967295-0badcafe", 3, 0)], || OTHER);
        let report = (topic("4294967295-5eed5eed"), Counter::new(1, 0));
        assert_eq!(said(&mut device), Some(report));
    }

    #[test]
    fn its_own_words_are_no_sign_of_another() {
        let mut device = fresh();
        connect(&mut device, &[], unneeded);
        for n in 1..=3 {
            device.click(Color::Red, 1);
            // What was given to a connection is on disk; the words may come back after a restart, or late.
            device.saved();
            device = Device::new("main", "k1", *device.record(), false);
            connect(&mut device, &[count("1-0badcafe", n, 0)], unneeded);
            device.hear(count("1-0badcafe", n - 1, 0), unneeded);
        }
        assert_eq!(device.record().count, Counter::new(3, 0));
    }

    #[test]
    fn a_shared_simulation_makes_its_remaining_clicks_once() {
        let run = || Run::resume(None, Some(100), Some(7), || unreachable!());
        let mut device = fresh();
        device.set_run(Some(run()));
        connect(&mut device, &[], unneeded);
        device.simulate(60);
        device.saved();
        // A copy goes on, and finds that the original has.
        let mut copy = Device::new("main", "k1", *device.record(), false);
        device.simulate(40);
        let heard = Heard::Count(device.record().incarnation, device.record().count);
        copy.simulate(10);
        connect(&mut copy, &[heard], || OTHER);
        copy.simulate(60);
        assert_eq!(said(&mut copy).unwrap().1.total(), 40);
        assert!(copy.record().run.unwrap().is_complete());
    }

    #[test]
    fn a_simulation_ends_with_its_last_click() {
        let mut device = fresh();
        device.set_run(Some(Run::resume(
            None,
            Some(100),
            Some(7),
            || unreachable!(),
        )));
        connect(&mut device, &[], unneeded);
        device.simulate(60);
        device.saved();
        device.simulate(60);
        assert_eq!(said(&mut device).unwrap().1.total(), 100);
        let run = device.record().run.unwrap();
        assert!(run.is_complete());
        assert_eq!(device.record().count.total(), 100);
        device.saved();
        device.simulate(1);
        assert!(!device.is_dirty());
        device.set_run(None);
        assert!(device.is_dirty());
    }
}
