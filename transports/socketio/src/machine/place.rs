//! Where the client stands in its namespaces.

use latchbus_core::hub::Cursor;

use super::Machine;
use crate::offset::{MAX_NAMED, Offset};

impl Machine {
    /// The place of a subscription may not be that of the others.
    pub(super) fn stands_elsewhere(&mut self, turn: u64, key: u64) {
        if let Some(joined) = self.joined_mut(turn)
            && !joined.elsewhere.contains(&key)
        {
            joined.elsewhere.push(key);
        }
    }

    /// A subscription has brought a message of this revision, or everything up to it.
    pub(super) fn advance(&mut self, key: u64, rev: u64, is_message: bool) {
        let Some(subscription) = self.subscriptions.get_mut(key) else {
            return;
        };
        subscription.position = subscription.position.max(rev);
        let (turn, in_order) = (
            subscription.turn,
            subscription.synced && !subscription.paced,
        );
        // Messages of several subscriptions come in one order when they have no pace: then none that is older is still to come.
        if is_message
            && in_order
            && let Some(joined) = self.joined_mut(turn)
        {
            joined.base = joined.base.max(rev);
        }
    }

    /// Makes the offset that stands at the end of the next event of a namespace.
    pub(super) fn update_offset(&mut self, turn: u64) {
        match self
            .joined(turn)
            .is_some_and(|joined| joined.elsewhere.len() <= MAX_NAMED)
        {
            true => self.prune(turn),
            false => self.prune_many(turn),
        }
        let epoch = self.common.bus.epoch();
        let Some(at) = self.joined.iter().position(|joined| joined.turn == turn) else {
            return;
        };
        let subscriptions = &self.subscriptions;
        let Some(joined) = self.joined.get_mut(at) else {
            return;
        };
        // Too many to be looked at for each message: the last offset is still one from which nothing is missing.
        if joined.elsewhere.len() > MAX_NAMED {
            return;
        }
        let others = joined.elsewhere.iter().filter_map(|key| {
            let subscription = subscriptions.get(*key)?;
            Some((subscription.name, subscription.position))
        });
        let mut others: Vec<_> = others.collect();
        let mut rev = joined.base;
        if let ([(_, only)], 1) = (&others[..], joined.subscriptions) {
            rev = *only;
        }
        others.retain(|(_, other)| *other != rev);
        let offset = Offset {
            base: Cursor { epoch, rev },
            others,
            general: joined.subscriptions > joined.outputs,
        };
        joined.offset = offset.to_string();
    }

    /// Looks through many now and then, when half of them have completed their snapshots: a client with ten thousand subscriptions must
    /// not have all of them looked through for each.
    pub(super) fn prune_many(&mut self, turn: u64) {
        if let Some(joined) = self.joined_mut(turn) {
            joined.completed += 1;
            if joined.completed * 2 >= joined.elsewhere.len() {
                joined.completed = 0;
                self.prune(turn);
            }
        }
    }

    /// Forgets which subscriptions stood elsewhere and do not any more.
    fn prune(&mut self, turn: u64) {
        let Some(at) = self.joined.iter().position(|joined| joined.turn == turn) else {
            return;
        };
        let subscriptions = &self.subscriptions;
        if let Some(joined) = self.joined.get_mut(at) {
            let base = joined.base;
            joined.elsewhere.retain(|key| {
                subscriptions
                    .get(*key)
                    .is_some_and(|it| !it.synced || it.paced || it.position > base)
            });
        }
    }
}
