//! All that is kept, value by value.

use core::hash::BuildHasher as _;
use std::collections::HashSet;
use std::hash::RandomState;

use futures_util::{FutureExt as _, StreamExt as _};
use latchbus_bus::{Client, Delivery, SubscribeRefused, Subscription};
use latchbus_core::hub::{Hub, Kind, Mode, Start, Step};
use latchbus_core::topic::TopicFilter;
use tokio::task::coop::consume_budget;

/// The kept values that match a filter, by revision, taken from the hub as they are asked for.
///
/// A topic that changes meanwhile is listed with a value from before or from after the change, and once. One
/// that comes or goes meanwhile may be listed or not.
///
/// It holds the values that its subscription has taken in advance, and eight bytes for each topic that it has
/// given: whoever doesn't ask for more keeps no old values alive in the hub.
#[derive(Debug)]
pub(super) struct Listing {
    steps: Subscription,
    /// Values up to here are listed as they come.
    began: u64,
    /// The last revision that was given.
    last: u64,
    /// Hashes of the topics that were given. Two with the same hash, of which one changes meanwhile: once in
    /// 2^64 pairs.
    given: HashSet<u64>,
    hashes: RandomState,
    /// How many changes may still be looked at. Enough for each topic to come once, and an end for a reader
    /// who is slower than the changes.
    changes: usize,
}

impl Listing {
    /// Begins a list.
    ///
    /// # Errors
    /// When rules or bounds refuse a subscription.
    pub(super) fn begin(
        client: &Client,
        filter: TopicFilter<&str>,
    ) -> Result<Self, SubscribeRefused> {
        let steps = client.subscribe(filter, Mode::Latest, Start::Snapshot)?;
        let bus = client.bus();
        let limits = bus.limits();
        Ok(Self {
            steps,
            began: bus.read(Hub::revision),
            last: 0,
            given: HashSet::new(),
            hashes: RandomState::new(),
            changes: limits.places.saturating_add(limits.tombstones),
        })
    }

    /// The next value; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        loop {
            consume_budget().await;
            // What isn't there yet is news, and not part of the list.
            let Step::Entry { entry, .. } = self.steps.next().now_or_never()?? else {
                continue;
            };
            let changes = entry.rev > self.began;
            if changes {
                self.changes = self.changes.checked_sub(1)?;
            }
            // After a reset, what was given comes again.
            if entry.kind != Kind::State || entry.rev <= self.last {
                continue;
            }
            let is_new = self
                .given
                .insert(self.hashes.hash_one(entry.topic.as_str()));
            if is_new || !changes {
                self.last = entry.rev;
                return Some(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use latchbus_bus::{Bus, Options, Principal, Publish};
    use latchbus_core::hub::Limits;
    use latchbus_core::topic::TopicName;
    use std::sync::Arc;

    /// One whose ring keeps nothing alive.
    fn bus(places: usize) -> Bus {
        let limits = Limits {
            places,
            tombstones: 100,
            recent: 1,
            ..Limits::default()
        };
        Bus::open(Options {
            limits,
            rooms: Vec::new(),
            ..Options::default()
        })
        .unwrap()
    }

    fn topic(text: &str) -> TopicName<String> {
        TopicName::parse(text.to_owned()).unwrap()
    }

    async fn put(bus: &Bus, text: &str, payload: &'static str) {
        let publish = Publish::state(topic(text), payload);
        bus.publish(publish).await.unwrap();
    }

    fn list(bus: &Bus, filter: &str) -> Listing {
        let client = bus.client(Principal::process()).unwrap();
        Listing::begin(&client, TopicFilter::parse(filter).unwrap()).unwrap()
    }

    async fn rest(listing: &mut Listing) -> Vec<(String, String)> {
        let mut rest = Vec::new();
        while let Some(entry) = listing.next().await {
            let payload = String::from_utf8(entry.payload.bytes().to_vec()).unwrap();
            rest.push((entry.topic.as_str().to_owned(), payload));
        }
        rest
    }

    #[tokio::test]
    async fn who_does_not_read_on_keeps_no_old_values_alive() {
        let bus = bus(1_000);
        let mut before = Vec::new();
        for n in 0..500 {
            let text = format!("t/{n}");
            put(&bus, &text, "old").await;
            before.push(Arc::downgrade(&bus.last(topic(&text).borrowed()).unwrap()));
        }
        let mut listing = list(&bus, "t/#");
        assert!(listing.next().await.is_some());
        for n in 0..500 {
            put(&bus, &format!("t/{n}"), "new").await;
        }
        let alive = before.iter().filter(|old| old.strong_count() > 0).count();
        assert!(alive <= 64, "{alive} old values");
        // Each topic is listed all the same.
        let mut topics: Vec<_> = rest(&mut listing).await.into_iter().map(|t| t.0).collect();
        topics.sort_unstable();
        topics.dedup();
        assert_eq!(topics.len(), 499);
    }

    #[tokio::test]
    async fn by_revision_and_each_topic_once() {
        let bus = bus(1_000);
        for n in (0..200).rev() {
            put(&bus, &format!("t/{n}"), "1").await;
        }
        bus.publish(Publish::event(topic("t/event"), "1"))
            .await
            .unwrap();
        let mut listing = list(&bus, "t/+");
        let first = listing.next().await.unwrap();
        assert_eq!(first.topic.as_str(), "t/199");
        for text in ["t/199", "t/3", "t/0", "t/gone"] {
            put(&bus, text, "2").await;
        }
        put(&bus, "t/gone", "").await;
        let rest = rest(&mut listing).await;
        assert_eq!(rest.len(), 199);
        let value = |payload: &str, text: &str| (text.to_owned(), payload.to_owned());
        let in_order = (1..199).rev().filter(|n| *n != 3);
        let in_order = in_order.map(|n| value("1", &format!("t/{n}")));
        let changed = [value("2", "t/3"), value("2", "t/0")];
        assert!(in_order.chain(changed).eq(rest));
    }

    #[tokio::test]
    async fn a_reader_who_is_slower_than_the_changes_comes_to_an_end() {
        let bus = bus(250);
        put(&bus, "t/0", "1").await;
        let mut listing = list(&bus, "#");
        let mut given = 0;
        while listing.next().await.is_some() {
            given += 1;
            assert!(given <= 400, "it goes on and on");
            // More than it takes at once come, and go.
            for payload in ["1", ""] {
                for n in 0..100 {
                    put(&bus, &format!("t/{given}/{n}"), payload).await;
                    put(&bus, &format!("u/{given}/{n}"), "1").await;
                    put(&bus, &format!("u/{}/{n}", given - 1), "").await;
                }
            }
        }
        assert!(given > 1);
    }

    #[tokio::test]
    async fn a_list_that_is_begun_again_gives_nothing_twice() {
        let bus = bus(1_000);
        for n in 0..300 {
            put(&bus, &format!("t/{n}"), "1").await;
        }
        let mut listing = list(&bus, "t/+");
        assert!(listing.next().await.is_some());
        // More clears than are remembered.
        for n in 150..300 {
            put(&bus, &format!("t/{n}"), "").await;
        }
        let rest = rest(&mut listing).await;
        let expected = (1..150).map(|n| (format!("t/{n}"), "1".to_owned()));
        assert!(expected.eq(rest));
    }
}
