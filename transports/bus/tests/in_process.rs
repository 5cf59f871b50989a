//! A program that embeds the bus: publish, subscribe as a stream, and what it may rely on.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use futures_util::{FutureExt, StreamExt};
use latchbus_bus::{
    Authorizer, Bus, Forbidden, Grant, HistoryRule, Options, Principal, Publish, PublishRefused,
    PublishRequest, SubscribeRefused,
};
use latchbus_core::hub::{Kind, Mode, PublishError, Start, Step, SubscribeError};
use latchbus_core::topic::TopicFilter;
use std::sync::Arc;
use support::*;

fn stream(bus: &Bus, topics: &str, mode: Mode, start: Start) -> latchbus_bus::Subscription {
    let filter = TopicFilter::parse(topics).unwrap();
    bus.subscribe(filter, mode, start).unwrap()
}

async fn next(stream: &mut latchbus_bus::Subscription) -> Step<latchbus_bus::Delivery> {
    within(stream.next()).await.unwrap()
}

async fn next_text(stream: &mut latchbus_bus::Subscription) -> String {
    match next(stream).await {
        Step::Entry { entry, .. } => text(&entry),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_replays_the_last_value_then_is_live() {
    let bus = open();
    bus.publish(state("lab/temp", "20")).await.unwrap();
    bus.publish(state("lab/temp", "21")).await.unwrap();
    bus.publish(event("lab/door", "opened")).await.unwrap();

    let mut lab = stream(&bus, "lab/+", Mode::Latest, Start::Snapshot);
    assert!(
        matches!(next(&mut lab).await, Step::Entry { entry, retained: true } if text(&entry) == "21")
    );
    let Step::Synced { cursor } = next(&mut lab).await else {
        panic!("the snapshot is complete");
    };
    assert_eq!(
        (cursor.epoch, cursor.rev),
        (bus.epoch(), bus.read(|hub| hub.revision()))
    );
    assert!(lab.next().now_or_never().is_none());

    bus.publish(event("lab/door", "closed")).await.unwrap();
    assert!(
        matches!(next(&mut lab).await, Step::Entry { entry, retained: false } if entry.kind == Kind::Event)
    );
    bus.publish(state("lab/temp", "")).await.unwrap();
    assert!(
        matches!(next(&mut lab).await, Step::Entry { entry, .. } if entry.kind == Kind::Cleared)
    );
    assert_eq!(last(&bus, "lab/temp"), None);
}

#[tokio::test]
async fn a_live_stream_has_no_past_and_a_resumed_one_only_what_is_new() {
    let bus = open();
    bus.publish(state("a", "1")).await.unwrap();
    let mut live = stream(&bus, "#", Mode::Latest, Start::Live);
    let Step::Synced { cursor } = next(&mut live).await else {
        panic!("nothing comes before");
    };
    bus.publish(state("b", "2")).await.unwrap();
    assert_eq!(next_text(&mut live).await, "2");

    let mut resumed = stream(&bus, "#", Mode::Latest, Start::Resume(cursor));
    assert_eq!(next_text(&mut resumed).await, "2");
    assert!(matches!(next(&mut resumed).await, Step::Synced { .. }));
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_at_the_newest_value() {
    let bus = open();
    let mut latest = stream(&bus, "t", Mode::Latest, Start::Snapshot);
    assert!(matches!(next(&mut latest).await, Step::Synced { .. }));
    for n in 0..10_000 {
        bus.publish(state("t", n.to_string())).await.unwrap();
    }
    assert_eq!(next_text(&mut latest).await, "9999");
    assert!(latest.next().now_or_never().is_none());
    assert_eq!(latest.counts().conflated, 9_999);
    drop(latest);
    assert_eq!(bus.metrics().conflated.get(), 9_999);
    assert_eq!(bus.read(|hub| hub.subscriptions()), 0);
}

/// A clear must reach MQTT subscribers as surely as the values before it.
#[tokio::test]
async fn a_clear_does_not_cap_the_quality_of_service() {
    let bus = open();
    bus.publish(state("t", "x")).await.unwrap();
    let mut clears = stream(&bus, "t", Mode::Latest, Start::Live);
    assert!(matches!(next(&mut clears).await, Step::Synced { .. }));
    bus.publish(state("t", "")).await.unwrap();
    match next(&mut clears).await {
        Step::Entry { entry, .. } => assert_eq!(entry.payload.qos(), Publish::STATE_QOS),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn history_keeps_the_last_values_of_a_topic() {
    let bus = Bus::open(Options {
        history: vec![HistoryRule {
            filter: filter("chat/#"),
            keep: 3,
        }],
        ..Options::default()
    })
    .unwrap();
    for n in 0..5 {
        bus.publish(state("chat/room", n.to_string()))
            .await
            .unwrap();
    }
    let mut late = stream(&bus, "chat/#", Mode::Latest, Start::Snapshot);
    for n in 2..5 {
        assert_eq!(next_text(&mut late).await, n.to_string());
    }
    assert!(matches!(next(&mut late).await, Step::Synced { .. }));
}

#[tokio::test]
async fn bounds_are_errors_and_change_nothing() {
    let bus = open();
    let long = "x".repeat(LIMITS.payload_bytes + 1);
    let refused = bus.publish(state("t", long)).await;
    assert!(matches!(
        refused,
        Err(PublishRefused::Hub(PublishError::PayloadTooLarge { .. }))
    ));
    let topic = "t".repeat(LIMITS.topic_bytes + 1);
    let refused = bus.publish(state(&topic, "x")).await;
    assert!(matches!(
        refused,
        Err(PublishRefused::Hub(PublishError::TopicTooLong { .. }))
    ));

    let press = || bus.publish(event("clicks/main/k/press", "red"));
    press().await.unwrap();
    let mut accepted = 0;
    let full = loop {
        match bus.publish(state(&format!("fill/{accepted}"), "x")).await {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
        assert!(accepted <= LIMITS.places);
    };
    assert!(matches!(
        full,
        PublishRefused::Hub(PublishError::Full { .. })
    ));
    // What is there can change, events pass, and those who have clicked can click.
    bus.publish(state("fill/0", "y")).await.unwrap();
    bus.publish(event("new", "z")).await.unwrap();
    press().await.unwrap();
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":2,"blue":0}"#
    );
    assert_eq!(bus.metrics().publishes_refused.get(), 3);

    let mut streams = Vec::new();
    let refused = loop {
        let filter = TopicFilter::parse("#").unwrap();
        match bus.subscribe(filter, Mode::Latest, Start::Live) {
            Ok(stream) => streams.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!(streams.len(), LIMITS.subscriptions);
    assert!(matches!(
        refused,
        SubscribeRefused::Hub(SubscribeError::Full { .. })
    ));
    streams.pop();
    stream(&bus, "#", Mode::Latest, Start::Live);
}

/// A refusal holds no place of the log, so that others are not refused for it.
#[tokio::test]
async fn refused_reports_leave_the_room_that_there_was() {
    let bus = Bus::open(Options {
        limits: LIMITS,
        clicks: latchbus_bus::ClickLimits {
            rooms: 1,
            ..Default::default()
        },
        ..Options::default()
    })
    .unwrap();
    for n in 0..2 * LIMITS.places {
        let topic = format!("clicks/other/k{n}/count/1-0000beef");
        let refused = bus.publish(state(&topic, r#"{"red":1,"blue":0}"#)).await;
        assert!(
            matches!(refused, Err(PublishRefused::ClicksFull { .. })),
            "{refused:?}"
        );
    }
    bus.publish(state("there/is/room", "x")).await.unwrap();
}

/// Whatever order reports arrive in, and whatever of them is committed together, the topic shows the
/// largest count that is known.
#[tokio::test]
async fn a_late_report_does_not_lower_what_its_topic_shows() {
    let bus = open();
    let topic = "clicks/main/k/count/1-0000beef";
    bus.publish(state(topic, r#"{"red":5,"blue":0}"#))
        .await
        .unwrap();
    bus.publish(state(topic, "")).await.unwrap();
    assert_eq!(last(&bus, topic), None);
    bus.publish(state(topic, r#"{"red":3,"blue":0}"#))
        .await
        .unwrap();
    assert_eq!(last(&bus, topic).unwrap(), r#"{"red":5,"blue":0}"#);
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":5,"blue":0}"#
    );
}

struct OnlyLab;

impl Authorizer for OnlyLab {
    fn authorize_connect(&self, principal: &Principal) -> bool {
        principal.client_id != "stranger"
    }

    fn authorize_publish(&self, _: &Principal, publish: &PublishRequest<'_>) -> bool {
        publish.topic.as_str().starts_with("lab/")
    }

    fn authorize_subscribe(&self, _: &Principal, filter: TopicFilter<&str>) -> Option<Grant> {
        (filter.as_str().starts_with("lab/")).then(Grant::default)
    }
}

#[tokio::test]
async fn rules_are_asked_for_everyone() {
    let bus = Bus::open(Options {
        authorizer: Arc::new(OnlyLab),
        ..Options::default()
    })
    .unwrap();
    bus.publish(state("lab/x", "1")).await.unwrap();
    let refused = bus.publish(state("other", "1")).await;
    assert!(matches!(refused, Err(PublishRefused::NotAllowed(..))));
    let filter = TopicFilter::parse("#").unwrap();
    let refused = bus.subscribe(filter, Mode::Latest, Start::Snapshot);
    assert!(matches!(refused, Err(SubscribeRefused::NotAllowed(_))));
    let stranger = Principal::anonymous("test").with_client_id("stranger");
    assert!(bus.client(stranger).is_err());
}

struct Defaults;

impl Authorizer for Defaults {}

#[tokio::test]
async fn no_authorizer_can_allow_what_the_hub_itself_writes() {
    let bus = Bus::open(Options {
        authorizer: Arc::new(Defaults),
        ..Options::default()
    })
    .unwrap();
    bus.publish(event("clicks/main/kiosk/press", "red"))
        .await
        .unwrap();
    for principal in [Principal::process(), Principal::anonymous("test")] {
        let client = bus.client(principal).unwrap();
        for topic in [
            "clicks/main/values",
            "clicks/main/share",
            "clicks/main/rate",
            "clicks/main/kiosk/floor",
            "clicks/main/kiosk/pressed",
            "clicks/main/kiosk/trouble",
            "$SYS/broker/uptime",
        ] {
            for forged in [state(topic, "1"), state(topic, ""), event(topic, "1")] {
                let refused = client.publish(forged.clone()).await;
                assert_eq!(
                    refused,
                    Err(PublishRefused::NotAllowed(
                        topic.into(),
                        Forbidden::Reserved
                    ))
                );
                let refused = client.check_publish(&forged);
                assert_eq!(
                    refused,
                    Err(PublishRefused::NotAllowed(
                        topic.into(),
                        Forbidden::Reserved
                    ))
                );
            }
        }
    }
    assert_eq!(
        last(&bus, "clicks/main/values").unwrap(),
        r#"{"red":1,"blue":0}"#
    );
}

#[tokio::test]
async fn streams_end_when_the_bus_closes() {
    let bus = open();
    bus.publish(state("t", "x")).await.unwrap();
    let mut waiting = stream(&bus, "t", Mode::Latest, Start::Snapshot);
    let reader = tokio::spawn(async move {
        let mut steps = 0;
        while waiting.next().await.is_some() {
            steps += 1;
        }
        steps
    });
    let mut unread = stream(&bus, "t", Mode::Latest, Start::Snapshot);
    within(bus.close()).await;
    assert_eq!(within(reader).await.unwrap(), 2);
    assert_eq!(next_text(&mut unread).await, "x");
    assert!(matches!(next(&mut unread).await, Step::Synced { .. }));
    assert!(within(unread.next()).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn malformed_reports_are_shown_for_each_device() {
    let bus = open();
    let mut troubles = stream(&bus, "clicks/+/+/trouble", Mode::Every, Start::Snapshot);
    assert!(matches!(next(&mut troubles).await, Step::Synced { .. }));
    for payload in ["green", "", "red -1"] {
        let press = event("clicks/main/kiosk-1/press", payload);
        let refused = bus.publish(press).await;
        assert!(matches!(refused, Err(PublishRefused::Malformed { .. })));
    }
    let count = state("clicks/main/kiosk-2/count/none", "{}");
    bus.publish(count).await.unwrap_err();

    let first = next_text(&mut troubles).await;
    assert!(first.starts_with(r#"{"malformed":3,"at":"#), "{first}");
    let second = next_text(&mut troubles).await;
    assert!(second.starts_with(r#"{"malformed":1,"at":"#), "{second}");
    // One change for each device, however many reports there were.
    assert!(troubles.next().now_or_never().is_none());

    let topic = "clicks/main/kiosk-1/trouble";
    let forged = bus.client(Principal::process()).unwrap();
    let refused = forged.publish(state(topic, "{}")).await;
    assert!(matches!(refused, Err(PublishRefused::NotAllowed(..))));
    assert_eq!(bus.metrics().clicks_malformed.get(), 4);
}
