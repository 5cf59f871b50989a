//! A device's connection, over bytes with MQTT or over whole messages, as its state machine needs it.

use core::time::Duration;

use bytes::BytesMut;
use latchbus_bus::memory::MemoryPeer;
use latchbus_bus::{Event, Publish, Request, Subscribe};
use latchbus_core::clicks::{ClickTopic, Counter, FloorRecord};
use latchbus_core::hub::{Mode, Start};
use latchbus_core::topic::TopicFilter;
use latchbus_device::device::{Heard, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep_until};

use crate::bench::topic_name;
use crate::transports::mqtt_packet::{self as packet, Packet};

/// A link that loses messages: what is not acknowledged in this time is sent again.
const AGAIN: Duration = Duration::from_secs(4);

/// How long it waits to be told what the server knew.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// What a link tells.
#[derive(Debug)]
pub(super) enum Told {
    /// All that the server knew of the device has been told.
    Ready,
    Heard(Heard),
    /// The report in flight.
    Acknowledged(Report),
    /// It may not have arrived.
    Again,
    /// Something else.
    Nothing,
    /// The connection has ended.
    Lost,
}

#[derive(Debug)]
pub(super) enum Link {
    Mqtt(Mqtt),
    Messages(Messages),
}

#[derive(Debug)]
pub(super) struct Mqtt {
    stream: DuplexStream,
    incoming: BytesMut,
    outgoing: Vec<u8>,
    /// `clicks/<room>/<device>`
    base: String,
    next_id: u16,
    in_flight: Option<(u16, Report)>,
}

#[derive(Debug)]
pub(super) struct Messages {
    peer: MemoryPeer,
    next_id: u64,
    outgoing: Vec<Request>,
    in_flight: Option<(u64, Report, Instant)>,
    told_by: Option<Instant>,
}

impl Link {
    pub(super) fn mqtt(stream: DuplexStream, base: String, client_id: &str) -> Self {
        Self::Mqtt(Mqtt {
            stream,
            incoming: BytesMut::new(),
            outgoing: packet::connect(4, client_id, false),
            base,
            next_id: 1,
            in_flight: None,
        })
    }

    pub(super) fn messages(peer: MemoryPeer, base: &str) -> Self {
        let subscribe = Subscribe {
            id: 1,
            filter: TopicFilter::parse(format!("{base}/#")).unwrap(),
            mode: Mode::Latest,
            start: Start::Snapshot,
            pace: None,
            group: None,
            durable: false,
            waits: false,
        };
        Self::Messages(Messages {
            peer,
            next_id: 2,
            outgoing: vec![Request::Subscribe {
                id: 1,
                subscriptions: vec![subscribe],
            }],
            in_flight: None,
            told_by: Some(Instant::now() + TOLD_WITHIN),
        })
    }

    /// Whether a report is on its way.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Mqtt(link) => link.in_flight.is_some(),
            Self::Messages(link) => link.in_flight.is_some(),
        }
    }

    /// Puts a report on its way, one at a time.
    pub(super) fn report(&mut self, report: Report) {
        match self {
            Self::Mqtt(link) => {
                let id = link.id();
                let payload = report.counter.to_string();
                let message = (report.topic.as_bytes(), payload.as_bytes());
                let bytes = packet::publish(4, message, Some(id), true, false);
                link.outgoing.extend_from_slice(&bytes);
                link.in_flight = Some((id, report));
            }
            Self::Messages(link) => {
                link.next_id += 1;
                let id = link.next_id;
                let publish = Publish::state(topic_name(&report.topic), report.counter.to_string());
                link.outgoing.push(Request::Publish {
                    id: Some(id),
                    publish,
                });
                link.in_flight = Some((id, report, Instant::now() + AGAIN));
            }
        }
    }

    /// Sends what there is to send; false when the connection has ended.
    pub(super) async fn flush(&mut self) -> bool {
        match self {
            Self::Mqtt(link) => {
                let outgoing = core::mem::take(&mut link.outgoing);
                link.stream.write_all(&outgoing).await.is_ok()
            }
            Self::Messages(link) => {
                for request in core::mem::take(&mut link.outgoing) {
                    if link.peer.requests.send(request).await.is_err() {
                        return false;
                    }
                }
                true
            }
        }
    }

    /// What it tells next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Told {
        match self {
            Self::Mqtt(link) => link.next().await,
            Self::Messages(link) => link.next().await,
        }
    }
}

impl Mqtt {
    async fn next(&mut self) -> Told {
        loop {
            if let Some(packet) = packet::take(4, &mut self.incoming) {
                return self.take(packet);
            }
            if !matches!(self.stream.read_buf(&mut self.incoming).await, Ok(1..)) {
                return Told::Lost;
            }
        }
    }

    fn take(&mut self, packet: Packet) -> Told {
        match packet {
            Packet::Connack { code: 0, .. } => {
                let (subscribe, status) = (self.id(), self.id());
                let filter = format!("{}/#", self.base);
                self.outgoing
                    .extend_from_slice(&packet::subscribe(4, subscribe, &filter));
                // Behind the subscription: when it comes back, all that was retained has come.
                let topic = format!("{}/status", self.base);
                let message = (topic.as_bytes(), b"online".as_slice());
                let status = packet::publish(4, message, Some(status), true, false);
                self.outgoing.extend_from_slice(&status);
                Told::Nothing
            }
            Packet::Publish(published) => {
                if published.qos == 1 {
                    self.outgoing
                        .extend_from_slice(&packet::ack(0x40, published.id));
                }
                let is_own_status = published.topic.ends_with("/status");
                if is_own_status && !published.retain {
                    return Told::Ready;
                }
                heard(&published.topic, &published.payload)
            }
            Packet::Puback { id, .. } => match self.in_flight.take_if(|(sent, _)| *sent == id) {
                Some((_, report)) => Told::Acknowledged(report),
                None => Told::Nothing,
            },
            Packet::Suback { .. } => Told::Nothing,
            other => panic!("{other:?}"),
        }
    }

    fn id(&mut self) -> u16 {
        self.next_id = self.next_id % u16::MAX + 1;
        self.next_id
    }
}

impl Messages {
    async fn next(&mut self) -> Told {
        let again = self.in_flight.as_ref().map(|(.., at)| *at);
        tokio::select! {
            biased;
            event = self.peer.events.recv() => match event {
                Ok(event) => self.take(event),
                Err(_) => Told::Lost,
            },
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                self.in_flight = None;
                Told::Again
            }
            () = sleep_until(self.told_by.unwrap_or_else(Instant::now)), if self.told_by.is_some() => {
                self.told_by = None;
                Told::Ready
            }
        }
    }

    fn take(&mut self, event: Event) -> Told {
        match event {
            Event::Published { id, .. } => match self.in_flight.take_if(|(sent, ..)| *sent == id) {
                Some((_, report, _)) => Told::Acknowledged(report),
                None => Told::Nothing,
            },
            Event::Message { delivery, .. } => {
                heard(delivery.topic.as_str(), delivery.payload.bytes())
            }
            Event::Synced { .. } if self.told_by.take().is_some() => Told::Ready,
            Event::Refused { refused, .. } => panic!("{refused}"),
            _ => Told::Nothing,
        }
    }
}

fn heard(topic: &str, payload: &[u8]) -> Told {
    let heard = match ClickTopic::parse(topic).unwrap() {
        Some(ClickTopic::Count { incarnation, .. }) => {
            let counter = Counter::parse(payload);
            counter
                .ok()
                .map(|counter| Heard::Count(incarnation, counter))
        }
        Some(ClickTopic::Floor { .. }) => {
            let record = FloorRecord::parse(payload);
            record.ok().map(|record| Heard::Floor(record.floor))
        }
        _ => None,
    };
    heard.map_or(Told::Nothing, Told::Heard)
}
