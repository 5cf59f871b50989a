//! Which client is here, and what is kept of those who are away.

use core::future::poll_fn;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::task::AtomicWaker;
use latchbus_bus::{Client, Identity, Principal, Publish};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::logging;
use crate::connection::LastWill;
use crate::record::{Note, Part};
use crate::server::Metrics;
use crate::{Session, packet};

/// One slot for each [name](session_name): at most one connection has it, or a session that is kept.
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
        /// Asks the connection to end.
        stop: Arc<Stop>,
        /// Cancelled when it has, for those who wait for it, if any do.
        gone: Option<CancellationToken>,
        /// What is published if the server stops while it is here.
        present: Option<Box<Present>>,
    },
    Away {
        place: Place,
        away: Box<Away>,
    },
}

/// Asks one task, which looks often, to stop.
#[derive(Debug, Default)]
struct Stop {
    asked: AtomicBool,
    /// Who has asked.
    by: OnceLock<SocketAddr>,
    task: AtomicWaker,
}

impl Stop {
    fn ask(&self, by: Option<SocketAddr>) {
        if let Some(by) = by {
            // The first of several.
            let _asked_before = self.by.set(by);
        }
        self.asked.store(true, Ordering::Release);
        self.task.wake();
    }

    fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        match self.asked.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// What is known of a client with a will that is connected.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) will: LastWill,
    pub(crate) client: Client,
    pub(crate) disk: Option<Disk>,
    /// Whether its session outlives the server, so that a will with a delay is due later.
    pub(crate) delays: bool,
}

/// A place among those who are away.
#[derive(Debug, Clone, Copy)]
struct Place {
    turn: u64,
    returning: bool,
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
    /// Of a client without a connection.
    pub(crate) hold: Option<Hold>,
}

/// Keeps a session's name until the last words are said: who comes back speaks after them, and they forget
/// nothing that is new.
#[derive(Debug)]
pub(crate) struct Hold {
    claim: Claim,
    /// The session, if it goes on after them.
    away: Option<(Place, Away)>,
}

/// The name by which a session is found: the client identifier and, of who has signed in, who that is. Whoever uses the identifier of
/// somebody else takes over nothing of theirs, and does not end their connection.
pub(super) fn session_name(principal: &Principal) -> String {
    let id = &principal.client_id;
    let kind = match principal.identity {
        Identity::User(_) => 'u',
        Identity::Token { .. } => 't',
        Identity::Certificate { .. } => 'c',
        _ => return id.clone(),
    };
    let name = principal.identity.name().unwrap_or_default();
    format!("{id}{SEPARATOR}{kind}{name}")
}

/// In no client identifier (MQTT 3.1.1 §1.5.3, MQTT 5 §1.5.4).
const SEPARATOR: char = '\0';

/// The client identifier in a [session's name](session_name).
pub(super) fn client_id(session_name: &str) -> &str {
    let (id, _) = (session_name.split_once(SEPARATOR)).unwrap_or((session_name, ""));
    id
}

/// A connection's hold on its session's name, until it is dropped or released.
#[derive(Debug)]
pub(crate) struct Claim {
    registry: Arc<Registry>,
    id: Arc<str>,
    turn: u64,
    stop: Arc<Stop>,
}

impl Away {
    /// Whether something of it is on disk.
    pub(crate) fn is_stored(&self) -> bool {
        let session = self.session.as_ref();
        self.disk.is_some() && (self.will.is_some() || session.is_none_or(Session::is_durable))
    }

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
            hold: None,
        }
    }

    pub(crate) fn end_held(self, claim: Claim) -> LastWords {
        let hold = Some(Hold { claim, away: None });
        LastWords { hold, ..self.end() }
    }
}

impl Hold {
    /// They are said. A session that goes on may find its place taken, or take that of another.
    pub(crate) fn release(self) -> Option<LastWords> {
        let (place, away) = self.away?;
        self.claim.put_back(away, Some(place))
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

    /// Takes a session's name, from another connection if one has it (MQTT 3.1.1 §3.1.4), with the
    /// session that is kept under it. That other connection ends first: its will is published, its
    /// session handed over.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        id: &str,
        address: Option<SocketAddr>,
    ) -> (Claim, Option<Away>) {
        loop {
            let gone = match self.try_claim(id, address) {
                Ok(claimed) => return claimed,
                Err(gone) => gone,
            };
            gone.cancelled().await;
        }
    }

    /// Waits until no connection has the session's name.
    pub(crate) async fn left(&self, id: &str) {
        loop {
            let gone = match self.lock().slots.get_mut(id) {
                Some(Slot::Here { gone, .. }) => gone.get_or_insert_default().clone(),
                Some(Slot::Away { .. }) | None => return,
            };
            gone.cancelled().await;
        }
    }

    /// The names of the sessions with this client identifier: one of each user that has come with it.
    pub(crate) fn named(&self, id: &str) -> Vec<Arc<str>> {
        let clients = self.lock();
        let names = clients.slots.keys().filter(|name| client_id(name) == id);
        names.cloned().collect()
    }

    /// Looks at those sessions of clients that are away that are wanted, by client identifier: at most `most` of those behind
    /// `after`, and those with the same client identifier as the last of them. With how many are wanted over all pages.
    pub(crate) fn list_away<T>(
        &self,
        after: &str,
        most: usize,
        is_wanted: impl Fn(&Away) -> bool,
        look: impl Fn(&str, &Away) -> Option<T>,
    ) -> (Vec<T>, usize) {
        let clients = self.lock();
        let mut away: Vec<_> = (clients.slots.iter())
            .filter_map(|(name, slot)| match slot {
                Slot::Away { away, .. } if is_wanted(away) => Some((name, away)),
                _ => None,
            })
            .collect();
        let total = away.len();
        away.retain(|(name, _)| client_id(name) > after);
        away.sort_unstable_by_key(|(name, _)| (client_id(name), *name));
        let mut listed = Vec::new();
        let mut last = None;
        for (name, away) in away {
            let id = client_id(name);
            if listed.len() >= most && last != Some(id) {
                break;
            }
            listed.extend(look(id, away));
            last = Some(id);
        }
        (listed, total)
    }

    fn try_claim(
        self: &Arc<Self>,
        id: &str,
        address: Option<SocketAddr>,
    ) -> Result<(Claim, Option<Away>), CancellationToken> {
        let mut clients = self.lock();
        if let Some(Slot::Here { stop, gone, .. }) = clients.slots.get_mut(id) {
            stop.ask(address);
            return Err(gone.get_or_insert_default().clone());
        }
        let away = clients.take_away(id).map(|(_, away)| away);
        let claim = self.hold(&mut clients, id.into());
        self.metrics.sessions_away.set(clients.kept());
        Ok((claim, away))
    }

    /// Takes a name that nobody has.
    fn hold(self: &Arc<Self>, clients: &mut Clients, id: Arc<str>) -> Claim {
        let turn = clients.next_turn();
        let stop = Arc::<Stop>::default();
        let slot = Slot::Here {
            turn,
            stop: Arc::clone(&stop),
            gone: None,
            present: None,
        };
        clients.slots.insert(Arc::clone(&id), slot);
        Claim {
            registry: Arc::clone(self),
            id,
            turn,
            stop,
        }
    }

    /// The sessions of users that were removed have expired: whoever gets the name later is somebody else.
    pub(crate) fn end_of_removed(&self, now: Instant) {
        for slot in self.lock().slots.values_mut() {
            if let Slot::Away { away, .. } = slot
                && !away.subscriptions.client().is_known()
            {
                away.expires = away.expires.min(now);
            }
        }
    }

    /// Ends the sessions that have expired, and gives out the wills that are due.
    pub(crate) fn expire(self: &Arc<Self>, now: Instant) -> Vec<LastWords> {
        let mut clients = self.lock();
        let is_due = |away: &Away| {
            away.expires <= now || away.will.as_ref().is_some_and(|will| will.at <= now)
        };
        let due = clients.slots.iter().filter_map(|(id, slot)| match slot {
            Slot::Away { away, .. } if is_due(away) => Some(Arc::clone(id)),
            _ => None,
        });
        let due: Vec<_> = due.collect();
        let mut taken = Vec::with_capacity(due.len());
        for id in due {
            if let Some((place, away)) = clients.take_away(&id) {
                taken.push((place, away, self.hold(&mut clients, id)));
            }
        }
        self.metrics.sessions_away.set(clients.kept());
        drop(clients);
        // Subscriptions end here, without the lock.
        let words = |(place, mut away, claim): (Place, Away, Claim)| {
            if away.expires <= now {
                self.metrics.sessions_expired.add(1);
                if away.session.is_some() {
                    logging::expired(away.subscriptions.client());
                }
                return away.end_held(claim);
            }
            LastWords {
                client: away.subscriptions.client().clone(),
                disk: away.disk.clone(),
                will: away.will.take().map(|will| will.publish),
                notes: vec![Part::Will.forget()],
                hold: Some(Hold {
                    claim,
                    away: Some((place, away)),
                }),
            }
        };
        taken.into_iter().map(words).collect()
    }

    /// The wills of connected clients, for a server that stops; the connections do not publish them any more.
    pub(crate) fn take_wills(&self) -> Vec<LastWords> {
        let mut clients = self.lock();
        let here = clients.slots.values_mut().filter_map(|slot| match slot {
            Slot::Here { present, .. } => present.as_deref(),
            Slot::Away { .. } => None,
        });
        let wills = here.filter_map(|present| {
            let due = |will: &packet::Will| will.delay.is_zero() || !present.delays;
            Some(LastWords {
                client: present.client.clone(),
                disk: present.disk.clone(),
                will: Some(present.will.take_if(due)?.publish),
                notes: vec![Part::Will.forget()],
                hold: None,
            })
        });
        wills.collect()
    }

    /// Ends all sessions of clients that are away: their last words.
    pub(crate) fn drain(&self) -> Vec<LastWords> {
        let mut clients = self.lock();
        let kept = clients.away.values().chain(clients.returning.values());
        let ids: Vec<_> = kept.cloned().collect();
        let ended: Vec<_> = ids.iter().filter_map(|id| clients.take_away(id)).collect();
        self.metrics.sessions_away.set(0);
        drop(clients);
        let ended = ended.into_iter().map(|(_, away)| away.end());
        ended.collect()
    }

    /// Puts back what there was before a restart, as if the client had just left; one that is `returning` was
    /// connected, and takes no room from those that were away.
    pub(crate) fn put_back(
        self: &Arc<Self>,
        id: &str,
        away: Away,
        returning: bool,
    ) -> Option<LastWords> {
        self.metrics
            .sessions_restored
            .add(u64::from(away.session.is_some()));
        let claim = self.hold(&mut self.lock(), id.into());
        let turn = claim.turn;
        claim.put_back(away, Some(Place { turn, returning }))
    }

    /// Keeps a session in a place; the one that ends for it, or itself, at the bound.
    fn keep(
        &self,
        clients: &mut Clients,
        id: Arc<str>,
        away: Away,
        place: Place,
    ) -> Option<(Arc<str>, Away)> {
        let (line, most) = match place.returning {
            true => (&mut clients.returning, self.max_returning),
            false => (&mut clients.away, self.max_away),
        };
        let mut dropped = None;
        if most == 0 {
            dropped = Some((id, away));
        } else {
            if line.len() >= most
                && let Some((_, oldest)) = line.pop_first()
                && let Some(Slot::Away { away, .. }) = clients.slots.remove(&oldest)
            {
                dropped = Some((oldest, *away));
            }
            line.insert(place.turn, Arc::clone(&id));
            let away = Box::new(away);
            let slot = clients.slots.insert(id, Slot::Away { place, away });
            gone(slot);
        }
        self.metrics.sessions_away.set(clients.kept());
        (self.metrics.sessions_dropped).add(u64::from(dropped.is_some()));
        dropped
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

    fn take_away(&mut self, id: &str) -> Option<(Place, Away)> {
        let Some(Slot::Away { place, .. }) = self.slots.get(id) else {
            return None;
        };
        match place.returning {
            true => self.returning.remove(&place.turn),
            false => self.away.remove(&place.turn),
        };
        match self.slots.remove(id) {
            Some(Slot::Away { place, away }) => Some((place, *away)),
            _ => None,
        }
    }
}

impl Claim {
    /// Waits until another connection takes the identifier.
    pub(crate) fn taken_over(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| self.stop.poll_asked(cx))
    }

    /// Where the connection comes from that has asked for the identifier.
    pub(crate) fn taken_by(&self) -> Option<SocketAddr> {
        self.stop.by.get().copied()
    }

    /// Says whose will it is.
    pub(crate) fn present(&self, is_present: Present) {
        let mut clients = self.registry.lock();
        if let Some(Slot::Here { turn, present, .. }) = clients.slots.get_mut(&self.id)
            && *turn == self.turn
        {
            *present = Some(Box::new(is_present));
        }
    }

    /// Leaves the session behind. At the bound, the one that was away longest is dropped; what it still
    /// wanted to say is given back.
    pub(crate) fn release(self, away: Away) -> Option<LastWords> {
        self.put_back(away, None)
    }

    /// The same, in the place that it had.
    fn put_back(self, away: Away, place: Option<Place>) -> Option<LastWords> {
        let mut clients = self.registry.lock();
        let place = place.unwrap_or_else(|| Place {
            turn: clients.next_turn(),
            returning: false,
        });
        let id = Arc::clone(&self.id);
        let (dropped, away) = self.registry.keep(&mut clients, id, away, place)?;
        let other = (dropped != self.id).then(|| self.registry.hold(&mut clients, dropped));
        drop(clients);
        if away.session.is_some() {
            let (most, setting) = match place.returning {
                true => (self.registry.max_returning, "limits.connections"),
                false => (self.registry.max_away, "limits.sessions_away"),
            };
            logging::dropped(away.subscriptions.client(), most, setting);
        }
        Some(away.end_held(other.unwrap_or(self)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut clients = self.registry.lock();
        if matches!(clients.slots.get(&self.id), Some(Slot::Here { turn, .. }) if *turn == self.turn)
        {
            gone(clients.slots.remove(&self.id));
        }
    }
}

/// The connection of a slot has ended: whoever waits for that may look again.
fn gone(slot: Option<Slot>) {
    if let Some(Slot::Here {
        gone: Some(gone), ..
    }) = slot
    {
        gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use latchbus_bus::{Bus, Options};
    use latchbus_core::topic::TopicName;

    use super::*;
    use crate::server::words::say_all;

    #[tokio::test]
    async fn who_comes_back_waits_for_the_last_words() {
        let bus = Bus::open(Options::default()).unwrap();
        let now = Instant::now();
        for goes_on in [false, true] {
            let registry = Arc::new(Registry::new(1, 1, Arc::default()));
            let (claim, _) = registry.claim("a", None).await;
            let topic = TopicName::parse("will".to_owned()).unwrap();
            let away = Away {
                session: Some(Session::default()),
                subscriptions: latchbus_bus::Session::new(
                    bus.client(Principal::process()).unwrap(),
                ),
                expires: now + Duration::from_secs(u64::from(goes_on)),
                will: Some(Will {
                    at: now,
                    publish: Publish::state(topic, "x"),
                    returns: false,
                }),
                disk: None,
            };
            assert!(claim.release(away).is_none());
            let words = registry.expire(now);
            assert_eq!(words.len(), 1);
            assert!(registry.try_claim("a", None).is_err());
            say_all(words).await;
            let (_claim, away) = registry.try_claim("a", None).unwrap();
            assert_eq!(away.is_some(), goes_on);
            assert!(away.is_none_or(|away| away.will.is_none()));
        }
    }
}
