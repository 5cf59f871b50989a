//! Which client is here, and what is kept of those who are away.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use latchbus_bus::{Client, Publish};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use crate::Session;
use crate::record::{Note, Part};
use crate::server::Metrics;

/// One slot for each client identifier: at most one connection has it, or a session that is kept.
#[derive(Debug)]
pub(crate) struct Registry {
    clients: Mutex<Clients>,
    max_away: usize,
    max_returning: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Clients {
    slots: HashMap<Arc<str>, Slot>,
    /// Those who are away, the longest away first.
    away: BTreeMap<u64, Arc<str>>,
    /// Those whom a kill of the server has cut off, until they return or their sessions end.
    returning: BTreeMap<u64, Arc<str>>,
    turns: u64,
}

#[derive(Debug)]
enum Slot {
    Here {
        turn: u64,
        stop: CancellationToken,
        gone: CancellationToken,
    },
    Away {
        turn: u64,
        away: Box<Away>,
    },
}

/// A session without a connection.
#[derive(Debug)]
pub(crate) struct Away {
    /// None of a client that has left no more than a will when the server was killed.
    pub(crate) session: Option<Session>,
    pub(crate) subscriptions: latchbus_bus::Session,
    pub(crate) expires: Instant,
    pub(crate) will: Option<Will>,
    /// Where it is kept over a restart, if it is.
    pub(crate) disk: Option<Disk>,
}

/// The will of a client that is away.
#[derive(Debug)]
pub(crate) struct Will {
    /// Published at this time, or when the session ends before.
    pub(crate) at: Instant,
    pub(crate) publish: Publish,
    /// The server has ended the connection, by being killed: any return of the client takes the will back, also
    /// one that begins a session of its own.
    pub(crate) returns: bool,
}

/// What is left to do for a client, with its last words: its session has ended, or its will is due.
#[derive(Debug)]
#[must_use]
pub(crate) struct LastWords {
    pub(crate) client: Client,
    pub(crate) disk: Option<Disk>,
    pub(crate) will: Option<Publish>,
    pub(crate) notes: Vec<Note>,
}

impl LastWords {
    /// Publishes and forgets.
    pub(crate) async fn say(self) {
        match (self.will, self.disk) {
            (Some(will), Some(disk)) => disk.publish(will, self.notes).await,
            // What is refused is counted by the bus.
            (Some(will), None) => drop(self.client.publish(will).await),
            (None, Some(disk)) => disk.remember(self.notes).await,
            (None, None) => {}
        }
    }
}

/// A connection's hold on its client identifier, until it is dropped or released.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Arc<Registry>,
    id: Arc<str>,
    turn: u64,
    stop: CancellationToken,
    gone: CancellationToken,
}

impl Away {
    /// The session ends: what it still wanted to say. What it has taken from a group and not finished is
    /// given back.
    pub(crate) fn end(self) -> LastWords {
        if let Some(session) = self.session {
            give_back(session, &self.subscriptions);
        }
        LastWords {
            client: self.subscriptions.client().clone(),
            disk: self.disk,
            will: self.will.map(|will| will.publish),
            notes: vec![Note::ForgetAll],
        }
    }
}

/// A session ends: what it has taken from groups and not finished is for others.
pub(crate) fn give_back(session: Session, subscriptions: &latchbus_bus::Session) {
    for (subscription, deliveries) in session.unfinished() {
        subscriptions.give_back(subscription, deliveries);
    }
}

impl Registry {
    /// A registry for at most `max_away` sessions of clients that have left, and `max_returning` of those that
    /// were connected when the server was killed.
    pub(crate) fn new(max_away: usize, max_returning: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            clients: Mutex::default(),
            max_away,
            max_returning,
            metrics,
        }
    }

    /// Takes the client identifier, from another connection if one has it (MQTT 3.1.1 §3.1.4), with the
    /// session that is kept for it. That other connection ends first: its will is published, its
    /// session handed over.
    pub(crate) async fn claim(self: &Arc<Self>, id: &str) -> (Claim, Option<Away>) {
        loop {
            let gone = match self.try_claim(id) {
                Ok(claimed) => return claimed,
                Err(gone) => gone,
            };
            gone.cancelled().await;
        }
    }

    fn try_claim(self: &Arc<Self>, id: &str) -> Result<(Claim, Option<Away>), CancellationToken> {
        let mut clients = self.lock();
        if let Some(Slot::Here { stop, gone, .. }) = clients.slots.get(id) {
            stop.cancel();
            return Err(gone.clone());
        }
        let away = clients.take_away(id);
        let id: Arc<str> = id.into();
        let turn = clients.next_turn();
        let (stop, gone) = (CancellationToken::new(), CancellationToken::new());
        let slot = Slot::Here {
            turn,
            stop: stop.clone(),
            gone: gone.clone(),
        };
        clients.slots.insert(Arc::clone(&id), slot);
        self.metrics.sessions_away.set(clients.kept());
        let claim = Claim {
            registry: Arc::clone(self),
            id,
            turn,
            stop,
            gone,
        };
        Ok((claim, away))
    }

    /// Ends the sessions that have expired, and gives out the wills that are due.
    pub(crate) fn expire(&self, now: Instant) -> Vec<LastWords> {
        let mut clients = self.lock();
        let mut words = Vec::new();
        let mut expired = Vec::new();
        for (id, slot) in &mut clients.slots {
            if let Slot::Away { away, .. } = slot {
                if away.expires <= now {
                    expired.push(Arc::clone(id));
                } else if let Some(will) = away.will.take_if(|will| will.at <= now) {
                    words.push(LastWords {
                        client: away.subscriptions.client().clone(),
                        disk: away.disk.clone(),
                        will: Some(will.publish),
                        notes: vec![Part::Will.forget()],
                    });
                }
            }
        }
        let mut ended = Vec::with_capacity(expired.len());
        for id in expired {
            ended.extend(clients.take_away(&id));
        }
        self.metrics.sessions_away.set(clients.kept());
        drop(clients);
        // Their subscriptions end here, without the lock.
        words.extend(ended.into_iter().map(Away::end));
        words
    }

    /// Ends all sessions of clients that are away: their last words.
    pub(crate) fn drain(&self) -> Vec<LastWords> {
        let mut clients = self.lock();
        let kept = clients.away.values().chain(clients.returning.values());
        let ids: Vec<_> = kept.cloned().collect();
        let ended: Vec<_> = ids.iter().filter_map(|id| clients.take_away(id)).collect();
        self.metrics.sessions_away.set(0);
        drop(clients);
        ended.into_iter().map(Away::end).collect()
    }

    /// Puts back what there was before a restart, as if the client had just left; one that is `returning` was
    /// connected, and takes no room from those that were away.
    pub(crate) fn put_back(&self, id: &str, away: Away, returning: bool) -> Option<LastWords> {
        self.metrics
            .sessions_restored
            .add(u64::from(away.session.is_some()));
        self.keep(&mut self.lock(), id.into(), away, returning)
    }

    /// Keeps a session; what ends for it, or at once, at the bound.
    fn keep(
        &self,
        clients: &mut Clients,
        id: Arc<str>,
        away: Away,
        returning: bool,
    ) -> Option<LastWords> {
        let turn = clients.next_turn();
        let (line, most) = match returning {
            true => (&mut clients.returning, self.max_returning),
            false => (&mut clients.away, self.max_away),
        };
        let mut dropped = None;
        if most == 0 {
            dropped = Some(away);
        } else {
            if line.len() >= most
                && let Some((_, oldest)) = line.pop_first()
                && let Some(Slot::Away { away, .. }) = clients.slots.remove(&oldest)
            {
                dropped = Some(*away);
            }
            line.insert(turn, Arc::clone(&id));
            let away = Box::new(away);
            clients.slots.insert(id, Slot::Away { turn, away });
        }
        self.metrics.sessions_away.set(clients.kept());
        let dropped = dropped?;
        self.metrics.sessions_dropped.add(1);
        Some(dropped.end())
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    /// How many sessions are kept.
    fn kept(&self) -> u64 {
        (self.away.len() + self.returning.len()) as u64
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn take_away(&mut self, id: &str) -> Option<Away> {
        let Some(Slot::Away { turn, .. }) = self.slots.get(id) else {
            return None;
        };
        if self.away.remove(turn).is_none() {
            self.returning.remove(turn);
        }
        match self.slots.remove(id) {
            Some(Slot::Away { away, .. }) => Some(*away),
            _ => None,
        }
    }
}

impl Claim {
    /// Cancelled when another connection takes the identifier.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Leaves the session behind. At the bound, the one that was away longest is dropped; what it still
    /// wanted to say is given back.
    pub(crate) fn release(self, away: Away) -> Option<LastWords> {
        let registry = &self.registry;
        registry.keep(&mut registry.lock(), Arc::clone(&self.id), away, false)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut clients = self.registry.lock();
        if matches!(clients.slots.get(&self.id), Some(Slot::Here { turn, .. }) if *turn == self.turn)
        {
            clients.slots.remove(&self.id);
        }
        drop(clients);
        self.gone.cancel();
    }
}
