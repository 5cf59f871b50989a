//! What arrives from the network: round trips, agreement with a general JSON parser, no panic.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the tests call may fail as they may"
)]

use latchbus_core::clicks::{
    ClickTopic, Color, Counter, FloorRecord, Incarnation, MAX_COUNT, MAX_PRESS, Press, Shares,
    is_name, is_reserved,
};
use proptest::prelude::*;
use serde::Deserialize;

fn counter() -> impl Strategy<Value = Counter> {
    let count = || prop_oneof![0..300_u64, 0..=MAX_COUNT];
    (count(), count()).prop_map(|(red, blue)| Counter::new(red, blue))
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
}

/// Objects that are nearly right: pieces of the payloads in any order.
fn nearly_json() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\"red\"",
        "\"blue\"",
        "\"floor\"",
        "\"color\"",
        "\"n\"",
        "\"id\"",
        "\"x\"",
        ":",
        ":",
        ":",
        ",",
        ",",
        "{",
        "}",
        "[",
        "]",
        " ",
        "\n",
        "0",
        "7",
        "12",
        "-3",
        "007",
        "1.0",
        "1e2",
        "9007199254740991",
        "9007199254740992",
        "4294967296",
        "1000001",
        "99999999999999999999",
        "true",
        "null",
        "\"\"",
        "\"",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("{{{}", pieces.concat()))
}

/// The members of one payload in any order, half of the time with another one among them.
fn members() -> impl Strategy<Value = String> {
    let payload = prop::sample::select(vec![
        vec!["\"red\":1", "\"blue\" : 2"],
        vec!["\"red\":0", "\"blue\":9007199254740991", "\"floor\":3"],
        vec!["\"color\":\"red\""],
        vec!["\"color\":\"blue\"", "\"n\" :4", "\"id\":\"a\""],
    ]);
    let other = prop::sample::select(vec![
        "\"red\":1",
        "\"floor\":3",
        "\"floor\":-1",
        "\"n\":1000000",
        "\"n\":0",
        "\"id\":\"b\"",
        "\"id\":\"\"",
        "\"x\":1",
        "",
    ]);
    (payload, prop::option::of(other), "[ \n}]{0,2}")
        .prop_flat_map(|(payload, other, end)| {
            let members = payload.into_iter().chain(other).collect::<Vec<_>>();
            (Just(members).prop_shuffle(), Just(end))
        })
        .prop_map(|(members, end)| format!("{{{}}}{end}", members.join(",")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainCounter {
    red: u64,
    blue: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainFloor {
    floor: u32,
    red: u64,
    blue: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainPress {
    color: Color,
    #[serde(default = "one")]
    n: u64,
    // A plain `Option` would take null.
    #[serde(default, deserialize_with = "some")]
    id: Option<String>,
}

fn one() -> u64 {
    1
}

fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// What a general parser makes of the same text.
fn expected_counter(text: &str) -> Option<Counter> {
    let PlainCounter { red, blue } = serde_json::from_str(text).ok()?;
    (red.max(blue) <= MAX_COUNT).then(|| Counter::new(red, blue))
}

fn expected_floor(text: &str) -> Option<FloorRecord> {
    let PlainFloor { floor, red, blue } = serde_json::from_str(text).ok()?;
    (red.max(blue) <= MAX_COUNT).then(|| FloorRecord {
        floor,
        base: Counter::new(red, blue),
    })
}

fn expected_press(text: &str) -> Option<(Color, u64, Option<String>)> {
    let PlainPress { color, n, id } = serde_json::from_str(text).ok()?;
    let id_fits = id.as_ref().is_none_or(|id| (1..=64).contains(&id.len()));
    ((1..=MAX_PRESS).contains(&n) && id_fits).then_some((color, n, id))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn json_agrees_with_a_general_parser(text in prop_oneof![nearly_json(), members()]) {
        let bytes = text.as_bytes();
        prop_assert_eq!(Counter::parse(bytes).ok(), expected_counter(&text));
        prop_assert_eq!(FloorRecord::parse(bytes).ok(), expected_floor(&text));
        let press = Press::parse(bytes).ok().map(|p| (p.color, p.n, p.id.map(String::from)));
        prop_assert_eq!(press, expected_press(&text));
    }

    #[test]
    fn nothing_panics(
        first in prop::sample::select(vec![b"".to_vec(), b"{".to_vec(), vec![1], b"red ".to_vec()]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [first, bytes].concat();
        if let Ok(counter) = Counter::parse(&bytes) {
            prop_assert_eq!(Counter::parse(counter.to_string().as_bytes()), Ok(counter));
        }
        let _ = FloorRecord::parse(&bytes);
        if let Ok(press) = Press::parse(&bytes) {
            prop_assert!((1..=MAX_PRESS).contains(&press.n));
        }
    }

    #[test]
    fn topics_never_panic(topic in "(clicks/)?[a-z1-9/$é -]{0,40}(/count/[0-9a-f-]{0,12}|/press|/floor)?") {
        if let Ok(Some(known)) = ClickTopic::parse(&topic) {
            prop_assert_eq!(known.to_string(), topic.as_str());
            let by_hub = matches!(
                known,
                ClickTopic::Values { .. }
                    | ClickTopic::Share { .. }
                    | ClickTopic::Rate { .. }
                    | ClickTopic::Floor { .. }
                    | ClickTopic::Pressed { .. }
            );
            prop_assert_eq!(is_reserved(&topic), by_hub);
        }
    }
}

proptest! {
    #[test]
    fn counters_round_trip(counter in counter()) {
        let mut json = String::new();
        counter.write_json(&mut json).unwrap();
        prop_assert!(json.len() <= Counter::MAX_JSON_BYTES);
        prop_assert_eq!(Counter::parse(json.as_bytes()), Ok(counter));
        prop_assert_eq!(serde_json::to_string(&counter).unwrap(), json);
        let mut out = [0; Counter::MAX_POSTCARD_BYTES];
        let bytes = counter.encode_postcard(&mut out).unwrap();
        prop_assert_eq!(Counter::parse(bytes), Ok(counter));
        let mut other = [1; Counter::MAX_POSTCARD_BYTES];
        let length = postcard::to_slice(&counter, &mut other[1..]).unwrap().len();
        prop_assert_eq!(bytes, &other[..=length]);
    }

    #[test]
    fn a_counter_has_one_postcard_form(varints in prop::collection::vec(any::<u8>(), 0..20)) {
        let bytes = [vec![1], varints].concat();
        if let Ok(counter) = Counter::parse(&bytes) {
            let mut out = [0; Counter::MAX_POSTCARD_BYTES];
            prop_assert_eq!(counter.encode_postcard(&mut out), Some(&bytes[..]));
        }
    }

    #[test]
    fn floors_round_trip(floor in any::<u32>(), base in counter()) {
        let record = FloorRecord { floor, base };
        let json = record.to_string();
        prop_assert!(json.len() <= FloorRecord::MAX_JSON_BYTES);
        prop_assert_eq!(FloorRecord::parse(json.as_bytes()), Ok(record));
    }

    #[test]
    fn presses_round_trip(red in any::<bool>(), n in 1..=MAX_PRESS, id in "[^\\\\\"\\x00-\\x1f]{1,16}") {
        let color = Color::ALL[usize::from(!red)];
        let text = format!("{color} {n}");
        prop_assert_eq!(Press::parse(text.as_bytes()), Ok(Press { color, n, id: None }));
        let json = format!(r#"{{"id":"{id}","n":{n},"color":"{color}"}}"#);
        let expected = Press { color, n, id: Some(&id) };
        prop_assert_eq!(Press::parse(json.as_bytes()), Ok(expected));
    }

    #[test]
    fn incarnations_round_trip(boot in 1..=u32::MAX, nonce in any::<u32>()) {
        let incarnation = Incarnation::new(boot, nonce).unwrap();
        let text = incarnation.to_string();
        prop_assert!(text.len() <= Incarnation::MAX_BYTES);
        prop_assert_eq!(text.parse(), Ok(incarnation));
    }

    #[test]
    fn incarnations_have_one_spelling(text in "[0-9a-fA-F+-]{0,20}") {
        if let Ok(incarnation) = text.parse::<Incarnation>() {
            prop_assert_eq!(incarnation.to_string(), text);
        }
    }

    #[test]
    fn topics_round_trip(room in name(), device in name(), boot in 1..=u32::MAX, nonce in any::<u32>()) {
        let (room, device) = (room.as_str(), device.as_str());
        prop_assert!(is_name(room));
        let incarnation = Incarnation::new(boot, nonce).unwrap();
        for topic in [
            ClickTopic::Count { room, device, incarnation },
            ClickTopic::Press { room, device },
            ClickTopic::Status { room, device },
            ClickTopic::Share { room },
        ] {
            let text = topic.to_string();
            prop_assert!(text.len() <= ClickTopic::MAX_BYTES);
            prop_assert_eq!(ClickTopic::parse(&text), Ok(Some(topic)));
        }
    }

    #[test]
    fn shares_sum_to_the_whole_and_are_nearest(counter in counter()) {
        let shares = Shares::of(counter);
        prop_assert_eq!(shares.tenths(Color::Red) + shares.tenths(Color::Blue), 1000);
        let (red, total) = (i128::from(counter.red()), i128::from(counter.red() + counter.blue()));
        if total > 0 {
            // Half a tenth at most, and exactly half only upwards.
            let twice_off = 2 * (i128::from(shares.tenths(Color::Red)) * total - 1000 * red);
            prop_assert!(-total < twice_off && twice_off <= total);
        }
    }
}
