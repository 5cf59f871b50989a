//! A random table of rules, and what it means.

use latchbus_core::topic::{TopicFilter, TopicName};
use proptest::prelude::*;
use proptest::sample::select;

use crate::roles::{self, Role, covers, matches};

/// The topic that everybody may read, and nobody publish: what comes before it has come.
pub(crate) const END: &str = "end";

/// Rules for everybody, and for one user more.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    everyone: Role,
    anna: Role,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) user: Option<&'a str>,
    /// Empty where a door knows no names of clients.
    pub(crate) client: &'a str,
}

impl<'a> Who<'a> {
    fn names(self) -> [(&'static str, &'a str); 2] {
        [
            ("{user}", self.user.unwrap_or_default()),
            ("{client}", self.client),
        ]
    }
}

impl Table {
    pub(crate) fn toml(&self) -> String {
        let mut text = format!(
            "everyone = [\"end\", \"everyone\"]\n[users]\nanna = [\"anna\"]\n[roles.end]\nsubscribe = [\"{END}\"]\n"
        );
        for (name, role) in [("everyone", &self.everyone), ("anna", &self.anna)] {
            role.write(name, &mut text);
        }
        text
    }

    fn roles(&self, who: Who<'_>) -> impl Iterator<Item = &Role> + Clone {
        let own = (who.user == Some("anna")).then_some(&self.anna);
        core::iter::once(&self.everyone).chain(own)
    }

    pub(crate) fn may_read(&self, who: Who<'_>, topic: &str) -> bool {
        let covers = |filter: &str, deny| covers(filter, &who.names(), topic, deny);
        topic == END || roles::may_read(self.roles(who), 0, covers)
    }

    pub(crate) fn may_publish(&self, who: Who<'_>, topic: &str, qos: u8, retain: bool) -> bool {
        let covers = |filter: &str, deny| covers(filter, &who.names(), topic, deny);
        roles::may_publish(self.roles(who), qos, retain, covers)
    }

    /// Whether there is anything that matches and may be read.
    pub(crate) fn may_subscribe(&self, who: Who<'_>, filter: &str) -> bool {
        let filter = TopicFilter::parse(filter).unwrap();
        let topics = every_topic(who.client);
        let mut matching = (topics.iter())
            .filter(|topic| filter.matches(&TopicName::parse(topic.as_str()).unwrap()));
        matching.any(|topic| self.may_read(who, topic))
    }
}

const LEVELS: [&str; 6] = ["a", "b", "anna", "bea", "$s", "other"];

/// Every topic that can differ in the rules of below.
fn every_topic(client: &str) -> Vec<String> {
    let own = Some(client).filter(|it| !it.is_empty() && !it.contains(['/', '+', '#']));
    let levels: Vec<_> = LEVELS.into_iter().chain(own).collect();
    let mut topics = vec![END.to_owned()];
    let mut longest: Vec<String> = levels.iter().map(ToString::to_string).collect();
    for depth in 1..5 {
        topics.extend(longest.iter().cloned());
        let next = if depth < 3 { &levels[..] } else { &["other"] };
        longest = (longest.iter())
            .flat_map(|topic| next.iter().map(move |level| format!("{topic}/{level}")))
            .collect();
    }
    topics
}

fn text(levels: impl Strategy<Value = &'static str>) -> impl Strategy<Value = String> {
    (prop::collection::vec(levels, 1..4), any::<bool>()).prop_map(|(mut levels, hash)| {
        if hash {
            levels.push("#");
        }
        levels.join("/")
    })
}

fn rule() -> impl Strategy<Value = String> {
    text(select(vec![
        "a", "a", "b", "+", "+", "{user}", "{client}", "bea", "$s",
    ]))
}

fn denial() -> impl Strategy<Value = String> {
    rule().prop_filter("the end is everybody's", |filter| {
        // Of a client whose name can be no level it denies everything from there on.
        let denied = match filter.split_once("{client}") {
            Some((before, _)) => format!("{before}#"),
            None => filter.replace(['{', '}'], ""),
        };
        !matches(&denied, END)
    })
}

/// What somebody subscribes to.
pub(crate) fn filter() -> impl Strategy<Value = String> {
    let wide = select(vec!["#", "+/#", "+", "a/#", "+/+", "$s/#"]).prop_map(str::to_owned);
    prop_oneof![wide, text(select(vec!["a", "b", "+", "+", "anna", "$s"]))]
}

/// Where somebody publishes.
pub(crate) fn topic() -> impl Strategy<Value = String> {
    let level = select(vec!["a", "a", "b", "anna", "bea", "c"]);
    let levels = prop::collection::vec(level, 1..4);
    (levels, prop::bool::weighted(0.1)).prop_map(|(levels, hidden)| {
        let hidden = if hidden { "$s/" } else { "" };
        format!("{hidden}{}", levels.join("/"))
    })
}

prop_compose! {
    fn role()(
        publish in prop::collection::vec(rule(), 0..3),
        subscribe in prop::collection::vec(rule(), 0..4),
        deny_publish in prop::collection::vec(denial(), 0..2),
        deny_subscribe in prop::collection::vec(denial(), 0..3),
        deny in prop::collection::vec(denial(), 0..2),
        retain in prop::bool::weighted(0.8),
        max_qos in 0u8..3,
    ) -> Role {
        Role { publish, subscribe, deny_publish, deny_subscribe, deny, retain, max_qos }
    }
}

prop_compose! {
    pub(crate) fn table()(everyone in role(), anna in role()) -> Table {
        Table { everyone, anna }
    }
}
