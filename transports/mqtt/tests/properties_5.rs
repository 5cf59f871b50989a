//! The table of properties (MQTT 5 §2.2.2.2) and that of reason codes (§2.4), as they are in the specification, against
//! the server: each property in each packet, once and twice, cut short, and with the values at its bounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use latchbus_bus::{Options, StoreKind};
use latchbus_mqtt::server::Config;
use support::Running;
use support::wire::{Outcome, connect, connect_head, next, outcome_of, packet, properties, text};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const MALFORMED: Outcome = Outcome::Ends(Some(0x81));
const PROTOCOL: Outcome = Outcome::Ends(Some(0x82));

/// What a client sends that has properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Connect,
    Will,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
}

use In::{
    Auth, Connect, Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscribe, Unsubscribe,
    Will,
};

const ALL: [In; 11] = [
    Connect,
    Will,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Auth,
];

/// From the first byte of a connection to a packet with these properties.
fn with(place: In, said: &[u8]) -> Vec<u8> {
    let said = properties(said);
    let after = |first, parts: &[&[u8]]| {
        let packet = packet(first, &parts.concat());
        [connect(5, ""), packet].concat()
    };
    match place {
        Connect => packet(0x10, &[&connect_head(5, 2)[..], &said, &text("")].concat()),
        Will => {
            let will = [&said[..], &text("will"), &text("x")].concat();
            packet(
                0x10,
                &[&connect_head(5, 6)[..], &[0], &text(""), &will].concat(),
            )
        }
        Publish => after(0x30, &[&text("a"), &said]),
        Puback => after(0x40, &[&[0, 1, 0], &said]),
        Pubrec => after(0x50, &[&[0, 1, 0], &said]),
        Pubrel => after(0x62, &[&[0, 1, 0], &said]),
        Pubcomp => after(0x70, &[&[0, 1, 0], &said]),
        Subscribe => after(0x82, &[&[0, 1], &said, &text("a"), &[0]]),
        Unsubscribe => after(0xA2, &[&[0, 1], &said, &text("a")]),
        Disconnect => after(0xE0, &[&[0], &said]),
        Auth => after(0xF0, &[&[0x18], &said]),
    }
}

/// A property: its identifier, a valid value, where a client may send it, and the values that it must not have.
struct Row {
    id: u8,
    value: Vec<u8>,
    places: &'static [In],
    wrong: Vec<(Vec<u8>, Outcome)>,
    right: Vec<Vec<u8>>,
}

impl Row {
    fn new(id: u8, value: impl Into<Vec<u8>>, places: &'static [In]) -> Self {
        Self {
            id,
            value: value.into(),
            places,
            wrong: Vec::new(),
            right: Vec::new(),
        }
    }

    fn never(mut self, value: impl Into<Vec<u8>>, outcome: Outcome) -> Self {
        self.wrong.push((value.into(), outcome));
        self
    }

    fn also(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.right.push(value.into());
        self
    }

    fn bytes(&self, value: &[u8]) -> Vec<u8> {
        [&[self.id], value].concat()
    }
}

const ANSWERS: &[In] = &[Puback, Pubrec, Pubrel, Pubcomp, Disconnect, Auth];
const MESSAGES: &[In] = &[Publish, Will];

#[rustfmt::skip]
fn table() -> Vec<Row> {
    let no_text = || [0, 1, 0xFF];
    vec![
        Row::new(0x01, [1], MESSAGES).also([0]).never([2], PROTOCOL).never([255], PROTOCOL),
        Row::new(0x02, [0, 0, 0, 9], MESSAGES).also([0; 4]).also([255; 4]),
        Row::new(0x03, text("t"), MESSAGES).also([0, 0]).never(no_text(), MALFORMED),
        Row::new(0x08, text("t"), MESSAGES)
            .also(text("/")).also(text("$SYS/x"))
            .never([0, 0], PROTOCOL).never(text("#"), PROTOCOL).never(text("a/+"), PROTOCOL).never(text("a+b"), PROTOCOL)
            .never(no_text(), MALFORMED),
        Row::new(0x09, [0, 1, 0xFF], MESSAGES).also([0, 0]),
        // In a PUBLISH it is the server's (MQTT-3.3.4-6).
        Row::new(0x0B, [1], &[Subscribe])
            .also([0xFF, 0xFF, 0xFF, 0x7F])
            .never([0], PROTOCOL).never([0x80, 0], MALFORMED).never([0x80, 0x80, 0x80, 0x80, 1], MALFORMED),
        Row::new(0x11, [0, 0, 0, 0], &[Connect, Disconnect]),
        Row::new(0x12, text("t"), &[]),
        Row::new(0x13, [0, 9], &[]),
        // With a method a CONNECT is refused for good, and AUTH in any case: below.
        Row::new(0x15, text("t"), &[]),
        Row::new(0x16, text("t"), &[]),
        Row::new(0x17, [1], &[Connect]).also([0]).never([2], PROTOCOL),
        Row::new(0x18, [0, 0, 0, 9], &[Will]).also([0; 4]).also([255; 4]),
        Row::new(0x19, [1], &[Connect]).also([0]).never([2], PROTOCOL),
        Row::new(0x1A, text("t"), &[]),
        Row::new(0x1C, text("t"), &[Disconnect]),
        Row::new(0x1F, text("t"), ANSWERS).also([0, 0]).never(no_text(), MALFORMED),
        Row::new(0x21, [0, 9], &[Connect]).also([0, 1]).also([255; 2]).never([0, 0], PROTOCOL),
        Row::new(0x22, [0, 9], &[Connect]).also([0; 2]).also([255; 2]),
        Row::new(0x23, [0, 9], &[Publish]).also([0, 16]).never([0, 0], Outcome::Ends(Some(0x94))).never([0, 17], Outcome::Ends(Some(0x94))),
        Row::new(0x24, [1], &[]),
        Row::new(0x25, [1], &[]),
        Row::new(0x26, [text("k"), text("v")].concat(), &ALL).also([0; 4]).never([&no_text()[..], &[0, 0]].concat(), MALFORMED)
            .never([&[0, 0], &no_text()[..]].concat(), MALFORMED),
        Row::new(0x27, [0, 0, 9, 0], &[Connect]).also([255; 4]).never([0; 4], PROTOCOL),
        Row::new(0x28, [1], &[]),
        Row::new(0x29, [1], &[]),
        Row::new(0x2A, [1], &[]),
    ]
}

/// What a packet leads to whose properties are in order.
fn fine(place: In) -> Outcome {
    match place {
        Disconnect => Outcome::Ends(None),
        // Nobody has agreed on a method.
        Auth => PROTOCOL,
        _ => Outcome::Lives,
    }
}

#[tokio::test]
async fn each_property_in_each_packet() {
    let running = Running::start().await;
    let address = running.address;
    for row in table() {
        for place in ALL {
            let name = format!("{:#04x} in {place:?}", row.id);
            let once = row.bytes(&row.value);
            let found = outcome_of(address, &with(place, &once)).await;
            if !row.places.contains(&place) {
                let expected = match (row.id, place) {
                    (0x0B, Publish) | (0x16, Connect) | (0x15 | 0x16, Auth) => PROTOCOL,
                    (0x15, Connect) => Outcome::Ends(Some(0x8C)),
                    _ => MALFORMED,
                };
                assert_eq!(found, expected, "{name}");
                let both = [with(place, &[]), Vec::new()].concat();
                assert_eq!(outcome_of(address, &both).await, fine(place), "{place:?}");
                continue;
            }
            assert_eq!(found, fine(place), "{name}");
            let twice = [&once[..], &once].concat();
            let expected = match row.id {
                0x26 => fine(place),
                _ => PROTOCOL,
            };
            let found = outcome_of(address, &with(place, &twice)).await;
            assert_eq!(found, expected, "{name}, twice");
            for length in 1..once.len() {
                let cut = &once[..length];
                let found = outcome_of(address, &with(place, cut)).await;
                assert_eq!(found, MALFORMED, "{name}, {length} bytes of it");
            }
            for (value, expected) in &row.wrong {
                let found = outcome_of(address, &with(place, &row.bytes(value))).await;
                assert_eq!(found, *expected, "{name}, {value:02x?}");
            }
            for value in &row.right {
                let found = outcome_of(address, &with(place, &row.bytes(value))).await;
                assert_eq!(found, fine(place), "{name}, {value:02x?}");
            }
        }
    }
    running.stop().await;
}

/// §2.2.2.2: identifiers that there are not, also as integers of several bytes, and lengths that are none (§2.2.2.1).
#[tokio::test]
async fn what_is_no_property() {
    let running = Running::start().await;
    let known: Vec<u8> = table().iter().map(|row| row.id).collect();
    for place in ALL {
        for id in (0..0x80).filter(|id| !known.contains(id)) {
            let found = outcome_of(running.address, &with(place, &[id, 0])).await;
            assert_eq!(found, MALFORMED, "{id:#04x} in {place:?}");
        }
        for bytes in [
            &[0x80, 1, 0][..],
            &[0xA6, 0, 0, 0, 0, 0],
            &[0xFF, 0xFF, 0xFF, 0x7F, 0],
            &[0x80, 0x80, 0x80, 0x80, 1, 0],
            &[0x26],
            &[0xA6],
        ] {
            let found = outcome_of(running.address, &with(place, bytes)).await;
            assert_eq!(found, MALFORMED, "{bytes:02x?} in {place:?}");
        }
    }
    for length in [&[1][..], &[0x80, 0], &[0x80], &[0xFF, 0xFF, 0xFF, 0xFF, 0]] {
        let publish = packet(0x30, &[&text("a")[..], length].concat());
        let bytes = [connect(5, ""), publish].concat();
        let found = outcome_of(running.address, &bytes).await;
        assert_eq!(found, MALFORMED, "{length:02x?}");
    }
    // A remaining length in more bytes than it needs (MQTT-1.5.5-1).
    let padded = [&connect(5, "")[..], &[0xC0, 0x80, 0]].concat();
    assert_eq!(outcome_of(running.address, &padded).await, MALFORMED);
    running.stop().await;
}

/// §3.1.2.11.9, §3.1.2.11.10: data needs a method, and a method is refused whatever else there is.
#[tokio::test]
async fn authentication_needs_a_method() {
    let running = Running::start().await;
    let method = [&[0x15][..], &text("SCRAM-SHA-1")].concat();
    let data = [&[0x16][..], &text("x")].concat();
    for (said, expected) in [
        (data.clone(), PROTOCOL),
        ([&method[..], &data].concat(), Outcome::Ends(Some(0x8C))),
        ([&data[..], &method].concat(), Outcome::Ends(Some(0x8C))),
        ([&method[..], &method].concat(), PROTOCOL),
        ([&data[..], &data].concat(), PROTOCOL),
    ] {
        let found = outcome_of(running.address, &with(Connect, &said)).await;
        assert_eq!(found, expected, "{said:02x?}");
    }
    running.stop().await;
}

/// §2.4: every byte as the reason code of every packet that has one.
#[tokio::test]
async fn each_reason_code_in_each_packet() {
    const RECEIPTS: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASES: &[u8] = &[0x00, 0x92];
    const GOODBYES: &[u8] = &[
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ];
    /// Those of other packets, and of the server.
    const OTHERS: &[u8] = &[
        0x00, 0x01, 0x02, 0x04, 0x10, 0x11, 0x18, 0x19, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86,
        0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95,
        0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    let running = Running::start().await;
    for (name, first, id, codes) in [
        ("PUBACK", 0x40, &[0, 1][..], RECEIPTS),
        ("PUBREC", 0x50, &[0, 1], RECEIPTS),
        ("PUBREL", 0x62, &[0, 1], RELEASES),
        ("PUBCOMP", 0x70, &[0, 1], RELEASES),
        ("DISCONNECT", 0xE0, &[], GOODBYES),
    ] {
        for code in 0..=255 {
            let packet = packet(first, &[id, &[code]].concat());
            let found = outcome_of(running.address, &[connect(5, ""), packet].concat()).await;
            let expected = match (codes.contains(&code), OTHERS.contains(&code)) {
                (true, _) if first == 0xE0 => Outcome::Ends(None),
                (true, _) => Outcome::Lives,
                (false, true) => PROTOCOL,
                (false, false) => MALFORMED,
            };
            assert_eq!(found, expected, "{code:#04x} in {name}");
        }
    }
    running.stop().await;
}

/// Subscribes, and reads three messages with their properties.
async fn messages(running: &Running, filter: &str, from: &[u8]) -> Vec<Vec<u8>> {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let subscribe = packet(0x82, &[&[0, 1, 0][..], &text(filter), &[0]].concat());
    let bytes = [&connect(5, "s")[..], &subscribe, from].concat();
    stream.write_all(&bytes).await.unwrap();
    let mut messages = Vec::new();
    while messages.len() < 3 {
        match next(&mut stream).await.unwrap() {
            (0x20 | 0x90, _) => {}
            (first, body) => {
                assert_eq!(first & 0xF0, 0x30);
                messages.push(body);
            }
        }
    }
    messages.sort();
    messages
}

/// MQTT-3.3.2-4, and of a will: 0 is not the same as nothing; also where the message is retained, and after a restart.
#[tokio::test]
async fn the_payload_format_is_passed_on_as_it_came() {
    let directory = tempfile::tempdir().unwrap();
    let stored = || Options {
        store: StoreKind::Directory(directory.path().to_owned()),
        ..Options::default()
    };
    let running = Running::with(stored(), Config::default()).await;
    let formats = [
        ("f/0", &[0x01, 0][..]),
        ("f/1", &[0x01, 1]),
        ("f/none", &[]),
    ];
    // Neither is the payload looked at: this one is not UTF-8.
    let body = |topic: &str, said: &[u8]| [text(topic), properties(said), vec![0xFF]].concat();
    let expected: Vec<_> = formats.map(|(topic, said)| body(topic, said)).into();
    let live: Vec<u8> = (expected.iter())
        .flat_map(|body| packet(0x31, body))
        .collect();
    assert_eq!(messages(&running, "f/#", &live).await, expected);
    assert_eq!(messages(&running, "f/#", &[]).await, expected);
    let mut expected_wills = Vec::new();
    for (topic, said) in formats {
        let topic = topic.replace('f', "w");
        let will = [properties(said), text(&topic), text([0xFF])].concat();
        let head = connect_head(5, 0x26);
        let connect = packet(0x10, &[&head[..], &[0], &text(""), &will].concat());
        // A second CONNECT ends it.
        assert_eq!(
            outcome_of(running.address, &[&connect[..], &connect].concat()).await,
            PROTOCOL
        );
        expected_wills.push(body(&topic, said));
        support::eventually(|| {
            let name = latchbus_core::topic::TopicName::parse(&*topic).unwrap();
            running.bus.last(name).is_some()
        })
        .await;
    }
    assert_eq!(messages(&running, "w/#", &[]).await, expected_wills);
    running.stop().await;
    let running = Running::with(stored(), Config::default()).await;
    assert_eq!(messages(&running, "f/#", &[]).await, expected);
    assert_eq!(messages(&running, "w/#", &[]).await, expected_wills);
    running.stop().await;
}
