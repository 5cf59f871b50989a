//! The state machine under arbitrary bytes, without I/O: what a fuzz target and the tests run.

use core::time::Duration;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use latchbus_bus::{
    Delivery, Event, Forbidden, PublishRefused, Request, SignInRefused, SubscribeRefused,
};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use crate::{Bounds, Connect, Connection, Opening, Progress, Version, opening};

/// Gives a fresh connection what `data` says: the first byte chooses how it opens, the others are what
/// the client sends, in pieces, each followed by answers and messages of the bus. `deliveries` are the
/// messages; none is fine.
///
/// # Panics
/// When the state machine breaks a promise: more messages in flight than the window, or output that is
/// not MQTT.
pub fn drive(data: &[u8], deliveries: &[Delivery]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let now = Instant::now();
    let bounds = Bounds {
        max_packet_bytes: 4 << 10,
        in_flight: 4,
        receive_maximum: 4,
        receive_tolerance: 4,
        write_bytes: 1 << 10,
        ..Bounds::default()
    };
    let mut bytes = BytesMut::new();
    let mut rest = data;
    let connect = match choice % 4 {
        0 => connect(Version::V3),
        1 => connect(Version::V5),
        _ => {
            bytes.put_slice(data);
            rest = &[];
            match opening(&mut bytes, bounds.max_packet_bytes) {
                Ok(Some(Opening::Connect(connect))) => *connect,
                _ => return,
            }
        }
    };
    let version = connect.version;
    let window = usize::from(bounds.in_flight.min(connect.receive_maximum).max(1));
    let limit = connect.maximum_packet_bytes;
    if !Connection::can_accept(&connect, false, &bounds) {
        return;
    }
    let mut connection = Connection::accept(connect.clone(), None, false, bounds.clone(), now);
    check_output(&mut connection, version, limit);
    for piece in 0..=rest.len() / 32 {
        let from = rest.len().min(piece * 32);
        let to = rest.len().min(from + 32);
        bytes.put_slice(rest.get(from..to).unwrap_or_default());
        loop {
            match connection.poll_request(&mut bytes, now) {
                Ok(Progress::Request(request)) => {
                    answer(&mut connection, request, deliveries, window)
                }
                Ok(Progress::NeedsBytes) => break,
                Ok(Progress::Left) | Err(_) => {
                    connection.close(None);
                    check_output(&mut connection, version, limit);
                    let remains = connection.end();
                    assert!(remains.session.unacknowledged() <= window);
                    let kept = Some(remains.session);
                    let mut next = Connection::accept(connect, kept, false, bounds, now);
                    check_output(&mut next, version, limit);
                    return;
                }
            }
        }
        check_output(&mut connection, version, limit);
    }
    let later = now + Duration::from_secs(1 << 17);
    assert_eq!(
        connection.deadline().is_some(),
        connection.handle_timeout(later).is_err()
    );
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        bridge: false,
        client_id: "fuzz".into(),
        credentials: latchbus_bus::Credentials::default(),
        clean_start: false,
        keep_alive_secs: 60,
        session_expiry_secs: (version == Version::V5).then_some(60),
        receive_maximum: 3,
        maximum_packet_bytes: None,
        topic_alias_maximum: 0,
        problem_information: true,
        by_token: version == Version::V5,
        will: None,
    }
}

/// The bus accepts most of what it is asked for, and its subscriptions bring all there is.
fn answer(connection: &mut Connection, request: Request, deliveries: &[Delivery], window: usize) {
    match request {
        Request::Publish {
            id: Some(id),
            publish,
        } => {
            connection.handle_event(match publish.payload.len() % 4 {
                3 => Event::Refused {
                    id: Some(id),
                    refused: PublishRefused::NotAllowed(
                        publish.topic.into_inner(),
                        Forbidden::Topic,
                    ),
                },
                _ => Event::Published { id, rev: 1 },
            });
        }
        Request::SignIn { id, credentials } => {
            let result = match credentials.token.is_some_and(|token| token.len() % 2 == 0) {
                true => Ok(()),
                false => Err(SignInRefused::BadCredentials),
            };
            connection.handle_event(Event::SignedIn { id, result });
        }
        Request::Subscribe { id, subscriptions } => {
            let result = |length: usize| match length % 8 {
                7 => Err(SubscribeRefused::SessionFull { limit: 0 }),
                _ => Ok(()),
            };
            let results = subscriptions
                .iter()
                .map(|asked| (asked.id, result(asked.filter.as_str().len())))
                .collect();
            connection.handle_event(Event::Subscribed { id, results });
            for asked in subscriptions {
                for delivery in deliveries {
                    if connection.credit() > 0 {
                        connection.handle_event(Event::Message {
                            subscription: asked.id,
                            delivery: delivery.clone(),
                            retained: true,
                        });
                    }
                }
            }
        }
        Request::Unsubscribe { id, subscriptions } => {
            let existed = subscriptions.iter().map(|number| number % 2 == 0).collect();
            connection.handle_event(Event::Unsubscribed { id, existed });
        }
        _ => {}
    }
    assert!(connection.credit() <= window);
}

/// Everything that goes out can be read by a codec, and is no larger than the client said.
fn check_output(connection: &mut Connection, version: Version, limit: Option<usize>) {
    let mut out = BytesMut::new();
    loop {
        connection.take_output(&mut out);
        if out.is_empty() {
            return;
        }
        while !out.is_empty() {
            let before = out.len();
            let whole = match version {
                Version::V3 => matches!(v3::Codec::default().decode(&mut out), Ok(Some(_))),
                Version::V5 => matches!(v5::Codec::default().decode(&mut out), Ok(Some(_))),
            };
            assert!(whole, "output that is not MQTT");
            let size = before - out.len();
            assert!(
                limit.is_none_or(|limit| size <= limit),
                "{size} over {limit:?}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn arbitrary_bytes(data in proptest::collection::vec(any::<u8>(), 0..512)) {
            drive(&data, &[]);
        }

        #[test]
        fn almost_packets(
            choice in 0_u8..2,
            packets in proptest::collection::vec(
                (
                    proptest::sample::select(vec![0x30_u8, 0x31, 0x32, 0x34, 0x3A, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0]),
                    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), Just(b'a'), Just(b'/'), Just(b'#'), any::<u8>()], 0..12),
                ),
                0..12,
            ),
        ) {
            let mut data = vec![choice];
            for (kind, body) in packets {
                data.extend([kind, body.len() as u8]);
                data.extend(body);
            }
            drive(&data, &[]);
        }
    }
}
