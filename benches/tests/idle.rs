//! What an idle MQTT connection holds of the heap: its task, its session and its subscription, with its share of the tables
//! in which they stand. (Its socket is the kernel's.)

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use core::net::SocketAddr;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use allocation_counter::measure;
use latchbus_bus::{Bus, Options};
use latchbus_mqtt::server::{Config, Server};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The bound, in bytes. A build for release needs less.
const MOST: i64 = 4_900;

fn connect(address: SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut packets = b"\x10\x15\0\x04MQTT\x04\x02\0\x3c\0\x09".to_vec();
    packets.extend_from_slice(format!("idle-{number:04}").as_bytes());
    packets.extend_from_slice(b"\x82\x09\0\x01\0\x04idle\0");
    stream.write_all(&packets).unwrap();
    let mut answers = [0; 9];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!((answers[0], answers[3], answers[4]), (0x20, 0, 0x90));
    stream
}

/// Clients have a thread of their own, whose memory is not counted.
fn connected(runtime: &Runtime, address: SocketAddr, from: usize, to: usize) -> Vec<TcpStream> {
    let (done, connected) = oneshot::channel();
    thread::spawn(move || {
        let all = (from..to).map(|number| connect(address, number)).collect();
        let _ = done.send(all);
    });
    runtime.block_on(connected).unwrap()
}

#[test]
fn an_idle_mqtt_connection_holds_little() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let inside = runtime.enter();
    let bus = Bus::open(Options::default()).unwrap();
    let server = Server::new(bus, Config::default());
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = runtime.spawn(async move { server.serve(listener).await });
    drop(inside);
    // As many as make tables that the next fill: half as many would pay for twice as many places.
    let few = connected(&runtime, address, 0, 24);
    let mut many = Vec::new();
    let held = measure(|| many = connected(&runtime, address, 24, 1_024)).bytes_current;
    let each = held / many.len() as i64;
    assert!((500..=MOST).contains(&each), "{each} bytes a connection");
    drop((few, many, serving));
}
