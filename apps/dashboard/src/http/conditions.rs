//! Which version of a topic's value a client has, and which it takes for granted (RFC 9110 §13).

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use latchbus_bus::Expected;

use super::error::ApiError;

/// The entity tag of the value of a revision.
pub(super) fn etag(epoch: u64, rev: u64) -> String {
    format!("\"{epoch:x}:{rev}\"")
}

/// Whether the client has this version already (RFC 9110 §13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    tags(headers, IF_NONE_MATCH).any(|tag| tag == "*" || strong(tag) == etag)
}

/// What a publish takes for granted of its topic.
pub(super) fn expected(headers: &HeaderMap, epoch: u64) -> Result<Option<Expected>, ApiError> {
    if headers.contains_key(IF_UNMODIFIED_SINCE) {
        let message = "If-Unmodified-Since tells no two values of one second apart: use If-Match";
        return Err(ApiError::bad_message(message));
    }
    let (is, is_not) = (
        condition(headers, IF_MATCH)?,
        condition(headers, IF_NONE_MATCH)?,
    );
    let revs = |tags: Vec<&str>| {
        let revs = tags.into_iter().filter_map(|tag| revision(tag, epoch));
        revs.collect()
    };
    Ok(match (is, is_not) {
        (None, None) => None,
        (Some(Condition::Any), None) => Some(Expected::Present),
        (None, Some(Condition::Any)) => Some(Expected::Absent),
        // A weak tag never matches here.
        (Some(Condition::Tags(tags)), None) => Some(Expected::OneOf(revs(tags))),
        (None, Some(Condition::Tags(tags))) => {
            let tags = tags.into_iter().map(strong).collect();
            Some(Expected::NoneOf(revs(tags)))
        }
        (Some(_), Some(_)) => {
            let message = "expected one of If-Match and If-None-Match";
            return Err(ApiError::bad_message(message));
        }
    })
}

enum Condition<'a> {
    Any,
    Tags(Vec<&'a str>),
}

fn condition(headers: &HeaderMap, name: HeaderName) -> Result<Option<Condition<'_>>, ApiError> {
    if !headers.contains_key(&name) {
        return Ok(None);
    }
    let tags: Vec<_> = tags(headers, name).collect();
    if tags == ["*"] {
        return Ok(Some(Condition::Any));
    }
    match tags.iter().any(|tag| tag.contains('"')) {
        true => Ok(Some(Condition::Tags(tags))),
        false => Err(ApiError::bad_message(
            "a condition is `*`, or an ETag with its quotation marks",
        )),
    }
}

fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
}

fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// None for the tag of another epoch, or of something else.
fn revision(tag: &str, epoch: u64) -> Option<u64> {
    let (_, rev) = tag.strip_suffix('"')?.split_once(':')?;
    let rev = rev.parse().ok()?;
    (tag == etag(epoch, rev)).then_some(rev)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers<const N: usize>(values: [(&'static str, &'static str); N]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn known_versions() {
        let known = |value| is_known(&headers([("if-none-match", value)]), "\"9f3c:1\"");
        assert!(
            known("\"9f3c:1\"")
                && known("W/\"9f3c:1\"")
                && known("\"x\", \"9f3c:1\"")
                && known("*")
        );
        assert!(!known("\"9f3c:10\"") && !known("9f3c:1") && !known(""));
        assert!(!is_known(&HeaderMap::new(), "\"9f3c:1\""));
    }

    #[test]
    fn what_is_taken_for_granted() {
        for (name, value, of_it) in [
            ("if-match", "*", Expected::Present),
            ("if-match", "\"9f3c:1\"", Expected::OneOf(vec![1])),
            (
                "if-match",
                "\"9f3c:1\" , \"9f3c:18446744073709551615\"",
                Expected::OneOf(vec![1, u64::MAX]),
            ),
            // Weak, of another epoch, of something else, and almost ours.
            ("if-match", "W/\"9f3c:1\"", Expected::OneOf(vec![])),
            ("if-match", "\"9f3d:1\"", Expected::OneOf(vec![])),
            ("if-match", "\"a, b\"", Expected::OneOf(vec![])),
            (
                "if-match",
                "\"9f3c:+1\", \"9f3c:01\", \"9f3c:",
                Expected::OneOf(vec![]),
            ),
            ("if-none-match", "*", Expected::Absent),
            (
                "if-none-match",
                "W/\"9f3c:1\",\"9f3c:2\"",
                Expected::NoneOf(vec![1, 2]),
            ),
        ] {
            let found = expected(&headers([(name, value)]), 0x9f3c).unwrap();
            assert_eq!(found, Some(of_it), "{name}: {value}");
        }
        let two = [("if-match", "\"9f3c:1\""), ("if-match", "\"9f3c:2\"")];
        let found = expected(&headers(two), 0x9f3c).unwrap();
        assert_eq!(found, Some(Expected::OneOf(vec![1, 2])));
        assert_eq!(expected(&HeaderMap::new(), 1).unwrap(), None);
    }

    #[test]
    fn conditions_that_are_none() {
        for of in [
            headers([("if-match", "9f3c:1")]),
            headers([("if-match", "")]),
            headers([("if-none-match", "1")]),
            headers([("if-match", "*"), ("if-none-match", "*")]),
            headers([("if-unmodified-since", "Sun, 29 Nov 2026 02:00:00 GMT")]),
        ] {
            assert!(expected(&of, 1).is_err(), "{of:?}");
        }
    }
}
