//! Topic names and filters against the rules of MQTT 3.1.1 §4.7, told once more over whole lists of levels.
//!
//! Input: a filter, a line feed, a topic.
#![no_main]

use latchbus_core::topic::{MAX_TOPIC_BYTES, TopicFilter, TopicName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (filter, topic) = text.split_once('\n').unwrap_or((text, ""));
    for part in [text, filter, topic] {
        assert_eq!(TopicName::parse(part).is_ok(), is_name(part), "{part:?}");
        assert_eq!(
            TopicFilter::parse(part).is_ok(),
            is_filter(part),
            "{part:?}"
        );
    }
    let (Ok(parsed_filter), Ok(name)) = (TopicFilter::parse(filter), TopicName::parse(topic))
    else {
        return;
    };
    assert_eq!(
        parsed_filter.matches(&name),
        matches(filter, topic),
        "{filter:?} {topic:?}"
    );
    let exact = parsed_filter.exact();
    assert_eq!(exact.is_some(), is_name(filter));
    assert!(exact.is_none_or(|exact| exact.as_str() == filter));
});

fn has_topic_characters(text: &str) -> bool {
    (1..=MAX_TOPIC_BYTES).contains(&text.len()) && !text.bytes().any(|byte| byte == 0)
}

fn is_name(text: &str) -> bool {
    has_topic_characters(text) && !text.bytes().any(|byte| byte == b'+' || byte == b'#')
}

fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let stands_alone =
        |level: &str| level.len() == 1 || !level.bytes().any(|byte| byte == b'+' || byte == b'#');
    let hashes_before_the_end = levels
        .iter()
        .rev()
        .skip(1)
        .filter(|level| level.starts_with('#'))
        .count();
    has_topic_characters(text)
        && levels.iter().all(|level| stands_alone(level))
        && hashes_before_the_end == 0
}

fn matches(filter: &str, topic: &str) -> bool {
    let mut wanted: Vec<&str> = filter.split('/').collect();
    let mut levels: Vec<&str> = topic.split('/').collect();
    if levels[0].starts_with('$') && (wanted[0] == "+" || wanted[0] == "#") {
        return false;
    }
    if wanted.last() == Some(&"#") {
        wanted.pop();
        if levels.len() < wanted.len() {
            return false;
        }
        levels.truncate(wanted.len());
    }
    levels.len() == wanted.len()
        && wanted
            .iter()
            .zip(&levels)
            .all(|(wanted, level)| *wanted == "+" || wanted == level)
}
