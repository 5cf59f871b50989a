//! Sessions as they were when the server ended, from the notes that were stored.

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use latchbus_bus::{Identity, Publish, Subscribe};
use latchbus_core::hub::{Cursor, Mode, Start};
use latchbus_core::topic::TopicFilter;

use crate::Session;
use crate::connection::subscribing::shared;
use crate::packet::Service;
use crate::record::{
    OutgoingRecord, OwnerRecord, Part, SessionRecord, SubscriptionRecord, WillRecord, read,
};

/// What was stored of a client.
#[derive(Debug)]
pub struct Restored {
    /// Who had signed in, if anybody had.
    pub owner: Option<Identity>,
    /// The session, if it was one that outlives its connection.
    pub session: Option<RestoredSession>,
    /// The will that was neither published nor taken back.
    pub will: Option<RestoredWill>,
}

/// A session that was stored.
#[derive(Debug)]
pub struct RestoredSession {
    /// What the client and the server remember of each other.
    pub session: Session,
    /// Its subscriptions, for the bus, from where the client has finished.
    pub subscriptions: Vec<Subscribe>,
    /// How long it outlives its connection.
    pub expiry: Duration,
    /// When it ends, by the deadlines of the bus's clock, in milliseconds; none if the client was connected.
    pub ends_at: Option<u64>,
}

/// A will that was stored.
#[derive(Debug)]
pub struct RestoredWill {
    /// What is to be published.
    pub publish: Publish,
    /// How long after the end of the connection.
    pub delay: Duration,
    /// When, by the deadlines of the bus's clock, in milliseconds; none if the client was connected.
    pub due: Option<u64>,
}

/// Reads what was stored of one client, in any order. What cannot be read, because another version has
/// written it, is left out. `epoch` is the hub's.
pub fn restore<'a>(parts: impl IntoIterator<Item = (&'a [u8], &'a Bytes)>, epoch: u64) -> Restored {
    let (mut record, mut will, mut owner) = (None::<SessionRecord>, None, None);
    let (mut filters, mut marks) = (BTreeMap::new(), BTreeMap::new());
    let (mut outgoing, mut done) = (Vec::new(), Vec::new());
    let mut session = Session::default();
    for (name, value) in parts {
        match Part::parse(name) {
            Some(Part::Session) => record = read(value),
            Some(Part::Owner) => owner = read::<OwnerRecord>(value).map(OwnerRecord::identity),
            Some(Part::Will) => will = read::<WillRecord>(value),
            Some(Part::Subscription(number)) => {
                filters.extend(read::<SubscriptionRecord>(value).map(|filter| (number, filter)));
            }
            Some(Part::Mark(number)) => {
                marks.extend(read::<u64>(value).map(|mark| (number, mark)));
            }
            Some(Part::Done(number, rev)) => {
                done.push((number, rev, read::<u8>(value).unwrap_or(2)));
            }
            Some(Part::Incoming(id)) => session.incoming.restore(id),
            Some(Part::Outgoing(id)) => {
                let record = read::<OutgoingRecord>(value);
                outgoing.extend(record.map(|record| (Service::Two(id), record)));
            }
            Some(Part::OutgoingOnce(id)) => {
                let record = read::<OutgoingRecord>(value);
                outgoing.extend(record.map(|record| (Service::One(id), record)));
            }
            None => {}
        }
    }
    let will = will.and_then(|will| {
        let (delay, due) = (Duration::from_secs(will.delay_secs), will.due);
        let publish = will.publish()?;
        Some(RestoredWill {
            publish,
            delay,
            due,
        })
    });
    let session = record.map(|record| {
        session.ledger.set_durable(true);
        let subscriptions = subscriptions(&mut session, filters, &marks, epoch);
        under_way(&mut session, outgoing, done);
        RestoredSession {
            session,
            subscriptions,
            expiry: Duration::from_secs(record.expiry_secs),
            ends_at: record.ends_at,
        }
    });
    Restored {
        owner,
        session,
        will,
    }
}

fn subscriptions(
    session: &mut Session,
    filters: BTreeMap<u64, SubscriptionRecord>,
    marks: &BTreeMap<u64, u64>,
    epoch: u64,
) -> Vec<Subscribe> {
    let mut subscriptions = Vec::with_capacity(filters.len());
    for (number, record) in filters {
        let options = record.options();
        let (group, plain) = match shared(&record.filter) {
            Some((group, plain)) => (Some(group.to_owned()), plain),
            None => (None, record.filter.as_str()),
        };
        let Ok(filter) = TopicFilter::parse(plain.to_owned()) else {
            continue;
        };
        let rev = marks.get(&number).copied().unwrap_or(0);
        subscriptions.push(Subscribe {
            id: number,
            filter,
            mode: Mode::Every,
            start: match group {
                Some(_) => Start::Live,
                None => Start::Resume(Cursor { epoch, rev }),
            },
            pace: None,
            durable: group.is_none(),
            group,
            // It was accepted before.
            waits: true,
        });
        session.restore(record.filter, number, options, rev);
    }
    subscriptions
}

fn under_way(
    session: &mut Session,
    outgoing: Vec<(Service, OutgoingRecord)>,
    done: Vec<(u64, u64, u8)>,
) {
    for (service, record) in outgoing {
        let (subscription, rev) = (record.subscription, record.rev);
        let options = session.options(subscription);
        if session.outgoing.restore(service, record, options) {
            session.ledger.restore_under_way(subscription, rev);
        }
    }
    for (subscription, rev, qos) in done {
        session.ledger.restore_done(subscription, rev, qos);
    }
}
