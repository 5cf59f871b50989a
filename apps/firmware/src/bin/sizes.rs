//! Nothing but the core, as a device with a link uses it, to be measured: a hub of 16 kept values of 24 bytes and 4
//! subscriptions, messages over the link both ways, and a counter of clicks. Where bytes come from and go to is one
//! register each.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // two registers

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use latchbus_core::clicks::{Color, Counter};
use latchbus_core::hub::{FixedHub, Mode, Retain, Start, Step, SubscriptionId};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, ClientFrame, LinkDecoder, ServerFrame};
use {latchbus_firmware as _, nrf51_pac as _};

const TOPIC_BYTES: usize = 24;
const VALUE_BYTES: usize = 24;

/// A message with the longest topic and value, and numbers of usual size.
const MESSAGE_BYTES: usize = 2 + 2 + 1 + TOPIC_BYTES + 1 + VALUE_BYTES + 5 + 6;

type Hub = latchbus_core::fixed_hub! {
    retained: 16,
    tombstones: 1,
    recent: 1,
    subscriptions: 4,
    topic_bytes: TOPIC_BYTES,
    payload_bytes: VALUE_BYTES,
};

const RECEIVED: *const u32 = 0x4000_2518 as *const u32;
const SENT: *mut u32 = 0x4000_251c as *mut u32;
const PRESSED: *const u32 = 0x5000_0510 as *const u32;

#[entry]
fn main() -> ! {
    static mut HUB: Hub = FixedHub::new(0);
    static mut DECODER: LinkDecoder<{ MESSAGE_BYTES + wire::LINK_CHECKSUM_BYTES }> =
        LinkDecoder::new();
    static mut CLICKS: Counter = Counter::ZERO;
    let subscriptions =
        ["clicks/own", "clicks/+/values", "lab/#", "$SYS/#"].map(|filter| subscribe(HUB, filter));
    let mut at = 0;
    loop {
        at += 1;
        // SAFETY: the UART's received byte.
        let byte = unsafe { RECEIVED.read_volatile() } as u8;
        if let (Some(message), _) = DECODER.feed(&[byte])
            && let Ok(frame) = wire::decode_server(message)
        {
            hear(frame, HUB, at);
        }
        // SAFETY: the pins.
        if unsafe { PRESSED.read_volatile() } & 1 != 0 {
            CLICKS.add(Color::Red, 1);
            let mut own = [0; Counter::MAX_POSTCARD_BYTES];
            if let Some(own) = CLICKS.encode_postcard(&mut own) {
                publish(HUB, "clicks/own", own, Retain::LAST, at);
            }
        }
        for id in subscriptions.iter().flatten() {
            if let Ok(Some(Step::Entry { entry, .. })) = HUB.next(*id) {
                send(&ClientFrame::Publish {
                    id: Some(CLICKS.total()),
                    topic: entry.topic.as_str(),
                    payload: entry.payload,
                    retain: true,
                });
            }
        }
    }
}

fn subscribe(hub: &mut Hub, filter: &str) -> Option<SubscriptionId> {
    send(&ClientFrame::Subscribe {
        id: 1,
        filter,
        mode: Mode::Latest,
        max_rate: None,
        since: None,
    });
    let filter = TopicFilter::parse(filter).ok()?;
    hub.subscribe(filter, Mode::Latest, Start::Snapshot).ok()
}

fn hear(frame: ServerFrame<'_>, hub: &mut Hub, at: u64) {
    match frame {
        ServerFrame::Message { topic, payload, .. } => {
            publish(hub, topic, payload, Retain::LAST, at);
        }
        ServerFrame::Ack { id, .. } => publish(hub, "acked", &id.to_le_bytes(), Retain::No, at),
        ServerFrame::Error { id: None, .. } => send(&ClientFrame::Ping { id: at }),
        _ => {}
    }
}

#[inline(never)]
fn publish(hub: &mut Hub, topic: &str, payload: &[u8], retain: Retain, at: u64) {
    if let Ok(topic) = TopicName::parse(topic) {
        let _kept = hub.publish(topic, payload, retain, at);
    }
}

#[inline(never)]
fn send(frame: &ClientFrame<'_>) {
    let mut out = [0; wire::max_link_bytes(MESSAGE_BYTES)];
    for byte in wire::encode_link(frame, &mut out).unwrap_or_default() {
        // SAFETY: the UART's byte to send.
        unsafe { SENT.write_volatile((*byte).into()) };
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
