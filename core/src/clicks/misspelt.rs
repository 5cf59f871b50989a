//! Topics that were to count clicks, and do not.

use thiserror::Error;

use super::incarnation::Incarnation;
use super::topic::ClickTopic;

/// Why a topic in the place of a count or a press is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MalformedTopic {
    /// The room or the device is not a name: see [`is_name`](super::is_name).
    #[error("room and device must match [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")]
    Name,
    /// The level behind `count` is not `<boot>-<nonce>`, or there is none.
    #[error("count must be followed by a boot from 1, a hyphen and eight lower-case hex digits")]
    Incarnation,
    /// A misspelt word.
    #[error("did you mean `{meant}`?")]
    Slip {
        /// The word that is next to it.
        meant: &'static str,
    },
    /// `clicks/<room>/press`, `clicks/<room>/<device>/x/press`.
    #[error(
        "one room and one device are named: clicks/<room>/<device>/press, clicks/<room>/<device>/count/<boot>-<nonce>"
    )]
    Depth,
    /// `clicks/<room>/<device>/press/…`.
    #[error("nothing follows `press` in the topic: the colour is the payload")]
    BehindPress,
}

/// What an ordinary topic may have been meant to have: see [`ClickTopic::near_miss`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NearMiss {
    /// A word that one of its levels is next to.
    #[error("did you mean `{0}`?")]
    Word(&'static str),
    /// The topic of a click behind a slash.
    #[error("did you mean `clicks/…`, without a slash before it?")]
    LeadingSlash,
}

/// What is wrong with a topic below `clicks/` that is not [recognised](ClickTopic::recognise); none where it is an
/// ordinary topic.
pub(super) fn malformed(below: &str) -> Option<MalformedTopic> {
    let Some((room, rest)) = below.split_once('/') else {
        return is_word(below).then_some(MalformedTopic::Depth);
    };
    let Some((device, rest)) = rest.split_once('/') else {
        let is_shallow = is_word(rest) || (is_word(room) && is_incarnation(rest));
        return is_shallow.then_some(MalformedTopic::Depth);
    };
    match rest.split_once('/') {
        Some(("count", run)) if is_incarnation(run) => Some(MalformedTopic::Name),
        Some(("count", _)) => Some(MalformedTopic::Incarnation),
        Some(("press", _)) => Some(MalformedTopic::BehindPress),
        // `state/1` is somebody else's; what looks like an incarnation is no accident.
        Some((word, run)) if is_slip(word, "count") && is_incarnation(run) => {
            Some(MalformedTopic::Slip { meant: "count" })
        }
        Some((_, deeper)) => {
            let (before, last) = deeper.rsplit_once('/').unwrap_or(("", deeper));
            let before = before.rsplit('/').next().unwrap_or_default();
            let is_deep = is_word(last) || (is_word(before) && is_incarnation(last));
            is_deep.then_some(MalformedTopic::Depth)
        }
        None if is_word(device) && is_incarnation(rest) => Some(MalformedTopic::Depth),
        None if rest == "count" => Some(MalformedTopic::Incarnation),
        None if rest == "press" => Some(MalformedTopic::Name),
        None => {
            let meant = WORDS.into_iter().find(|word| is_slip(rest, word))?;
            Some(MalformedTopic::Slip { meant })
        }
    }
}

/// See [`ClickTopic::near_miss`].
pub(super) fn near_miss(topic: &str) -> Option<NearMiss> {
    let (first, below) = topic.split_once('/')?;
    if first.is_empty() {
        let (first, below) = below.split_once('/')?;
        let is_clicks = first == "clicks" || is_slip(first, "clicks");
        return (is_clicks && is_click(below)).then_some(NearMiss::LeadingSlash);
    }
    if first.len().abs_diff("clicks".len()) > 1 {
        return None;
    }
    if first != "clicks" {
        let is_meant = is_slip(first, "clicks") && is_click(below);
        return is_meant.then_some(NearMiss::Word("clicks"));
    }
    if ClickTopic::parse(topic) != Ok(None) {
        return None;
    }
    let mut levels = below.split('/').skip(2);
    let word = levels.next()?;
    let run = levels.next();
    let meant = |meant: &str| is_within(word.as_bytes(), meant.as_bytes(), 2);
    match (run, levels.next()) {
        (None, _) => WORDS
            .into_iter()
            .find(|word| meant(word))
            .map(NearMiss::Word),
        (Some(run), None) if meant("count") && is_incarnation(run) => Some(NearMiss::Word("count")),
        _ => None,
    }
}

/// The words that clicks are reported with.
const WORDS: [&str; 2] = ["press", "count"];

fn is_word(text: &str) -> bool {
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn is_incarnation(text: &str) -> bool {
    text.parse::<Incarnation>().is_ok()
}

/// Whether what stands below `clicks/` is of a device, or was to be.
fn is_click(below: &str) -> bool {
    match ClickTopic::recognise_below(below) {
        Some(ClickTopic::Values { .. } | ClickTopic::Share { .. } | ClickTopic::Rate { .. }) => {
            false
        }
        Some(_) => true,
        None => malformed(below).is_some(),
    }
}

/// Whether a word differs from another by its case, by spaces around it or by one letter that is missing, too many,
/// wrong or swapped with its neighbour.
fn is_slip(typed: &str, word: &str) -> bool {
    typed != word && is_within(typed.trim().as_bytes(), word.as_bytes(), 1)
}

/// Whether a word becomes another by so many such changes at most.
fn is_within(mut typed: &[u8], mut word: &[u8], changes: u32) -> bool {
    while let ([a, rest_a @ ..], [b, rest_b @ ..]) = (typed, word)
        && a.eq_ignore_ascii_case(b)
    {
        (typed, word) = (rest_a, rest_b);
    }
    let Some(changes) = changes.checked_sub(1) else {
        return typed.is_empty() && word.is_empty();
    };
    match (typed, word) {
        ([], []) => true,
        ([_, typed @ ..], []) => is_within(typed, word, changes),
        ([], [_, word @ ..]) => is_within(typed, word, changes),
        ([a, rest_a @ ..], [b, rest_b @ ..]) => {
            let swapped = match (rest_a, rest_b) {
                ([c, rest_a @ ..], [d, rest_b @ ..]) => {
                    a.eq_ignore_ascii_case(d)
                        && b.eq_ignore_ascii_case(c)
                        && is_within(rest_a, rest_b, changes)
                }
                _ => false,
            };
            swapped
                || is_within(rest_a, rest_b, changes)
                || is_within(rest_a, word, changes)
                || is_within(typed, rest_b, changes)
        }
    }
}
