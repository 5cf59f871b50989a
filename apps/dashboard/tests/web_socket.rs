//! WebSockets beside the other ways to the hub.
#![cfg(unix)]

mod support;

use futures_util::SinkExt as _;
use rustix::process::Signal;
use serde_json::json;
use support::Server;
use support::web_socket::{close_code, next, next_json, web_socket};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn web_sockets_and_http_share_one_hub() {
    let server = Server::ephemeral();
    let mut socket = web_socket(&server, "/ws", "latchbus.v1.json").await;
    assert_eq!(next_json(&mut socket).await["op"], "welcome");
    let subscribe = json!({"op": "subscribe", "id": 1, "filter": "lab/#"});
    socket.send(subscribe.to_string().into()).await.unwrap();
    assert_eq!(next_json(&mut socket).await["op"], "synced");
    let put = server.send("PUT", "/api/v1/topics/lab/temp", "21.5");
    let message = next_json(&mut socket).await;
    assert_eq!(
        (&message["topic"], &message["payload"]),
        (&json!("lab/temp"), &json!(21.5))
    );
    assert_eq!(message["rev"], put.json()["rev"]);
}

/// Packets come in pieces and several at once: the bytes are what counts.
#[tokio::test]
async fn mqtt_runs_within_web_sockets() {
    let server = Server::ephemeral();
    server.send("PUT", "/api/v1/topics/lab/temp", "21.5");
    let mut socket = web_socket(&server, "/mqtt", "mqtt").await;
    let connect = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me";
    let subscribe = b"\x82\x0a\x00\x07\x00\x05lab/#\x00";
    let ping = b"\xc0\x00";
    let bytes = [&connect[..], subscribe, ping, ping].concat();
    let (first, second) = bytes.split_at(5);
    socket
        .send(Message::Binary(first.to_vec().into()))
        .await
        .unwrap();
    socket
        .send(Message::Ping("still here".into()))
        .await
        .unwrap();
    socket
        .send(Message::Binary(second.to_vec().into()))
        .await
        .unwrap();

    let message = b"\x30\x0e\x00\x08lab/temp21.5";
    let message = [&[0x31], &message[1..]].concat();
    let expected = [
        &b"\x20\x02\x00\x00"[..],
        b"\x90\x03\x00\x07\x00",
        &message,
        b"\xd0\x00",
        b"\xd0\x00",
    ];
    let mut ponged = false;
    let mut got = Vec::new();
    while got.len() < expected.concat().len() || !ponged {
        match next(&mut socket).await.unwrap() {
            Message::Binary(bytes) => got.extend_from_slice(&bytes),
            Message::Pong(payload) => ponged |= payload == "still here",
            other => panic!("{other:?}"),
        }
    }
    for packet in expected {
        let found = got.windows(packet.len()).any(|window| window == packet);
        assert!(found, "{packet:x?} in {got:x?}");
    }
    assert_eq!(close_code(&server, &mut socket, Signal::TERM).await, 1001);
}

/// Clients name the subprotocol of 3.1 and an address with a slash at its end, and speak 3.1.1 or 5 all the same.
#[tokio::test]
async fn mqtt_goes_by_several_names() {
    let server = Server::ephemeral();
    for path in ["/mqtt", "/mqtt/"] {
        for protocol in ["mqtt", "mqttv3.1", "mqttv3.1, mqtt", "other, mqtt"] {
            for (level, properties, answer) in [(4, &[][..], 4), (5, &[0], 5)] {
                let mut socket = web_socket(&server, path, protocol).await;
                let body = [
                    b"\0\x04MQTT",
                    &[level, 2, 0, 60][..],
                    properties,
                    b"\0\x01a",
                ]
                .concat();
                let connect = [&[0x10, body.len() as u8][..], &body].concat();
                socket.send(Message::Binary(connect.into())).await.unwrap();
                let Some(Message::Binary(connack)) = next(&mut socket).await else {
                    panic!("no CONNACK at {path} with {protocol}");
                };
                assert_eq!(connack[..1], [0x20]);
                assert_eq!(connack[2..4], [0, 0], "{path} with {protocol}");
                assert!(connack.len() >= answer);
            }
        }
    }
}

#[tokio::test]
async fn text_within_mqtt_ends_the_connection() {
    let server = Server::ephemeral();
    let mut socket = web_socket(&server, "/mqtt", "mqtt").await;
    socket.send(Message::Text("hello".into())).await.unwrap();
    let Some(Message::Close(Some(frame))) = next(&mut socket).await else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(frame.code), 1003);
}
