//! What a program that embeds the bus calls first: text in, values out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use core::time::Duration;

use futures_util::{FutureExt, StreamExt};
use latchbus_bus::topic::TopicError;
use latchbus_bus::{Bus, OpenError, Principal, PublishRefused, SubscribeRefused, Value, Watch};
use support::within;
use tokio::time::Instant;

fn text(value: &Value) -> (&str, &str) {
    (value.topic(), value.text().unwrap())
}

/// What has come, up to now.
fn ready(watch: &mut Watch) -> Vec<(String, String)> {
    let mut values = Vec::new();
    while let Some(Some(value)) = watch.next().now_or_never() {
        let (topic, text) = text(&value);
        values.push((topic.to_owned(), text.to_owned()));
    }
    values
}

#[tokio::test]
async fn values_come_with_topic_and_revision_and_then_what_they_change_to() {
    let bus = Bus::builder().open().unwrap();
    let first = bus.publish_state("lab/temp", "21.5").await.unwrap();
    let mut lab = bus.watch("lab/+").unwrap();
    let value = within(lab.next()).await.unwrap();
    assert_eq!(text(&value), ("lab/temp", "21.5"));
    assert_eq!(value.revision(), first.rev);
    assert!(value.at() <= std::time::SystemTime::now());
    assert!(!value.is_event() && !value.is_cleared());

    bus.publish_event("lab/door", "open").await.unwrap();
    let event = within(lab.next()).await.unwrap();
    assert!(event.is_event() && text(&event) == ("lab/door", "open"));
    bus.clear("lab/temp").await.unwrap();
    let cleared = within(lab.next()).await.unwrap();
    assert!(cleared.is_cleared() && text(&cleared) == ("lab/temp", ""));
    assert!(bus.value("lab/temp").is_none());

    bus.close().await;
    assert!(within(lab.next()).await.is_none());
}

#[tokio::test]
async fn a_watch_is_a_stream() {
    let bus = Bus::builder().open().unwrap();
    for topic in ["a", "b", "c"] {
        bus.publish_state(topic, topic.to_owned()).await.unwrap();
    }
    let values = bus.watch("+").unwrap().take(3);
    let topics: Vec<_> = values.map(|value| value.topic().to_owned()).collect().await;
    assert_eq!(topics, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watch_gets_the_newest_values_and_a_topic_once_in_its_interval() {
    let bus = Bus::builder().open().unwrap();
    let mut all = bus.watch("t/+").unwrap();
    assert_eq!(ready(&mut all), []);
    let pair = |topic: &str, n: u32| (topic.to_owned(), n.to_string());
    for n in 0..100 {
        for topic in ["t/a", "t/b"] {
            bus.publish_state(topic, n.to_string()).await.unwrap();
        }
    }
    // Nobody has read meanwhile.
    assert_eq!(ready(&mut all), [pair("t/a", 99), pair("t/b", 99)]);
    // It has just had them: the next ones are due in an interval of 20 ms, whatever comes.
    let began = Instant::now();
    for n in 100..200 {
        bus.publish_state("t/a", n.to_string()).await.unwrap();
        assert_eq!(ready(&mut all), []);
    }
    let value = all.next().await.unwrap();
    assert_eq!(text(&value), ("t/a", "199"));
    assert_eq!(began.elapsed(), Duration::from_millis(20));
    // After a quiet time at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bus.publish_state("t/a", "200").await.unwrap();
    assert_eq!(ready(&mut all), [pair("t/a", 200)]);

    let mut unpaced = bus.watch("t/a").unwrap().paced(Duration::ZERO);
    for n in 300..303 {
        bus.publish_state("t/a", n.to_string()).await.unwrap();
        assert_eq!(ready(&mut unpaced), [pair("t/a", n)]);
    }
    // What is taken one by one is the newest also in the middle of a snapshot.
    let mut late = bus.watch("t/+").unwrap();
    assert!(late.next().now_or_never().is_some());
    bus.publish_state("t/a", "newest").await.unwrap();
    let last = ready(&mut late).pop().unwrap();
    assert_eq!(last, ("t/a".to_owned(), "newest".to_owned()));
    assert!(late.counts().conflated == 0 && all.counts().conflated > 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_watch_ends_when_the_bus_closes() {
    let bus = Bus::builder().open().unwrap();
    let mut watch = bus.watch("t").unwrap().paced(Duration::from_secs(3600));
    assert_eq!(ready(&mut watch), []);
    bus.publish_state("t", "1").await.unwrap();
    assert_eq!(text(&watch.next().await.unwrap()).1, "1");
    bus.publish_state("t", "2").await.unwrap();
    let (rest, ()) = tokio::join!(
        watch
            .map(|value| value.text().unwrap().to_owned())
            .collect::<Vec<_>>(),
        bus.close()
    );
    // What was due later is not lost.
    assert_eq!(rest, ["2"]);
}

#[tokio::test]
async fn text_that_is_no_topic_and_no_filter_is_an_error_with_its_cause() {
    let bus = Bus::builder().open().unwrap();
    let client = bus.client(Principal::anonymous("test")).unwrap();
    for refused in [
        bus.publish_state("lab/+", "x").await,
        bus.publish_event("lab/+", "x").await,
        bus.clear("lab/+").await,
        client.publish_state("lab/+", "x").await,
        client.publish_event("lab/+", "x").await,
        client.clear("lab/+").await,
    ] {
        let Err(PublishRefused::InvalidTopic { topic, source }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (&*topic, source),
            ("lab/+", TopicError::WildcardInName('+'))
        );
    }
    for refused in [bus.watch("a#").err(), client.watch("a#").err()] {
        let Some(SubscribeRefused::InvalidFilter { filter, source }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((&*filter, source), ("a#", TopicError::HashNotLast));
    }
    assert!(bus.value("lab/+").is_none());
    for refused in [
        bus.watch("$share/g/lab").err(),
        client.watch("$share/").err(),
    ] {
        assert!(
            matches!(refused, Some(SubscribeRefused::Shared(_))),
            "{refused:?}"
        );
    }
    // As a topic that is a name like others.
    client.publish_state("$share/g/lab", "x").await.unwrap();
    assert!(client.value("$share/g/lab").is_some());
    // A client may not write what the hub derives; nor may the process.
    let forged = client.publish_state("clicks/main/values", "{}").await;
    assert!(matches!(forged, Err(PublishRefused::NotAllowed(..))));
    let refused = Bus::builder().history("a#", 3).open();
    assert!(matches!(refused, Err(OpenError::History { filter, .. }) if filter == "a#"));
}

#[tokio::test]
async fn a_builder_sets_up_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Bus::builder().directory(directory.path());
        builder
            .history("chat/#", 2)
            .rooms(["lobby"])
            .open()
            .unwrap()
    };
    let bus = open();
    for n in 0..3 {
        let accepted = bus.publish_state("chat/x", n.to_string()).await.unwrap();
        assert!(accepted.rev > 0);
    }
    bus.close().await;
    drop(bus);
    let bus = open();
    let mut chat = bus.watch("chat/#").unwrap();
    assert_eq!(ready(&mut chat).len(), 2);
    assert!(bus.value("clicks/lobby/values").is_some());
    assert!(bus.value("clicks/main/values").is_none());
    bus.close().await;
}

#[test]
fn outside_a_runtime_there_is_an_error_and_no_panic() {
    assert!(matches!(Bus::builder().open(), Err(OpenError::NoRuntime)));
}
