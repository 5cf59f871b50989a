//! The real server, killed between any two packets of a QoS 2 exchange and started again: each message counts once.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the lints spare tests, and this is a part of them"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use support::{DEADLINE, Server, until};

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const PINGRESP: u8 = 13;

fn start(directory: &Path) -> Server {
    Server::on_free_ports(["--data-dir".as_ref(), directory.as_os_str()])
}

/// A client of 3.1.1 that does nothing by itself.
struct Client(TcpStream);

impl Client {
    /// Connects with a session that is kept, and says whether there was one.
    fn connect(server: &Server, id: u8) -> (Self, bool) {
        let stream = TcpStream::connect(server.mqtt()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut client = Self(stream);
        client.send(&[
            0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, 1, id,
        ]);
        let (kind, body) = client.next();
        assert_eq!((kind >> 4, body[1]), (2, 0));
        (client, body[0] == 1)
    }

    fn send(&mut self, packet: &[u8]) {
        self.0.write_all(packet).unwrap();
    }

    fn publish(&mut self, topic: &str, payload: &str, qos: u8, id: u8, dup: bool) {
        let length = 4 + topic.len() + payload.len();
        let flags = 0x30 | u8::from(dup) << 3 | qos << 1;
        let mut packet = vec![flags, length as u8, 0, topic.len() as u8];
        packet.extend(topic.bytes());
        packet.extend([0, id]);
        packet.extend(payload.bytes());
        self.send(&packet);
    }

    fn acknowledge(&mut self, kind: u8, id: u8) {
        let flags = if kind == PUBREL { 2 } else { 0 };
        self.send(&[kind << 4 | flags, 2, 0, id]);
    }

    fn expect(&mut self, kind: u8, id: u8) {
        let (first, body) = self.next();
        assert_eq!((first >> 4, &body[..]), (kind, &[0, id][..]));
    }

    /// The next packet: its first byte, and what follows its length.
    fn next(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 2];
        self.0.read_exact(&mut header).unwrap();
        let mut body = vec![0; header[1].into()];
        self.0.read_exact(&mut body).unwrap();
        (header[0], body)
    }

    /// The next PUBLISH: its identifier, and its payload.
    fn message(&mut self) -> (u8, String) {
        let (first, body) = self.next();
        assert_eq!(first >> 4, PUBLISH);
        let topic_bytes = usize::from(body[1]);
        let rest = &body[2 + topic_bytes..];
        (rest[1], String::from_utf8(rest[2..].to_vec()).unwrap())
    }
}

#[test]
fn a_press_counts_once_wherever_the_server_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut presses = 0;
    for stage in 0..4 {
        let id = stage + 1;
        let mut server = start(directory.path());
        let (mut client, present) = Client::connect(&server, b'p');
        assert_eq!(present, stage > 0);
        let topic = "clicks/main/k/press";
        client.publish(topic, "red", 2, id, false);
        if stage > 0 {
            client.expect(PUBREC, id);
        }
        if stage > 1 {
            client.acknowledge(PUBREL, id);
        }
        if stage > 2 {
            client.expect(PUBCOMP, id);
        }
        server.kill();
        drop(client);
        presses += 1;

        let mut server = start(directory.path());
        let (mut client, present) = Client::connect(&server, b'p');
        assert!(present || stage == 0, "stage {stage}");
        if stage == 0 {
            // Without a session the client takes it for not sent, and sends it anew.
            client.publish(topic, "red", 2, id, present);
            client.expect(PUBREC, id);
        }
        if stage < 3 {
            client.acknowledge(PUBREL, id);
            client.expect(PUBCOMP, id);
        }
        let expected = format!(r#"{{"red":{presses},"blue":0}}"#);
        let values = || server.get("/api/v1/topics/clicks/main/values");
        until("the press counts once", || values().text() == expected);
        server.kill();
    }
}

#[test]
fn a_message_arrives_once_wherever_the_server_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(directory.path());
    let (mut client, _) = Client::connect(&server, b's');
    client.send(&[0x82, 6, 0, 9, 0, 1, b'e', 2]);
    assert_eq!(client.next(), (0x90, vec![0, 9, 2]));
    // QoS 2 identifiers that the client has seen and the server has not released.
    let mut received = BTreeSet::new();
    for stage in 0..5 {
        let payload = stage.to_string();
        let (mut publisher, _) = Client::connect(&server, b'w');
        publisher.publish("e", &payload, 2, 1, false);
        publisher.expect(PUBREC, 1);
        publisher.acknowledge(PUBREL, 1);
        publisher.expect(PUBCOMP, 1);
        // How far the client comes before the server is killed.
        let mut taken = Vec::new();
        if stage > 0 {
            let (id, payload) = client.message();
            received.insert(id);
            taken.push(payload);
            if stage > 1 {
                client.acknowledge(PUBREC, id);
            }
            if stage > 2 {
                client.expect(PUBREL, id);
                received.remove(&id);
            }
            if stage > 3 {
                client.acknowledge(PUBCOMP, id);
            }
        }
        server.kill();

        server = start(directory.path());
        let present;
        (client, present) = Client::connect(&server, b's');
        assert!(present, "stage {stage}");
        let (mut publisher, _) = Client::connect(&server, b'w');
        let end = format!("end {stage}");
        publisher.publish("e", &end, 1, 1, false);
        publisher.expect(PUBACK, 1);
        // The client does what it has to for whatever comes, until nothing is left to do.
        let (mut ended, mut quiet) = (false, false);
        while !quiet {
            let (first, body) = client.next();
            match first >> 4 {
                PUBLISH if first & 6 == 2 => {
                    ended |= body[5..] == *end.as_bytes();
                    client.acknowledge(PUBACK, body[4]);
                }
                PUBLISH => {
                    if received.insert(body[4]) {
                        taken.push(String::from_utf8(body[5..].to_vec()).unwrap());
                    }
                    client.acknowledge(PUBREC, body[4]);
                }
                PUBREL => {
                    received.remove(&body[1]);
                    client.acknowledge(PUBCOMP, body[1]);
                }
                PINGRESP => quiet = ended && received.is_empty(),
                other => panic!("{other} in stage {stage}"),
            }
            if ended && received.is_empty() && !quiet {
                client.send(&[0xC0, 0]);
            }
        }
        assert_eq!(taken, [payload], "stage {stage}");
    }
    server.kill();
}

/// A session that has nothing yet is there from its CONNACK on.
#[test]
fn a_session_is_there_right_behind_its_connack() {
    let directory = tempfile::tempdir().unwrap();
    for id in *b"abc" {
        let mut server = start(directory.path());
        let (client, present) = Client::connect(&server, id);
        assert!(!present);
        server.kill();
        drop(client);
        let mut server = start(directory.path());
        assert!(Client::connect(&server, id).1);
        server.kill();
    }
}

/// The identifiers of messages belong to the session: a late acknowledgement meets the message that it is for.
#[test]
fn a_qos_1_message_keeps_its_identifier_over_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = start(directory.path());
    let (mut client, _) = Client::connect(&server, b's');
    client.send(&[0x82, 6, 0, 9, 0, 1, b'e', 1]);
    assert_eq!(client.next(), (0x90, vec![0, 9, 1]));
    let publish = |server: &Server, payload: &str| {
        let (mut publisher, _) = Client::connect(server, b'w');
        publisher.publish("e", payload, 1, 1, false);
        publisher.expect(PUBACK, 1);
    };
    let mut sent = Vec::new();
    for payload in ["m0", "m1", "m2"] {
        publish(&server, payload);
        sent.push(client.message());
    }
    client.acknowledge(PUBACK, sent[0].0);
    // That it is acknowledged is stored with the next message, at the latest.
    publish(&server, "m3");
    sent.push(client.message());
    sent.remove(0);
    server.kill();

    let mut server = start(directory.path());
    let (mut client, present) = Client::connect(&server, b's');
    assert!(present);
    for (id, payload) in &sent {
        let (first, body) = client.next();
        assert_eq!((first, body[4]), (0x3A, *id), "{payload}");
        assert_eq!(&body[5..], payload.as_bytes());
    }
    // Late, for the second of them.
    client.acknowledge(PUBACK, sent[1].0);
    publish(&server, "m4");
    let (first, body) = client.next();
    assert_eq!((first, &body[5..]), (0x32, &b"m4"[..]));
    assert!(sent.iter().all(|(id, _)| *id != body[4]));
    sent.remove(1);
    sent.push((body[4], "m4".to_owned()));
    server.kill();

    let mut server = start(directory.path());
    let (mut client, _) = Client::connect(&server, b's');
    for sent in sent {
        assert_eq!(client.message(), sent);
    }
    server.kill();
}
