//! rumqttc over WebSocket, in either version of MQTT, against the server that `LATCHBUS` names. The last line says how
//! many checks passed and failed.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};

use tokio::time::timeout;

#[path = "../../../deadline.rs"]
mod deadline;
use deadline::DEADLINE;

/// A server in memory, on ports of the system's choice; it ends with this.
struct Server {
    child: Child,
    http: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let program = std::env::var("LATCHBUS").expect("LATCHBUS names a server");
        let mut child = Command::new(program)
            .args([
                "--ephemeral",
                "--http",
                "127.0.0.1:0",
                "--mqtt",
                "127.0.0.1:0",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let http = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http="));
        let http = http.expect("an address").parse().expect("an address");
        Self { child, http }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn prepare_3(options: &mut rumqttc::MqttOptions, persistent: bool) {
    options.set_clean_session(!persistent);
    options.set_max_packet_size(1 << 20, 1 << 20);
}

fn prepare_5(options: &mut rumqttc::v5::MqttOptions, persistent: bool) {
    options.set_clean_start(!persistent);
    options.set_session_expiry_interval(persistent.then_some(100));
    options.set_max_packet_size(Some(1 << 20));
}

macro_rules! over_web_socket {
    ($name:ident, $client:path, $options:path, $event:path, $packet:path, $qos:path, $will:expr, $prepare:path) => {
        async fn $name() {
            use $client as Client;
            use $event as Event;
            use $packet as Packet;
            use $qos as QoS;

            let server = Server::start();
            let options = |id: &str| {
                let url = format!("ws://{}/mqtt", server.http);
                let mut options = <$options>::new(id, url, server.http.port());
                options.set_transport(rumqttc::Transport::Ws);
                options.set_keep_alive(Duration::from_secs(5));
                $prepare(&mut options, id == "kept");
                options
            };
            macro_rules! until {
                ($events:ident, $wanted:pat => $found:expr) => {
                    timeout(DEADLINE, async {
                        loop {
                            if let Event::Incoming($wanted) = $events.poll().await.unwrap() {
                                break $found;
                            }
                        }
                    })
                    .await
                    .unwrap()
                };
            }

            // A session that outlives its connection, and a will.
            let mut persistent = options("kept");
            persistent.set_last_will($will);
            let (kept, mut events) = Client::new(persistent.clone(), 10);
            kept.subscribe("r/#", QoS::ExactlyOnce).await.unwrap();
            until!(events, Packet::SubAck(_) => ());

            let (client, mut other) = Client::new(options("other"), 100);
            client.subscribe("will", QoS::AtMostOnce).await.unwrap();
            until!(other, Packet::SubAck(_) => ());
            // Without DISCONNECT.
            drop((kept, events));
            let will = until!(other, Packet::Publish(publish) => publish.payload);
            assert_eq!(will, "gone");

            // In several frames, and with each quality of service.
            let large = "x".repeat(50_000);
            for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                .into_iter()
                .enumerate()
            {
                let retain = number == 2;
                let payload = format!("{number}{}", if retain { "" } else { &large });
                (client.publish("r/x", qos, retain, payload).await).unwrap();
            }
            until!(other, Packet::PubComp(_) => ());

            let (_again, mut events) = Client::new(persistent, 10);
            let mut waited = Vec::new();
            while waited.last() != Some(&b'2') {
                let payload = until!(events, Packet::Publish(publish) => publish.payload);
                assert!(payload.len() == 1 || payload.len() == 50_001);
                waited.extend(payload.first());
            }
            assert!(waited.ends_with(b"12"), "{waited:?}");
            until!(events, Packet::PubRel(_) => ());

            let (late, mut events) = Client::new(options("late"), 10);
            late.subscribe("r/#", QoS::AtMostOnce).await.unwrap();
            let (payload, retain) =
                until!(events, Packet::Publish(publish) => (publish.payload, publish.retain));
            assert_eq!((&*payload, retain), (&b"2"[..], true));
        }
    };
}

over_web_socket!(
    rumqttc_3_1_1_over_web_socket,
    rumqttc::AsyncClient,
    rumqttc::MqttOptions,
    rumqttc::Event,
    rumqttc::Packet,
    rumqttc::QoS,
    rumqttc::LastWill::new("will", "gone", rumqttc::QoS::AtLeastOnce, false),
    prepare_3
);

over_web_socket!(
    rumqttc_5_over_web_socket,
    rumqttc::v5::AsyncClient,
    rumqttc::v5::MqttOptions,
    rumqttc::v5::Event,
    rumqttc::v5::Incoming,
    rumqttc::v5::mqttbytes::QoS,
    rumqttc::v5::mqttbytes::v5::LastWill::new(
        "will",
        "gone",
        rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
        false,
        None
    ),
    prepare_5
);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let checks = [
        tokio::spawn(rumqttc_3_1_1_over_web_socket()),
        tokio::spawn(rumqttc_5_over_web_socket()),
    ];
    let (mut passed, mut failed) = (0, 0);
    for check in checks {
        // What it panicked with stands in the output already.
        match check.await {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
