//! Several subscriptions of one peer.

use std::collections::BTreeMap;

use latchbus_core::hub::Mode;

use crate::bench::{Bench, message, recv, wait};
use crate::transport::{Connect, Incoming, Message, Peer, Subscribe, Transport};

const FILTERS: [(u64, &str); 4] = [(1, "over/+"), (2, "over/#"), (3, "over/a"), (4, "+/a")];

/// Subscriptions of one peer that match the same topics each get their own complete sequence.
pub async fn overlapping_subscriptions_are_each_complete<T: Transport>() {
    let bench = Bench::<T>::new().await;
    bench.state("over/a", "retained").await;
    let mut peer = bench.peer("overlapping").await;
    let mut messages = Vec::new();
    for (id, filter) in FILTERS {
        let subscribe = Subscribe {
            mode: Mode::Every,
            ..Subscribe::to(id, filter)
        };
        peer.subscribe(subscribe).await;
        // Each begins with its own snapshot.
        loop {
            match recv(&mut peer).await {
                Incoming::Message(message) => {
                    messages.push(message);
                    if !T::WORDS.synced {
                        break;
                    }
                }
                Incoming::Subscribed(_) => {}
                Incoming::Synced(synced, _) if synced == id => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(messages.len(), FILTERS.len());

    const ROUNDS: u64 = 100;
    for round in 0..ROUNDS {
        bench.state("over/a", format!("a {round}")).await;
        bench.event("over/b", format!("b {round}")).await;
    }
    // `a` comes four times a round, `b` twice.
    while messages.len() < FILTERS.len() + 6 * ROUNDS as usize {
        messages.push(message(&mut peer).await);
    }

    if T::WORDS.subscriptions {
        for (id, filter) in FILTERS {
            let mut expected = vec!["retained".to_owned()];
            for round in 0..ROUNDS {
                expected.push(format!("a {round}"));
                if !filter.contains('a') {
                    expected.push(format!("b {round}"));
                }
            }
            let own = messages.iter().filter(|m| m.subscription == Some(id));
            assert_eq!(payloads(own), expected, "{filter}");
        }
    } else {
        // One copy for each that matches, and no copy goes back.
        let mut copies = BTreeMap::<String, usize>::new();
        for payload in payloads(messages.iter()) {
            *copies.entry(payload).or_default() += 1;
        }
        for (payload, copies) in copies {
            let expected = if payload.starts_with('b') { 2 } else { 4 };
            assert_eq!(copies, expected, "{payload}");
        }
    }
    bench.close().await;
}

fn payloads<'a>(messages: impl Iterator<Item = &'a Message>) -> Vec<String> {
    messages
        .map(|message| String::from_utf8(message.payload.to_vec()).unwrap())
        .collect()
}

/// Filters that share topics and filters that do not, and how many of them each topic has.
const ORDERED: [(u64, &str); 6] = [
    (1, "m/0"),
    (2, "m/1"),
    (3, "+/2"),
    (4, "m/+"),
    (5, "m/#"),
    (6, "n/#"),
];
const COPIES: [(&str, usize); 4] = [("m/0", 3), ("m/1", 3), ("m/2", 3), ("n/3", 1)];

/// Messages reach a peer in the order in which the hub has accepted them, whichever of its subscriptions brings them:
/// in a burst, and, where the server keeps sessions, when it comes back. Of subscriptions with a pace, which is each
/// one's own, this holds for each.
pub async fn messages_of_several_subscriptions_come_in_one_order<T: Transport>() {
    const MESSAGES: usize = 240;
    const NAME: Connect<'static> = Connect {
        name: "in order",
        resume: true,
        narrow: false,
        user: None,
    };
    let bench = Bench::<T>::new().await;
    let mut connected = Some(bench.connect(NAME).await);
    let peer = connected.as_mut().unwrap();
    for (id, filter) in ORDERED {
        let subscribe = Subscribe {
            mode: Mode::Every,
            ..Subscribe::to(id, filter)
        };
        peer.subscribe(subscribe).await;
        loop {
            match recv(peer).await {
                Incoming::Subscribed(subscribed) if subscribed == id && !T::WORDS.synced => break,
                Incoming::Synced(synced, _) if synced == id => break,
                Incoming::Subscribed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    for away in [false, true] {
        if away && T::WORDS.synced {
            // There, each subscription comes back for itself.
            break;
        }
        let mut expected = Vec::new();
        for n in 0..MESSAGES {
            let (topic, copies) = COPIES[(n * 7 + n / 5) % COPIES.len()];
            match n % 3 {
                0 => bench.state(topic, n.to_string()).await,
                _ => bench.event(topic, n.to_string()).await,
            };
            expected.extend(core::iter::repeat_n(n.to_string(), copies));
        }
        let mut peer = match connected.take() {
            Some(peer) => peer,
            None => bench.connect(NAME).await,
        };
        let mut messages = Vec::new();
        while messages.len() < expected.len() {
            let message = message(&mut peer).await;
            // Its last acknowledgements were lost with the connection.
            let of_before = away && message.again;
            messages.extend((!of_before).then_some(message));
        }
        assert_eq!(payloads(messages.iter()), expected, "away: {away}");
        peer.cut();
        bench.nobody_connected().await;
    }
    bench.close().await;
}

/// What one subscription no longer wants, another still gets.
pub async fn unsubscribe_ends_one_subscription<T: Transport>() {
    let bench = Bench::<T>::new().await;
    let mut peer = bench.peer("unsubscribing").await;
    for (id, filter) in [(1, "un/a/#"), (2, "un/b/#")] {
        let marker = filter.replace('#', "marker");
        bench
            .snapshot(&mut peer, Subscribe::to(id, filter), &marker)
            .await;
    }
    bench.event("un/a/x", "1").await;
    assert_eq!(message(&mut peer).await.payload, "1");
    peer.unsubscribe(1).await;
    // Requests are answered in order, so the unsubscribe is done when this is acknowledged.
    peer.publish(crate::transport::Publish::event(5, "elsewhere", b""))
        .await;
    loop {
        match recv(&mut peer).await {
            Incoming::Unsubscribed(1) => {}
            Incoming::Acked(5) => break,
            other => panic!("{other:?}"),
        }
    }
    bench.event("un/a/x", "2").await;
    bench.event("un/b/x", "3").await;
    assert_eq!(message(&mut peer).await.payload, "3");
    let subscriptions = bench.bus.read(|hub| hub.subscriptions());
    assert_eq!(subscriptions, 1);
    // Its id is free again.
    peer.subscribe(Subscribe::to(1, "un/c")).await;
    bench.state("un/c", "4").await;
    assert_eq!(message(&mut peer).await.payload, "4");
    peer.publish(crate::transport::Publish::event(6, "elsewhere", b""))
        .await;
    wait(&mut peer, Incoming::Acked(6)).await;
    bench.close().await;
}
