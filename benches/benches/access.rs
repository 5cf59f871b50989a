//! What a decision of the rules costs, with 50 of them and with 1,000: remembered and looked up, for a publish and for a
//! delivery, and what a subscription to all costs once; and what rules add to a publish and its deliveries.
//! `cargo bench -p latchbus-benches --bench access`.

#![expect(clippy::unwrap_used, reason = "what fails here is a wrong benchmark")]

use core::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::{FutureExt as _, StreamExt as _};
use latchbus_access::RulesAuthorizer;
use latchbus_access::rules::{Rules, Subject, Who};
use latchbus_bus::{Authorizer as _, Bus, Principal, Publish, PublishRequest};
use latchbus_core::hub::{Mode, Start};
use latchbus_core::topic::{TopicFilter, TopicName};

const RULES: [usize; 2] = [50, 1_000];

/// So many filters, a third of them with names if there are to be any, a tenth of them denied.
fn rules(n: usize, named: bool) -> Rules {
    let filter = |i: usize| match i % 3 {
        0 if named => format!("\"plant/{i}/{{user}}/#\""),
        1 => format!("\"plant/{i}/+/state\""),
        _ => format!("\"plant/{i}/#\""),
    };
    let filters: Vec<_> = (0..n).map(filter).collect();
    let denied: Vec<_> = (0..n / 10)
        .map(|i| format!("\"plant/{i}/secret/#\""))
        .collect();
    let (filters, denied) = (filters.join(", "), denied.join(", "));
    let text = format!(
        "signed_in = [\"all\"]\n[roles.all]\npublish = [{filters}]\nsubscribe = [{filters}]\ndeny = [{denied}]\n"
    );
    Rules::parse(&text, "access.toml").unwrap()
}

fn decisions(c: &mut Criterion) {
    let topic = TopicName::parse("plant/31/press/state").unwrap();
    let all = TopicFilter::parse("#").unwrap();
    let mut group = c.benchmark_group("access");
    for n in RULES {
        let rules = rules(n, true);
        let rights = rules.rights(&Subject::new(Who::User("anna")).with_client_id("kiosk-1"));
        assert!(rights.may_read(topic) && rights.may_publish(topic, 1, true));
        let authorizer = RulesAuthorizer::new(Some(Arc::new(rules)));
        let principal = Principal::user("anna".to_owned(), "mqtt").with_client_id("kiosk-1");
        let reader = authorizer.reader(&principal).unwrap();
        let publish = PublishRequest::new(topic, true, 1);
        group.bench_function(BenchmarkId::new("read, remembered", n), |b| {
            b.iter(|| black_box(reader.may_read(black_box(topic))));
        });
        group.bench_function(BenchmarkId::new("read, looked up", n), |b| {
            b.iter(|| black_box(rights.may_read(black_box(topic))));
        });
        group.bench_function(BenchmarkId::new("publish", n), |b| {
            b.iter(|| black_box(authorizer.authorize_publish(&principal, black_box(&publish))));
        });
        group.bench_function(BenchmarkId::new("subscribe to all", n), |b| {
            b.iter(|| black_box(authorizer.authorize_subscribe(&principal, black_box(all))));
        });
    }
    group.finish();
}

/// A publish, and the take of each of 64 clients that are subscribed to more than they may read.
fn deliveries(c: &mut Criterion) {
    const CLIENTS: usize = 64;
    let topic = TopicName::parse("plant/31/press/state").unwrap();
    let filter = TopicFilter::parse("plant/#").unwrap();
    let mut group = c.benchmark_group("publish and 64 deliveries");
    for (name, named) in [
        ("without rules", None),
        ("50 rules", Some(false)),
        ("50 rules with names", Some(true)),
    ] {
        group.bench_function(name, |b| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let _inside = runtime.enter();
            let rules = named.map(|named| Arc::new(rules(50, named)));
            let bus = Bus::builder().authorizer(RulesAuthorizer::new(rules));
            let bus = bus.open().unwrap();
            let client = |i: usize| {
                let principal = Principal::user("anna".to_owned(), "mqtt");
                bus.client(principal.with_client_id(i.to_string())).unwrap()
            };
            let mut streams: Vec<_> = (0..CLIENTS)
                .map(|i| {
                    let client = client(i);
                    client.subscribe(filter, Mode::Every, Start::Live).unwrap()
                })
                .collect();
            for stream in &mut streams {
                while stream.next().now_or_never().is_some() {}
            }
            let publisher = client(CLIENTS);
            b.iter(|| {
                let publish =
                    Publish::event(topic.map(str::to_owned), Bytes::from_static(&[7; 40]));
                let published = publisher.publish(publish).now_or_never();
                published.unwrap().unwrap();
                for stream in &mut streams {
                    black_box(stream.next().now_or_never().unwrap());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, deliveries);
criterion_main!(benches);
