//! The conversation with an MQTT 3.1.1 server over a connection that loses nothing but itself.
//!
//! The device first learns which boot this is: it subscribes to all below its own topic, and publishes a marker
//! there. Retained messages come before the first live one, so at the marker it has seen all of its own. Then it
//! publishes its count with QoS 1, one at a time, and listens to the room's values.

mod packet;

use core::fmt::Write;

use heapless::Vec;
use latchbus_core::clicks::Incarnation;

use crate::boots::Boots;
use crate::button::{Button, Topic};
use crate::entropy::Entropy;
use crate::names::{DEVICE, ROOM};
use packet::{Incoming, Publish, Reader};

/// What a [`Client`] writes at a time.
pub type Output = Vec<u8, 256>;

/// The server is told to take the device for gone after this silence and a half.
const KEEP_ALIVE_MS: u64 = 10_000;

/// An answer that has not come by then does not come on this connection any more.
const PATIENCE_MS: u64 = 4_000;

/// The device shows its count again, whatever was acknowledged.
const REPORT_AGAIN_MS: u64 = 60_000;

/// One side of the connection. On each new connection call [`connected`](Self::connected); then
/// [`receive`](Self::receive) for what comes in and [`poll`](Self::poll) whenever the output is empty. Where
/// [`is_lost`](Self::is_lost), drop the connection and make another.
#[derive(Debug)]
pub struct Client {
    reader: Reader,
    entropy: Entropy,
    boots: Boots,
    step: Step,
    /// Marks the end of what was retained.
    marker: [u8; 4],
    lost: bool,
    heard_at: u64,
    said_at: u64,
    /// The clicks in the publish that waits for its acknowledgement, and since when.
    in_flight: Option<(u64, u64)>,
    acked: Option<u64>,
    report_at: u64,
    packet_id: u16,
}

/// What is to be said next, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    AwaitAccept,
    SubscribeOwn,
    AwaitOwn,
    Mark,
    AwaitMark,
    LeaveOwn,
    SubscribeValues,
    Online,
    Report,
}

impl Client {
    /// A client without a connection.
    pub const fn new() -> Self {
        Self {
            reader: Reader::new(),
            entropy: Entropy::new(0),
            boots: Boots::new(),
            step: Step::Connect,
            marker: [0; 4],
            lost: false,
            heard_at: 0,
            said_at: 0,
            in_flight: None,
            acked: None,
            report_at: 0,
            packet_id: 1,
        }
    }

    /// To be called once, before anything else. `entropy` is what the board knows of chance.
    pub fn begin(&mut self, entropy: Entropy) {
        self.entropy = entropy;
    }

    /// There is a new connection.
    pub fn connected(&mut self, now: u64) {
        self.reader = Reader::new();
        self.step = Step::Connect;
        self.lost = false;
        self.heard_at = now;
        self.in_flight = None;
        // What was sent last may not have arrived.
        self.acked = None;
    }

    /// Takes bytes from the connection. `chance` is whatever is unpredictable about their arrival.
    pub fn receive(&mut self, bytes: &[u8], chance: u32, now: u64, button: &mut Button) {
        self.heard_at = now;
        self.entropy.mix(chance);
        for byte in bytes {
            match self.reader.feed(*byte) {
                None => continue,
                Some(Err(_)) => self.lost = true,
                Some(Ok(Incoming::Accepted)) if self.step == Step::AwaitAccept => {
                    self.step = match button.has_begun() {
                        true => Step::SubscribeValues,
                        false => Step::SubscribeOwn,
                    };
                }
                Some(Ok(Incoming::Subscribed)) if self.step == Step::AwaitOwn => {
                    self.step = Step::Mark;
                }
                Some(Ok(Incoming::Acknowledged { id })) if id == self.packet_id => {
                    if let Some((total, _)) = self.in_flight.take() {
                        self.acked = Some(total);
                        self.report_at = now + REPORT_AGAIN_MS;
                    }
                }
                Some(Ok(Incoming::Publish { topic, payload })) => {
                    if button.has_begun() {
                        button.heard(topic, payload);
                    } else if topic.ends_with("/hello") && *payload == self.marker {
                        if self.step == Step::AwaitMark {
                            self.step = Step::LeaveOwn;
                        }
                    } else {
                        self.boots.found(topic, payload);
                    }
                }
                // A refusal to connect, too, ends in a new attempt.
                Some(Ok(Incoming::Refused)) => self.lost = true,
                Some(Ok(_)) => {}
            }
        }
        if self.step == Step::LeaveOwn && !button.has_begun() {
            // The connection loses nothing, so one walk is enough to be sure.
            self.boots.walked();
            let boot = self.boots.walked();
            let nonce = self.entropy.draw();
            if let Some(incarnation) = boot.and_then(|boot| Incarnation::new(boot, nonce)) {
                button.begin(incarnation);
            }
        }
    }

    /// Writes what is to be said now, if anything, to the empty `out`.
    pub fn poll(&mut self, now: u64, button: &mut Button, out: &mut Output) {
        let waits_since = self.in_flight.map_or(now, |(_, since)| since);
        if now - self.heard_at > 2 * KEEP_ALIVE_MS || now - waits_since > PATIENCE_MS {
            self.lost = true;
        }
        if self.lost || self.say(now, button, out).is_none() {
            // What was begun does not fit, which no names allow for: nothing half said goes out.
            out.clear();
        }
        if !out.is_empty() {
            self.said_at = now;
        }
    }

    /// Whether the connection has to be dropped.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    fn say(&mut self, now: u64, button: &mut Button, out: &mut Output) -> Option<()> {
        let below = |last: &str| {
            let mut topic = Topic::new();
            write!(topic, "clicks/{ROOM}/{DEVICE}/{last}").ok()?;
            Some(topic)
        };
        let next = match self.step {
            Step::Connect => {
                // Each boot is a client of its own, so that none is taken over by the remains of another.
                let mut id = Topic::new();
                write!(id, "{DEVICE}-{:08x}", self.entropy.draw()).ok()?;
                packet::connect(out, &id, &below("status")?, KEEP_ALIVE_MS)?;
                Step::AwaitAccept
            }
            Step::SubscribeOwn => {
                packet::subscribe(out, &below("#")?)?;
                Step::AwaitOwn
            }
            Step::Mark => {
                self.marker = self.entropy.draw().to_be_bytes();
                let hello = below("hello")?;
                packet::publish(out, &Publish::event(&hello, &self.marker))?;
                Step::AwaitMark
            }
            Step::LeaveOwn => {
                packet::unsubscribe(out, &below("#")?)?;
                Step::SubscribeValues
            }
            Step::SubscribeValues => {
                let mut values = Topic::new();
                write!(values, "clicks/{ROOM}/values").ok()?;
                packet::subscribe(out, &values)?;
                Step::Online
            }
            Step::Online => {
                let status = below("status")?;
                packet::publish(out, &Publish::state(&status, b"online", None))?;
                Step::Report
            }
            Step::Report => {
                self.report(now, button, out)?;
                Step::Report
            }
            waiting @ (Step::AwaitAccept | Step::AwaitOwn | Step::AwaitMark) => waiting,
        };
        self.step = next;
        if out.is_empty() && now - self.said_at >= KEEP_ALIVE_MS {
            packet::ping(out)?;
        }
        Some(())
    }

    fn report(&mut self, now: u64, button: &mut Button, out: &mut Output) -> Option<()> {
        let Some(report) = button.report() else {
            return Some(());
        };
        let due = self.acked != Some(report.total) || now >= self.report_at;
        if self.in_flight.is_some() || !due {
            return Some(());
        }
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        self.in_flight = Some((report.total, now));
        let id = Some(self.packet_id);
        packet::publish(out, &Publish::state(report.topic, report.payload, id))
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client says, as long as it says something.
    fn said(client: &mut Client, button: &mut Button) -> std::vec::Vec<Output> {
        let mut all = std::vec::Vec::new();
        loop {
            let mut out = Output::new();
            client.poll(0, button, &mut out);
            if out.is_empty() {
                return all;
            }
            all.push(out);
        }
    }

    fn kinds(packets: &[Output]) -> std::vec::Vec<u8> {
        packets.iter().map(|packet| packet[0]).collect()
    }

    fn published(topic: &str, payload: &[u8]) -> Output {
        let mut out = Output::new();
        packet::publish(&mut out, &Publish::event(topic, payload)).unwrap();
        out
    }

    #[test]
    fn it_learns_its_boot_then_reports_until_acknowledged() {
        let (mut client, mut button) = (Client::new(), Button::new());
        client.connected(0);
        assert_eq!(kinds(&said(&mut client, &mut button)), [0x10]);
        client.receive(&[0x20, 2, 0, 0], 1, 0, &mut button);
        assert_eq!(kinds(&said(&mut client, &mut button)), [0x82]);
        client.receive(&[0x90, 3, 0, 1, 0], 2, 0, &mut button);
        let marker = said(&mut client, &mut button);
        assert_eq!(kinds(&marker), [0x30]);
        let earlier = published("clicks/main/button/count/6-00000000", b"\x01\x01\x01");
        client.receive(&earlier, 3, 0, &mut button);
        assert!(!button.has_begun());
        client.receive(&marker[0], 4, 0, &mut button);
        let rest = said(&mut client, &mut button);
        assert_eq!(kinds(&rest), [0xa2, 0x82, 0x31, 0x33]);
        let topic = button.report().unwrap().topic.to_owned();
        assert!(topic.starts_with("clicks/main/button/count/7-"), "{topic}");

        for _ in 0..4 {
            button.sample([true, false]);
        }
        assert!(said(&mut client, &mut button).is_empty(), "one at a time");
        let id = client.packet_id.to_be_bytes();
        client.receive(&[0x40, 2, id[0], id[1]], 5, 0, &mut button);
        assert_eq!(kinds(&said(&mut client, &mut button)), [0x33]);

        client.connected(0);
        said(&mut client, &mut button);
        client.receive(&[0x20, 2, 0, 0], 6, 0, &mut button);
        let again = said(&mut client, &mut button);
        assert_eq!(
            kinds(&again),
            [0x82, 0x31, 0x33],
            "the same boot, once more"
        );
    }

    #[test]
    fn silence_refusals_and_nonsense_lose_the_connection() {
        let mut button = Button::new();
        for answer in [
            &[0x20, 2, 0, 5][..],
            &[0x00],
            &[0x30, 0xff, 0xff, 0xff, 0xff],
        ] {
            let mut client = Client::new();
            client.connected(0);
            said(&mut client, &mut button);
            client.receive(answer, 0, 0, &mut button);
            assert!(client.is_lost(), "{answer:?}");
        }
        let mut client = Client::new();
        client.connected(0);
        client.poll(2 * KEEP_ALIVE_MS + 1, &mut button, &mut Output::new());
        assert!(client.is_lost());
    }
}
