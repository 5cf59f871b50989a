//! What is not a packet ends its connection: every packet that a client may send, with every field of it, in both
//! versions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use support::Running;
use support::wire::{Outcome, connect_head, outcome, outcome_of, packet, properties, text};

const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;

/// A packet that a client may send after its CONNECT.
struct Valid {
    name: &'static str,
    level: u8,
    first: u8,
    body: Vec<u8>,
    /// So many bytes of the body are a valid packet too.
    shorter: Vec<usize>,
    /// So many bytes can be read, but have no filter.
    empty: Option<usize>,
}

impl Valid {
    fn new(name: &'static str, level: u8, first: u8, parts: &[&[u8]]) -> Self {
        let body = parts.concat();
        Self {
            name,
            level,
            first,
            body,
            shorter: Vec::new(),
            empty: None,
        }
    }

    fn or_empty(self, length: usize) -> Self {
        Self {
            empty: Some(length),
            ..self
        }
    }

    fn or_shorter(self, lengths: &[usize]) -> Self {
        Self {
            shorter: lengths.into(),
            ..self
        }
    }

    /// What the packet leads to as it is.
    fn outcome(&self) -> Outcome {
        match (self.first, self.level) {
            (0xE0, _) => Outcome::Ends(None),
            // Nobody has agreed on a method.
            (0xF0, _) => Outcome::Ends(Some(PROTOCOL)),
            _ => Outcome::Lives,
        }
    }

    /// What it leads to when it is broken.
    fn broken(&self) -> Outcome {
        Outcome::Ends((self.level == 5).then_some(MALFORMED))
    }
}

/// All packets that a client sends after its CONNECT, in their long forms.
fn all() -> Vec<Valid> {
    let id = &[0, 7][..];
    let words = properties(&[&[0x1F][..], &text("why"), &[0x26], &text("k"), &text("v")].concat());
    let user = properties(&[&[0x26][..], &text("k"), &text("v")].concat());
    let filter = text("a/+");
    let topic = text("a");
    let mut all = vec![
        Valid::new("PUBLISH", 4, 0x30, &[&topic]),
        Valid::new("PUBLISH QoS 1", 4, 0x32, &[&topic, id]),
        Valid::new("PUBLISH QoS 2", 4, 0x34, &[&topic, id]),
        Valid::new("PUBACK", 4, 0x40, &[id]),
        Valid::new("PUBREC", 4, 0x50, &[id]),
        Valid::new("PUBREL", 4, 0x62, &[id]),
        Valid::new("PUBCOMP", 4, 0x70, &[id]),
        Valid::new("SUBSCRIBE", 4, 0x82, &[id, &filter, &[1], &topic, &[2]]).or_shorter(&[8]),
        Valid::new("UNSUBSCRIBE", 4, 0xA2, &[id, &filter, &topic]).or_shorter(&[7]),
        Valid::new("PINGREQ", 4, 0xC0, &[]),
        Valid::new("DISCONNECT", 4, 0xE0, &[]),
        Valid::new("PUBLISH", 5, 0x30, &[&topic, &user]),
        Valid::new("PUBLISH QoS 1", 5, 0x32, &[&topic, id, &user]),
        Valid::new("PUBLISH QoS 2", 5, 0x34, &[&topic, id, &user]),
        Valid::new(
            "SUBSCRIBE",
            5,
            0x82,
            &[id, &user, &filter, &[1], &topic, &[0x2E]],
        )
        .or_shorter(&[2 + user.len() + 6])
        .or_empty(2 + user.len()),
        Valid::new("UNSUBSCRIBE", 5, 0xA2, &[id, &user, &filter, &topic])
            .or_shorter(&[2 + user.len() + 5])
            .or_empty(2 + user.len()),
        Valid::new("PINGREQ", 5, 0xC0, &[]),
        Valid::new("DISCONNECT", 5, 0xE0, &[&[0x04], &words]).or_shorter(&[0, 1]),
        Valid::new("AUTH", 5, 0xF0, &[&[0x18], &words]).or_shorter(&[0]),
    ];
    for (name, first) in [
        ("PUBACK", 0x40),
        ("PUBREC", 0x50),
        ("PUBREL", 0x62),
        ("PUBCOMP", 0x70),
    ] {
        all.push(Valid::new(name, 5, first, &[id, &[0], &words]).or_shorter(&[2, 3]));
        all.push(Valid::new(name, 5, first, &[id, &[0, 0]]).or_shorter(&[2, 3]));
    }
    all
}

/// MQTT-4.8.0-1, MQTT 5 §4.13: a packet that is longer or shorter than its fields ends the connection.
#[tokio::test]
async fn a_packet_has_the_length_of_its_fields() {
    let running = Running::start().await;
    for valid in all() {
        let name = format!("{} of {}", valid.name, valid.level);
        let whole = packet(valid.first, &valid.body);
        let found = outcome(running.address, valid.level, &whole).await;
        assert_eq!(found, valid.outcome(), "{name}");
        for length in 0..valid.body.len() {
            let cut = packet(valid.first, &valid.body[..length]);
            let expected = if valid.shorter.contains(&length) {
                valid.outcome()
            } else if valid.empty == Some(length) {
                Outcome::Ends(Some(PROTOCOL))
            } else {
                valid.broken()
            };
            let found = outcome(running.address, valid.level, &cut).await;
            assert_eq!(found, expected, "{name} of {length} bytes");
        }
        // A PUBLISH ends with its payload, of any length.
        if valid.first & 0xF0 == 0x30 {
            continue;
        }
        for behind in [
            &[0][..],
            &[1],
            &[0, 0],
            &[0, 1, b'x'],
            &[0xC0, 0],
            &[0xFF; 9],
        ] {
            if valid.first == 0xA2 && behind.len() == 3 {
                // One filter more.
                continue;
            }
            let longer = packet(valid.first, &[&valid.body, behind].concat());
            let found = outcome(running.address, valid.level, &longer).await;
            assert_eq!(found, valid.broken(), "{name} and {behind:?}");
        }
    }
    running.stop().await;
}

/// MQTT-2.2.2-2, MQTT 5 MQTT-2.1.3-1.
#[tokio::test]
async fn a_packet_has_the_flags_of_its_type() {
    let running = Running::start().await;
    for valid in all() {
        for flags in 0..16 {
            let first = valid.first & 0xF0 | flags;
            let is_publish = first & 0xF0 == 0x30;
            let wrong = match is_publish {
                true => flags & 6 == 6 || flags & 0x0E == 8,
                false => first != valid.first,
            };
            if wrong {
                let bytes = packet(first, &valid.body);
                let found = outcome(running.address, valid.level, &bytes).await;
                assert_eq!(found, valid.broken(), "{} as {first:#04x}", valid.name);
            }
        }
    }
    for flags in 1..16 {
        for level in [4, 5] {
            let head = connect_head(level, 2);
            let properties = if level == 5 { &[0][..] } else { &[] };
            let connect = packet(0x10 | flags, &[&head[..], properties, &text("a")].concat());
            let found = outcome_of(running.address, &connect).await;
            assert_eq!(found, Outcome::Ends(None), "CONNECT with {flags}");
        }
    }
    running.stop().await;
}

/// Types that only a server sends, and those that there are not.
#[tokio::test]
async fn a_client_sends_what_clients_send() {
    let running = Running::start().await;
    for level in [4, 5] {
        let code = |code| Outcome::Ends((level == 5).then_some(code));
        for (name, first, body, expected) in [
            ("CONNACK", 0x20, &[0, 0, 0][..], PROTOCOL),
            ("SUBACK", 0x90, &[0, 1, 0, 0], PROTOCOL),
            ("UNSUBACK", 0xB0, &[0, 1, 0, 0], PROTOCOL),
            ("PINGRESP", 0xD0, &[], PROTOCOL),
            ("type 0", 0x00, &[], MALFORMED),
        ] {
            let found = outcome(running.address, level, &packet(first, body)).await;
            assert_eq!(found, code(expected), "{name}");
        }
        let second = support::wire::connect(level, "a");
        let found = outcome(running.address, level, &second).await;
        assert_eq!(found, code(PROTOCOL), "a second CONNECT");
    }
    let auth = packet(0xF0, &[]);
    let found = outcome(running.address, 4, &auth).await;
    assert_eq!(found, Outcome::Ends(None));
    running.stop().await;
}

/// A CONNECT with all fields that there are.
fn full_connect(level: u8) -> Vec<u8> {
    let (connect_properties, will_properties) = match level {
        5 => (
            properties(
                &[
                    &[0x11, 0, 0, 0, 9, 0x21, 0, 9, 0x27, 0, 1, 0, 0][..],
                    &[0x22, 0, 9, 0x19, 1, 0x17, 1, 0x26],
                    &text("k"),
                    &text("v"),
                ]
                .concat(),
            ),
            properties(
                &[
                    &[0x18, 0, 0, 0, 9, 0x01, 1, 0x02, 0, 0, 0, 9, 0x03][..],
                    &text("text/plain"),
                    &[0x08],
                    &text("answers"),
                    &[0x09],
                    &text("data"),
                    &[0x26],
                    &text("k"),
                    &text("v"),
                ]
                .concat(),
            ),
        ),
        _ => (Vec::new(), Vec::new()),
    };
    [
        connect_head(level, 0xF6 & !0x10),
        connect_properties,
        text("a"),
        will_properties,
        text("will"),
        text("payload"),
        text("name"),
        text("password"),
    ]
    .concat()
}

/// MQTT-3.1.2-18, -20, MQTT-3.1.4-1: the fields that the flags name and no others.
#[tokio::test]
async fn a_connect_has_the_length_of_its_fields() {
    let running = Running::start().await;
    for level in [4, 5] {
        let body = full_connect(level);
        let found = outcome_of(running.address, &packet(0x10, &body)).await;
        assert_eq!(found, Outcome::Lives);
        let broken = Outcome::Ends((level == 5).then_some(MALFORMED));
        for length in 0..body.len() {
            let found = outcome_of(running.address, &packet(0x10, &body[..length])).await;
            // Of what has no version nothing is answered.
            let expected = match length {
                0..=6 => Outcome::Ends(None),
                _ => broken,
            };
            assert_eq!(found, expected, "{length} bytes of {level}");
        }
        for behind in [&[0][..], &[0, 0], &[0, 1, b'x'], &[0xC0, 0]] {
            let longer = packet(0x10, &[&body, behind].concat());
            let found = outcome_of(running.address, &longer).await;
            assert_eq!(found, broken, "{behind:?} behind the CONNECT of {level}");
            // The fields that a flag does not name, one after the other.
            for flags in [0x02, 0x06, 0x82] {
                let properties = if level == 5 { &[0][..] } else { &[] };
                let mut parts = vec![connect_head(level, flags), properties.into(), text("a")];
                if flags & 0x04 != 0 {
                    parts.extend([properties.to_vec(), text("will"), text("x")]);
                }
                if flags & 0x80 != 0 {
                    parts.push(text("name"));
                }
                let whole = packet(0x10, &parts.concat());
                assert_eq!(outcome_of(running.address, &whole).await, Outcome::Lives);
                parts.push(behind.into());
                let longer = packet(0x10, &parts.concat());
                let found = outcome_of(running.address, &longer).await;
                assert_eq!(found, broken, "{behind:?} with flags {flags:#04x}");
            }
        }
        // Flags that do not agree with each other.
        for flags in [0x03, 0x0A, 0x12, 0x22, 0x1E, 0x3A] {
            let properties = if level == 5 { &[0][..] } else { &[] };
            let parts = [&connect_head(level, flags)[..], properties, &text("a")].concat();
            let more = [properties, &text("will"), &text("x")].concat();
            for body in [parts.clone(), [parts, more].concat()] {
                let found = outcome_of(running.address, &packet(0x10, &body)).await;
                assert_eq!(found, broken, "flags {flags:#04x} of {level}");
            }
        }
    }
    running.stop().await;
}

/// What is not UTF-8, or holds U+0000 (MQTT-1.5.3-1, -2; MQTT 5 MQTT-1.5.4-1, -2).
const NO_TEXT: [&[u8]; 14] = [
    b"\0",
    b"a\0b",
    b"a/\0/#",
    b"a\0",
    b"\xff",
    b"a\xfe",
    b"\xc3",
    b"\xc3\x28",
    b"\xc0\x80",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
];

/// A place of a string: the bytes from the CONNECT on, with `text` at that place.
type Place = (&'static str, fn(&[u8]) -> Vec<u8>);

fn body_5(parts: &[&[u8]], first: u8) -> Vec<u8> {
    [
        support::wire::connect(5, ""),
        packet(first, &parts.concat()),
    ]
    .concat()
}

fn property(id: u8, value: &[u8]) -> Vec<u8> {
    properties(&[&[id][..], &text(value)].concat())
}

fn user_name(value: &[u8]) -> Vec<u8> {
    properties(&[&[0x26][..], &text(value), &text("v")].concat())
}

fn user_value(value: &[u8]) -> Vec<u8> {
    properties(&[&[0x26][..], &text("k"), &text(value)].concat())
}

fn connect_3(parts: &[&[u8]], flags: u8) -> Vec<u8> {
    packet(
        0x10,
        &[&connect_head(4, flags), &parts.concat()[..]].concat(),
    )
}

fn connect_5(parts: &[&[u8]], flags: u8) -> Vec<u8> {
    packet(
        0x10,
        &[&connect_head(5, flags), &parts.concat()[..]].concat(),
    )
}

fn body_3(parts: &[&[u8]], first: u8) -> Vec<u8> {
    [
        support::wire::connect(4, ""),
        packet(first, &parts.concat()),
    ]
    .concat()
}

const STRINGS: [Place; 45] = [
    ("client id, 3.1.1", |t| connect_3(&[&text(t)], 2)),
    ("will topic, 3.1.1", |t| {
        connect_3(&[&text("a"), &text(t), &text("x")], 6)
    }),
    ("user name, 3.1.1", |t| {
        connect_3(&[&text("a"), &text(t)], 0x82)
    }),
    ("topic, 3.1.1", |t| body_3(&[&text(t)], 0x30)),
    ("topic of QoS 1, 3.1.1", |t| {
        body_3(&[&text(t), &[0, 1]], 0x32)
    }),
    ("topic of QoS 2, 3.1.1", |t| {
        body_3(&[&text(t), &[0, 1]], 0x34)
    }),
    ("filter, 3.1.1", |t| {
        body_3(&[&[0, 1], &text(t), &[0]], 0x82)
    }),
    ("second filter, 3.1.1", |t| {
        body_3(&[&[0, 1], &text("a"), &[0], &text(t), &[0]], 0x82)
    }),
    ("filter to end, 3.1.1", |t| {
        body_3(&[&[0, 1], &text(t)], 0xA2)
    }),
    ("second filter to end, 3.1.1", |t| {
        body_3(&[&[0, 1], &text("a"), &text(t)], 0xA2)
    }),
    ("client id", |t| connect_5(&[&[0], &text(t)], 2)),
    ("will topic", |t| {
        connect_5(&[&[0], &text("a"), &[0], &text(t), &text("x")], 6)
    }),
    ("user name", |t| {
        connect_5(&[&[0], &text("a"), &text(t)], 0x82)
    }),
    ("authentication method", |t| {
        connect_5(&[&property(0x15, t), &text("a")], 2)
    }),
    ("CONNECT, name of a user property", |t| {
        connect_5(&[&user_name(t), &text("a")], 2)
    }),
    ("CONNECT, value of a user property", |t| {
        connect_5(&[&user_value(t), &text("a")], 2)
    }),
    ("will, content type", |t| will_5(&property(0x03, t))),
    ("will, response topic", |t| will_5(&property(0x08, t))),
    ("will, name of a user property", |t| will_5(&user_name(t))),
    ("will, value of a user property", |t| will_5(&user_value(t))),
    ("topic", |t| body_5(&[&text(t), &[0]], 0x30)),
    ("topic of QoS 1", |t| body_5(&[&text(t), &[0, 1, 0]], 0x32)),
    ("topic of QoS 2", |t| body_5(&[&text(t), &[0, 1, 0]], 0x34)),
    ("topic with an alias", |t| {
        body_5(&[&text(t), &[3, 0x23, 0, 1]], 0x30)
    }),
    ("content type", |t| {
        body_5(&[&text("a"), &property(0x03, t)], 0x30)
    }),
    ("response topic", |t| {
        body_5(&[&text("a"), &property(0x08, t)], 0x30)
    }),
    ("PUBLISH, name of a user property", |t| {
        body_5(&[&text("a"), &user_name(t)], 0x30)
    }),
    ("PUBLISH, value of a user property", |t| {
        body_5(&[&text("a"), &user_value(t)], 0x30)
    }),
    ("PUBACK, reason", |t| {
        body_5(&[&[0, 1, 0x80], &property(0x1F, t)], 0x40)
    }),
    ("PUBACK, user property", |t| {
        body_5(&[&[0, 1, 0], &user_value(t)], 0x40)
    }),
    ("PUBREC, reason", |t| {
        body_5(&[&[0, 1, 0x80], &property(0x1F, t)], 0x50)
    }),
    ("PUBREC, user property", |t| {
        body_5(&[&[0, 1, 0], &user_name(t)], 0x50)
    }),
    ("PUBREL, reason", |t| {
        body_5(&[&[0, 1, 0x92], &property(0x1F, t)], 0x62)
    }),
    ("PUBREL, user property", |t| {
        body_5(&[&[0, 1, 0], &user_value(t)], 0x62)
    }),
    ("PUBCOMP, reason", |t| {
        body_5(&[&[0, 1, 0x92], &property(0x1F, t)], 0x70)
    }),
    ("PUBCOMP, user property", |t| {
        body_5(&[&[0, 1, 0], &user_name(t)], 0x70)
    }),
    ("filter", |t| body_5(&[&[0, 1, 0], &text(t), &[0]], 0x82)),
    ("second filter", |t| {
        body_5(&[&[0, 1, 0], &text("a"), &[0], &text(t), &[0]], 0x82)
    }),
    ("SUBSCRIBE, user property", |t| {
        body_5(&[&[0, 1], &user_value(t), &text("a"), &[0]], 0x82)
    }),
    ("filter to end", |t| body_5(&[&[0, 1, 0], &text(t)], 0xA2)),
    ("second filter to end", |t| {
        body_5(&[&[0, 1, 0], &text("a"), &text(t)], 0xA2)
    }),
    ("UNSUBSCRIBE, user property", |t| {
        body_5(&[&[0, 1], &user_name(t), &text("a")], 0xA2)
    }),
    ("DISCONNECT, reason", |t| {
        body_5(&[&[0], &property(0x1F, t)], 0xE0)
    }),
    ("DISCONNECT, user property", |t| {
        body_5(&[&[0], &user_name(t)], 0xE0)
    }),
    ("AUTH, reason", |t| {
        body_5(&[&[0x18], &property(0x1F, t)], 0xF0)
    }),
];

fn will_5(properties: &[u8]) -> Vec<u8> {
    let parts = [&[0], &text("a")[..], properties, &text("will"), &text("x")];
    connect_5(&parts, 6)
}

#[tokio::test]
async fn every_string_is_utf_8_without_u_0000() {
    let running = Running::start().await;
    for (name, at) in STRINGS {
        let code = (!name.ends_with("3.1.1")).then_some(MALFORMED);
        for bad in NO_TEXT {
            let found = outcome_of(running.address, &at(bad)).await;
            assert_eq!(found, Outcome::Ends(code), "{bad:02x?} as {name}");
        }
        let good = outcome_of(running.address, &at("é\u{FEFF}\u{10FFFF}".as_bytes())).await;
        assert_ne!(good, Outcome::Ends(Some(MALFORMED)), "{name}");
    }
    running.stop().await;
}

/// MQTT-4.7.1-2, -3, MQTT-4.7.3-1; MQTT 5 MQTT-4.7.1-1, -2, MQTT-4.8.2-1, -2: in SUBSCRIBE and UNSUBSCRIBE, alone and
/// behind a filter that is well-formed.
#[tokio::test]
async fn a_filter_that_is_none_ends_the_connection() {
    let running = Running::start().await;
    let forms = [
        "", "a/#/b", "a#", "#a", "#/a", "#/", "##", "/#/", "a+", "+a", "a/b+", "a/+b/c", "++",
        "+#", "a/+#",
    ];
    let shared = [
        "$share/",
        "$share//",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/+/a",
        "$share/#/a",
        "$share/g+/a",
        "$share/#",
        "$share/+",
        "$share/g/a#",
        "$share/g/a/#/b",
        "$share/g/+a",
    ];
    let good = [
        "a",
        "#",
        "+",
        "/",
        "+/+",
        "a/#",
        "/#",
        "+/#",
        "a//b",
        "$SYS/#",
        "$share",
        "$share/g/a",
        "$share/g/#",
        "$share/g//",
        "$shared/",
    ];
    for level in [4, 5] {
        let none = if level == 5 { &[0][..] } else { &[] };
        let packets = |filter: &str| {
            let (first, second) = (text("ok"), text(filter));
            [
                packet(0x82, &[&[0, 1], none, &second, &[0]].concat()),
                packet(0x82, &[&[0, 1], none, &first, &[0], &second, &[0]].concat()),
                packet(0xA2, &[&[0, 1], none, &second].concat()),
                packet(0xA2, &[&[0, 1], none, &first, &second].concat()),
            ]
        };
        let ends = Outcome::Ends((level == 5).then_some(MALFORMED));
        for filter in forms {
            for bytes in packets(filter) {
                let found = outcome(running.address, level, &bytes).await;
                assert_eq!(found, ends, "{filter:?} in {bytes:02x?}");
            }
        }
        for filter in shared {
            for bytes in packets(filter) {
                let found = outcome(running.address, level, &bytes).await;
                // Shared subscriptions are not in 3.1.1, where some of these are filters like others: 0x80.
                match (level, found) {
                    (5, found) => assert_eq!(found, ends, "{filter:?} in {bytes:02x?}"),
                    (_, found) => assert!(matches!(found, Outcome::Lives | Outcome::Ends(None))),
                }
            }
        }
        for filter in good {
            for bytes in packets(filter) {
                let found = outcome(running.address, level, &bytes).await;
                assert_eq!(found, Outcome::Lives, "{filter:?}");
            }
        }
        for first in [0x82, 0xA2] {
            let bytes = packet(first, &[&[0, 1], none].concat());
            let ends = Outcome::Ends((level == 5).then_some(PROTOCOL));
            let found = outcome(running.address, level, &bytes).await;
            assert_eq!(found, ends, "{first:#04x} without filters");
        }
    }
    running.stop().await;
}
