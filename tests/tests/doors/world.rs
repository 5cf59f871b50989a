//! A bus with users and rules, and every door to it.

use core::net::SocketAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _};
use latchbus::http;
use latchbus_access::RulesAuthorizer;
use latchbus_access::rules::Rules;
use latchbus_bus::{Bus, Delivery, Options, Principal, Publish, Subscription};
use latchbus_core::hub::{Mode, Start, Step};
use latchbus_core::topic::TopicFilter;
use latchbus_mqtt::server as mqtt;
use latchbus_tests::bench::topic_name;
use latchbus_tests::users::Everybody;
use latchbus_tests::within;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::table::{END, Table};

pub(crate) struct World {
    pub(crate) bus: Bus,
    pub(crate) table: Table,
    authorizer: Arc<RulesAuthorizer>,
    /// All of them have a value.
    pub(crate) topics: BTreeSet<String>,
    pub(crate) http: SocketAddr,
    /// MQTT over TCP, whose sessions stay.
    pub(crate) mqtt: SocketAddr,
    serving: [JoinHandle<()>; 2],
}

fn rules(table: &Table) -> Option<Arc<Rules>> {
    Some(Arc::new(
        Rules::parse(&table.toml(), "access.toml").unwrap(),
    ))
}

impl World {
    pub(crate) async fn open(table: Table, topics: BTreeSet<String>) -> Self {
        let authorizer = Arc::new(RulesAuthorizer::new(rules(&table)));
        let authorizer_of_bus: Arc<RulesAuthorizer> = Arc::clone(&authorizer);
        let bus = Bus::open(Options {
            authenticator: Arc::new(Everybody),
            authorizer: authorizer_of_bus,
            rooms: Vec::new(),
            sys_every: None,
            ..Options::default()
        })
        .unwrap();
        for topic in &topics {
            let publish = Publish::state(topic_name(topic), "kept");
            bus.publish(publish).await.unwrap();
        }
        let server = mqtt::Server::new(bus.clone(), mqtt::Config::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mqtt = listener.local_addr().unwrap();
        let serves = server.clone();
        let mqtt_serves = tokio::spawn(async move { serves.serve(listener).await });
        let pages = http::Http::new(bus.clone(), server, http::Config::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        Self {
            bus,
            table,
            authorizer,
            topics,
            http,
            mqtt,
            serving: [mqtt_serves, tokio::spawn(pages.serve(listener))],
        }
    }

    pub(crate) fn replace_rules(&mut self, table: Table) {
        self.authorizer.replace(rules(&table));
        self.table = table;
    }

    pub(crate) async fn event(&self, topic: &str, payload: &str) {
        let publish = Publish::event(topic_name(topic), payload.to_owned());
        self.bus.publish(publish).await.unwrap();
    }

    pub(crate) async fn state(&self, topic: &str, payload: &str) {
        let publish = Publish::state(topic_name(topic), payload.to_owned());
        self.bus.publish(publish).await.unwrap();
    }

    pub(crate) async fn clear(&self, topic: &str) {
        self.state(topic, "").await;
    }

    /// What comes before is all that was published before.
    pub(crate) async fn end(&self, payload: &str) {
        self.event(END, payload).await;
    }

    /// Somebody who may read everything, from now on.
    pub(crate) fn observer(&self) -> Observer {
        let client = self.bus.client(Principal::process()).unwrap();
        let streams = ["#", "$s/#"].map(|filter| {
            let filter = TopicFilter::parse(filter).unwrap();
            client.subscribe(filter, Mode::Every, Start::Live).unwrap()
        });
        Observer(streams)
    }

    pub(crate) async fn close(self) {
        within("the bus closes", self.bus.close()).await;
        for serving in self.serving {
            within("a server ends", serving).await.unwrap();
        }
    }
}

pub(crate) struct Observer([Subscription; 2]);

impl Observer {
    /// Topics and payloads up to the end.
    pub(crate) async fn all_to(&mut self, end: &str) -> BTreeSet<(String, String)> {
        let mut all = BTreeSet::new();
        let [everything, hidden] = &mut self.0;
        loop {
            let step = within("something is observed", everything.next()).await;
            match entry(step.unwrap()) {
                Some((topic, payload)) if topic == END => {
                    if payload == end {
                        break;
                    }
                }
                step => all.extend(step),
            }
        }
        // What is hidden was published before the end, if it was.
        while let Some(Some(step)) = hidden.next().now_or_never() {
            all.extend(entry(step));
        }
        all
    }
}

fn entry(step: Step<Delivery>) -> Option<(String, String)> {
    let Step::Entry { entry, .. } = step else {
        return None;
    };
    let payload = String::from_utf8_lossy(entry.payload.bytes()).into_owned();
    Some((entry.topic.as_str().to_owned(), payload))
}
