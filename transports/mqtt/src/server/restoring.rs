//! The sessions and wills of the server's earlier life.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use latchbus_bus::{Bus, Principal};
use tokio::time::Instant;

use super::disk::{Disk, OWNER};
use super::logging;
use super::registry::{Away, LastWords, Registry, Will, client_id};
use crate::restore::{Restored, restore};

/// Puts back what was stored, and gives out what there is no room for.
pub(super) fn restore_all(bus: &Bus, registry: &Arc<Registry>, grace: Duration) -> Vec<LastWords> {
    let mut clients = BTreeMap::<String, Vec<(Vec<u8>, Bytes)>>::new();
    for note in bus.remembered(OWNER) {
        let parts = clients.entry(note.client).or_default();
        parts.push((note.part, note.value.into()));
    }
    let (now, deadline_now) = (Instant::now(), bus.clock().deadline_ms());
    let mut found = Vec::new();
    for (name, parts) in clients {
        let parts = parts.iter().map(|(part, value)| (&**part, value));
        let mut restored = restore(parts, bus.epoch());
        let mut principal = Principal::anonymous("mqtt").with_client_id(client_id(&name));
        if let Some(owner) = restored.owner.take() {
            principal.identity = owner;
        }
        // Whom the rules do not allow any more is told so when it connects; its notes stay until then.
        let user = principal.identity.name().map(str::to_owned);
        let client = match bus.client(principal) {
            Ok(client) => client,
            Err(refused) => {
                logging::not_restored(bus, (client_id(&name), user.as_deref()), &refused);
                continue;
            }
        };
        let ends_at = match &restored.session {
            Some(session) => session.ends_at,
            None => restored.will.as_ref().and_then(|will| will.due),
        };
        let disk = Disk::of(&client);
        let subscriptions = latchbus_bus::Session::new(client);
        let away = away(restored, subscriptions, disk, (now, deadline_now), grace);
        found.push((ends_at, name, away));
    }
    // If there is not room for all, those stay that were to stay longest.
    found.sort_by_key(|(ends_at, ..)| *ends_at);
    let put_back = |(ends_at, name, away): (Option<u64>, String, Away)| {
        registry.put_back(&name, away, ends_at.is_none())
    };
    let ended = found.into_iter().filter_map(put_back).collect();
    bus.restored();
    ended
}

fn away(
    restored: Restored,
    subscriptions: latchbus_bus::Session,
    disk: Option<Disk>,
    (now, deadline_now): (Instant, u64),
    grace: Duration,
) -> Away {
    let until = |at: u64| now + Duration::from_millis(at.saturating_sub(deadline_now));
    let will = restored.will.map(|will| Will {
        at: match will.due {
            Some(due) => until(due),
            // Its connection has ended with the server, and it could not return before.
            None => now + will.delay.max(grace),
        },
        publish: will.publish,
        returns: will.due.is_none(),
    });
    match restored.session {
        Some(session) => {
            // A refused subscription brings nothing; the client may ask for it again.
            drop(subscriptions.subscribe(session.subscriptions));
            Away {
                session: Some(session.session),
                subscriptions,
                expires: match session.ends_at {
                    Some(at) => until(at),
                    None => now + session.expiry,
                },
                will,
                disk,
            }
        }
        None => Away {
            session: None,
            subscriptions,
            expires: will.as_ref().map_or(now, |will| will.at),
            will,
            disk,
        },
    }
}
