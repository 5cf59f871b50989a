//! A bus goes on where the life before it left off: epoch, revisions, cursors and what durable subscriptions
//! are owed.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::time::Duration;

use futures_util::{FutureExt, StreamExt};
use latchbus_bus::simulation::{self, Commits, Disk, Finished, Memory};
use latchbus_bus::{
    Accepted, Bus, Client, Clock, Delivery, HistoryRule, Note, Options, Principal, Publish,
    PublishRefused, Receipt, Session, Subscribe,
};
use latchbus_core::hub::{Cursor, Kind, Mode, Start, Step};
use support::*;

/// One life of a bus on a disk in memory.
struct Life {
    bus: Bus,
    commits: Commits,
    client: Client,
}

#[derive(Default)]
struct World {
    memory: Memory,
    rooms: Vec<String>,
}

impl World {
    fn start(&self) -> Life {
        let options = Options {
            limits: LIMITS,
            sys_every: None,
            clock: Clock::manual(1_000),
            seed: Some(7),
            rooms: self.rooms.clone(),
            history: vec![HistoryRule {
                filter: filter("h/#"),
                keep: 3,
            }],
            ..Options::default()
        };
        let (bus, commits) = simulation::open(options, Disk::memory(&self.memory)).unwrap();
        let client = bus.client(Principal::process()).unwrap();
        Life {
            bus,
            commits,
            client,
        }
    }
}

impl Life {
    async fn publish(&mut self, publish: Publish) -> Accepted {
        let receipt = self.client.enqueue(publish).await;
        self.answer(receipt).unwrap()
    }

    fn answer(&mut self, mut receipt: Receipt) -> Result<Accepted, PublishRefused> {
        if let Some(known) = (&mut receipt).now_or_never() {
            return known;
        }
        while self.commits.turn().unwrap() {}
        receipt.now_or_never().unwrap()
    }

    async fn close(mut self) {
        let bus = self.bus.clone();
        let close = tokio::spawn(async move { bus.close().await });
        loop {
            assert!(self.commits.next().await);
            self.commits.commit().unwrap();
            if self.commits.finish() == Finished::Closed {
                break;
            }
        }
        close.await.unwrap();
    }

    /// What a resume from a cursor brings, in words; then where it stands.
    fn resume(&self, cursor: Cursor, mode: Mode) -> Vec<String> {
        let all = filter("#");
        let stream = self
            .bus
            .subscribe(all.borrowed(), mode, Start::Resume(cursor));
        steps(stream.unwrap())
    }

    fn cursor(&self) -> Cursor {
        let rev = self.bus.read(|hub| hub.revision());
        let epoch = self.bus.epoch();
        Cursor { epoch, rev }
    }
}

fn steps(mut stream: latchbus_bus::Subscription) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some(Some(step)) = stream.next().now_or_never() {
        steps.push(match step {
            Step::Reset => "reset".into(),
            Step::Gap { missed } => format!("gap {missed}"),
            Step::Synced { .. } => "synced".into(),
            Step::Entry { entry, .. } => shown(&entry),
        });
    }
    steps
}

fn shown(entry: &Delivery) -> String {
    let topic = entry.topic.as_str();
    match entry.kind {
        Kind::Cleared => format!("{topic} cleared"),
        Kind::State => format!("{topic}={}", text(entry)),
        Kind::Event => format!("{topic}!{}", text(entry)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_resume_over_a_restart_gets_just_what_changed() {
    let world = World::default();
    let mut life = world.start();
    for n in 0..3 {
        life.publish(state(&format!("t/{n}"), "old")).await;
    }
    let cursor = life.cursor();
    let changed = life.publish(state("t/1", "new")).await;
    let epoch = life.bus.epoch();
    let (at, rev) = {
        let last = life.bus.last(name("t/1").borrowed()).unwrap();
        (last.at, last.rev)
    };
    assert_eq!(changed.rev, rev);
    let after = life.cursor();
    life.close().await;

    let mut life = world.start();
    assert_eq!(life.bus.epoch(), epoch);
    // After a clean stop the next life begins at the next position.
    assert_eq!(life.cursor().rev >> 14, (after.rev >> 14) + 1);
    let last = life.bus.last(name("t/1").borrowed()).unwrap();
    assert_eq!((last.at, last.rev), (at, rev));
    for mode in [Mode::Latest, Mode::Every] {
        assert_eq!(life.resume(after, mode), ["synced"]);
    }
    assert_eq!(life.resume(cursor, Mode::Latest), ["t/1=new", "synced"]);
    let next = life.publish(state("t/2", "newer")).await;
    assert!(next.rev > after.rev);
    assert_eq!(life.resume(after, Mode::Every), ["t/2=newer", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_kill_repeats_nothing_and_uses_no_revision_twice() {
    let world = World::default();
    let mut life = world.start();
    life.publish(state("t/1", "a")).await;
    life.publish(state("t/2", "b")).await;
    // Events that need no store, after the last commit: lost with this life, and with it their revisions.
    let mut newest = 0;
    for n in 0..10 {
        newest = life.publish(event("e", n.to_string())).await.rev;
    }
    let cursor = life.cursor();
    assert_eq!(cursor.rev, newest);
    drop(life);

    let mut life = world.start();
    assert!(life.cursor().rev > newest);
    assert_eq!(life.resume(cursor, Mode::Latest), ["synced"]);
    // There may have been more.
    assert_eq!(life.resume(cursor, Mode::Every), ["gap 0", "synced"]);
    assert!(life.publish(state("t/3", "c")).await.rev > newest);
}

#[tokio::test(start_paused = true)]
async fn an_event_during_a_commit_comes_before_it_also_after_a_kill() {
    let world = World::default();
    let mut life = world.start();
    let away = session(&life);
    away.subscribe(vec![durable(Start::Live)]);
    let begun = away.cursor(1).unwrap();
    life.publish(state("h/a", "1")).await;
    life.publish(state("gone", "x")).await;
    let mut waiting = Vec::new();
    for publish in [state("h/a", "2"), event("e", "1"), state("gone", "")] {
        waiting.push(life.client.enqueue(publish).await);
    }
    assert!(life.commits.begin());
    life.commits.commit().unwrap();
    // Another client's, which needs no commit.
    let other = life.bus.client(Principal::process()).unwrap();
    other.publish(at_qos(0, event("o", "1"))).await.unwrap();
    let cursor = life.cursor();

    // In one world the process ends here: the values were neither shown nor acknowledged, and they are on disk.
    let killed = World {
        memory: world.memory.clone(),
        ..World::default()
    };
    life.commits.finish();
    let mut accepted = Vec::new();
    for receipt in waiting {
        accepted.push(receipt.await.unwrap().rev);
    }
    assert!(accepted.is_sorted() && accepted.first() > Some(&cursor.rev));
    drop((life, away));

    let life = killed.start();
    let all = filter("h/#");
    let history = (life.bus).subscribe(all.borrowed(), Mode::Latest, Start::Snapshot);
    assert_eq!(steps(history.unwrap()), ["h/a=1", "h/a=2", "synced"]);
    assert_eq!(
        life.resume(cursor, Mode::Latest),
        ["h/a=2", "gone cleared", "synced"]
    );
    assert_eq!(
        life.bus.last(name("h/a").borrowed()).unwrap().rev,
        accepted[0],
        "a restart changes no revision"
    );
    let back = session(&life);
    back.subscribe(vec![durable(Start::Resume(begun))]);
    let (_back, taken) = deliver(back, 4).await;
    let order: Vec<_> = taken.iter().map(shown).collect();
    assert_eq!(order, ["h/a=1", "h/a=2", "e!1", "gone cleared"]);
}

#[tokio::test(start_paused = true)]
async fn events_without_end_go_on_when_a_position_has_no_number_left() {
    let world = World::default();
    let mut life = world.start();
    let mut newest = life.publish(state("t", "x")).await.rev;
    let mut committed = 0;
    for n in 0..40_000 {
        let receipt = life.client.enqueue(event("e", n.to_string())).await;
        if life.commits.begin() {
            committed += 1;
            life.commits.commit().unwrap();
            life.commits.finish();
        }
        let rev = receipt.await.unwrap().rev;
        assert!(rev > newest);
        newest = rev;
    }
    assert_eq!(
        committed,
        40_000 / (1 << 14) + 1,
        "the first ends the position of the value"
    );
    drop(life);
    assert!(world.start().cursor().rev > newest);
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_cleared_and_reported_in_one_batch_is_shown() {
    let world = World::default();
    let mut life = world.start();
    let count = "clicks/main/d/count/1-0000beef";
    let report = || state(count, r#"{"red":3,"blue":4}"#);
    life.publish(report()).await;
    let mut waiting = Vec::new();
    for publish in [state(count, ""), report(), report()] {
        waiting.push(life.client.enqueue(publish).await);
    }
    assert!(life.commits.turn().unwrap());
    for receipt in waiting {
        receipt.await.unwrap();
    }
    assert_eq!(last(&life.bus, count).unwrap(), r#"{"red":3,"blue":4}"#);
}

#[tokio::test(start_paused = true)]
async fn a_clear_before_the_restart_reaches_who_resumes() {
    let world = World::default();
    let mut life = world.start();
    life.publish(state("gone", "x")).await;
    life.publish(state("kept", "x")).await;
    let cursor = life.cursor();
    life.publish(state("gone", "")).await;
    life.close().await;
    let mut life = world.start();
    assert_eq!(
        life.resume(cursor, Mode::Latest),
        ["gone cleared", "synced"]
    );
    // More clears than are remembered: the oldest is forgotten, on disk too.
    for n in 0..LIMITS.tombstones {
        life.publish(state(&format!("n/{n}"), "x")).await;
        life.publish(state(&format!("n/{n}"), "")).await;
    }
    life.close().await;
    let life = world.start();
    let resumed = life.resume(cursor, Mode::Latest);
    assert_eq!(resumed.first().unwrap(), "reset");
    assert!(resumed.contains(&"kept=x".into()));
    assert!(!resumed.iter().any(|step| step.starts_with("gone")));
}

#[tokio::test(start_paused = true)]
async fn histories_and_expiry_go_on() {
    let world = World::default();
    let mut life = world.start();
    for n in 0..5 {
        life.publish(state("h/a", n.to_string())).await;
    }
    let mut brief = state("brief", "x");
    brief.expires_in = Some(Duration::from_secs(5));
    life.publish(brief).await;
    let cursor = life.cursor();
    life.close().await;
    let mut life = world.start();
    let all = filter("h/#");
    let stream = (life.bus).subscribe(all.borrowed(), Mode::Latest, Start::Snapshot);
    assert_eq!(
        steps(stream.unwrap()),
        ["h/a=2", "h/a=3", "h/a=4", "synced"]
    );
    assert_eq!(last(&life.bus, "brief").unwrap(), "x");
    assert!(life.bus.clock().set(60_000));
    assert_eq!(last(&life.bus, "brief"), None);
    assert!(life.commits.next().await);
    assert!(life.commits.turn().unwrap());
    assert_eq!(
        life.resume(cursor, Mode::Latest),
        ["brief cleared", "synced"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_hub_derives_keeps_its_revisions() {
    let world = World {
        rooms: vec!["main".into()],
        ..World::default()
    };
    let mut life = world.start();
    life.publish(event("clicks/main/k/press", "red 2")).await;
    let count = "clicks/main/d/count/1-0000beef";
    life.publish(state(count, r#"{"red":3,"blue":4}"#)).await;
    let cursor = life.cursor();
    let rev = |life: &Life, topic: &str| life.bus.last(name(topic).borrowed()).unwrap().rev;
    let topics = ["values", "share", "k/pressed"].map(|topic| format!("clicks/main/{topic}"));
    let before = topics.each_ref().map(|topic| rev(&life, topic));
    life.close().await;
    let life = world.start();
    assert_eq!(topics.each_ref().map(|topic| rev(&life, topic)), before);
    assert_eq!(life.resume(cursor, Mode::Every), ["synced"]);
    assert_eq!(
        last(&life.bus, "clicks/main/values").unwrap(),
        r#"{"red":5,"blue":4}"#
    );
}

fn durable(start: Start) -> Subscribe {
    Subscribe {
        id: 1,
        filter: filter("#"),
        mode: Mode::Every,
        start,
        pace: None,
        group: None,
        durable: true,
        waits: false,
    }
}

fn session(life: &Life) -> Session {
    Session::new(life.bus.client(Principal::process()).unwrap())
}

fn at_qos(qos: u8, publish: Publish) -> Publish {
    Publish { qos, ..publish }
}

/// What a session is owed, taken over a link that then breaks.
async fn deliver(session: Session, count: usize) -> (Session, Vec<Delivery>) {
    let stop = tokio_util::sync::CancellationToken::new();
    let (mut peer, running) = run(session, 64, stop.clone());
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(message(&mut peer).await);
    }
    stop.cancel();
    (running.await.unwrap().0, taken)
}

#[tokio::test(start_paused = true)]
async fn durable_subscriptions_get_their_events_after_a_kill_in_order_with_state() {
    let world = World::default();
    let mut life = world.start();
    let away = session(&life);
    assert_eq!(away.subscribe(vec![durable(Start::Live)]), [Ok(())]);
    let begun = away.cursor(1).unwrap();
    // As a transport does that has sessions to bring back.
    let note = Note::keep("test".into(), "c".into(), "cursor", "x");
    let remembered = life.client.remember(vec![note]).await;
    life.answer(remembered).unwrap();

    life.publish(event("e", "1")).await;
    life.publish(state("s", "1")).await;
    life.publish(at_qos(0, event("lost", "1"))).await;
    life.publish(state("s", "2")).await;
    let second = life.publish(at_qos(1, event("e", "2"))).await;
    life.publish(event("e", "3")).await;
    // It ends with the process, and no commit follows that could forget what it is owed.
    drop((away, life));

    let mut life = world.start();
    let remembered = life.bus.remembered("test");
    assert_eq!(remembered[0].part, b"cursor");
    assert_eq!(life.bus.remembered("test"), []);
    // Ticks before the sessions are there again forget nothing.
    for _ in 0..3 {
        assert!(life.commits.next().await);
        life.commits.turn().unwrap();
    }
    let back = session(&life);
    back.subscribe(vec![durable(Start::Resume(begun))]);
    life.bus.restored();
    let (back, taken) = deliver(back, 4).await;
    let order: Vec<_> = taken.iter().map(shown).collect();
    assert_eq!(order, ["e!1", "s=2", "e!2", "e!3"]);
    let revs: Vec<_> = taken.iter().map(|entry| entry.rev).collect();
    assert!(revs.is_sorted());
    assert_eq!(revs[2], second.rev);

    // What is confirmed is forgotten, and the rest comes again.
    back.confirm(1, revs[2]);
    assert!(life.commits.next().await);
    life.commits.turn().unwrap();
    let confirmed = Cursor {
        rev: revs[2],
        ..begun
    };
    drop((back, life));
    let life = world.start();
    let back = session(&life);
    back.subscribe(vec![durable(Start::Resume(begun))]);
    let (_back, taken) = deliver(back, 2).await;
    let order: Vec<_> = taken.iter().map(shown).collect();
    assert_eq!(order, ["s=2", "e!3"]);
    let back = session(&life);
    back.subscribe(vec![durable(Start::Resume(confirmed))]);
    let (_back, taken) = deliver(back, 1).await;
    assert_eq!(shown(&taken[0]), "e!3");
}

#[tokio::test(start_paused = true)]
async fn what_is_accepted_while_the_bus_closes_is_owed_to_sessions_whose_links_have_ended() {
    let world = World::default();
    let mut life = world.start();
    let here = session(&life);
    assert_eq!(here.subscribe(vec![durable(Start::Live)]), [Ok(())]);
    let begun = here.cursor(1).unwrap();
    let note = Note::keep("test".into(), "c".into(), "cursor", "x");
    let remembered = life.client.remember(vec![note]).await;
    life.answer(remembered).unwrap();
    life.bus.begin_close();
    drop(here);
    life.publish(event("e", "late")).await;
    life.close().await;

    let life = world.start();
    let back = session(&life);
    back.subscribe(vec![durable(Start::Resume(begun))]);
    let (_back, taken) = deliver(back, 1).await;
    assert_eq!(shown(&taken[0]), "e!late");
}

#[tokio::test(start_paused = true)]
async fn a_durable_subscription_is_told_of_events_that_had_no_room() {
    let world = World::default();
    let mut life = world.start();
    let away = session(&life);
    away.subscribe(vec![durable(Start::Live)]);
    let begun = away.cursor(1).unwrap();
    let owed = LIMITS.recent * 2;
    for n in 0..owed {
        life.publish(event("e", n.to_string())).await;
    }
    life.bus.begin_close();
    drop(away);
    life.close().await;

    let life = world.start();
    let back = session(&life);
    back.subscribe(vec![durable(Start::Resume(begun))]);
    let (mut peer, _running) = run(back, 64, tokio_util::sync::CancellationToken::new());
    // How many is not known any more.
    let gap = recv(&mut peer).await;
    assert!(matches!(gap, latchbus_bus::Event::Gap { .. }), "{gap:?}");
    let mut taken = Vec::new();
    while taken.last() != Some(&format!("e!{}", owed - 1)) {
        taken.push(shown(&message(&mut peer).await));
    }
    // The hub's own topics take places in the ring too.
    assert!(taken.len() >= LIMITS.recent / 3);
    assert!(taken.len() < owed);
}

#[tokio::test(start_paused = true)]
async fn notes_are_committed_with_their_publish_also_where_it_changes_nothing() {
    let world = World {
        rooms: vec!["main".into()],
        ..World::default()
    };
    let mut life = world.start();
    let note = |part: &'static str| Note::keep("test".into(), "c".into(), part, part);
    let press = |part: &'static str| Publish {
        notes: [note(part)].into(),
        ..event("clicks/main/k/press", r#"{"color":"red","n":1,"id":"p"}"#)
    };
    life.publish(press("a")).await;
    life.publish(press("b")).await;
    // An event that would not wait for the store does for its notes.
    let with_note = Publish {
        notes: [note("c")].into(),
        ..event("e", "1")
    };
    let mut receipt = life.client.enqueue(with_note).await;
    assert!((&mut receipt).now_or_never().is_none());
    life.answer(receipt).unwrap();
    // Refused is not remembered.
    let refused = Publish {
        notes: [note("d")].into(),
        ..event("clicks/main/k/press", "green")
    };
    let refused = life.client.enqueue(refused).await;
    life.answer(refused).unwrap_err();
    let forget = Note::forget("test".into(), "c".into(), "a");
    let forgotten = life.client.remember(vec![forget]).await;
    life.answer(forgotten).unwrap();
    drop(life);

    let mut life = world.start();
    let parts: Vec<_> = (life.bus.remembered("test").into_iter())
        .map(|note| String::from_utf8(note.part).unwrap())
        .collect();
    assert_eq!(parts, ["b", "c"]);
    assert_eq!(
        last(&life.bus, "clicks/main/values").unwrap(),
        r#"{"red":1,"blue":0}"#
    );
    let all = Note::forget_all("test".into(), "c".into());
    let receipt = life.client.remember(vec![all]).await;
    life.answer(receipt).unwrap();
    drop(life);
    assert_eq!(world.start().bus.remembered("test"), []);
}

#[tokio::test(start_paused = true)]
async fn notes_have_bounds() {
    let world = World::default();
    let mut life = world.start();
    let long = Note::keep(
        "test".into(),
        "c".into(),
        vec![0; Note::PART_BYTES + 1],
        "x",
    );
    let large = Note::keep("test".into(), "c".into(), "p", vec![0; 1 << 20]);
    for note in [long, large] {
        let receipt = life.client.remember(vec![note.clone()]).await;
        let refused = life.answer(receipt);
        assert!(matches!(refused, Err(PublishRefused::NoteTooLarge { .. })));
        let publish = Publish {
            notes: [note].into(),
            ..state("t", "x")
        };
        let receipt = life.client.enqueue(publish).await;
        life.answer(receipt).unwrap_err();
        assert_eq!(last(&life.bus, "t"), None);
    }
    drop(life);
    assert_eq!(world.start().bus.remembered("test"), []);
}
