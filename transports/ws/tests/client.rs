//! The client against the real server, and against servers that fail it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test that panics has failed

mod common;

use core::time::Duration;
use std::collections::{BTreeMap, HashMap};

use common::{Proxy, TestServer, within};
use futures_util::{FutureExt, SinkExt, StreamExt};
use latchbus_bus::{
    Authorizer, Bus, Grant, Options as BusOptions, Principal, Publish, PublishRequest,
};
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, ClientFrame, ErrorCode, Limits, ServerFrame};
use latchbus_ws::Protocol;
use latchbus_ws::client::{
    Client, ConnectError, Options, PublishError, State, Subscription, Update,
};
use latchbus_ws::server::Config;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

fn options(protocol: Protocol) -> Options {
    Options {
        protocol,
        backoff: (Duration::from_millis(5), Duration::from_millis(50)),
        ..Options::default()
    }
}

fn connect(url: &str) -> Client {
    Client::connect(url, options(Protocol::Postcard)).unwrap()
}

fn topic(name: &str) -> TopicName<String> {
    TopicName::parse(name.to_owned()).unwrap()
}

fn subscribe(client: &Client, filter: &str, mode: Mode) -> Subscription {
    let filter = TopicFilter::parse(filter.to_owned()).unwrap();
    client.subscribe(filter, mode).unwrap()
}

async fn next(subscription: &mut Subscription) -> Update {
    within(subscription.next()).await.unwrap().unwrap()
}

/// The updates up to `Synced`, as text, which comes last.
async fn until_synced(subscription: &mut Subscription) -> Vec<String> {
    let mut all = vec![];
    loop {
        all.push(match next(subscription).await {
            Update::Message(message) => {
                let payload = String::from_utf8_lossy(&message.payload).into_owned();
                format!("{} {payload}", message.topic)
            }
            Update::Cleared { topic, .. } => format!("{topic} cleared"),
            Update::Gap { missed } => format!("gap {missed}"),
            Update::Reset => "reset".to_owned(),
            Update::Synced { .. } => return all,
        });
    }
}

async fn state(client: &Client, wanted: impl FnMut(&State) -> bool) {
    let mut state = client.state();
    within(state.wait_for(wanted)).await.unwrap();
}

#[tokio::test]
async fn addresses_that_can_never_work() {
    let refused = |url: &str| Client::connect(url, Options::default()).unwrap_err();
    for url in ["http://127.0.0.1/ws", "127.0.0.1:3000", "/ws"] {
        assert!(matches!(refused(url), ConnectError::NotWs), "{url}");
    }
    assert!(matches!(refused("ws://a b"), ConnectError::Url(_)));
    let without_tls = refused("wss://127.0.0.1/ws");
    assert!(matches!(without_tls, ConnectError::NoTls));
}

#[tokio::test]
async fn publish_and_subscribe() {
    let server = TestServer::default().await;
    for protocol in Protocol::ALL {
        let client = Client::connect(&server.url(), options(protocol)).unwrap();
        for payload in [&b"{\"c\":21.5}"[..], b"warm", b"\xff\x00"] {
            let rev = client.publish(topic("lab/t"), payload, true).await.unwrap();
            let last = server.bus.last(topic("lab/t").borrowed()).unwrap();
            assert_eq!((last.rev, &last.payload.bytes()[..]), (rev, payload));

            let mut lab = subscribe(&client, "lab/#", Mode::Latest);
            match next(&mut lab).await {
                Update::Message(message) => {
                    assert_eq!((&*message.topic, message.rev), ("lab/t", rev));
                    assert_eq!(message.payload, payload);
                }
                other => panic!("{other:?}"),
            }
            assert!(matches!(next(&mut lab).await, Update::Synced { .. }));
            // An event is live alone.
            client
                .publish(topic("lab/e"), payload, false)
                .await
                .unwrap();
            assert!(matches!(next(&mut lab).await, Update::Message(m) if m.payload == payload));
            client.publish(topic("lab/t"), "", true).await.unwrap();
            assert!(
                matches!(next(&mut lab).await, Update::Cleared { topic, .. } if topic == "lab/t")
            );
        }
        client.close().await;
        assert_eq!(*client.state().borrow(), State::Closed);
        let late = client.publish(topic("a"), "1", true).await;
        assert_eq!(late, Err(PublishError::Closed));
    }
    server.stop().await;
}

/// Refuses what begins with `no/`.
struct No;

impl Authorizer for No {
    fn authorize_publish(&self, _: &Principal, publish: &PublishRequest<'_>) -> bool {
        !publish.topic.as_str().starts_with("no/")
    }

    fn authorize_subscribe(&self, _: &Principal, filter: TopicFilter<&str>) -> Option<Grant> {
        (!filter.as_str().starts_with("no/")).then(Grant::default)
    }
}

#[tokio::test]
async fn refusals_reach_the_caller() {
    let bus_options = BusOptions {
        authorizer: std::sync::Arc::new(No),
        ..BusOptions::default()
    };
    let server = TestServer::start(bus_options, Config::default()).await;
    for protocol in Protocol::ALL {
        let client = Client::connect(&server.url(), options(protocol)).unwrap();
        let code = |result: Result<u64, PublishError>| match result {
            Err(PublishError::Refused(refused)) => refused.code,
            other => panic!("{other:?}"),
        };
        for retain in [true, false] {
            let refused = client.publish(topic("no/a"), "1", retain).await;
            assert_eq!(code(refused), ErrorCode::NotAllowed);
            let large = vec![0; (1 << 20) + 1];
            let refused = client.publish(topic("a"), large, retain).await;
            assert_eq!(code(refused), ErrorCode::TooLarge);
            let refused = client.publish(topic(&"t".repeat(2000)), "1", retain).await;
            assert_eq!(code(refused), ErrorCode::InvalidTopic);
        }
        // Of set state the watch tells, and newer state is tried again.
        client.set(topic("no/b"), "1").unwrap();
        let mut confirmed = client.confirmed(&topic("no/b")).unwrap();
        let refused = within(confirmed.wait_for(|c| c.refused.is_some())).await;
        assert_eq!(refused.unwrap().payload, None);

        let mut refused = subscribe(&client, "no/#", Mode::Latest);
        let error = within(refused.next()).await.unwrap().unwrap_err();
        assert_eq!(error.0.code, ErrorCode::NotAllowed);
        assert!(within(refused.next()).await.is_none());
        // The connection was never lost.
        client.publish(topic("a"), "1", true).await.unwrap();
        client.close().await;
    }
    assert_eq!(server.bus.metrics().connections_accepted.get(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_cut_is_resumed() {
    let server = TestServer::default().await;
    for protocol in Protocol::ALL {
        let proxy = Proxy::to(server.address).await;
        let client = Client::connect(&proxy.url(), options(protocol)).unwrap();
        for name in ["lab/a", "lab/b"] {
            server
                .bus
                .publish(Publish::state(topic(name), "1"))
                .await
                .unwrap();
        }
        let mut lab = subscribe(&client, "lab/#", Mode::Latest);
        assert_eq!(until_synced(&mut lab).await, ["lab/a 1", "lab/b 1"]);

        for round in 2..5 {
            proxy.cut();
            server
                .bus
                .publish(Publish::state(topic("lab/b"), round.to_string()))
                .await
                .unwrap();
            // It comes once, before or after the new connection has caught up, and nothing else does.
            let expected = format!("lab/b {round}");
            let resumed = until_synced(&mut lab).await;
            if resumed.is_empty() {
                assert!(matches!(next(&mut lab).await, Update::Message(m)
                    if format!("{} {}", m.topic, m.payload.escape_ascii()) == expected));
            } else {
                assert_eq!(resumed, [expected]);
            }
        }
        server
            .bus
            .publish(Publish::state(topic("lab/a"), ""))
            .await
            .unwrap();
        assert!(matches!(next(&mut lab).await, Update::Cleared { .. }));
        server
            .bus
            .publish(Publish::state(topic("lab/b"), ""))
            .await
            .unwrap();
        client.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_begins_anew_is_told_again() {
    let first = TestServer::default().await;
    let address = first.address;
    let client = connect(&first.url());
    client.set(topic("dev/status"), "online").unwrap();
    let mut confirmed = client.confirmed(&topic("dev/status")).unwrap();
    within(confirmed.wait_for(|c| c.payload.is_some()))
        .await
        .unwrap();
    first
        .bus
        .publish(Publish::state(topic("dev/old"), "1"))
        .await
        .unwrap();
    let mut dev = subscribe(&client, "dev/#", Mode::Latest);
    assert_eq!(
        until_synced(&mut dev).await,
        ["dev/status online", "dev/old 1"]
    );
    first.stop().await;
    state(&client, |state| matches!(state, State::Offline { .. })).await;

    // What is set meanwhile is sent afterwards, the newest alone.
    for n in 0..100 {
        client.set(topic("dev/count"), n.to_string()).unwrap();
    }
    let mut counted = client.confirmed(&topic("dev/count")).unwrap();
    let event = client.publish(topic("other/event"), "once", false);
    let bus = Bus::open(BusOptions::default()).unwrap();
    let second = TestServer::start_at(address, bus, Config::default()).await;
    within(event).await.unwrap();
    within(counted.wait_for(|c| c.payload.is_some()))
        .await
        .unwrap();
    assert_eq!(counted.borrow().payload.as_deref(), Some(&b"99"[..]));
    let last = |name: &str| {
        let last = second.bus.last(topic(name).borrowed());
        last.map(|last| last.payload.bytes().clone())
    };
    assert_eq!(last("dev/count").unwrap(), "99");
    assert_eq!(last("dev/status").unwrap(), "online");
    assert_eq!(last("dev/old"), None);

    // The reader is told to forget, and then what there is.
    assert_eq!(next(&mut dev).await, Update::Reset);
    let mut seen = BTreeMap::new();
    while seen.len() < 2 {
        match next(&mut dev).await {
            Update::Message(message) => {
                assert_eq!(seen.insert(message.topic, message.payload), None);
            }
            Update::Synced { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen["dev/count"], "99");
    client.close().await;
    second.stop().await;
}

#[tokio::test]
async fn a_slow_reader_delays_nobody_and_misses_no_last_value() {
    let server = TestServer::default().await;
    for n in 0..1000 {
        let name = format!("many/{n}");
        server
            .bus
            .publish(Publish::state(topic(&name), "old"))
            .await
            .unwrap();
    }
    for protocol in Protocol::ALL {
        let client = Client::connect(
            &server.url(),
            Options {
                max_queue: 16,
                ..options(protocol)
            },
        )
        .unwrap();
        let mut many = subscribe(&client, "many/#", Mode::Latest);
        // While nobody takes what comes in, acknowledgements do come.
        for n in 0..50 {
            let name = format!("many/{n}");
            client.publish(topic(&name), "new", true).await.unwrap();
        }
        let mut last = HashMap::new();
        let mut taken = 0;
        while last.len() < 1000 || last.values().filter(|payload| *payload == "new").count() < 50 {
            if let Update::Message(message) = next(&mut many).await {
                taken += 1;
                last.insert(message.topic, message.payload);
            }
        }
        assert!((1000..=1050).contains(&taken), "{taken}");
        client.close().await;
        for n in 0..50 {
            let name = format!("many/{n}");
            server
                .bus
                .publish(Publish::state(topic(&name), "old"))
                .await
                .unwrap();
        }
    }
    server.stop().await;
}

/// Accepts a connection, as a server of the postcard subprotocol with this epoch.
async fn handshake(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = within(listener.accept()).await.unwrap();
    #[allow(clippy::result_large_err, reason = "the type of the callback")]
    let choose = |_: &Request, mut response: Response| {
        let name = Protocol::Postcard.name().parse().unwrap();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", name);
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(stream, choose)
        .await
        .unwrap()
}

async fn accept(listener: &TcpListener, epoch: u64) -> WebSocketStream<TcpStream> {
    let mut socket = handshake(listener).await;
    let limits = Limits {
        payload_bytes: 100,
        topic_bytes: 100,
        subscriptions: 10,
        in_flight: 2,
    };
    let server = "test";
    tell(
        &mut socket,
        ServerFrame::Welcome {
            server,
            epoch,
            limits,
        },
    )
    .await;
    socket
}

async fn tell(socket: &mut WebSocketStream<TcpStream>, frame: ServerFrame<'_>) {
    let message = Message::binary(wire::encode_vec(&frame).unwrap());
    within(socket.send(message)).await.unwrap();
}

/// The next publish: its id, topic and payload.
async fn told(socket: &mut WebSocketStream<TcpStream>) -> (u64, String, String) {
    loop {
        let Message::Binary(bytes) = within(socket.next()).await.unwrap().unwrap() else {
            continue;
        };
        match wire::decode_client(&bytes).unwrap() {
            ClientFrame::Publish {
                id: Some(id),
                topic,
                payload,
                ..
            } => {
                let payload = String::from_utf8(payload.to_vec()).unwrap();
                return (id, topic.to_owned(), payload);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_event_is_never_sent_twice_and_state_until_it_is_acknowledged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = connect(&format!("ws://{}/ws", listener.local_addr().unwrap()));
    let publish = |name: &str, payload: &'static str, retain| {
        let (client, name) = (client.clone(), topic(name));
        tokio::spawn(async move { client.publish(name, payload, retain).await })
    };
    let mut server = accept(&listener, 1).await;
    let event = publish("e", "once", false);
    assert_eq!(told(&mut server).await.1, "e");
    let state = publish("s", "1", true);
    assert_eq!(told(&mut server).await.2, "1");
    // Both are in flight, and the server takes no third.
    let later = publish("later", "x", false);
    client.set(topic("s"), "2").unwrap();
    client.set(topic("s"), "3").unwrap();
    assert!(server.next().now_or_never().is_none());

    // The acknowledgements are lost.
    drop(server);
    let lost = within(event).await.unwrap();
    assert_eq!(lost, Err(PublishError::Unconfirmed));
    let mut server = accept(&listener, 1).await;
    let (id, name, payload) = told(&mut server).await;
    assert_eq!((&*name, &*payload), ("s", "3"));
    let (later_id, name, _) = told(&mut server).await;
    assert_eq!(name, "later");

    // The newer value's acknowledgement counts for the one that it replaced.
    tell(&mut server, ServerFrame::Ack { id, rev: 7 }).await;
    assert_eq!(within(state).await.unwrap(), Ok(7));
    tell(
        &mut server,
        ServerFrame::Ack {
            id: later_id,
            rev: 8,
        },
    )
    .await;
    assert_eq!(within(later).await.unwrap(), Ok(8));
    drop(server);

    // The same epoch: nothing is owed. A new epoch: the state that the client owns is.
    let mut server = accept(&listener, 1).await;
    let ask = publish("ask", "?", false);
    assert_eq!(told(&mut server).await.1, "ask");
    drop(server);
    assert_eq!(within(ask).await.unwrap(), Err(PublishError::Unconfirmed));
    let mut server = accept(&listener, 2).await;
    assert_eq!(told(&mut server).await.2, "3");
    client.close().await;
}

#[tokio::test]
async fn state_that_finds_no_room_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = connect(&format!("ws://{}/ws", listener.local_addr().unwrap()));
    client.set(topic("s"), "1").unwrap();
    let mut confirmed = client.confirmed(&topic("s")).unwrap();
    let mut server = accept(&listener, 1).await;
    for _ in 0..2 {
        let (id, ..) = told(&mut server).await;
        let full = ServerFrame::Error {
            id: Some(id),
            code: ErrorCode::Full,
            message: "no room",
        };
        tell(&mut server, full).await;
        let refused = within(confirmed.wait_for(|c| c.refused.is_some())).await;
        assert_eq!(refused.unwrap().payload, None);
    }
    let (id, ..) = told(&mut server).await;
    tell(&mut server, ServerFrame::Ack { id, rev: 5 }).await;
    let acknowledged = within(confirmed.wait_for(|c| c.rev == Some(5)))
        .await
        .unwrap();
    assert_eq!(acknowledged.refused, None);
    drop(acknowledged);
    client.close().await;
}

#[tokio::test]
async fn a_server_that_speaks_otherwise_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = connect(&format!("ws://{}/ws", listener.local_addr().unwrap()));
    let mut server = accept(&listener, 1).await;
    state(&client, |state| *state == State::Live).await;
    server.send(Message::binary(vec![9])).await.unwrap();
    state(&client, |state| matches!(state, State::Offline { .. })).await;
    let mut server = accept(&listener, 1).await;
    server.send(Message::text("{}")).await.unwrap();
    state(&client, |state| matches!(state, State::Offline { .. })).await;
    let _server = accept(&listener, 1).await;
    state(&client, |state| *state == State::Live).await;
    client.close().await;
}

/// Servers that say nothing: before the handshake, behind it, and behind the welcome.
#[tokio::test]
async fn a_silent_server_is_said_to_be_silent() {
    let short = Duration::from_millis(50);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let no_answer = Options {
        connect_timeout: short,
        ..options(Protocol::Postcard)
    };
    let client = Client::connect(&url, no_answer).unwrap();
    assert_eq!(why_offline(&client).await, "no answer within 50ms");
    client.close().await;
    drop(listener);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let silent = Options {
        idle_timeout: short,
        ..options(Protocol::Postcard)
    };
    let client = Client::connect(&url, silent).unwrap();
    let _without_welcome = handshake(&listener).await;
    let reason = why_offline(&client).await;
    assert_eq!(reason, "the server was silent for 50ms");

    let _welcomed = accept(&listener, 1).await;
    let reason = why_offline(&client).await;
    assert_eq!(reason, "the server was silent for 50ms");
    client.close().await;
}

async fn why_offline(client: &Client) -> String {
    let mut state = client.state();
    let is_offline = |state: &State| matches!(state, State::Offline { .. });
    match &*within(state.wait_for(is_offline)).await.unwrap() {
        State::Offline { reason, .. } => reason.clone(),
        other => panic!("{other:?}"),
    }
}
