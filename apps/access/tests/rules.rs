//! Rules beside a reference that knows no tree.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::sync::Arc;

use latchbus_access::RulesAuthorizer;
use latchbus_access::explain::Question;
use latchbus_access::rules::{ClaimedFilters, Rights, Rules, Subject, Who};
use latchbus_bus::{Authorizer as _, Principal};
use latchbus_core::topic::{TopicFilter, TopicName};
use proptest::prelude::*;

#[path = "../../../tests/roles.rs"]
mod roles;

#[path = "../../../tests/role_table.rs"]
mod role_table;

use role_table::Table;
use roles::Role;

const ROOMS: [&str; 2] = ["a", "b"];

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec![
        "a",
        "b",
        "",
        "+",
        "+",
        "{user}",
        "{client}",
        "{room}",
        "x{user}",
        "{client}{user}",
        "$s",
    ]);
    let levels = prop::collection::vec(level, 1..4);
    (levels, any::<bool>()).prop_filter_map(
        "one room, and no topic is empty",
        |(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            let text = levels.join("/");
            (!text.is_empty() && text.matches("{room}").count() < 2).then_some(text)
        },
    )
}

fn plain_filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "+", "+", "xa", "$s"]);
    let text = (prop::collection::vec(level, 0..4), any::<bool>());
    text.prop_filter_map("no filter is empty", |(mut levels, hash)| {
        if hash {
            levels.push("#");
        }
        let text = levels.join("/");
        (!text.is_empty()).then_some(text)
    })
}

prop_compose! {
    fn role()(
        publish in prop::collection::vec(filter(), 0..3),
        subscribe in prop::collection::vec(filter(), 0..4),
        deny_publish in prop::collection::vec(filter(), 0..2),
        deny_subscribe in prop::collection::vec(filter(), 0..3),
        deny in prop::collection::vec(filter(), 0..2),
        retain in any::<bool>(),
        max_qos in 0u8..3,
    ) -> Role {
        Role { publish, subscribe, deny_publish, deny_subscribe, deny, retain, max_qos }
    }
}

prop_compose! {
    fn table()(
        roles in prop::collection::vec(role(), 0..3),
        user in prop::option::of(prop::sample::select(vec!["a", "b", "z", "+", "#", "a/b", "$s", "a#"])),
        client in prop::option::of(prop::sample::select(vec!["", "a", "x", "+", "b/+"])),
        rooms in prop::sample::subsequence(ROOMS.to_vec(), 0..3),
    ) -> Table {
        Table {
            roles,
            user: user.map(str::to_owned),
            client: client.map(str::to_owned),
            rooms: rooms.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// Every topic of four levels at most that can differ in a rule above.
fn topics() -> Vec<String> {
    const LEVELS: [&str; 13] = [
        "x", "a", "b", "", "xa", "xb", "xz", "z", "aa", "ab", "az", "$s", "other",
    ];
    let mut topics = vec![];
    let mut longest = vec![String::new()];
    for depth in 0..4 {
        let levels = if depth < 3 { &LEVELS[..] } else { &["other"] };
        longest = longest
            .iter()
            .flat_map(|topic| {
                levels.iter().map(move |level| match depth {
                    0 => (*level).to_owned(),
                    _ => format!("{topic}/{level}"),
                })
            })
            .collect();
        topics.extend(longest.iter().filter(|topic| !topic.is_empty()).cloned());
    }
    topics
}

fn rights(table: &Table) -> (Rules, Rights) {
    let rules = Rules::parse(&table.toml(), "access.toml").unwrap();
    let rights = rules.rights(&table.subject());
    (rules, rights)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_tree_decides_as_the_reference_does(table in table(), picks in prop::collection::vec(any::<prop::sample::Index>(), 60)) {
        let (rules, rights) = rights(&table);
        let topics = topics();
        for topic in picks.iter().map(|pick| pick.get(&topics)) {
            let name = TopicName::parse(topic.as_str()).unwrap();
            prop_assert_eq!(rights.may_read(name), table.may_read(topic, 0), "read {}", topic);
            let explained = rules.explain(&table.subject(), Question::Read(name));
            prop_assert_eq!(explained.is_allowed, table.may_read(topic, 0));
            // The first line is of a rule that decides so.
            prop_assert_eq!(explained.is_allowed, explained.reasons[0].contains(": subscribe "), "{}", explained);
            for (qos, retain) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true), (3, false)] {
                let expected = qos < 3 && table.may_publish(topic, qos, retain);
                prop_assert_eq!(rights.may_publish(name, qos, retain), expected, "publish {}", topic);
            }
        }
    }

    #[test]
    fn a_subscription_is_accepted_when_something_of_it_may_be_read(table in table(), filters in prop::collection::vec(plain_filter(), 4)) {
        let (_, rights) = rights(&table);
        let topics = topics();
        for text in &filters {
            let filter = TopicFilter::parse(text.as_str()).unwrap();
            let matching: Vec<_> = topics.iter().filter(|topic| filter.matches(&TopicName::parse(topic.as_str()).unwrap())).collect();
            let best = (0..3).rev().find(|qos| matching.iter().any(|topic| table.may_read(topic, *qos)));
            prop_assert_eq!(rights.subscribe(filter), best, "{}", text);
            let is_all = matching.iter().all(|topic| table.may_read(topic, 0));
            prop_assert_eq!(rights.may_read_all(filter), is_all, "all of {}", text);
            let shared = format!("$share/group/{text}");
            prop_assert_eq!(rights.subscribe(TopicFilter::parse(shared.as_str()).unwrap()), best);
        }
    }

    #[test]
    fn what_is_read_in_common_is_what_each_may_read(table in table(), other in table(), filters in prop::collection::vec(plain_filter(), 6)) {
        let rules = Rules::parse(&table.toml(), "access.toml").unwrap();
        let authorizer = RulesAuthorizer::new(Some(Arc::new(rules)));
        let readers = [&table, &other].map(|table| {
            let principal = match &table.user {
                Some(user) => Principal::user(user.clone(), "test"),
                None => Principal::anonymous("test"),
            };
            authorizer.reader(&principal.with_client_id(table.client.clone().unwrap_or_default())).unwrap()
        });
        let topics = topics();
        for text in &filters {
            let filter = TopicFilter::parse(text.as_str()).unwrap();
            let common = readers.each_ref().map(|reader| reader.common(filter).unwrap_or_else(|| reader.clone()));
            if common[0].id() != common[1].id() {
                continue;
            }
            for topic in topics.iter().map(|topic| TopicName::parse(topic.as_str()).unwrap()).filter(|topic| filter.matches(topic)) {
                for reader in &readers {
                    prop_assert_eq!(common[0].may_read(topic), reader.may_read(topic), "{} of {}", topic, text);
                }
            }
        }
    }

    #[test]
    fn claims_allow_and_roles_deny(table in table(), publish in prop::collection::vec(plain_filter(), 0..3), subscribe in prop::collection::vec(plain_filter(), 0..3), picks in prop::collection::vec(any::<prop::sample::Index>(), 60)) {
        let rules = Rules::parse(&table.toml(), "access.toml").unwrap();
        let parsed = |filters: &[String]| -> Vec<_> { filters.iter().map(|text| TopicFilter::parse(text.clone()).unwrap()).collect() };
        let (published, subscribed) = (parsed(&publish), parsed(&subscribe));
        let claims = ClaimedFilters { publish: &published, subscribe: &subscribed, admin: true };
        let subject = table.subject().with_claims(claims);
        let rights = rules.rights(&subject);
        let mut claimed = table.clone();
        for role in &mut claimed.roles {
            (role.publish, role.subscribe) = (vec![], vec![]);
        }
        claimed.roles.push(Role { publish, subscribe, deny_publish: vec![], deny_subscribe: vec![], deny: vec![], retain: true, max_qos: 2 });
        let topics = topics();
        for topic in picks.iter().map(|pick| pick.get(&topics)) {
            let name = TopicName::parse(topic.as_str()).unwrap();
            prop_assert_eq!(rights.may_read(name), claimed.may_read(topic, 0));
            prop_assert_eq!(rights.may_publish(name, 2, true), claimed.may_publish(topic, 2, true));
        }
        prop_assert!(rights.is_admin());
    }

    #[test]
    fn no_text_panics(text in any::<String>(), filter in any::<String>()) {
        let _ = Rules::parse(&text, "access.toml");
        let _ = Rules::parse(&format!("[roles.a]\npublish = [{filter:?}]"), "access.toml");
    }
}

fn topic(text: &str) -> TopicName<&str> {
    TopicName::parse(text).unwrap()
}

#[test]
fn who_has_which_roles() {
    let text = r#"
        everyone = ["all"]
        anonymous = ["guest"]
        signed_in = { roles = ["member"], rooms = ["hall"] }
        [roles.all]
        subscribe = ["news"]
        [roles.guest]
        subscribe = ["welcome"]
        [roles.member]
        subscribe = ["chat/{room}"]
        [roles.operator]
        admin = true
        [users]
        anna = { roles = ["operator"], rooms = ["lab"] }
        [tokens]
        anna = ["guest"]
        [certificates]
        "CN=anna" = ["guest"]
    "#;
    let rules = Rules::parse(text, "access.toml").unwrap();
    let reads = |who| {
        let rights = rules.rights(&Subject::new(who));
        ["news", "welcome", "chat/hall", "chat/lab"].map(|name| rights.may_read(topic(name)))
    };
    assert_eq!(reads(Who::Anonymous), [true, true, false, false]);
    assert_eq!(reads(Who::User("bert")), [true, false, true, false]);
    assert_eq!(reads(Who::User("anna")), [true, false, true, true]);
    assert_eq!(reads(Who::Token("anna")), [true, true, true, false]);
    assert_eq!(
        reads(Who::Certificate("CN=anna")),
        [true, true, true, false]
    );
    let is_admin = |who| rules.rights(&Subject::new(who)).is_admin();
    assert!(is_admin(Who::User("anna")));
    assert!(
        !is_admin(Who::Token("anna")) && !is_admin(Who::User("bert")) && !is_admin(Who::Anonymous)
    );
    let nothing = Rules::parse("", "access.toml").unwrap();
    assert!(
        !nothing
            .rights(&Subject::new(Who::User("anna")))
            .may_read(topic("news"))
    );
}

#[test]
fn the_search_for_a_readable_topic_ends() {
    // Each level doubles the ways, and all are denied at their end.
    let pluses = |n: usize| vec!["+"; n].join("/");
    let mut deny = vec![format!("{}/z", pluses(12))];
    for i in 0..12 {
        deny.push(
            format!("{}/a/{}", pluses(i), pluses(12 - i))
                .trim_start_matches('/')
                .to_owned(),
        );
    }
    let text = format!(
        "everyone = [\"r\"]\n[roles.r]\nsubscribe = [\"{}/z\"]\ndeny = {deny:?}",
        pluses(12)
    );
    let rules = Rules::parse(&text, "access.toml").unwrap();
    let rights = rules.rights(&Subject::new(Who::Anonymous));
    // Accepted, as what is delivered is looked at in each case.
    assert_eq!(rights.subscribe(TopicFilter::parse("#").unwrap()), Some(2));
    assert!(!rights.may_read(topic("b/b/b/b/b/b/b/b/b/b/b/b/z")));
}

#[test]
fn the_search_for_an_unreadable_topic_ends() {
    // Each level doubles the ways, and one alone of them is denied: where it is found late, there is a doubt.
    let pluses = |n: usize| vec!["+"; n].join("/");
    let reads_all = |depth: usize| {
        let mut subscribe = vec!["#".to_owned()];
        for i in 0..depth {
            let filter = format!("{}/a/{}", pluses(i), pluses(depth - i));
            subscribe.push(filter.trim_start_matches('/').to_owned());
        }
        let denied = vec!["a"; depth].join("/");
        [vec![], vec![denied]].map(|deny| {
            let text = format!(
                "everyone = [\"r\"]\n[roles.r]\nsubscribe = {subscribe:?}\ndeny = {deny:?}"
            );
            let rules = Rules::parse(&text, "access.toml").unwrap();
            let rights = rules.rights(&Subject::new(Who::Anonymous));
            rights.may_read_all(TopicFilter::parse("#").unwrap())
        })
    };
    assert_eq!(reads_all(3), [true, false]);
    assert_eq!(reads_all(14), [false, false]);
}

#[test]
fn what_denies_by_an_unusable_name_denies_all_from_its_level_on() {
    let text = "everyone = [\"r\"]\n[roles.r]\nsubscribe = [\"#\"]\npublish = [\"#\"]\n\
                deny = [\"own/{user}\", \"a/+/x{client}/b\"]";
    let rules = Rules::parse(text, "access.toml").unwrap();
    for (user, client, expected) in [
        ("anna", "kiosk", [true, false, true, true, true, true, true]),
        ("anna", "", [true, false, true, true, true, true, true]),
        (
            "an/na",
            "kiosk",
            [false, false, false, true, true, true, true],
        ),
        ("#", "+", [false, false, false, true, true, false, false]),
    ] {
        let subject = Subject::new(Who::User(user)).with_client_id(client);
        let rights = rules.rights(&subject);
        let names = ["own", "own/anna", "own/x/y", "owner", "a", "a/c", "a/c/d/e"];
        for (name, expected) in names.into_iter().zip(expected) {
            let named = topic(name);
            assert_eq!(rights.may_read(named), expected, "{user}: {name}");
            assert_eq!(
                rights.may_publish(named, 0, false),
                expected,
                "{user}: {name}"
            );
            let filter = TopicFilter::parse(name).unwrap();
            assert_eq!(rights.subscribe(filter).is_some(), expected);
            assert_eq!(rights.may_read_all(filter), expected);
        }
        // Of all topics of one level, `own` is the one that may be denied.
        let one_level = TopicFilter::parse("+").unwrap();
        assert_eq!(rights.may_read_all(one_level), expected[0], "{user}");
    }
}

#[test]
fn the_rule_that_decides_is_named() {
    let text = "everyone = [\"r\", \"s\"]\n[roles.r]\npublish = [\n  \"lab/#\",\n  \"x\",\n]\ndeny = [\"lab/secret\"]\n\
                [roles.s]\nretain = false\nmax_qos = 1\npublish = [\"y/{user}\"]\n";
    let rules = Rules::parse(text, "a.toml").unwrap();
    let subject = Subject::new(Who::User("anna"));
    let explain = |name, qos, retain| {
        let question = Question::Publish {
            topic: topic(name),
            qos,
            retain,
        };
        let explained = rules.explain(&subject, question);
        (explained.is_allowed, explained.reasons[0].clone())
    };
    assert_eq!(
        explain("lab/x", 0, true),
        (true, "a.toml:4: role r: publish \"lab/#\"".into())
    );
    assert_eq!(
        explain("lab/secret", 0, true),
        (false, "a.toml:7: role r: deny \"lab/secret\"".into())
    );
    assert_eq!(
        explain("y/anna", 1, false),
        (true, "a.toml:11: role s: publish \"y/{user}\"".into())
    );
    assert!(explain("y/anna", 1, true).1.ends_with("but retain = false"));
    assert!(explain("y/anna", 2, false).1.ends_with("but max_qos = 1"));
    assert_eq!(explain("z", 0, false), (false, "no rule allows it".into()));
}
