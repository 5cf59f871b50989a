//! Through the same proxy: presses with an id, and, as a control, bare ones.

use std::sync::Arc;

use latchbus_core::clicks::Counter;
use latchbus_tests::bench::recv;
use latchbus_tests::chaos::{Counts, Proxy};
use latchbus_tests::program::Server;
use latchbus_tests::transport::{Connect, Incoming, Peer, Publish, Subscribe};
use latchbus_tests::transports::{Json, MqttPeer, WebSocketPeer};

const PRESSES: u64 = 20;

/// Makes presses through a proxy that doubles each publish; what the room shows then.
async fn pressed(payload: impl Fn(u64) -> String) -> u64 {
    let server = Server::ephemeral().await;
    let counts = Arc::new(Counts::default());
    let proxy = Proxy::start(server.mqtt, 7, Arc::clone(&counts)).await;
    proxy.duplicate(1.0);
    let mut kiosk = MqttPeer::<4>::open(proxy.address, Connect::named("kiosk-1")).await;
    for n in 1..=PRESSES {
        let press = payload(n);
        let press = Publish::event(n, "clicks/main/kiosk-1/press", press.as_bytes());
        kiosk.publish(press).await;
        // Once: the proxy keeps the other acknowledgement.
        assert_eq!(recv(&mut kiosk).await, Incoming::Acked(n));
    }
    // In the order of the connection behind all of them, the last copy included.
    kiosk.publish(Publish::event(PRESSES + 1, "end", b"")).await;
    assert_eq!(recv(&mut kiosk).await, Incoming::Acked(PRESSES + 1));
    assert_eq!(counts.duplicates.total(), PRESSES + 1);

    let mut observer = WebSocketPeer::<Json>::open(server.http, false).await;
    observer
        .subscribe(Subscribe::to(1, "clicks/main/values"))
        .await;
    let Incoming::Message(values) = recv(&mut observer).await else {
        panic!("no value");
    };
    Counter::parse(&values.payload).unwrap().total()
}

#[tokio::test]
async fn presses_with_an_id_that_come_twice_count_once() {
    let counted = pressed(|n| format!(r#"{{"color":"red","id":"{n}"}}"#)).await;
    assert_eq!(counted, PRESSES);
}

/// Were this test to fail, the others would prove nothing.
#[tokio::test]
async fn control_bare_presses_that_come_twice_count_twice() {
    assert_eq!(pressed(|_| "red".to_owned()).await, 2 * PRESSES);
}
