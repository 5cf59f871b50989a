//! Every promise over a byte link, on a clean line and on one that carries each frame damaged before it carries it
//! whole; and clicks over a line that really loses.

// Helpers of tests are tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use core::marker::PhantomData;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use fastrand::Rng;
use latchbus_bus::{Bus, Options};
use latchbus_core::clicks::{Color, Counter};
use latchbus_core::topic::TopicName;
use latchbus_core::wire::{
    self, ClientFrame, ErrorCode, LINK_CHECKSUM_BYTES, LinkDecoder, ServerFrame, max_link_bytes,
};
use latchbus_serial::MAX_MESSAGE_BYTES;
use latchbus_tests::transport::{
    Connect, End, Incoming, Message, Peer, Publish, Subscribe, Transport, Verdict, Words, Wrong,
};
use latchbus_tests::{conformance, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// Whether a line damages frames.
trait Quality: Send + Sync + 'static {
    const DAMAGES: bool;
}

#[derive(Debug)]
struct Clean;

impl Quality for Clean {
    const DAMAGES: bool = false;
}

/// What goes over it comes first with bytes lost, changed or repeated, or as noise, and then as it is.
#[derive(Debug)]
struct Noisy;

impl Quality for Noisy {
    const DAMAGES: bool = true;
}

/// Byte links over TCP.
#[derive(Debug)]
struct Serial<Q> {
    address: SocketAddr,
    accepts: JoinHandle<()>,
    links: TaskTracker,
    quality: PhantomData<Q>,
}

#[derive(Debug)]
struct SerialPeer<Q> {
    stream: TcpStream,
    decoder: Box<LinkDecoder<{ MAX_MESSAGE_BYTES + LINK_CHECKSUM_BYTES }>>,
    /// Decoded, and not yet told.
    incoming: VecDeque<Incoming>,
    rng: Rng,
    /// The next complaint is about something wrong that the test has sent, and not about the line.
    complaints_told: bool,
    quality: PhantomData<Q>,
}

impl<Q: Quality> Transport for Serial<Q> {
    type Peer = SerialPeer<Q>;

    const WORDS: Words = Words::ALL;

    async fn serve(bus: Bus) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let links = TaskTracker::new();
        let tracker = links.clone();
        let accepts = tokio::spawn(async move {
            let closing = bus.closing();
            loop {
                let stream = tokio::select! {
                    () = closing.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                stream.set_nodelay(true).unwrap();
                let bus = bus.clone();
                tracker.spawn(async move {
                    latchbus_serial::serve_stream(&bus, stream, "test").await;
                });
            }
        });
        Self {
            address,
            accepts,
            links,
            quality: PhantomData,
        }
    }

    async fn connect(&self, connect: Connect<'_>) -> SerialPeer<Q> {
        let socket = TcpSocket::new_v4().unwrap();
        if connect.narrow {
            // Before connecting, so that the window is never larger. The kernel doubles it.
            socket.set_recv_buffer_size(8 << 10).unwrap();
        }
        let stream = socket.connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        SerialPeer {
            stream,
            decoder: Box::default(),
            incoming: VecDeque::new(),
            rng: Rng::with_seed(7),
            complaints_told: false,
            quality: PhantomData,
        }
    }

    async fn ended(self) {
        self.accepts.await.unwrap();
        self.links.close();
        self.links.wait().await;
    }

    fn verdict(wrong: Wrong) -> Verdict {
        Verdict::Told(match wrong {
            Wrong::Message | Wrong::Text | Wrong::Frame => ErrorCode::BadMessage,
            Wrong::LongFrame => ErrorCode::TooLarge,
        })
    }
}

impl<Q: Quality> SerialPeer<Q> {
    async fn send(&mut self, frame: &ClientFrame<'_>) {
        let mut out = vec![0; max_link_bytes(2 * MAX_MESSAGE_BYTES)];
        let frame = wire::encode_link(frame, &mut out).unwrap();
        if Q::DAMAGES {
            let damaged = damaged(frame, &mut self.rng);
            self.send_raw(&damaged).await;
        }
        self.send_raw(frame).await;
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        // That the connection has ended is told by `recv`.
        let _ended = self.stream.write_all(bytes).await;
    }

    fn hear(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (message, behind) = self.decoder.feed(rest);
            rest = behind;
            let Some(message) = message else { continue };
            match incoming(&wire::decode_server(message).unwrap()) {
                // A complaint about what was damaged.
                Some(Incoming::Refused(None, ErrorCode::BadMessage))
                    if Q::DAMAGES && !core::mem::take(&mut self.complaints_told) => {}
                Some(incoming) => self.incoming.push_back(incoming),
                None => {}
            }
        }
    }
}

/// The frame with a byte lost, changed or repeated, and a delimiter behind it, so that the next one is whole.
fn damaged(frame: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    // Not the delimiter: a frame without its own is one with the next, and then that would be lost.
    let at = rng.usize(..bytes.len() - 1);
    match rng.u8(0..3) {
        0 => drop(bytes.remove(at)),
        1 => bytes[at] ^= 1 << rng.u8(0..8),
        _ => bytes.insert(at, bytes[at]),
    }
    bytes.push(0);
    bytes
}

fn incoming(frame: &ServerFrame<'_>) -> Option<Incoming> {
    Some(match *frame {
        ServerFrame::Welcome { .. } => return None,
        ServerFrame::Message {
            id,
            topic,
            payload,
            rev,
            ..
        } => Incoming::Message(message(id, topic, payload, rev, false)),
        ServerFrame::Cleared { id, topic, rev, .. } => {
            Incoming::Message(message(id, topic, &[], rev, true))
        }
        ServerFrame::Synced { id, cursor } => Incoming::Synced(id, cursor),
        ServerFrame::Gap { id, missed } => Incoming::Gap(id, missed),
        ServerFrame::Reset { id } => Incoming::Reset(id),
        ServerFrame::Ack { id, .. } => Incoming::Acked(id),
        ServerFrame::Error { id, code, .. } => Incoming::Refused(id, code),
        ServerFrame::Pong { id } => panic!("nobody asked for pong {id}"),
    })
}

fn message(id: u64, topic: &str, payload: &[u8], rev: u64, cleared: bool) -> Message {
    Message {
        subscription: Some(id),
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        cleared,
        rev: Some(rev),
        retained: None,
        again: false,
    }
}

impl<Q: Quality> Peer for SerialPeer<Q> {
    async fn subscribe(&mut self, subscribe: Subscribe<'_>) {
        self.send(&ClientFrame::Subscribe {
            id: subscribe.id,
            filter: subscribe.filter,
            mode: subscribe.mode,
            max_rate: None,
            since: subscribe.since,
        })
        .await;
    }

    async fn unsubscribe(&mut self, id: u64) {
        self.send(&ClientFrame::Unsubscribe { id }).await;
    }

    async fn publish(&mut self, publish: Publish<'_>) {
        self.send(&ClientFrame::Publish {
            id: publish.id,
            topic: publish.topic,
            payload: publish.payload,
            retain: publish.retain,
        })
        .await;
    }

    async fn send_wrong(&mut self, wrong: Wrong) {
        let mut out = [0; 64];
        let bytes = match wrong {
            Wrong::Message => wire::wrap_link(&[&[wire::VERSION, 0x7f]], &mut out)
                .unwrap()
                .to_vec(),
            // An unacknowledged publish to a topic of two bytes.
            Wrong::Text => {
                let publish = [wire::VERSION, 2, 0, 2, 0xff, 0xfe, 0, 1];
                wire::wrap_link(&[&publish], &mut out).unwrap().to_vec()
            }
            Wrong::Frame => b"\x05noise\xff\x00".to_vec(),
            Wrong::LongFrame => {
                let mut bytes = vec![b'x'; 2 * MAX_MESSAGE_BYTES];
                bytes.push(0);
                bytes
            }
        };
        self.complaints_told = wrong != Wrong::LongFrame;
        self.send_raw(&bytes).await;
    }

    async fn recv(&mut self) -> Incoming {
        let mut bytes = [0; 4096];
        loop {
            if let Some(incoming) = self.incoming.pop_front() {
                return incoming;
            }
            match self.stream.read(&mut bytes).await {
                Ok(read @ 1..) => self.hear(&bytes[..read]),
                // Nothing that a device does ends its link, so that an end is the server's.
                Ok(0) => return Incoming::Ended(End::GoingAway),
                Err(_) => return Incoming::Ended(End::Silent),
            }
        }
    }

    async fn leave(mut self) {
        let _ended = self.stream.shutdown().await;
        let mut bytes = [0; 4096];
        while let Ok(1..) = self.stream.read(&mut bytes).await {}
    }

    fn cut(self) {}
}

conformance!(serial, Serial<Clean>);
conformance!(serial_with_noise, Serial<Noisy>);

/// Of so many bytes one is lost, one changed and one repeated.
const BYTES_TO_A_FAULT: u32 = 200;

/// Carries bytes one way, and not all of them.
async fn lose(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut rng: Rng,
) {
    let mut bytes = [0; 64];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let mut out = Vec::new();
        for byte in &bytes[..read] {
            match rng.u32(0..BYTES_TO_A_FAULT) {
                0 => {}
                1 => out.push(byte ^ 1 << rng.u8(0..8)),
                2 => out.extend([*byte; 2]),
                _ => out.push(*byte),
            }
        }
        if to.write_all(&out).await.is_err() {
            return;
        }
    }
    // Whether the other end is still there makes no difference.
    let _gone = to.shutdown().await;
}

/// A device that sends its count again until it is acknowledged, as the click model asks of it.
async fn click(mut line: DuplexStream, clicks: u64) {
    const TOPIC: &str = "clicks/main/bad-line/count/1-0badcafe";
    let mut decoder = LinkDecoder::<256>::default();
    let mut made = Counter::ZERO;
    let mut acked = 0;
    while acked < clicks {
        if made.total() < clicks {
            made.add(Color::Red, 1);
        }
        let (mut payload, mut out) = ([0; Counter::MAX_POSTCARD_BYTES], [0; 128]);
        let publish = ClientFrame::Publish {
            id: Some(made.total()),
            topic: TOPIC,
            payload: made.encode_postcard(&mut payload).unwrap(),
            retain: true,
        };
        let frame = wire::encode_link(&publish, &mut out).unwrap();
        line.write_all(frame).await.unwrap();
        let mut bytes = [0; 64];
        let heard = tokio::time::timeout(Duration::from_millis(20), line.read(&mut bytes)).await;
        let mut rest = &bytes[..heard.map_or(0, Result::unwrap)];
        while !rest.is_empty() {
            let (message, behind) = decoder.feed(rest);
            if let Some(Ok(ServerFrame::Ack { id, .. })) = message.map(wire::decode_server) {
                acked = acked.max(id);
            }
            rest = behind;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clicks_over_a_line_that_loses_bytes_are_counted_once() {
    const CLICKS: u64 = 2_000;
    for seed in 0..8 {
        let bus = Bus::open(Options::default()).unwrap();
        let (device, near) = duplex(256);
        let (far, port) = duplex(256);
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        let up = tokio::spawn(lose(near_read, far_write, Rng::with_seed(seed)));
        let down = tokio::spawn(lose(far_read, near_write, Rng::with_seed(!seed)));
        let served = {
            let bus = bus.clone();
            tokio::spawn(async move { latchbus_serial::serve_stream(&bus, port, "test").await })
        };
        click(device, CLICKS).await;
        let values = TopicName::parse("clicks/main/values").unwrap();
        let values = bus.last(values).unwrap();
        let values = Counter::parse(values.payload.bytes()).unwrap();
        assert_eq!(values, Counter::new(CLICKS, 0), "seed {seed}");
        // The device has gone.
        within("the line ends", up).await.unwrap();
        let (counts, _) = within("the link ends", served).await.unwrap();
        assert!(counts.corrupt > 0, "the line was not bad: {counts:?}");
        down.abort();
        bus.close().await;
    }
}
