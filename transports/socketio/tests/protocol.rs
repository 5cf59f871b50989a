//! Socket.IO: namespaces, events, acknowledgements and attachments.

mod support;

use core::time::Duration;

use latchbus_socketio::Config;
use serde_json::json;
use support::{Closed, TestServer, suite};

#[tokio::test]
async fn joining_a_namespace() {
    let server = TestServer::start(suite()).await;
    for (sent, prefix, auth) in [
        ("40", "", "{}"),
        ("40{\"token\":\"123\"}", "", "{\"token\":\"123\"}"),
        ("40/custom,", "/custom,", "{}"),
        ("40/custom", "/custom,", "{}"),
        (
            "40/custom,{\"token\":\"abc\"}",
            "/custom,",
            "{\"token\":\"abc\"}",
        ),
    ] {
        let mut socket = server.opened().await;
        socket.send(sent).await;
        let answer = socket.text().await;
        let json = answer.strip_prefix(&format!("40{prefix}")).unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["sid"]);
        assert_eq!(socket.text().await, format!("42{prefix}[\"auth\",{auth}]"));
    }
    let mut socket = server.opened().await;
    socket.send("40/random").await;
    assert_eq!(
        socket.text().await,
        "44/random,{\"message\":\"Invalid namespace\"}"
    );
    socket.send("40/random,").await;
    assert_eq!(
        socket.text().await,
        "44/random,{\"message\":\"Invalid namespace\"}"
    );
    socket.join("/", "").await;
}

#[tokio::test]
async fn the_public_id_opens_nothing() {
    let server = TestServer::start(suite()).await;
    let session = server.open().await;
    session.post("40").await;
    let packets = session.packets(2).await;
    let connected = packets[0].strip_prefix("40").unwrap();
    let connected: serde_json::Value = serde_json::from_str(connected).unwrap();
    let public = connected["sid"].as_str().unwrap();
    assert_ne!(public, session.sid);
    let query = format!("EIO=4&transport=polling&sid={public}");
    assert_eq!(server.get(&query).await.status, 400);
    assert_eq!(server.request("POST", &query, "1").await.status, 400);
    assert!(server.try_websocket(Some(public)).await.is_err());
    assert_eq!(session.post("42[\"message\",1]").await.status, 200);
    assert_eq!(session.packets(1).await, ["42[\"message-back\",1]"]);
}

#[tokio::test]
async fn who_joins_nothing_in_time_is_closed() {
    let server = TestServer::start(Config {
        connect_timeout: Duration::from_millis(20),
        ..suite()
    })
    .await;
    let mut socket = server.opened().await;
    assert_eq!(socket.closed().await, Closed(Some(1008)));
    let session = server.open().await;
    assert_eq!(session.poll().await.body, "1");
    // Who has joined may leave and stay.
    let (mut socket, _) = server.joined("/", "").await;
    socket.event().await;
    server.opened().await.closed().await;
    socket.send("42[\"message\"]").await;
    assert_eq!(socket.event().await, [json!("message-back")]);
}

#[tokio::test]
async fn leaving_a_namespace() {
    let server = TestServer::start(suite()).await;
    let (mut socket, _) = server.joined("/", "").await;
    socket.event().await;
    socket.join("/custom", "").await;
    socket.event().await;
    socket.send("41/custom,").await;
    socket
        .send("42[\"message\",\"message to main namespace\"]")
        .await;
    assert_eq!(
        socket.text().await,
        "42[\"message-back\",\"message to main namespace\"]"
    );
    // It can be joined again, and the connection lives without any.
    socket.send("41").await;
    socket.join("/custom", "").await;
    socket.event().await;
    socket.send("42/custom,[\"message\"]").await;
    assert_eq!(socket.text().await, "42/custom,[\"message-back\"]");
}

#[tokio::test]
async fn events_and_acknowledgements() {
    let server = TestServer::start(suite()).await;
    let (mut socket, _) = server.joined("/", "").await;
    socket.event().await;
    socket.send("42[\"message\",1,\"2\",{\"3\":[true]}]").await;
    assert_eq!(
        socket.text().await,
        "42[\"message-back\",1,\"2\",{\"3\":[true]}]"
    );
    socket
        .send("42456[\"message-with-ack\",1,\"2\",{\"3\":[false]}]")
        .await;
    assert_eq!(socket.text().await, "43456[1,\"2\",{\"3\":[false]}]");
    let placeholders = "{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}";
    socket
        .send(&format!("452-[\"message\",{placeholders}]"))
        .await;
    socket.send_bytes(&[1, 2, 3]).await;
    socket.send_bytes(&[4, 5, 6]).await;
    assert_eq!(
        socket.text().await,
        format!("452-[\"message-back\",{placeholders}]")
    );
    assert_eq!(socket.bytes().await, [1, 2, 3]);
    assert_eq!(socket.bytes().await, [4, 5, 6]);
    socket
        .send(&format!("452-789[\"message-with-ack\",{placeholders}]"))
        .await;
    socket.send_bytes(&[1, 2, 3]).await;
    socket.send_bytes(&[4, 5, 6]).await;
    assert_eq!(socket.text().await, format!("462-789[{placeholders}]"));
    assert_eq!(socket.bytes().await, [1, 2, 3]);
    assert_eq!(socket.bytes().await, [4, 5, 6]);
    // What nobody knows is acknowledged with an error, if somebody waits.
    socket.send("42[\"nonsense\"]").await;
    socket.send("427[\"nonsense\"]").await;
    let answer = socket.text().await;
    assert!(
        answer.starts_with("437[{\"error\":{\"code\":\"bad_message\""),
        "{answer}"
    );
    // Answers of the client's are taken.
    socket.send("431[1]").await;
    socket
        .send("461-1[{\"_placeholder\":true,\"num\":0}]")
        .await;
    socket.send_bytes(&[1]).await;
    socket.send("42[\"message\"]").await;
    assert_eq!(socket.text().await, "42[\"message-back\"]");
}

#[tokio::test]
async fn what_comes_right_behind_connect_is_taken() {
    let server = TestServer::start(suite()).await;
    let session = server.open().await;
    session.post("40\u{1e}42[\"message\",1]").await;
    let packets = session.packets(3).await;
    assert!(packets[0].starts_with("40{"));
    assert_eq!(packets[1..], ["42[\"auth\",{}]", "42[\"message-back\",1]"]);
}

#[tokio::test]
async fn packets_that_end_a_connection() {
    let server = TestServer::start(suite()).await;
    for wrong in [
        "4abc",
        "42{}",
        "42[]",
        "42[\"disconnect\"]",
        "42abc[\"message-with-ack\",1,\"2\",{\"3\":[false]}]",
        // Twice; and where it has not joined.
        "40",
        "42/custom,[\"message\"]",
        "41/custom,",
        "43/custom,1[]",
        // What servers send.
        "44{\"message\":\"no\"}",
        "45[\"message\"]",
        "4511-[\"message\"]",
    ] {
        let (mut socket, _) = server.joined("/", "").await;
        socket.event().await;
        socket.send(wrong).await;
        assert_eq!(socket.closed().await, Closed(Some(1002)), "{wrong}");
    }
    let mut socket = server.opened().await;
    socket.send("4abc").await;
    assert_eq!(socket.closed().await, Closed(Some(1002)));
    // Attachments where none are awaited, and text where some are.
    let (mut socket, _) = server.joined("/", "").await;
    socket.event().await;
    socket.send_bytes(&[1]).await;
    assert_eq!(socket.closed().await, Closed(Some(1002)));
    let (mut socket, _) = server.joined("/", "").await;
    socket.event().await;
    socket
        .send("451-[\"message\",{\"_placeholder\":true,\"num\":0}]")
        .await;
    socket.send("42[\"message\"]").await;
    assert_eq!(socket.closed().await, Closed(Some(1002)));
    assert!(server.server.metrics().violations.get() >= 15);
}

#[tokio::test]
async fn ten_attachments_at_most_and_no_more_bytes_than_a_message() {
    let server = TestServer::start(Config {
        max_message_bytes: Some(1000),
        max_payload: 1000,
        ..suite()
    })
    .await;
    let arguments = |count: usize| {
        let all = (0..count).map(|num| format!(",{{\"_placeholder\":true,\"num\":{num}}}"));
        all.collect::<String>()
    };
    let (mut socket, _) = server.joined("/", "").await;
    socket.event().await;
    socket
        .send(&format!("4510-[\"message\"{}]", arguments(10)))
        .await;
    for num in 0..10 {
        socket.send_bytes(&[num]).await;
    }
    assert!(socket.text().await.starts_with("4510-[\"message-back\","));
    for num in 0..10 {
        assert_eq!(socket.bytes().await, [num]);
    }
    socket
        .send(&format!("453-[\"message\"{}]", arguments(3)))
        .await;
    for _ in 0..2 {
        socket.send_bytes(&[0; 400]).await;
    }
    socket.send_bytes(&[0; 400]).await;
    assert_eq!(socket.closed().await, Closed(Some(1009)));
}
