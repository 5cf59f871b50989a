//! rust_socketio, over polls, over WebSocket and with the upgrade, against latchbus.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rust_socketio::client::Client;
use rust_socketio::{ClientBuilder, Payload, TransportType};
use serde_json::{Value, json};

#[path = "../../../deadline.rs"]
mod deadline;
use deadline::DEADLINE;

/// A server, which ends with it.
struct Server(Child, String);

impl Server {
    fn start() -> Self {
        let program = std::env::var("LATCHBUS").expect("LATCHBUS names the server");
        let mut child = Command::new(program)
            .args(["--ephemeral", "--http", "127.0.0.1:0", "--mqtt", "off"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out)
            .read_line(&mut line)
            .expect("the ready line");
        let address = line
            .split("http=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        Self(
            child,
            format!("http://{}/", address.expect("the ready line")),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an event brings: its arguments, or its bytes.
#[derive(Debug, PartialEq)]
enum Came {
    Values(Vec<Value>),
    Bytes(Vec<u8>),
}

fn came(payload: Payload) -> Came {
    match payload {
        Payload::Text(values) => Came::Values(values),
        Payload::Binary(bytes) => Came::Bytes(bytes.to_vec()),
        #[allow(deprecated)]
        Payload::String(text) => Came::Values(vec![json!(text)]),
    }
}

fn connect(server: &Server, transport: TransportType) -> (Client, Receiver<(String, Came)>) {
    let (sender, events) = channel();
    let mut builder = ClientBuilder::new(server.1.as_str()).transport_type(transport);
    for name in ["clickValues", "message", "synced"] {
        let sender = sender.clone();
        builder = builder.on(name, move |payload, _| {
            let _ = sender.send((name.to_owned(), came(payload)));
        });
    }
    (builder.connect().expect("it connects"), events)
}

fn next(events: &Receiver<(String, Came)>, wanted: &str) -> Came {
    loop {
        let (name, came) = events.recv_timeout(DEADLINE).expect("an event");
        if name == wanted {
            return came;
        }
    }
}

/// Waits until an event brings this as its first argument.
fn first(events: &Receiver<(String, Came)>, wanted: &str, expected: &Value) {
    loop {
        if let Came::Values(values) = next(events, wanted)
            && values.first() == Some(expected)
        {
            return;
        }
    }
}

fn ack(client: &Client, event: &str, data: Payload) -> Value {
    let (sender, answers) = channel();
    client
        .emit_with_ack(event, data, Duration::from_secs(60), move |payload, _| {
            if let Came::Values(values) = came(payload) {
                let _ = sender.send(values);
            }
        })
        .expect("it is sent");
    let answer = answers.recv_timeout(DEADLINE).expect("an answer");
    // It comes as the list of arguments.
    match answer.into_iter().next() {
        Some(Value::Array(values)) => values.into_iter().next().unwrap_or_default(),
        other => other.unwrap_or_default(),
    }
}

fn check(transport: TransportType) {
    let server = Server::start();
    let (client, events) = connect(&server, transport.clone());
    first(&events, "clickValues", &json!({"red": 0, "blue": 0}));
    client
        .emit("redClicked", Payload::Text(vec![]))
        .expect("it is sent");
    first(&events, "clickValues", &json!({"red": 1, "blue": 0}));
    // Counted once.
    for _ in 0..3 {
        let id = Payload::Text(vec![json!("the same")]);
        assert!(ack(&client, "blueClicked", id)["rev"].is_u64());
    }
    first(&events, "clickValues", &json!({"red": 1, "blue": 1}));
    let filter = Payload::Text(vec![json!("lab/#")]);
    assert_eq!(ack(&client, "subscribe", filter), json!({}));
    next(&events, "synced");
    let state = vec![
        json!("lab/temp"),
        json!({"c": 21.5}),
        json!({"retain": true}),
    ];
    let rev = ack(&client, "publish", Payload::Text(state))["rev"].clone();
    let Came::Values(message) = next(&events, "message") else {
        panic!("no values");
    };
    assert_eq!(message[..2], [json!("lab/temp"), json!({"c": 21.5})]);
    assert_eq!(message[2]["rev"], rev);
    let refused = vec![json!("clicks/main/values"), json!(1)];
    let refused = ack(&client, "publish", Payload::Text(refused));
    assert_eq!(refused["error"]["code"], "not_allowed");
    let (late, events) = connect(&server, transport);
    first(&events, "clickValues", &json!({"red": 1, "blue": 1}));
    late.disconnect().expect("it goes");
    client.disconnect().expect("it goes");
}

fn main() {
    let (mut passed, mut failed) = (0, 0);
    for (name, transport) in [
        ("polls", TransportType::Polling),
        ("websocket", TransportType::Websocket),
        ("upgrade", TransportType::WebsocketUpgrade),
        ("any", TransportType::Any),
    ] {
        match std::panic::catch_unwind(|| check(transport)) {
            Ok(()) => {
                passed += 1;
                println!("ok     {name}");
            }
            Err(_) => {
                failed += 1;
                println!("FAILED {name}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
