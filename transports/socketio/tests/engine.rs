//! Engine.IO: sessions of polls, WebSockets, and the upgrade between them.

mod support;

use core::time::Duration;

use latchbus_socketio::Config;
use support::{Closed, Pending, TestServer, patient, within};
use tokio_tungstenite::tungstenite;

/// Engine.IO alone: what is sent comes back.
fn echo() -> Config {
    Config {
        echo_messages: true,
        ..patient()
    }
}

#[tokio::test]
async fn a_session_begins_with_polling() {
    let server = TestServer::start(Config {
        ping_interval: Duration::from_millis(25_000),
        ping_timeout: Duration::from_millis(20_000),
        ..echo()
    })
    .await;
    let session = server.open().await;
    let mut open = session.open.clone();
    open["sid"] = "x".into();
    assert_eq!(
        open,
        serde_json::json!({
            "sid": "x", "upgrades": ["websocket"], "pingInterval": 25_000, "pingTimeout": 20_000, "maxPayload": 1_000_000,
        })
    );
    assert_ne!(session.sid, server.open().await.sid);
    let mut socket = server.websocket(None).await;
    let open = socket.text().await;
    assert!(open.contains("\"upgrades\":[]"), "{open}");
}

#[tokio::test]
async fn requests_that_are_none_of_the_protocol() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    for (method, query, code) in [
        ("GET", "transport=polling", 5),
        ("GET", "EIO=abc&transport=polling", 5),
        ("GET", "EIO=3&transport=polling", 5),
        ("GET", "EIO=4", 0),
        ("GET", "EIO=4&transport=abc", 0),
        ("GET", "EIO=4&transport=websocket", 3),
        ("GET", "EIO=4&transport=polling&sid=unknown", 1),
        ("GET", "EIO=4&transport=polling&sid=", 1),
        ("POST", "EIO=4&transport=polling", 2),
        ("PUT", "EIO=4&transport=polling", 2),
        ("DELETE", &session.query(), 3),
    ] {
        let answer = server.request(method, query, "").await;
        assert_eq!(answer.status, 400, "{method} {query}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["code"], code, "{method} {query}");
    }
    for query in [
        "transport=websocket",
        "EIO=abc&transport=websocket",
        "EIO=4",
        "EIO=4&transport=abc",
        "EIO=4&transport=polling",
    ] {
        let url = format!("ws://{}/socket.io/?{query}", server.address);
        let refused = within(tokio_tungstenite::connect_async(url)).await;
        let Err(tungstenite::Error::Http(refused)) = refused else {
            panic!("{query}: {refused:?}");
        };
        assert_eq!(refused.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn messages_over_polls() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    for body in [
        "4hello",
        "4test1\u{1e}4test2\u{1e}4test3",
        "4hello\u{1e}bAQIDBA==",
    ] {
        let posted = session.post(body).await;
        assert_eq!((posted.status, posted.body.as_str()), (200, "ok"));
        let polled = session.poll().await;
        assert_eq!((polled.status, polled.body.as_str()), (200, body));
    }
    // A poll that waits is answered by what is posted then.
    let waiting = session.begin_poll().await;
    assert_eq!(session.post("4later").await.status, 200);
    assert_eq!(within(waiting.answer()).await.body, "4later");
}

#[tokio::test]
async fn a_poll_has_sixteen_packets_at_most() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    let body = |packets: usize| vec!["4a"; packets].join("\u{1e}");
    // socket.io-client posts whatever it has.
    assert_eq!(session.post(&body(40)).await.status, 200);
    for packets in [16, 16, 8] {
        assert_eq!(session.poll().await.body, body(packets));
    }
}

#[tokio::test]
async fn a_body_is_no_longer_than_the_client_was_told() {
    let server = TestServer::start(Config {
        max_payload: 100,
        max_message_bytes: Some(1000),
        ..echo()
    })
    .await;
    let session = server.open().await;
    let packet = format!("4{}", "a".repeat(39));
    for _ in 0..5 {
        assert_eq!(session.post(&packet).await.status, 200);
    }
    let two = format!("{packet}\u{1e}{packet}");
    for expected in [&two, &two, &packet] {
        assert_eq!(&session.poll().await.body, expected);
    }
    // One that is longer alone goes out alone.
    let long = format!("4{}", "b".repeat(500));
    session.post(&long).await;
    session.post(&packet).await;
    assert_eq!(session.poll().await.body, long);
    assert_eq!(session.poll().await.body, packet);
    let too_long = format!("4{}", "b".repeat(1000));
    assert_eq!(session.post(&too_long).await.status, 413);
    assert_eq!(session.poll().await.status, 400);
}

#[tokio::test]
async fn a_body_that_is_none_ends_its_session() {
    let server = TestServer::start(echo()).await;
    for wrong in ["", "abc", "4a\u{1e}", "b*", "0{}", "2", "5"] {
        let session = server.open().await;
        let waiting = session.begin_poll().await;
        let posted = session.post(wrong).await;
        assert_eq!(posted.status, 400, "{wrong}");
        assert_eq!(session.poll().await.status, 400, "{wrong}");
        let waited = within(waiting.answer()).await;
        assert!(
            waited.body == "1" || waited.status == 400,
            "{wrong}: {waited:?}"
        );
    }
}

#[tokio::test]
async fn a_second_poll_ends_both() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    let first = session.begin_poll().await;
    // Until the first is there.
    let second = loop {
        let second = session.begin_poll().await;
        let answer = within(second.answer()).await;
        if answer.status == 400 {
            break answer;
        }
    };
    assert_eq!(second.status, 400);
    assert_eq!(within(first.answer()).await.body, "1");
    assert_eq!(session.poll().await.status, 400);
}

#[tokio::test]
async fn a_poll_that_is_cancelled_ends_its_session() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    drop(session.begin_poll().await);
    within(async { while session.post("4a").await.status == 200 {} }).await;
    assert_eq!(session.poll().await.status, 400);
}

#[tokio::test]
async fn close_answers_the_poll_that_waits_with_nothing() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    let waiting = session.begin_poll().await;
    let posted = session.post("1").await;
    assert_eq!((posted.status, posted.body.as_str()), (200, "ok"));
    let waited = within(waiting.answer()).await;
    // It may have come after the close.
    assert!(
        matches!((waited.status, waited.body.as_str()), (200, "6") | (400, _)),
        "{waited:?}"
    );
    assert_eq!(session.poll().await.status, 400);
    let mut socket = server.opened().await;
    socket.send("1").await;
    assert_eq!(socket.closed().await, Closed(Some(1000)));
}

#[tokio::test]
async fn messages_over_websocket() {
    let server = TestServer::start(echo()).await;
    let mut socket = server.opened().await;
    socket.send("4hello").await;
    assert_eq!(socket.text().await, "4hello");
    socket.send_bytes(&[1, 2, 3, 4]).await;
    assert_eq!(socket.bytes().await, [1, 2, 3, 4]);
    for wrong in ["abc", "", "2", "2probe", "bAQID", "0{}", "5"] {
        let mut socket = server.opened().await;
        socket.send(wrong).await;
        assert_eq!(socket.closed().await, Closed(Some(1002)), "{wrong}");
    }
    socket.send("4still").await;
    assert_eq!(socket.text().await, "4still");
}

#[tokio::test]
async fn an_upgrade_loses_nothing() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    session.post("4one\u{1e}bAQID").await;
    let mut socket = server.websocket(Some(&session.sid)).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    // Polling goes on meanwhile.
    assert_eq!(session.poll().await.body, "4one\u{1e}bAQID");
    // A poll with nothing to get is answered with nothing.
    assert_eq!(session.poll().await.body, "6");
    session.post("4two\u{1e}bBAUG").await;
    socket.send("5").await;
    assert_eq!(socket.text().await, "4two");
    assert_eq!(socket.bytes().await, [4, 5, 6]);
    socket.send("4hello").await;
    assert_eq!(socket.text().await, "4hello");
    // Its polls are over.
    assert_eq!(session.poll().await.status, 400);
    assert_eq!(session.post("4a").await.status, 400);
    // As is a second WebSocket, which the library wants accepted and closed.
    let mut second = server.websocket(Some(&session.sid)).await;
    assert_eq!(second.closed().await, Closed(Some(1000)));
    socket.send("4again").await;
    assert_eq!(socket.text().await, "4again");
    assert_eq!(server.server.metrics().upgrades.get(), 1);
}

#[tokio::test]
async fn an_upgrade_in_one_go() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    let mut socket = server.websocket(Some(&session.sid)).await;
    socket.send("2probe").await;
    socket.send("5").await;
    // Whether it comes before the packet or behind it.
    assert_eq!(session.poll().await.status, 400);
    let mut second = server.websocket(Some(&session.sid)).await;
    assert_eq!(second.closed().await, Closed(Some(1000)));
    socket.send("4hello").await;
    assert_eq!(socket.text().await, "3probe");
    assert_eq!(socket.text().await, "4hello");
}

#[tokio::test]
async fn an_upgrade_that_fails_leaves_the_polls() {
    let server = TestServer::start(Config {
        upgrade_timeout: Duration::from_millis(20),
        ..echo()
    })
    .await;
    let session = server.open().await;
    for wrong in [
        &["4hello"][..],
        &["2"],
        &["5"],
        &["2probe", "4hello"],
        &["2probe", "2probe"],
    ] {
        let mut socket = loop {
            let mut socket = server.websocket(Some(&session.sid)).await;
            socket.send(wrong[0]).await;
            // The one before may still be there.
            match socket.next().await {
                Err(Closed(Some(1000))) => continue,
                Ok(_) if wrong.len() > 1 => socket.send(wrong[1]).await,
                Ok(_) | Err(_) => {}
            }
            break socket;
        };
        socket.closed().await;
        assert_eq!(session.post("4a").await.status, 200, "{wrong:?}");
        let mut body = session.poll().await.body;
        while body == "6" {
            body = session.poll().await.body;
        }
        assert_eq!(body, "4a");
    }
    // It takes too long.
    let mut socket = server.websocket(Some(&session.sid)).await;
    socket.closed().await;
    assert_eq!(session.post("4b").await.status, 200);
    assert_eq!(session.poll().await.body, "4b");
}

#[tokio::test]
async fn unknown_sessions_get_no_websocket() {
    let server = TestServer::start(echo()).await;
    let refused = server.try_websocket(Some("unknown")).await;
    let Err(tungstenite::Error::Http(refused)) = refused.map(|_| ()) else {
        panic!("it was accepted");
    };
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn pings_come_after_the_interval_and_are_answered() {
    let server = TestServer::start(Config {
        ping_interval: Duration::from_millis(10),
        ..echo()
    })
    .await;
    let session = server.open().await;
    let mut socket = server.opened().await;
    for _ in 0..3 {
        assert_eq!(session.poll().await.body, "2");
        assert_eq!(session.post("3").await.status, 200);
        assert_eq!(socket.text().await, "2");
        socket.send("3").await;
    }
}

#[tokio::test]
async fn who_answers_no_ping_is_gone() {
    let server = TestServer::start(Config {
        ping_interval: Duration::from_millis(20),
        ping_timeout: Duration::from_millis(20),
        ..echo()
    })
    .await;
    let session = server.open().await;
    within(async {
        while server.server.metrics().ping_timeouts.get() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(session.poll().await.status, 400);
    assert_eq!(session.post("3").await.status, 400);
    let mut socket = server.opened().await;
    assert_eq!(socket.text().await, "2");
    assert_eq!(socket.closed().await, Closed(Some(1008)));
    within(async {
        while server.server.metrics().sessions.get() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.server.metrics().ping_timeouts.get(), 2);
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let server = TestServer::start(echo()).await;
    let session = server.open().await;
    session.post("4a").await;
    assert_eq!(session.poll().await.body, "4a");
    let waiting = session.begin_poll().await;
    let mut socket = server.opened().await;
    // The poll is there when a second one would end it; a message shows that the WebSocket is.
    socket.send("4b").await;
    assert_eq!(socket.text().await, "4b");
    let address = server.address;
    server.bus.begin_close();
    assert_eq!(socket.closed().await, Closed(Some(1001)));
    let waited = within(waiting.answer()).await;
    assert!(
        matches!((waited.status, waited.body.as_str()), (200, "1") | (400, _)),
        "{waited:?}"
    );
    within(server.server.closed()).await;
    let late = Pending::send(address, "GET", "EIO=4&transport=polling&sid=x", "", "").await;
    assert_eq!(within(late.answer()).await.status, 400);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let server = TestServer::start(Config {
        max_sessions: 2,
        ..echo()
    })
    .await;
    let _first = server.open().await;
    let mut second = server.opened().await;
    assert_eq!(server.get("EIO=4&transport=polling").await.status, 503);
    second.send("1").await;
    second.closed().await;
    within(async { while server.get("EIO=4&transport=polling").await.status == 503 {} }).await;
}

#[tokio::test]
async fn pages_of_other_origins() {
    let server = TestServer::start(echo()).await;
    let query = "EIO=4&transport=polling";
    let foreign = server
        .request_with("GET", query, "Origin: https://other.example\r\n", "")
        .await;
    assert_eq!(foreign.status, 403);
    // It may read why, and no more.
    assert!(
        foreign
            .head
            .contains("access-control-allow-origin: https://other.example")
    );
    assert!(!foreign.head.contains("access-control-allow-credentials"));
    assert!(
        foreign
            .head
            .contains("403 forbidden: start latchbus with --allow-origins https://other.example")
    );
    let asked = "Origin: https://other.example\r\nAccess-Control-Request-Method: POST\r\n";
    let preflight = server.request_with("OPTIONS", query, asked, "").await;
    assert_eq!(preflight.status, 403, "and may send nothing");
    let allowed = server
        .request_with("GET", query, "Origin: https://page.example\r\n", "")
        .await;
    assert_eq!(allowed.status, 200);
    assert!(
        allowed
            .head
            .contains("access-control-allow-origin: https://page.example")
    );
    assert!(
        allowed
            .head
            .contains("access-control-allow-credentials: true")
    );
    assert!(!allowed.head.contains("set-cookie"));
    let headers = "Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-mine\r\n";
    let preflight = server.request_with("OPTIONS", query, headers, "").await;
    assert_eq!(preflight.status, 204);
    assert!(
        preflight
            .head
            .contains("access-control-allow-headers: x-mine")
    );
    assert!(
        preflight
            .head
            .contains("access-control-allow-methods: get, post")
    );
}

#[tokio::test]
async fn the_node_begins_the_session_id() {
    let server = TestServer::start(Config {
        node: "b2".to_owned(),
        ..echo()
    })
    .await;
    assert!(server.open().await.sid.starts_with("b2."));
}
