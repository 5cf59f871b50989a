//! A device, a broker and a hub under seeded schedules of clicks, lost connections, duplicates,
//! reordering, delays, stale reads, reboots of the device and kills of the hub.
//!
//! When all is quiet the hub's value is the clicks made without those that died unsent in a
//! device: never one more, never one less. The negative controls leave one rule out each and must
//! go wrong somewhere.
//!
//! The device reaches the broker in order, as one MQTT session does: what was sent twice comes
//! twice in a row, and a cut loses the end. From the broker to the hub anything may happen. One
//! bound holds, because it is part of the model: a report does not travel for longer than
//! [`FOLD_WINDOW_BOOTS`] boots of its device without having been delivered at least once, and a
//! device without storage does not read a broker that is that far behind. A copy of a report that was
//! delivered may come back at any time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the tests call may fail as they may"
)]

use std::collections::{BTreeMap, VecDeque};

use latchbus_core::clicks::{
    Clicks, Color, Counter, DEFAULT_MAX_LIVE, FOLD_WINDOW_BOOTS, FixedLive, FloorRecord,
    Incarnation, Outcome,
};

const SEEDS: u64 = 1_500;
const STEPS: usize = 400;
/// Every reboot adds a live incarnation while the hub is down and cannot fold.
const MAX_REBOOTS: u32 = 50;

/// What a device keeps over a reboot.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Storage {
    /// Nothing: it takes its boot number from its own retained topics.
    None,
    /// The boot number.
    Boot,
    /// Its count too, and with that its incarnation.
    Count,
}

/// The rules that a negative control leaves out.
#[derive(Clone, Copy, Debug)]
struct Rules {
    nonce: bool,
    topic_per_incarnation: bool,
    floor: bool,
    /// Acknowledged writes stay where they are.
    durable: bool,
}

const ALL_RULES: Rules = Rules {
    nonce: true,
    topic_per_incarnation: true,
    floor: true,
    durable: true,
};

/// SplitMix64: a schedule is its seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Report {
    /// Which run this is in truth; the hub can't see it.
    run: usize,
    incarnation: Incarnation,
    counter: Counter,
}

/// What the broker retains of the device: its count topics, and the floor.
#[derive(Clone, Debug, Default)]
struct Retained {
    counts: BTreeMap<Option<Incarnation>, Report>,
    floor: FloorRecord,
}

impl Retained {
    fn highest_boot(&self) -> u32 {
        let counts = self.counts.values().map(|r| r.incarnation.boot());
        counts.max().unwrap_or(0).max(self.floor.floor)
    }
}

/// The hub's memory of the device, with the floor or, as a control, without.
#[derive(Clone)]
struct Hub {
    clicks: Clicks<FixedLive<64>>,
    without_floor: Option<(Counter, BTreeMap<Incarnation, Counter>)>,
}

impl Hub {
    fn new(rules: Rules) -> Self {
        Self {
            clicks: Clicks::default(),
            without_floor: (!rules.floor).then(Default::default),
        }
    }

    fn report(&mut self, report: &Report) {
        let Report {
            incarnation,
            counter,
            ..
        } = *report;
        if let Some((_, live)) = &mut self.without_floor {
            let known = live.entry(incarnation).or_default();
            *known = known.join(counter);
            return;
        }
        let before = self.clicks.value();
        let outcome = self
            .clicks
            .report(incarnation, counter, DEFAULT_MAX_LIVE)
            .unwrap();
        assert_eq!(
            self.clicks.value() != before,
            matches!(outcome, Outcome::Raised { gained, .. } if !gained.is_zero())
        );
    }

    /// Folds, and clears at the broker what fell.
    fn fold(&mut self, retained: &mut Retained) {
        if let Some((base, live)) = &mut self.without_floor {
            let highest = live.keys().last().map_or(0, |i| i.boot());
            while let Some(entry) = live.first_entry()
                && entry.key().boot() + FOLD_WINDOW_BOOTS <= highest
            {
                *base = base.saturating_add(*entry.get());
                retained.counts.remove(&Some(*entry.key()));
                entry.remove();
            }
            return;
        }
        if let Some(fold) = self.clicks.pending_fold() {
            for (incarnation, _) in fold.fallen {
                retained.counts.remove(&Some(*incarnation));
            }
            retained.floor = fold.record;
            assert_eq!(self.clicks.fold(), Some(retained.floor));
        }
    }

    /// What a hub finds on its disk after a kill.
    fn reloaded(&self) -> Self {
        let mut buffer = [0; 2048];
        let stored = postcard::to_slice(&self.clicks, &mut buffer).unwrap();
        Self {
            clicks: postcard::from_bytes(stored).unwrap(),
            without_floor: self.without_floor.clone(),
        }
    }

    fn value(&self) -> Counter {
        match &self.without_floor {
            None => self.clicks.value(),
            Some((base, live)) => live.values().fold(*base, |sum, c| sum.saturating_add(*c)),
        }
    }
}

struct World {
    random: Random,
    storage: Storage,
    rules: Rules,
    // The device.
    run: usize,
    incarnation: Incarnation,
    counter: Counter,
    highest_boot: u32,
    reboots: u32,
    /// On the way to the broker.
    session: VecDeque<Report>,
    // The broker.
    retained: Retained,
    /// What it retained after each of the device's reboots.
    past: Vec<Retained>,
    /// On the way to the hub.
    to_hub: Vec<Report>,
    /// Copies of what was delivered.
    delivered: Vec<Report>,
    // The hub.
    hub: Option<Hub>,
    disk: Hub,
    // The truth: clicks made and clicks accepted by the broker, by run.
    made: Vec<Counter>,
    accepted: Vec<Counter>,
}

impl World {
    fn new(seed: u64, storage: Storage, rules: Rules) -> Self {
        let mut random = Random(seed);
        let nonce = if rules.nonce { random.next() as u32 } else { 0 };
        Self {
            random,
            storage,
            rules,
            run: 0,
            incarnation: Incarnation::new(1, nonce).unwrap(),
            counter: Counter::ZERO,
            highest_boot: 1,
            reboots: 0,
            session: VecDeque::new(),
            retained: Retained::default(),
            past: vec![Retained::default()],
            to_hub: Vec::new(),
            delivered: Vec::new(),
            hub: Some(Hub::new(rules)),
            disk: Hub::new(rules),
            made: vec![Counter::ZERO],
            accepted: vec![Counter::ZERO],
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=4 => self.click(),
            5..=6 => self.publish(),
            7..=10 => self.broker_takes_next(),
            11 => self.cut(),
            12..=15 => self.hub_takes_any(),
            16 => self.delivered_copy_comes_back(),
            17 => self.reboot_device(),
            18 if self.hub.is_some() => self.kill_hub(),
            18 => self.start_hub(),
            _ => self.fold(),
        }
    }

    fn click(&mut self) {
        let color = Color::ALL[self.random.below(2)];
        let n = 1 + self.random.below(3) as u64;
        self.counter.add(color, n);
        self.made[self.run].add(color, n);
    }

    fn publish(&mut self) {
        self.session.push_back(Report {
            run: self.run,
            incarnation: self.incarnation,
            counter: self.counter,
        });
    }

    fn broker_takes_next(&mut self) {
        let Some(report) = self.session.front().copied() else {
            return;
        };
        // Otherwise the acknowledgement was lost, and it comes again.
        if !self.random.one_in(4) {
            self.session.pop_front();
        }
        let topic = self
            .rules
            .topic_per_incarnation
            .then_some(report.incarnation);
        self.accepted[report.run] = self.accepted[report.run].join(report.counter);
        self.retained.counts.insert(topic, report);
        if self.hub.is_some() {
            self.to_hub.push(report);
        }
    }

    /// The session ends and takes with it what the broker had not taken.
    fn cut(&mut self) {
        let kept = self.random.below(self.session.len() + 1);
        self.session.truncate(kept);
    }

    fn hub_takes_any(&mut self) {
        if !self.to_hub.is_empty() {
            let index = self.random.below(self.to_hub.len());
            let report = self.to_hub.swap_remove(index);
            self.deliver(report);
        }
    }

    fn delivered_copy_comes_back(&mut self) {
        if !self.delivered.is_empty() {
            let index = self.random.below(self.delivered.len());
            self.deliver(self.delivered[index]);
        }
    }

    /// Merges and commits. Nothing is shown or acknowledged in between, so that a kill right then is
    /// the same as one before.
    fn deliver(&mut self, report: Report) {
        if let Some(hub) = &mut self.hub {
            hub.report(&report);
            self.disk = hub.clone();
            self.delivered.push(report);
        }
    }

    fn fold(&mut self) {
        if let Some(hub) = &mut self.hub {
            hub.fold(&mut self.retained);
            self.disk = hub.clone();
        }
    }

    fn kill_hub(&mut self) {
        self.hub = None;
        // The broker retains all that is on the way; without it this would be lost.
        self.to_hub.clear();
        if !self.rules.durable && self.random.one_in(3) {
            self.retained = self.past[self.random.below(self.past.len())].clone();
        }
    }

    /// Reads the disk, then all that the broker retains, in any order.
    fn start_hub(&mut self) {
        let mut hub = self.disk.reloaded();
        let mut counts = self.retained.counts.values().copied().collect::<Vec<_>>();
        self.random.shuffle(&mut counts);
        // A replica of the broker may be behind, and may still have what was cleared long ago.
        let stale = self.past[self.random.below(self.past.len())].clone();
        counts.extend(stale.counts.values());
        if hub.without_floor.is_none() {
            let mut view = Clicks::<FixedLive<64>>::from(stale.floor);
            for report in stale.counts.values() {
                view.report(report.incarnation, report.counter, DEFAULT_MAX_LIVE)
                    .unwrap();
            }
            hub.clicks.join(&view, DEFAULT_MAX_LIVE).unwrap();
        }
        for report in &counts {
            hub.report(report);
        }
        self.disk = hub.clone();
        self.hub = Some(hub);
    }

    fn reboot_device(&mut self) {
        if self.reboots == MAX_REBOOTS {
            return;
        }
        self.reboots += 1;
        self.past.push(self.retained.clone());
        self.cut();
        if self.storage == Storage::Count {
            return;
        }
        let boot = match self.storage {
            Storage::None => self.stale_read().highest_boot() + 1,
            Storage::Boot | Storage::Count => self.incarnation.boot() + 1,
        };
        let nonce = if self.rules.nonce {
            self.random.next() as u32
        } else {
            0
        };
        self.run += 1;
        self.incarnation = Incarnation::new(boot, nonce).unwrap();
        self.counter = Counter::ZERO;
        self.made.push(Counter::ZERO);
        self.accepted.push(Counter::ZERO);
        self.highest_boot = self.highest_boot.max(boot);

        // No report travels for longer than the window.
        let oldest = (self.highest_boot + 1).saturating_sub(FOLD_WINDOW_BOOTS);
        self.session
            .retain(|report| report.incarnation.boot() >= oldest);
        let late = |report: &mut Report| report.incarnation.boot() < oldest;
        for report in self.to_hub.extract_if(.., late).collect::<Vec<_>>() {
            self.deliver(report);
        }
    }

    /// What the device may find when it asks a broker that is a few boots behind.
    fn stale_read(&mut self) -> Retained {
        if !self.random.one_in(4) {
            return self.retained.clone();
        }
        let reach = self.past.len().min(FOLD_WINDOW_BOOTS as usize - 2);
        let age = 1 + self.random.below(reach);
        self.past[self.past.len() - age].clone()
    }

    /// The device gets its last count through, and the hub comes up and takes all there is.
    fn settle(&mut self) {
        self.publish();
        while !self.session.is_empty() {
            self.broker_takes_next();
        }
        if self.hub.is_none() {
            self.start_hub();
        }
        while !self.to_hub.is_empty() {
            self.hub_takes_any();
        }
        self.fold();
    }

    fn value(&self) -> Counter {
        self.hub.as_ref().unwrap_or(&self.disk).value()
    }
}

fn sum(counters: &[Counter]) -> Counter {
    counters
        .iter()
        .fold(Counter::ZERO, |sum, c| sum.saturating_add(*c))
}

/// How one schedule ended.
struct End {
    value: Counter,
    made: Counter,
    /// Made in runs that ended before the broker had it.
    died: Counter,
    /// The value once went down, or above what was made.
    strayed: bool,
    folded: bool,
}

fn run(seed: u64, storage: Storage, rules: Rules) -> End {
    let mut world = World::new(seed, storage, rules);
    let mut strayed = false;
    let mut value = Counter::ZERO;
    for step in 0..=STEPS {
        if step < STEPS {
            world.step();
        } else {
            world.settle();
        }
        let made = sum(&world.made);
        let before = value;
        value = world.value();
        strayed |= value.join(before) != value || made.join(value) != made;
    }
    let died = world
        .made
        .iter()
        .zip(&world.accepted)
        .map(|(made, accepted)| made.since(*accepted));
    End {
        value,
        made: sum(&world.made),
        died: sum(&died.collect::<Vec<_>>()),
        strayed,
        folded: world.retained.floor.floor > 0,
    }
}

fn exact(storage: Storage) {
    let (mut folded, mut died) = (0, 0);
    for seed in 0..SEEDS {
        let end = run(seed, storage, ALL_RULES);
        assert!(
            !end.strayed,
            "seed {seed}, {storage:?}: the value went down or above the clicks made"
        );
        let expected = end.made.since(end.died);
        assert_eq!(
            end.value, expected,
            "seed {seed}, {storage:?}: of {} made",
            end.made
        );
        folded += u64::from(end.folded);
        died += end.died.total();
    }
    // The schedules reach what they are to test.
    assert_eq!(
        folded > SEEDS / 10,
        storage != Storage::Count,
        "{folded} runs folded"
    );
    assert_eq!(
        died > SEEDS,
        storage != Storage::Count,
        "{died} clicks died"
    );
}

/// In how many schedules the value ends below and above what it should be.
fn wrong(storage: Storage, rules: Rules) -> (usize, usize) {
    let ends = (0..SEEDS).map(|seed| run(seed, storage, rules));
    ends.fold((0, 0), |(below, above), end| {
        let expected = end.made.since(end.died);
        let is_above = !end.value.since(expected).is_zero();
        let is_below = !expected.since(end.value).is_zero();
        (below + usize::from(is_below), above + usize::from(is_above))
    })
}

#[test]
fn a_device_without_storage_is_counted_exactly() {
    exact(Storage::None);
}

#[test]
fn a_device_that_keeps_its_boot_number_is_counted_exactly() {
    exact(Storage::Boot);
}

#[test]
fn a_device_that_keeps_its_count_loses_nothing() {
    exact(Storage::Count);
}

#[test]
fn a_broker_that_forgets_can_lose_but_never_invent() {
    let rules = Rules {
        durable: false,
        ..ALL_RULES
    };
    for storage in [Storage::None, Storage::Boot, Storage::Count] {
        let mut lost = 0;
        for seed in 0..SEEDS {
            let end = run(seed, storage, rules);
            assert!(!end.strayed, "seed {seed}, {storage:?}");
            assert_eq!(
                end.made.join(end.value),
                end.made,
                "seed {seed}, {storage:?}"
            );
            lost += end.made.since(end.died).since(end.value).total();
        }
        // A count that the device still has comes back; of a run that is over, nothing does.
        assert_eq!(lost > 0, storage != Storage::Count);
    }
}

#[test]
fn clones_are_both_counted() {
    let mut clicks = Clicks::<FixedLive<4>>::default();
    for (nonce, red) in [(0x0bad_cafe, 3), (0x5eed_5eed, 4), (0x0bad_cafe, 5)] {
        let clone = Incarnation::new(7, nonce).unwrap();
        clicks
            .report(clone, Counter::new(red, 0), DEFAULT_MAX_LIVE)
            .unwrap();
    }
    assert_eq!(clicks.value(), Counter::new(9, 0));
}

#[test]
fn control_without_a_nonce_clicks_are_lost() {
    let (below, _) = wrong(
        Storage::None,
        Rules {
            nonce: false,
            ..ALL_RULES
        },
    );
    assert!(below > 0);
}

#[test]
fn control_with_one_topic_a_device_clicks_are_lost() {
    let rules = Rules {
        topic_per_incarnation: false,
        ..ALL_RULES
    };
    assert!(wrong(Storage::None, rules).0 > 0);
    assert!(wrong(Storage::Boot, rules).0 > 0);
}

#[test]
fn control_without_the_floor_clicks_are_counted_twice() {
    let rules = Rules {
        floor: false,
        ..ALL_RULES
    };
    assert!(wrong(Storage::None, rules).1 > 0);
    assert!(wrong(Storage::Boot, rules).1 > 0);
}
