//! What a decision of the rules costs, with 50 of them and with 1,000: remembered and looked up, for a publish and for a
//! delivery, and what a subscription to all costs once. `cargo bench -p latchbus-benches --bench access`.

#![expect(clippy::unwrap_used, reason = "what fails here is a wrong benchmark")]

use core::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use latchbus_access::RulesAuthorizer;
use latchbus_access::rules::{Rules, Subject, Who};
use latchbus_bus::{Authorizer as _, Principal, PublishRequest};
use latchbus_core::topic::{TopicFilter, TopicName};

const RULES: [usize; 2] = [50, 1_000];

/// So many filters, a third of them with names, a tenth of them denied.
fn rules(n: usize) -> Rules {
    let filter = |i: usize| match i % 3 {
        0 => format!("\"plant/{i}/{{user}}/#\""),
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
        let rules = rules(n);
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

criterion_group!(benches, decisions);
criterion_main!(benches);
