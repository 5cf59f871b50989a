//! The same as `sizes` from the other side, to be measured: a hub of 16 kept values of 24 bytes and 4 subscriptions that serves others over a byte
//! link, and the counter of a device. Where bytes come from and go to is one register each.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // two registers

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use latchbus_core::clicks::{ClickTopic, Color, Counter};
use latchbus_core::hub::{FixedHub, Kind, Retain, Start, Step, SubscriptionId};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, ClientFrame, ErrorCode, LinkDecoder, ServerFrame};
use {latchbus_firmware as _, nrf51_pac as _};

const TOPIC_BYTES: usize = 24;
const VALUE_BYTES: usize = 24;
const SUBSCRIPTIONS: usize = 4;

/// A publish with the longest topic and value.
const MESSAGE_BYTES: usize =
    2 + 6 + 1 + TOPIC_BYTES + 1 + VALUE_BYTES + 1 + wire::LINK_CHECKSUM_BYTES;
/// A message with the longest topic and value.
const FRAME_BYTES: usize = wire::max_link_bytes(2 + 6 + 1 + TOPIC_BYTES + 1 + VALUE_BYTES + 20);

type Hub = latchbus_core::fixed_hub! {
    retained: 16,
    tombstones: 1,
    recent: 1,
    subscriptions: SUBSCRIPTIONS,
    topic_bytes: TOPIC_BYTES,
    payload_bytes: VALUE_BYTES,
};

const RECEIVED: *const u32 = 0x4000_2518 as *const u32;
const SENT: *mut u32 = 0x4000_251c as *mut u32;

#[entry]
fn main() -> ! {
    static mut HUB: Hub = FixedHub::new(0);
    static mut DECODER: LinkDecoder<MESSAGE_BYTES> = LinkDecoder::new();
    static mut SUBSCRIBED: [Option<(u64, SubscriptionId)>; SUBSCRIPTIONS] = [None; SUBSCRIPTIONS];
    static mut CLICKS: Counter = Counter::ZERO;
    let mut at = 0;
    loop {
        // SAFETY: the UART's received byte.
        let byte = unsafe { RECEIVED.read_volatile() } as u8;
        at += 1;
        if let (Some(message), _) = DECODER.feed(&[byte]) {
            match wire::decode_client(message) {
                Ok(frame) => serve(frame, HUB, SUBSCRIBED, CLICKS, at),
                Err(_) => send(&ServerFrame::Error {
                    id: None,
                    code: ErrorCode::BadMessage,
                    message: "",
                }),
            }
        }
        for (id, subscription) in SUBSCRIBED.iter().flatten() {
            let id = *id;
            match HUB.next(*subscription) {
                Ok(Some(Step::Entry { entry, .. })) if entry.kind == Kind::Cleared => {
                    send(&ServerFrame::Cleared {
                        id,
                        topic: entry.topic.as_str(),
                        rev: entry.rev,
                        at: entry.at,
                    });
                }
                Ok(Some(Step::Entry { entry, .. })) => send(&ServerFrame::Message {
                    id,
                    topic: entry.topic.as_str(),
                    payload: entry.payload,
                    rev: entry.rev,
                    at: entry.at,
                }),
                Ok(Some(Step::Synced { cursor })) => send(&ServerFrame::Synced { id, cursor }),
                Ok(Some(Step::Gap { missed })) => send(&ServerFrame::Gap { id, missed }),
                Ok(Some(Step::Reset)) => send(&ServerFrame::Reset { id }),
                Ok(None) | Err(_) => {}
            }
        }
    }
}

fn serve(
    frame: ClientFrame<'_>,
    hub: &mut Hub,
    subscribed: &mut [Option<(u64, SubscriptionId)>; SUBSCRIPTIONS],
    clicks: &mut Counter,
    at: u64,
) {
    let refused = |id, code| {
        send(&ServerFrame::Error {
            id,
            code,
            message: "",
        });
    };
    match frame {
        ClientFrame::Subscribe {
            id,
            filter,
            mode,
            since,
            ..
        } => {
            let Ok(filter) = TopicFilter::parse(filter) else {
                return refused(Some(id), ErrorCode::InvalidFilter);
            };
            let start = since.map_or(Start::Snapshot, Start::Resume);
            let place = subscribed.iter_mut().find(|place| place.is_none());
            match (hub.subscribe(filter, mode, start), place) {
                (Ok(subscription), Some(place)) => *place = Some((id, subscription)),
                _ => refused(Some(id), ErrorCode::Full),
            }
        }
        ClientFrame::Unsubscribe { id } => {
            for place in subscribed {
                if let Some((_, subscription)) = place.take_if(|(own, _)| *own == id) {
                    let _ended = hub.unsubscribe(subscription);
                }
            }
        }
        ClientFrame::Publish {
            id,
            topic,
            payload,
            retain,
        } => {
            // A count that comes by, and a click of this device's own.
            if let Some(ClickTopic::Values { .. }) = ClickTopic::recognise(topic)
                && let Ok(counter) = Counter::parse(payload)
            {
                *clicks = clicks.join(counter);
            }
            clicks.add(Color::Red, 1);
            let Ok(topic) = TopicName::parse(topic) else {
                return refused(id, ErrorCode::InvalidTopic);
            };
            let accepted = match (retain, payload) {
                (true, []) => hub.clear(topic, at).map(|rev| rev.unwrap_or_default()),
                (true, _) => hub.publish(topic, payload, Retain::LAST, at),
                (false, _) => hub.publish(topic, payload, Retain::No, at),
            };
            match (accepted, id) {
                (Ok(rev), Some(id)) => send(&ServerFrame::Ack { id, rev }),
                (Ok(_), None) => {}
                (Err(_), id) => refused(id, ErrorCode::Full),
            }
            let mut own = [0; Counter::MAX_POSTCARD_BYTES];
            if let (Some(own), Ok(topic)) = (
                clicks.encode_postcard(&mut own),
                TopicName::parse("clicks/own"),
            ) {
                let _kept = hub.publish(topic, own, Retain::LAST, at);
            }
        }
        ClientFrame::Ping { id } => send(&ServerFrame::Pong { id }),
    }
}

#[inline(never)]
fn send(frame: &ServerFrame<'_>) {
    let mut out = [0; FRAME_BYTES];
    if let Ok(bytes) = wire::encode_link(frame, &mut out) {
        for byte in bytes {
            // SAFETY: the UART's byte to send.
            unsafe { SENT.write_volatile((*byte).into()) };
        }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
