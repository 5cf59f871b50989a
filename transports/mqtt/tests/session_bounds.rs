//! What a client can make its session remember, and how much of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod support;

use core::num::NonZeroU16;
use core::time::Duration;
use std::time::Instant;

use bytes::BytesMut;
use latchbus_bus::{Bus, Delivery, Event, Options, Publish, Request};
use latchbus_core::topic::TopicName;
use latchbus_mqtt::{Bounds, Connection, Note, Progress, Session, Violation};
use rmqtt_codec::types::{Publish as PublishPacket, QoS};
use rmqtt_codec::v3::{Codec, Packet};
use support::persistent;
use tokio_util::codec::{Decoder, Encoder};

const WINDOW: u16 = 4;

fn accept(kept: Option<Session>) -> Connection {
    let bounds = Bounds {
        in_flight: WINDOW,
        ..Bounds::default()
    };
    Connection::accept(persistent(), kept, false, bounds, Instant::now())
}

fn send(connection: &mut Connection, packet: Packet) -> Result<Progress, Violation> {
    let mut bytes = BytesMut::new();
    Codec::default().encode(packet, &mut bytes).unwrap();
    connection.poll_request(&mut bytes, Instant::now())
}

/// What the server sends, with a disk that is done at once.
fn output(connection: &mut Connection) -> Vec<Packet> {
    let mut packets = Vec::new();
    loop {
        let mut bytes = BytesMut::new();
        connection.take_output(&mut bytes);
        if bytes.is_empty() {
            if connection.take_notes().is_empty() {
                return packets;
            }
            connection.notes_stored();
        }
        while let Some((packet, _)) = Codec::default().decode(&mut bytes).unwrap() {
            packets.push(packet);
        }
    }
}

fn subscribe(connection: &mut Connection) -> u64 {
    let subscribe = Packet::Subscribe {
        packet_id: NonZeroU16::MIN,
        topic_filters: vec![("t".into(), QoS::ExactlyOnce)],
    };
    let Ok(Progress::Request(Request::Subscribe { id, subscriptions })) =
        send(connection, subscribe)
    else {
        panic!("a subscription");
    };
    let subscription = subscriptions.first().unwrap().id;
    let results = vec![(subscription, Ok(()))];
    connection.handle_event(Event::Subscribed { id, results });
    subscription
}

async fn delivery(bus: &Bus, qos: u8, number: usize) -> Delivery {
    let topic = TopicName::parse("t".to_owned()).unwrap();
    let publish = Publish {
        qos,
        ..Publish::state(topic.clone(), number.to_string())
    };
    bus.publish(publish).await.unwrap();
    bus.last(topic.borrowed()).unwrap()
}

/// A client of 3.1.1 that releases nothing is told no maximum, and has one.
#[test]
fn what_is_not_released_is_bounded() {
    let mut connection = accept(None).on_disk(false);
    for id in 1..=4_097 {
        let publish = Packet::Publish(Box::new(PublishPacket {
            dup: false,
            retain: false,
            qos: QoS::ExactlyOnce,
            topic: "in".into(),
            packet_id: NonZeroU16::new(id),
            payload: "x".into(),
            properties: None,
        }));
        match send(&mut connection, publish) {
            Ok(Progress::Request(Request::Publish { id: Some(id), .. })) => {
                connection.handle_event(Event::Published { id, rev: 1 });
            }
            Err(Violation::ReceiveMaximum(4_096)) if id == 4_097 => return,
            other => panic!("{other:?} for publish {id}"),
        }
        output(&mut connection);
    }
    panic!("no end");
}

/// One message that is never acknowledged does not let the others behind it pile up.
#[tokio::test]
async fn what_is_finished_out_of_order_is_bounded() {
    let bus = Bus::open(Options::default()).unwrap();
    let mut connection = accept(None).on_disk(false);
    let subscription = subscribe(&mut connection);
    let mut first = None;
    let mut finished = 0;
    for number in 0..1_000 {
        output(&mut connection);
        if connection.credit() == 0 {
            break;
        }
        let delivery = delivery(&bus, if number == 0 { 1 } else { 2 }, number).await;
        connection.handle_event(Event::Message {
            subscription,
            delivery,
            retained: false,
        });
        for packet in output(&mut connection) {
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            let packet_id = publish.packet_id.unwrap();
            if publish.qos == QoS::AtLeastOnce {
                first = Some(packet_id);
                continue;
            }
            send(&mut connection, Packet::PublishReceived { packet_id }).unwrap();
            output(&mut connection);
            send(&mut connection, Packet::PublishComplete { packet_id }).unwrap();
            finished += 1;
        }
    }
    assert_eq!(finished, 16 * usize::from(WINDOW) + 1);
    // It goes on when the client does.
    let packet_id = first.unwrap();
    send(&mut connection, Packet::PublishAck { packet_id }).unwrap();
    assert_eq!(connection.credit(), usize::from(WINDOW));
    let later = Instant::now() + Duration::from_secs(60);
    connection.handle_timeout(later).unwrap();
    assert!(!connection.take_marks().is_empty());
}

/// A session that the disk has refused is not half there when its client returns.
#[test]
fn what_the_disk_has_refused_stays_without_it() {
    for with_a_subscription in [true, false] {
        let mut connection = accept(None).on_disk(false);
        if with_a_subscription {
            subscribe(&mut connection);
        }
        connection.give_up_disk();
        let remains = connection.end();
        assert!(matches!(remains.notes.last(), Some(Note::ForgetAll)));
        let returned = accept(Some(remains.session)).on_disk(false);
        assert_eq!(returned.is_durable(), !with_a_subscription);
        assert_eq!(returned.has_notes(), !with_a_subscription);
    }
}
