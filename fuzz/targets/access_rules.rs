//! Rules beside a slow reference, and any text as rules.
//!
//! Input: lines, of which the first letter says what follows. `r` begins a role (then `0`, `1` or `2`, its `max_qos`, and `-` where it does
//! not retain); `p`, `s`, `P`, `S` and `D` are filters of it: publish, subscribe, deny publish, deny subscribe, deny both; `u`, `c` and `m`
//! are the user's name, the client identifier and a room; `?` is a topic. An input that begins with `=` is the text of a file.
#![no_main]

use latchbus_access::explain::Question;
use latchbus_access::rules::{RuleFilter, Rules};
use latchbus_core::topic::{TopicFilter, TopicName};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/roles.rs"]
mod roles;

#[path = "../../tests/role_table.rs"]
mod role_table;

use role_table::Table;
use roles::Role;

const MAX_LINES: usize = 24;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = core::str::from_utf8(input) else {
        return;
    };
    match text.strip_prefix('=') {
        Some(text) => drop(Rules::parse(text, "access.toml")),
        None => compare(text),
    }
});

/// Roles, and topics about which they are asked.
#[derive(Default)]
struct Input {
    table: Table,
    topics: Vec<String>,
}

impl Input {
    /// None where the reference, which is for filters that are some, has no word for it.
    fn read(text: &str) -> Option<Self> {
        let Self {
            mut table,
            mut topics,
        } = Self::default();
        for line in text.lines().take(MAX_LINES) {
            let (kind, rest) = line.split_at_checked(1)?;
            // It writes the text of a file by itself, in which these look otherwise.
            if rest.contains(|c: char| c.is_control() || !c.is_ascii()) || rest.contains("{{") {
                return None;
            }
            let rest = rest.to_owned();
            match kind {
                "r" => {
                    let max_qos = rest.bytes().next()?.checked_sub(b'0')?;
                    if max_qos > 2 || table.roles.len() > 4 {
                        return None;
                    }
                    table.roles.push(Role {
                        publish: Vec::new(),
                        subscribe: Vec::new(),
                        deny_publish: Vec::new(),
                        deny_subscribe: Vec::new(),
                        deny: Vec::new(),
                        retain: !rest.ends_with('-'),
                        max_qos,
                    });
                }
                "p" | "s" | "P" | "S" | "D" => {
                    if RuleFilter::parse(&rest).is_err() || rest.matches("{room}").count() > 1 {
                        return None;
                    }
                    let role = table.roles.last_mut()?;
                    match kind {
                        "p" => role.publish.push(rest),
                        "s" => role.subscribe.push(rest),
                        "P" => role.deny_publish.push(rest),
                        "S" => role.deny_subscribe.push(rest),
                        _ => role.deny.push(rest),
                    }
                }
                "u" => {
                    table.user = Some(rest).filter(|name| !name.is_empty() && !name.contains('{'))
                }
                "c" => table.client = Some(rest).filter(|name| !name.contains('{')),
                "m" if !table.rooms.contains(&rest) => table.rooms.push(rest),
                "?" => topics.push(rest),
                _ => return None,
            }
        }
        Some(Self { table, topics })
    }
}

fn compare(text: &str) {
    let Some(Input { table, topics }) = Input::read(text) else {
        return;
    };
    // Rooms have names of their own form.
    let Ok(rules) = Rules::parse(&table.toml(), "access.toml") else {
        assert!(!table.rooms.is_empty(), "{}", table.toml());
        return;
    };
    let subject = table.subject();
    let rights = rules.rights(&subject);
    for topic in &topics {
        let Ok(name) = TopicName::parse(topic.as_str()) else {
            continue;
        };
        let may_read = table.may_read(topic, 0);
        assert_eq!(rights.may_read(name), may_read, "read {topic}");
        let explained = rules.explain(&subject, Question::Read(name));
        assert_eq!(explained.is_allowed, may_read, "{explained}");
        if let Ok(filter) = TopicFilter::parse(topic.as_str())
            && !topic.starts_with("$share/")
        {
            // A topic is a filter that matches itself alone.
            let best = (0..3).rev().find(|qos| table.may_read(topic, *qos));
            assert_eq!(rights.subscribe(filter), best, "subscribe {topic}");
            assert_eq!(rights.may_read_all(filter), may_read, "all of {topic}");
        }
        for (qos, retain) in [
            (0, false),
            (1, false),
            (2, false),
            (0, true),
            (1, true),
            (2, true),
        ] {
            let may_publish = table.may_publish(topic, qos, retain);
            assert_eq!(
                rights.may_publish(name, qos, retain),
                may_publish,
                "publish {topic}"
            );
        }
    }
}
