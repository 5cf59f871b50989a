//! The session loop, over the in-memory link.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::time::Duration;

use futures_util::FutureExt;
use latchbus_bus::memory::Closed;
use latchbus_bus::memory::MemoryPeer;
use latchbus_bus::{
    Bus, Close, Ended, Event, HistoryRule, Options, Request, SessionLimits, SubscribeRefused,
};
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::ErrorCode;
use support::*;
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn requests_are_answered_in_their_order() {
    let bus = open();
    let mut peer = connect(&bus);
    let publish = |id, topic| Request::Publish {
        id: Some(id),
        publish: state(topic, "x"),
    };
    let bad = Request::Bad {
        id: Some(5),
        code: ErrorCode::BadMessage,
        message: "no".into(),
    };
    let unsubscribe = Request::Unsubscribe {
        id: 6,
        subscriptions: vec![4, 77],
    };
    let requests = [
        publish(1, "a"),
        publish(2, "clicks/main/values"),
        Request::Ping { id: 3 },
        subscribe(4, "nothing/there", Mode::Latest),
        bad,
        unsubscribe,
        publish(7, "b"),
    ];
    for request in requests {
        peer.requests.send(request).await.unwrap();
    }
    let mut answers = Vec::new();
    while answers.len() < 7 {
        match recv(&mut peer).await {
            Event::Published { id, .. } | Event::Pong { id, .. } => answers.push(id),
            Event::Refused { id, .. } | Event::Bad { id, .. } => answers.push(id.unwrap()),
            Event::Subscribed { id, results } => {
                assert_eq!(results, [(4, Ok(()))]);
                answers.push(id);
            }
            Event::Unsubscribed { id, existed } => {
                assert_eq!(existed, [true, false]);
                answers.push(id);
            }
            Event::Synced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn an_unacknowledged_publish_is_answered_only_by_its_refusal() {
    let bus = open();
    let mut peer = connect(&bus);
    for topic in ["a", "$SYS/b"] {
        let publish = state(topic, "x");
        peer.requests
            .send(Request::Publish { id: None, publish })
            .await
            .unwrap();
    }
    assert!(matches!(
        recv(&mut peer).await,
        Event::Refused { id: None, .. }
    ));
    assert_eq!(last(&bus, "a").unwrap(), "x");
}

#[tokio::test]
async fn the_subscribed_answer_comes_before_the_first_message() {
    let bus = open();
    bus.publish(state("t", "x")).await.unwrap();
    let mut peer = connect(&bus);
    peer.requests
        .send(subscribe(1, "t", Mode::Latest))
        .await
        .unwrap();
    assert!(matches!(
        recv(&mut peer).await,
        Event::Subscribed { id: 1, .. }
    ));
    assert!(matches!(
        recv(&mut peer).await,
        Event::Message {
            subscription: 1,
            retained: true,
            ..
        }
    ));
    assert!(matches!(
        recv(&mut peer).await,
        Event::Synced {
            subscription: 1,
            ..
        }
    ));
}

/// The link and its buffer hold so many; everything else waits in the hub, where newer replaces older.
#[tokio::test]
async fn a_peer_that_does_not_read_costs_its_link_and_no_more() {
    const CAPACITY: u64 = 4;
    let bus = open();
    let (mut peer, _run) = run(session(&bus), CAPACITY as usize, CancellationToken::new());
    peer.requests
        .send(subscribe(1, "t", Mode::Latest))
        .await
        .unwrap();
    assert!(matches!(recv(&mut peer).await, Event::Subscribed { .. }));
    assert!(matches!(recv(&mut peer).await, Event::Synced { .. }));
    for n in 1..=1_000 {
        bus.publish(state("t", n.to_string())).await.unwrap();
        tokio::task::yield_now().await;
    }
    let sent = bus.metrics().messages_sent.get();
    assert!((1..=2 * CAPACITY).contains(&sent), "{sent} on their way");
    let mut values = Vec::new();
    while values.last() != Some(&1_000) {
        values.push(text(&message(&mut peer).await).parse::<u64>().unwrap());
    }
    assert!(values.len() as u64 <= sent + 1, "{values:?}");
    assert!(values.is_sorted_by(|a, b| a < b));
}

/// A peer that publishes and takes no answers is not read from for ever.
#[tokio::test]
async fn answers_that_are_not_taken_stop_the_reading() {
    let bus = open_with(SessionLimits {
        in_flight: 8,
        ..SessionLimits::default()
    });
    let (mut peer, _run) = run(session(&bus), 4, CancellationToken::new());
    let mut sent = 0;
    loop {
        let publish = state("t", sent.to_string());
        let request = Request::Publish {
            id: Some(sent),
            publish,
        };
        let stuck = tokio::time::timeout(Duration::from_millis(200), peer.requests.send(request));
        if stuck.await.is_err() {
            break;
        }
        sent += 1;
        assert!(sent < 1_000, "reading goes on");
    }
    // As the answers are taken, it goes on.
    for id in 0..sent {
        assert!(
            matches!(recv(&mut peer).await, Event::Published { id: answered, .. } if answered == id)
        );
    }
}

#[tokio::test]
async fn one_busy_subscription_does_not_starve_another() {
    let bus = open();
    let mut peer = connect(&bus);
    peer.requests
        .send(subscribe(1, "busy/#", Mode::Every))
        .await
        .unwrap();
    peer.requests
        .send(subscribe(2, "quiet", Mode::Latest))
        .await
        .unwrap();
    for _ in 0..4 {
        recv(&mut peer).await;
    }
    bus.publish(state("quiet", "now")).await.unwrap();
    let mut before = 0;
    loop {
        // There is always more of the busy one.
        for n in 0..20 {
            bus.publish(event("busy/x", n.to_string())).await.unwrap();
        }
        match recv(&mut peer).await {
            Event::Message {
                subscription: 2, ..
            } => break,
            _ => before += 1,
        }
        assert!(before < 500, "the quiet one waits");
    }
}

#[tokio::test(start_paused = true)]
async fn a_paced_subscription_gets_each_topic_once_a_batch() {
    let bus = open();
    for topic in ["p/a", "p/b"] {
        bus.publish(state(topic, "0")).await.unwrap();
    }
    let mut peer = connect(&bus);
    let pace = Duration::from_secs(1);
    let request = paced(1, "p/#", Mode::Latest, Some(pace));
    peer.requests.send(request).await.unwrap();
    // The snapshot is not paced.
    let begun = Instant::now();
    assert!(matches!(recv(&mut peer).await, Event::Subscribed { .. }));
    for _ in 0..2 {
        assert!(matches!(recv(&mut peer).await, Event::Message { .. }));
    }
    assert!(matches!(recv(&mut peer).await, Event::Synced { .. }));
    assert_eq!(begun.elapsed(), Duration::ZERO);

    // Both topics change a hundred times a second, for ten seconds.
    let publisher = bus.clone();
    let changes = tokio::spawn(async move {
        for n in 1..=1_000 {
            for topic in ["p/a", "p/b"] {
                publisher
                    .publish(state(topic, n.to_string()))
                    .await
                    .unwrap();
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    let mut came = Vec::new();
    while came.iter().filter(|(_, _, value)| value == "1000").count() < 2 {
        let delivery = message(&mut peer).await;
        came.push((
            begun.elapsed(),
            delivery.topic.as_str().to_owned(),
            text(&delivery),
        ));
    }
    changes.await.unwrap();
    for topic in ["p/a", "p/b"] {
        let times: Vec<_> = came
            .iter()
            .filter(|(_, name, _)| name == topic)
            .map(|(at, ..)| *at)
            .collect();
        assert!((10..=12).contains(&times.len()), "{topic}: {times:?}");
        for pair in times.windows(2) {
            // A wake-up may be a millisecond of the clock's grain late, never early.
            assert!(pair[1] - pair[0] >= pace, "{topic}: {times:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_quiet_time_a_paced_subscription_is_quick() {
    let bus = open();
    let mut peer = connect(&bus);
    let request = paced(1, "p", Mode::Latest, Some(Duration::from_secs(5)));
    peer.requests.send(request).await.unwrap();
    recv(&mut peer).await;
    recv(&mut peer).await;
    advance(Duration::from_secs(60)).await;
    let begun = Instant::now();
    bus.publish(state("p", "x")).await.unwrap();
    message(&mut peer).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_session_goes_on_over_another_link() {
    let bus = open();
    // What the bus publishes when its clock begins takes a place in the ring.
    within(async {
        while last(&bus, "clicks/main/rate").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    bus.publish(state("s/old", "0")).await.unwrap();
    let (mut peer, first) = run(session(&bus), 16, CancellationToken::new());
    peer.requests
        .send(subscribe(7, "s/#", Mode::Every))
        .await
        .unwrap();
    while !matches!(recv(&mut peer).await, Event::Synced { .. }) {}
    drop(peer);
    let (session, ended) = within(first).await.unwrap();
    assert!(matches!(ended, Ended::Receiver(_)));
    assert_eq!(session.subscription_ids(), [7]);

    for n in 1..=5 {
        bus.publish(event("s/event", n.to_string())).await.unwrap();
    }
    let (mut peer, second) = run(session, 16, CancellationToken::new());
    for n in 1..=5 {
        match recv(&mut peer).await {
            Event::Message {
                subscription: 7,
                delivery,
                retained: false,
            } => assert_eq!(text(&delivery), n.to_string()),
            other => panic!("{other:?}"),
        }
    }
    peer.requests.leave().await;
    let (session, ended) = within(second).await.unwrap();
    assert!(matches!(ended, Ended::Left));

    // And once more, after more than the ring holds: told, and at the newest.
    for n in 0..100 {
        bus.publish(event("s/event", n.to_string())).await.unwrap();
    }
    bus.publish(state("s/old", "1")).await.unwrap();
    let (mut peer, _third) = run(session, 16, CancellationToken::new());
    assert!(matches!(
        recv(&mut peer).await,
        Event::Gap {
            subscription: 7,
            missed: 69
        }
    ));
    let mut last = String::new();
    for _ in 0..32 {
        last = text(&message(&mut peer).await);
    }
    assert_eq!(last, "1");
}

#[tokio::test]
async fn a_link_that_is_cut_within_a_snapshot_leaves_the_rest_for_the_next() {
    let bus = open();
    for n in 0..500 {
        bus.publish(state(&format!("many/{n}"), "x")).await.unwrap();
    }
    let (mut peer, first) = run(session(&bus), 8, CancellationToken::new());
    peer.requests
        .send(subscribe(1, "many/#", Mode::Latest))
        .await
        .unwrap();
    let mut topics = std::collections::BTreeSet::new();
    for _ in 0..100 {
        topics.insert(message(&mut peer).await.topic.as_str().to_owned());
    }
    drop(peer);
    let (session, _) = within(first).await.unwrap();
    let (mut peer, _second) = run(session, 8, CancellationToken::new());
    loop {
        match recv(&mut peer).await {
            Event::Message { delivery, .. } => {
                assert!(topics.insert(delivery.topic.as_str().to_owned()), "twice");
            }
            Event::Synced { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    // What the broken link had buffered is lost with it: at most its two buffers.
    assert!(topics.len() >= 500 - 16, "{}", topics.len());
}

#[tokio::test]
async fn whoever_takes_over_stops_the_link_before() {
    let bus = open();
    let stop = CancellationToken::new();
    let (mut peer, run) = run(session(&bus), 16, stop.clone());
    peer.requests.send(Request::Ping { id: 1 }).await.unwrap();
    assert!(matches!(recv(&mut peer).await, Event::Pong { id: 1, .. }));
    stop.cancel();
    let (_, ended) = within(run).await.unwrap();
    assert!(matches!(ended, Ended::Stopped));
    let closed = within(peer.events.recv()).await;
    assert_eq!(closed.unwrap_err(), Closed(Some(Close::TakenOver)));
}

#[tokio::test]
async fn a_closing_bus_says_goodbye_after_the_answers() {
    let directory = tempfile::tempdir().unwrap();
    let bus = open_in(directory.path());
    let (mut peer, run) = run(session(&bus), 64, CancellationToken::new());
    for id in 0..32 {
        let publish = state(&format!("t/{id}"), "x");
        let id = Some(id);
        peer.requests
            .send(Request::Publish { id, publish })
            .await
            .unwrap();
    }
    assert!(matches!(
        recv(&mut peer).await,
        Event::Published { id: 0, .. }
    ));
    within(bus.close()).await;
    let mut next = 1;
    let closed = loop {
        match within(peer.events.recv()).await {
            Ok(Event::Published { id, .. }) => {
                assert_eq!(id, next);
                next += 1;
            }
            Ok(other) => panic!("{other:?}"),
            Err(closed) => break closed,
        }
    };
    assert_eq!(closed, Closed(Some(Close::GoingAway)));
    assert!(matches!(within(run).await.unwrap().1, Ended::Closing));
    drop(bus);
}

/// The bus does not wait for a peer that never reads.
#[tokio::test(start_paused = true)]
async fn a_goodbye_that_is_not_taken_is_given_up() {
    let bus = open();
    let (peer, run) = run(session(&bus), 1, CancellationToken::new());
    peer.requests
        .send(subscribe(1, "#", Mode::Every))
        .await
        .unwrap();
    for n in 0..100 {
        bus.publish(event("t", n.to_string())).await.unwrap();
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    bus.close().await;
    let (session, ended) = run.await.unwrap();
    assert!(matches!(ended, Ended::Closing));
    assert!(begun.elapsed() <= Duration::from_secs(3));
    drop(session);
    assert_eq!(bus.read(|hub| hub.subscriptions()), 0);
}

#[tokio::test]
async fn a_session_has_a_bound_on_its_subscriptions() {
    let bus = open_with(SessionLimits {
        subscriptions: 2,
        ..SessionLimits::default()
    });
    let mut peer = connect(&bus);
    let mut results = Vec::new();
    // The second 1 replaces the first.
    for id in [1, 2, 3, 1] {
        peer.requests
            .send(subscribe(id, "t", Mode::Latest))
            .await
            .unwrap();
        loop {
            if let Event::Subscribed { results: one, .. } = recv(&mut peer).await {
                results.extend(one);
                break;
            }
        }
    }
    assert_eq!(
        results,
        [
            (1, Ok(())),
            (2, Ok(())),
            (3, Err(SubscribeRefused::SessionFull { limit: 2 })),
            (1, Ok(())),
        ]
    );
    assert_eq!(bus.read(|hub| hub.subscriptions()), 2);
    assert!(
        peer.events
            .recv()
            .now_or_never()
            .is_none_or(|event| matches!(event, Ok(Event::Synced { .. })))
    );
}

/// A peer that never stops publishing still gets what it subscribed to.
#[tokio::test]
async fn a_flood_of_publishes_does_not_starve_the_messages() {
    let bus = open();
    let MemoryPeer {
        requests,
        mut events,
    } = connect(&bus);
    requests
        .send(subscribe(1, "news", Mode::Latest))
        .await
        .unwrap();
    let flood = tokio::spawn(async move {
        let flooding = || Request::Publish {
            id: None,
            publish: event("flood", "x"),
        };
        while requests.send(flooding()).await.is_ok() {}
    });
    for n in 0..50 {
        bus.publish(state("news", n.to_string())).await.unwrap();
        let newest = async {
            loop {
                if let Event::Message { delivery, .. } = events.recv().await.unwrap()
                    && text(&delivery) == n.to_string()
                {
                    return;
                }
            }
        };
        within(newest).await;
    }
    flood.abort();
}

/// A batch of a paced subscription takes nothing of the next one, however many topics it has.
#[tokio::test(start_paused = true)]
async fn a_paced_subscription_with_many_topics_keeps_the_pace_of_each() {
    const PACE: Duration = Duration::from_secs(1);
    let bus = open();
    let mut peer = connect(&bus);
    let topic = |n: usize| format!("t/{n}");
    for n in 0..300 {
        bus.publish(state(&topic(n), "0")).await.unwrap();
    }
    let request = paced(1, "t/#", Mode::Latest, Some(PACE));
    peer.requests.send(request).await.unwrap();
    while !matches!(recv(&mut peer).await, Event::Synced { .. }) {}

    let changes = tokio::spawn(async move {
        for round in 1..2_000_usize {
            for n in 0..10 {
                let topic = topic((round * 7 + n) % 300);
                bus.publish(state(&topic, round.to_string())).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let mut before = std::collections::HashMap::new();
    for _ in 0..1_500 {
        let delivery = message(&mut peer).await;
        let now = tokio::time::Instant::now();
        if let Some(before) = before.insert(delivery.topic.as_str().to_owned(), now) {
            assert!(now - before >= PACE * 9 / 10, "{:?}", now - before);
        }
    }
    changes.abort();
}

/// Subscribing to the same again and again leaves nothing behind.
#[tokio::test]
async fn a_subscription_that_is_renewed_waits_once() {
    let bus = open();
    let mut peer = connect(&bus);
    bus.publish(state("a", "1")).await.unwrap();
    for _ in 0..1_000 {
        peer.requests
            .send(subscribe(1, "a", Mode::Every))
            .await
            .unwrap();
        while !matches!(recv(&mut peer).await, Event::Synced { .. }) {}
    }
    bus.publish(state("a", "2")).await.unwrap();
    assert_eq!(text(&message(&mut peer).await), "2");
    bus.publish(state("a", "3")).await.unwrap();
    assert_eq!(text(&message(&mut peer).await), "3");
}

/// However much a peer asks for without reading, it is one page that waits for it.
#[tokio::test]
async fn one_page_of_a_history_is_on_its_way_at_a_time() {
    let bus = Bus::open(Options {
        history: vec![HistoryRule {
            filter: TopicFilter::parse("chat/+".to_owned()).unwrap(),
            keep: 10,
        }],
        ..Options::default()
    })
    .unwrap();
    let mut peer = connect(&bus);
    for _ in 0..5 {
        bus.publish(state("chat/lobby", "x")).await.unwrap();
    }
    let page = |id, before| Request::History {
        id,
        topic: TopicName::parse("chat/lobby".to_owned()).unwrap(),
        before,
        limit: 3,
    };
    for request in [page(1, None), page(2, Some(4)), Request::Ping { id: 3 }] {
        peer.requests.send(request).await.unwrap();
    }
    let revisions = |event: &Event| match event {
        Event::History {
            result: Ok(page), ..
        } => {
            let revisions = page.messages.iter().map(|message| message.rev);
            (revisions.collect::<Vec<_>>(), page.has_more)
        }
        other => panic!("{other:?}"),
    };
    let first = recv(&mut peer).await;
    let (revs, has_more) = revisions(&first);
    assert_eq!((revs.len(), has_more), (3, true));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(peer.events.recv().now_or_never().is_none(), "it waits");
    drop(first);
    let second = recv(&mut peer).await;
    let (older, _) = revisions(&second);
    assert!(older.iter().all(|rev| *rev < 4), "{older:?}");
    drop(second);
    assert!(matches!(recv(&mut peer).await, Event::Pong { id: 3, .. }));
}
