//! What sessions take of the hub.

use core::{cmp::Reverse, sync::atomic::Ordering};
use std::collections::BinaryHeap;
use std::sync::Arc;

use latchbus_core::hub::{Entry, Kind, Step, SubscriptionId, Upcoming};

use super::{Batch, Shared, State};
use crate::clock::Clock;
use crate::wake::{Wake, lock};
use crate::{Delivery, Payload};

/// Subscriptions of one session that have news, or may have: the revision before which they have none, their key, and
/// their id.
pub(crate) type InOrder = BinaryHeap<Reverse<(u64, u64, SubscriptionId)>>;

/// A batch ends with the message that brings its payloads to so many bytes: a link buffers a batch, whose messages may
/// be large.
const BATCH_BYTES: usize = 256 << 10;

/// Looks at subscriptions under one lock.
const LOOKED_AT_IN_ORDER: usize = 1_024;

impl Shared {
    /// Takes up to `most` steps of a subscription under one lock, and of a paced one, which is in mode
    /// `latest`, none that is newer than `until`. When it has taken all there is, it is put on the waiting
    /// list in the same moment, so that no publish can slip between. Also returns the hub's revision.
    pub(crate) fn take(
        &self,
        id: SubscriptionId,
        (most, until): (usize, Option<u64>),
        (wake, key): (&Wake, u64),
        mut taken: impl FnMut(Step<Delivery>),
    ) -> (Batch, u64) {
        let mut state = lock(&self.state);
        let revision = state.hub.revision();
        let mut bytes = 0;
        for _ in 0..most {
            let next = match until {
                Some(until) => state.hub.next_in_batch(id, until),
                None => state.hub.next_up_to(id, u64::MAX),
            };
            match next {
                Ok(Upcoming::Step(step)) => {
                    if let Some(step) = state.unexpired(step, &self.clock) {
                        bytes += payload_bytes(&step);
                        taken(step);
                    }
                    if bytes >= BATCH_BYTES {
                        break;
                    }
                }
                Ok(Upcoming::Later(_)) => return (Batch::Complete, revision),
                Ok(Upcoming::Nothing) => {
                    state.wait(wake, key, id);
                    return (Batch::Waiting, revision);
                }
                Err(_) => return (Batch::Ended, revision),
            }
        }
        (Batch::More, revision)
    }

    /// Takes up to `most` steps of several subscriptions of one session under one lock, in the order of the hub, and
    /// none that is newer than `to`. Those that have all there is are put on the waiting list; these, and those that
    /// have ended, are told to `done`.
    pub(crate) fn take_in_order(
        &self,
        subscriptions: &mut InOrder,
        (most, to): (usize, u64),
        wake: &Wake,
        mut taken: impl FnMut(u64, Step<Delivery>),
        mut done: impl FnMut(u64, SubscriptionId),
    ) {
        let mut state = lock(&self.state);
        let (mut count, mut looked, mut bytes) = (0, 0, 0);
        while count < most
            && looked < LOOKED_AT_IN_ORDER
            && let Some(Reverse((at, key, id))) = subscriptions.peek().copied()
            && at <= to
        {
            subscriptions.pop();
            // As long as no other comes first.
            let other = subscriptions.peek().map_or(to, |Reverse((at, ..))| *at);
            while count < most {
                looked += 1;
                match state.hub.next_up_to(id, other.min(to)) {
                    Ok(Upcoming::Step(step)) => {
                        count += 1;
                        if let Some(step) = state.unexpired(step, &self.clock) {
                            bytes += payload_bytes(&step);
                            taken(key, step);
                        }
                        if bytes >= BATCH_BYTES {
                            count = most;
                        }
                        if count == most {
                            subscriptions.push(Reverse((at, key, id)));
                        }
                    }
                    Ok(Upcoming::Later(rev)) => {
                        subscriptions.push(Reverse((rev, key, id)));
                        break;
                    }
                    Ok(Upcoming::Nothing) => {
                        state.wait(wake, key, id);
                        done(key, id);
                        break;
                    }
                    Err(_) => {
                        done(key, id);
                        break;
                    }
                }
            }
        }
    }

    /// Up to which revision everybody whom the changes concern has been woken: what is newer may still be on its way
    /// to some of a session's subscriptions.
    pub(crate) fn announced(&self) -> u64 {
        let state = lock(&self.state);
        match self.announcing.load(Ordering::Acquire) {
            0 => state.hub.revision(),
            _ => state.announced,
        }
    }
}

impl State {
    /// A step as it is to be delivered. Nothing is left of an entry whose time is over, unless somebody may have an older
    /// value: that there is none is told now and not with the clear that follows, before which `synced` may come.
    fn unexpired(&mut self, step: Step<Delivery>, clock: &Clock) -> Option<Step<Delivery>> {
        match step {
            Step::Entry { entry, retained } if self.drops_expired(&entry, clock) => {
                (!retained && self.is_last(&entry)).then(|| Step::Entry {
                    entry: expiry_of(&entry),
                    retained: false,
                })
            }
            step => Some(step),
        }
    }

    /// Whether it is what its topic keeps.
    fn is_last(&self, entry: &Delivery) -> bool {
        let last = self.hub.last(entry.topic.borrowed());
        last.is_some_and(|last| last.rev == entry.rev)
    }
}

fn payload_bytes(step: &Step<Delivery>) -> usize {
    match step {
        Step::Entry { entry, .. } => entry.payload.bytes().len(),
        _ => 0,
    }
}

/// The clear that stands for a value whose time is over.
fn expiry_of(value: &Delivery) -> Delivery {
    Arc::new(Entry {
        rev: value.rev,
        at: value.at,
        kind: Kind::Cleared,
        topic: value.topic.clone(),
        payload: Payload::expiry(),
    })
}
