//! What reaches a server, over both transports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test, a panic is the report"
)]

mod support;

use latchbus_bus::Publish;
use latchbus_core::clicks::Counter;
use latchbus_core::topic::{TopicFilter, TopicName};
use support::{Kiosk, Server, complaint, eventually, run, within};

const STATUS: &str = "clicks/main/k1/status";

fn urls(server: &Server) -> [String; 2] {
    [server.mqtt_url(), server.ws_url()]
}

#[tokio::test]
async fn clicks_are_acknowledged_and_the_status_is_shown() {
    let server = Server::start().await;
    let mut score = Counter::ZERO;
    for url in urls(&server) {
        let kiosk = Kiosk::new("k1", &url);
        let mut running = kiosk.start(&[]);
        running.write("red 3\nblue\n").await;
        score = score.saturating_add(Counter::new(3, 1));
        server.has("clicks/main/values", &score.to_string()).await;
        server.has(STATUS, "online").await;
        running.succeeds().await;
        assert_eq!(server.last(STATUS).as_deref(), Some("offline"));

        // Again with the same state: nothing new.
        let output = run(kiosk.program(&[]), "").await;
        assert!(output.status.success());
        assert_eq!(server.score(), score);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_signal_is_like_the_end_of_the_input() {
    let server = Server::start().await;
    for (url, red) in urls(&server).iter().zip([1, 2]) {
        let kiosk = Kiosk::new("k1", url);
        let mut running = kiosk.start(&[]);
        running.write("red\n").await;
        kiosk.has_stored(Counter::new(1, 0)).await;
        running.terminate().await;
        let (status, said) = running.ended().await;
        assert_eq!(status.code(), Some(0), "{said}");
        assert_eq!(server.score(), Counter::new(red, 0));
        assert_eq!(server.last(STATUS).as_deref(), Some("offline"));
    }
    server.stop().await;
}

#[tokio::test]
async fn the_will_of_a_killed_device_is_published() {
    let server = Server::start().await;
    let kiosk = Kiosk::new("k1", &server.mqtt_url());
    let running = kiosk.start(&[]);
    server.has(STATUS, "online").await;
    running.kill().await;
    server.has(STATUS, "offline").await;
    let running = kiosk.start(&[]);
    server.has(STATUS, "online").await;
    running.succeeds().await;
    server.stop().await;
}

#[tokio::test]
async fn a_device_that_is_there_contradicts_who_says_otherwise() {
    let server = Server::start().await;
    for url in urls(&server) {
        let kiosk = Kiosk::new("k1", &url);
        let mut running = kiosk.start(&[]);
        running.write("red\n").await;
        server.has(STATUS, "online").await;
        let is_counted =
            async || (!server.bus.kept(filter("clicks/main/k1/count/+")).is_empty()).then_some(());
        eventually("it has spoken", is_counted).await;
        let status = TopicName::parse(STATUS.to_owned()).unwrap();
        let offline = server.bus.publish(Publish::state(status, "offline")).await;
        offline.unwrap();
        server.has(STATUS, "online").await;
        running.succeeds().await;
    }
    server.stop().await;
}

fn filter(text: &str) -> TopicFilter<&str> {
    TopicFilter::parse(text).unwrap()
}

#[tokio::test]
async fn clicks_made_offline_arrive_once_when_the_server_is_back() {
    for over_ws in [false, true] {
        let store = tempfile::tempdir().unwrap();
        let server = Server::start_with(store.path(), None).await;
        let ports = (server.mqtt, server.ws);
        let [mqtt, ws] = urls(&server);
        let kiosk = Kiosk::new("k1", if over_ws { &ws } else { &mqtt });
        let mut running = kiosk.start(&[]);
        running.write("red 2\n").await;
        server
            .has("clicks/main/values", r#"{"red":2,"blue":0}"#)
            .await;
        server.stop().await;

        running.write("blue 5\nred\n").await;
        kiosk.has_stored(Counter::new(3, 5)).await;
        let server = Server::start_with(store.path(), Some(ports)).await;
        server
            .has("clicks/main/values", r#"{"red":3,"blue":5}"#)
            .await;
        server.has(STATUS, "online").await;
        running.write("red\n").await;
        running.succeeds().await;
        assert_eq!(server.score(), Counter::new(4, 5));
        let counts = server.bus.kept(filter("clicks/main/k1/count/+"));
        assert_eq!(counts.len(), 1, "one incarnation");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_has_forgotten_learns_the_count_again() {
    for over_ws in [false, true] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let server = Server::start_with(one.path(), None).await;
        let ports = (server.mqtt, server.ws);
        let [mqtt, ws] = urls(&server);
        let kiosk = Kiosk::new("k1", if over_ws { &ws } else { &mqtt });
        let mut running = kiosk.start(&[]);
        running.write("red 2\n").await;
        server
            .has("clicks/main/values", r#"{"red":2,"blue":0}"#)
            .await;
        server.stop().await;
        let server = Server::start_with(two.path(), Some(ports)).await;
        server
            .has("clicks/main/values", r#"{"red":2,"blue":0}"#)
            .await;
        running.succeeds().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn without_a_server_the_status_is_1_and_the_next_start_delivers() {
    let server = Server::start().await;
    let [mqtt, ws] = urls(&server);
    let mut kiosk = Kiosk::new("k1", support::NOWHERE);
    for nowhere in [support::NOWHERE, "ws://127.0.0.1:1/ws"] {
        nowhere.clone_into(&mut kiosk.url);
        let output = run(
            kiosk.program(&["--timeout", "50ms", "--log", "off"]),
            "red\n",
        )
        .await;
        assert!(complaint(&output).contains("no connection"));
        assert_eq!(output.status.code(), Some(1));
    }
    for url in [mqtt, ws] {
        kiosk.url = url;
        let output = run(kiosk.program(&[]), "").await;
        assert!(output.status.success());
        assert_eq!(server.score(), Counter::new(2, 0));
    }
    server.stop().await;
}

/// The demonstration: two devices over two transports, killed and started again in between.
#[tokio::test]
async fn killed_simulations_make_exactly_their_clicks() {
    let server = Server::start().await;
    let [mqtt, ws] = urls(&server);
    let kiosks = [Kiosk::new("k1", &mqtt), Kiosk::new("k2", &ws)];
    let flags = ["--simulate", "500", "--count", "500", "--seed", "7"];
    let simulate = async |kiosk: &Kiosk| {
        for enough in [1, 150, 300] {
            let running = kiosk.start(&flags);
            eventually("it clicks", async || {
                (kiosk.stored()?.total() >= enough).then_some(())
            })
            .await;
            running.kill().await;
        }
        kiosk.start(&flags).succeeds().await;
    };
    let [k1, k2] = &kiosks;
    tokio::join!(simulate(k1), simulate(k2));
    assert_eq!(server.score().total(), 1_000);
    assert_eq!(k1.stored(), k2.stored(), "the same seed, the same colours");

    // Acknowledged: the next start is a new run.
    k1.start(&flags).succeeds().await;
    assert_eq!(server.score().total(), 1_500);
    server.stop().await;
}

#[tokio::test]
async fn the_score_is_printed_when_it_changes() {
    let server = Server::start().await;
    for (url, red) in urls(&server).iter().zip([2, 4]) {
        let kiosk = Kiosk::new("k1", url);
        let mut running = kiosk.start(&["--watch"]);
        let line = |red, blue| format!(r#"{{"room":"main","red":{red},"blue":{blue}}}"#);
        assert_eq!(running.line().await, line(red - 2, red - 2));
        running.write("red 2\n").await;
        assert_eq!(running.line().await, line(red, red - 2));
        let press = TopicName::parse("clicks/main/other/press".to_owned()).unwrap();
        let press = server.bus.publish(Publish::event(press, "blue 2")).await;
        press.unwrap();
        assert_eq!(running.line().await, line(red, red));
        running.succeeds().await;
    }
    // Its own clicks are printed before the end.
    for (url, room) in urls(&server).iter().zip(["one", "two"]) {
        let kiosk = Kiosk::new("k2", url);
        let output = run(kiosk.program(&["--watch", "--room", room]), "blue 3\n").await;
        let printed = String::from_utf8(output.stdout).unwrap();
        let line = format!(r#"{{"room":"{room}","red":0,"blue":3}}"#);
        assert_eq!(printed.lines().last(), Some(line.as_str()));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_device_that_was_folded_goes_on_with_what_was_never_sent() {
    for over_ws in [false, true] {
        let server = Server::start().await;
        let [mqtt, ws] = urls(&server);
        let mut kiosk = Kiosk::new("k1", if over_ws { &ws } else { &mqtt });
        kiosk.start_and_count(&server, "red 10\n").await;
        // Offline.
        let url = core::mem::replace(&mut kiosk.url, support::NOWHERE.to_owned());
        let flags = ["--timeout", "0s", "--log", "off"];
        let output = run(kiosk.program(&flags), "blue 4\n").await;
        assert_eq!(output.status.code(), Some(1));
        // Another device with this id has booted often meanwhile.
        let count = TopicName::parse("clicks/main/k1/count/20-00000001".to_owned()).unwrap();
        let count = server
            .bus
            .publish(Publish::state(count, r#"{"red":1,"blue":0}"#));
        count.await.unwrap();
        assert!(server.last("clicks/main/k1/floor").is_some());

        kiosk.url = url;
        let output = run(kiosk.program(&[]), "blue 1\n").await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(server.score(), Counter::new(11, 5));
        assert_eq!(kiosk.stored(), Some(Counter::new(0, 5)));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_device_that_lost_its_state_takes_the_next_boot() {
    let server = Server::start().await;
    for (url, boot) in urls(&server).iter().zip([2, 3]) {
        let count = |boot| format!("clicks/main/k1/count/{boot}-00000001");
        let topic = TopicName::parse(count(boot - 1)).unwrap();
        let known = server
            .bus
            .publish(Publish::state(topic, r#"{"red":1,"blue":0}"#));
        known.await.unwrap();
        let kiosk = Kiosk::new("k1", url);
        let output = run(kiosk.program(&[]), "blue 1\n").await;
        assert!(output.status.success(), "{output:?}");
        let state = std::fs::read_to_string(kiosk.state()).unwrap();
        assert!(state.contains(&format!(r#""boot":{boot},"#)), "{state}");
    }
    assert_eq!(server.score(), Counter::new(2, 2));
    server.stop().await;
}

#[tokio::test]
async fn two_copies_of_a_state_file_are_both_counted() {
    let server = Server::start().await;
    for (url, room) in urls(&server).iter().zip(["one", "two"]) {
        let flags = ["--room", room];
        let original = Kiosk::new("k1", url);
        let clicks = async |kiosk: &Kiosk, lines: &str| {
            let output = run(kiosk.program(&flags), lines).await;
            assert!(output.status.success(), "{output:?}");
            server.last(&format!("clicks/{room}/values")).unwrap()
        };
        clicks(&original, "red 4\n").await;
        let copy = Kiosk::new("k1", url);
        std::fs::copy(original.state(), copy.state()).unwrap();
        clicks(&copy, "red 5\n").await;
        let score = clicks(&original, "red 5\n").await;
        assert_eq!(score, r#"{"red":14,"blue":0}"#);
        // They stay apart.
        clicks(&copy, "blue 1\n").await;
        let score = clicks(&original, "blue 1\n").await;
        assert_eq!(score, r#"{"red":14,"blue":2}"#);
    }
    server.stop().await;
}

#[tokio::test]
async fn two_copies_that_run_at_once_are_both_counted() {
    let server = Server::start().await;
    for (url, red) in urls(&server).iter().zip([0, 9]) {
        let original = Kiosk::new("k1", url);
        let output = run(original.program(&[]), "red 2\n").await;
        assert!(output.status.success(), "{output:?}");
        let copy = Kiosk::new("k1", url);
        std::fs::copy(original.state(), copy.state()).unwrap();
        let mut one = original.start(&[]);
        let mut two = copy.start(&[]);
        one.write("red 3\n").await;
        let score = format!(r#"{{"red":{},"blue":0}}"#, red + 5);
        server.has("clicks/main/values", &score).await;
        // The one that hears of it leaves the incarnation to the other.
        copy.has_stored(Counter::ZERO).await;
        two.write("red 4\n").await;
        let score = format!(r#"{{"red":{},"blue":0}}"#, red + 9);
        server.has("clicks/main/values", &score).await;
        one.succeeds().await;
        two.succeeds().await;
        assert_eq!(server.score(), Counter::new(red + 9, 0));
    }
    server.stop().await;
}

#[tokio::test]
async fn many_lines_at_once_arrive_whole() {
    let server = Server::start().await;
    let kiosk = Kiosk::new("k1", &server.mqtt_url());
    let lines = "red\nblue 2\n".repeat(50_000);
    let mut running = kiosk.start(&[]);
    within("the lines are taken", running.write(&lines)).await;
    running.succeeds().await;
    assert_eq!(server.score(), Counter::new(50_000, 100_000));
    server.stop().await;
}

#[tokio::test]
async fn a_refused_count_is_not_acknowledged() {
    let server = Server::start_for(1).await;
    for url in urls(&server) {
        let first = Kiosk::new("k1", &url);
        let output = run(first.program(&[]), "red\n").await;
        assert!(output.status.success(), "{output:?}");
        let second = Kiosk::new("k2", &url);
        let flags = ["--timeout", "1s", "--log", "off"];
        let before = server.bus.metrics().publishes_refused.get();
        let mut running = second.start(&flags);
        running.write("red\n").await;
        // The answer is on its way before the device's time runs out.
        let is_refused =
            async || (server.bus.metrics().publishes_refused.get() > before).then_some(());
        eventually("the count is refused", is_refused).await;
        running.end_input();
        let (status, said) = running.ended().await;
        assert_eq!(status.code(), Some(1), "{said}");
        // MQTT 3.1.1 does not say so.
        let is_told = url.starts_with("ws");
        assert_eq!(said.contains("refused"), is_told, "{said}");
    }
    server.stop().await;
}

impl Kiosk {
    async fn start_and_count(&self, server: &Server, lines: &str) {
        let mut running = self.start(&[]);
        running.write(lines).await;
        running.succeeds().await;
        assert_eq!(server.score(), self.stored().unwrap());
    }
}
