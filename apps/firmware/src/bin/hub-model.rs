//! A hub that does what it is told over the link, so that the model on the host can be compared with what runs here.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::entry;
use latchbus_core::hub::{BorrowedEntry, FixedHub, Kind, Retain, Start, Step, SubscriptionId};
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_core::wire::{self, LINK_CHECKSUM_BYTES, LinkDecoder, max_link_bytes};
use latchbus_firmware::board::{Board, Hardware};
use latchbus_firmware::operations::{Answer, BOUNDS, EPOCH, MAX_BYTES, Operation};

type Hub = latchbus_core::fixed_hub! {
    retained: BOUNDS[0],
    tombstones: BOUNDS[1],
    recent: BOUNDS[2],
    subscriptions: BOUNDS[3],
    topic_bytes: BOUNDS[4],
    payload_bytes: BOUNDS[5],
};
type Subscriptions = [Option<SubscriptionId>; BOUNDS[3]];

#[entry]
fn main() -> ! {
    static mut HUB: Hub = FixedHub::new(EPOCH);
    static mut SUBSCRIPTIONS: Subscriptions = [None; BOUNDS[3]];
    static mut DECODER: LinkDecoder<{ MAX_BYTES + LINK_CHECKSUM_BYTES }> = LinkDecoder::new();
    let mut board = Board::start();
    loop {
        let Some(byte) = board.receive() else {
            board.sleep_until(u64::MAX >> 24);
            continue;
        };
        if let (Some(message), _) = DECODER.feed(&[byte])
            && let Ok(operation) = postcard::from_bytes(message)
        {
            let answer = perform(operation, HUB, SUBSCRIPTIONS);
            let answer = answer.unwrap_or(Answer::Refused);
            let (mut bytes, mut frame) = ([0; MAX_BYTES], [0; max_link_bytes(MAX_BYTES)]);
            if let Ok(bytes) = postcard::to_slice(&answer, &mut bytes)
                && let Ok(frame) = wire::wrap_link(&[bytes], &mut frame)
            {
                board.send(frame);
            }
        }
    }
}

/// None when a bound, or what is no topic or no subscription, refuses it.
fn perform<'h>(
    operation: Operation<'_>,
    hub: &'h mut Hub,
    subscriptions: &mut Subscriptions,
) -> Option<Answer<'h>> {
    let known = |n: u8| subscriptions.get(usize::from(n)).copied().flatten();
    Some(match operation {
        Operation::Begin => {
            *hub = Hub::new(EPOCH);
            *subscriptions = [None; BOUNDS[3]];
            Answer::Nothing
        }
        Operation::Publish {
            topic,
            payload,
            keep,
            at,
        } => {
            let topic = TopicName::parse(topic).ok()?;
            let retain = keep.map_or(Retain::No, Retain::Last);
            Answer::Revision(hub.publish(topic, payload, retain, at).ok()?)
        }
        Operation::Clear { topic, at } => {
            let cleared = hub.clear(TopicName::parse(topic).ok()?, at).ok()?;
            cleared.map_or(Answer::Nothing, Answer::Revision)
        }
        Operation::Subscribe {
            filter,
            mode,
            start,
        } => {
            let start = match start {
                Ok(cursor) => Start::Resume(cursor),
                Err(true) => Start::Live,
                Err(false) => Start::Snapshot,
            };
            let filter = TopicFilter::parse(filter).ok()?;
            let id = hub.subscribe(filter, mode, start).ok()?;
            let place = subscriptions.iter().position(Option::is_none)?;
            *subscriptions.get_mut(place)? = Some(id);
            Answer::Subscribed(place as u8)
        }
        Operation::Unsubscribe(n) => {
            let id = subscriptions.get_mut(usize::from(n))?.take()?;
            hub.unsubscribe(id).ok()?;
            Answer::Nothing
        }
        Operation::Rewind(n) => {
            hub.rewind(known(n)?).ok()?;
            Answer::Nothing
        }
        Operation::Next(n) => match hub.next(known(n)?).ok()? {
            None => Answer::Nothing,
            Some(Step::Reset) => Answer::Reset,
            Some(Step::Gap { missed }) => Answer::Gap(missed),
            Some(Step::Synced { cursor }) => Answer::Synced(cursor),
            Some(Step::Entry { entry, retained }) => told(entry, retained),
        },
        Operation::Counts(n) => {
            let counts = hub.subscription_counts(known(n)?).ok()?;
            Answer::Counts([counts.taken, counts.conflated, counts.skipped])
        }
        Operation::Last(topic) => match hub.last(TopicName::parse(topic).ok()?) {
            None => Answer::Nothing,
            Some(entry) => told(entry, false),
        },
    })
}

fn told(entry: BorrowedEntry<'_>, retained: bool) -> Answer<'_> {
    Answer::Entry {
        rev: entry.rev,
        at: entry.at,
        kind: match entry.kind {
            Kind::State => 0,
            Kind::Event => 1,
            Kind::Cleared => 2,
        },
        topic: entry.topic.into_inner(),
        payload: entry.payload,
        retained,
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    SCB::sys_reset()
}
