//! How a client joins a namespace, and comes back to it after a cut.
//!
//! It names its `pid` and the last offset that it was given. The offset says where each subscription goes on, so that outputs need
//! no memory here; what a client had subscribed to itself is remembered for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use latchbus_bus::{
    Credentials, Identity, Principal, Publish, PublishRequest, Request, SignInRefused, Subscribe,
};
use latchbus_core::hub::{Cursor, Start};
use latchbus_core::topic::TopicFilter;
use latchbus_core::wire::ErrorCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::incoming::{general_subscription, is_paced};
use super::{Fault, General, Joined, Machine, Pending, SubscriptionKind, Taken};
use crate::config::{Action, Namespace, fnv1a};
use crate::offset::Offset;

/// How long the subscriptions of a client that is away are remembered.
pub(crate) const REMEMBERED_FOR: Duration = Duration::from_secs(120);

/// Of how many clients; beyond them the one that was heard of first is forgotten.
const MOST: usize = 10_000;

/// Of one client, in bytes: one that has subscribed to more begins anew.
const MAX_RECORD_BYTES: usize = 4 << 10;

/// What a subscription takes besides its filter.
const SUBSCRIPTION_BYTES: usize = 64;

/// What clients had subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Records(Mutex<HashMap<String, Record>>);

#[derive(Debug)]
struct Record {
    at: Instant,
    /// Each with its name in offsets.
    subscriptions: Vec<(u64, General)>,
}

impl Records {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers them in the place of what there was.
    fn put(&self, pid: &str, subscriptions: Vec<(u64, General)>) {
        let mut records = self.lock();
        if subscriptions.is_empty() {
            records.remove(pid);
            return;
        }
        let now = Instant::now();
        if records.len() >= MOST && !records.contains_key(pid) {
            records.retain(|_, record| now.saturating_duration_since(record.at) < REMEMBERED_FOR);
            let oldest = records.iter().min_by_key(|(_, record)| record.at);
            if let Some(oldest) = oldest.map(|(pid, _)| pid.clone())
                && records.len() >= MOST
            {
                records.remove(&oldest);
            }
        }
        let record = Record {
            at: now,
            subscriptions,
        };
        records.insert(pid.to_owned(), record);
    }

    /// Its time begins now.
    fn left(&self, pid: &str) {
        if let Some(record) = self.lock().get_mut(pid) {
            record.at = Instant::now();
        }
    }

    /// Forgets one.
    pub(super) fn forget(&self, pid: &str) {
        self.lock().remove(pid);
    }

    fn get(&self, pid: &str) -> Option<Vec<(u64, General)>> {
        let mut records = self.lock();
        let record = records.get(pid)?;
        if record.at.elapsed() >= REMEMBERED_FOR {
            records.remove(pid);
            return None;
        }
        Some(record.subscriptions.clone())
    }
}

/// What the library of the client adds to `auth` when it comes back.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct ComesBack {
    pid: Option<serde_json::Value>,
    offset: Option<serde_json::Value>,
}

/// What a client that comes back goes on with.
struct Resumed {
    pid: String,
    offset: Offset,
    general: Vec<(u64, General)>,
}

/// A client wants to join a namespace, once it is known who it is.
#[derive(Debug)]
pub(crate) struct Join {
    index: usize,
    /// What came with CONNECT, as JSON.
    auth: Box<str>,
}

impl Join {
    /// What the `auth` object brings: `token`, or `user` and `password`. Whatever else is there is the application's.
    pub(crate) fn credentials(&self) -> Credentials {
        #[derive(Default, Deserialize)]
        struct Auth {
            token: Option<Value>,
            user: Option<Value>,
            password: Option<Value>,
        }
        let Auth {
            token,
            user,
            password,
        } = serde_json::from_str(&self.auth).unwrap_or_default();
        let text = |value: Option<Value>| Some(value?.as_str()?.to_owned());
        match (text(token), text(user), text(password)) {
            (Some(token), ..) => Credentials::token(token),
            (None, Some(user), Some(password)) => Credentials::password(user, password),
            _ => Credentials::default(),
        }
    }
}

/// What ends a `pid`: a place in a namespace is one for the same table of outputs and the same user, who may read the same.
fn owner(namespace: &Namespace, principal: &Principal) -> String {
    let table = namespace.fingerprint();
    let kind = match principal.identity {
        Identity::User(_) => "user",
        Identity::Token { .. } => "token",
        Identity::Certificate { .. } => "certificate",
        _ => return format!("{table:x}"),
    };
    let name = principal.identity.name().unwrap_or_default();
    let claims = principal.claims.as_ref();
    let filters = claims.and_then(|claims| claims.subscribe.as_ref());
    let filters = filters.into_iter().flatten().map(|filter| filter.as_str());
    let user = fnv1a([kind, name].into_iter().chain(filters));
    format!("{table:x}.{user:x}")
}

impl Machine {
    pub(super) fn connect(&mut self, name: &str, auth: Option<&str>) -> Result<Taken, Fault> {
        let namespaces = &self.common.config.namespaces;
        let Some(index) = namespaces.iter().position(|it| it.name == name) else {
            let request = self.later(Pending::ConnectError {
                namespace: name.to_owned(),
                message: "Invalid namespace".to_owned(),
                code: None,
            });
            return Ok(Taken::Request(request));
        };
        if self.joined_named(name).is_some() {
            return Err(Fault::OutOfPlace);
        }
        let auth = auth.unwrap_or("{}").into();
        Ok(Taken::Join(Join { index, auth }))
    }

    /// The client joins a namespace as who it has proved to be, or is refused.
    pub(crate) fn join(
        &mut self,
        join: Join,
        signed_in: Result<(), SignInRefused>,
        principal: &Principal,
    ) -> Request {
        self.has_joined = true;
        let Join { index, auth } = join;
        let common = std::sync::Arc::clone(&self.common);
        let namespace = match (common.config.namespaces.get(index), signed_in) {
            (Some(namespace), Ok(())) => namespace,
            (None, _) => return self.later(Pending::Nothing),
            (Some(namespace), Err(refused)) => {
                return self.later(Pending::ConnectError {
                    namespace: namespace.name.clone(),
                    message: refused.to_string(),
                    code: Some(ErrorCode::Unauthorized),
                });
            }
        };
        let owner = owner(namespace, principal);
        let resumed = match namespace.recovery {
            true => self.resumed(&auth, &owner),
            false => None,
        };
        let turn = self.id();
        let epoch = common.bus.epoch();
        let begin = Cursor { epoch, rev: 0 };
        let offset = resumed.as_ref().map(|resumed| &resumed.offset);
        self.joined.push(Joined {
            index,
            turn,
            pid: match &resumed {
                Some(resumed) => resumed.pid.clone(),
                None => format!("{}.{owner}", common.ids.id()),
            },
            base: offset.map_or(0, |offset| offset.base.rev),
            elsewhere: Vec::new(),
            completed: 0,
            subscriptions: 0,
            outputs: namespace.outputs.len(),
            offset: offset.map_or_else(|| begin.to_string(), ToString::to_string),
        });
        // An output that the rules refuse brings nothing until they allow it, and keeps nobody out of the rest.
        let waits = self.is_anything_allowed(namespace, principal);
        let mut subscriptions = Vec::new();
        for (place, output) in namespace.outputs.iter().enumerate() {
            let (key, name) = (self.id(), place as u64);
            let start = offset.map_or(Start::Snapshot, |offset| Start::Resume(offset.of(name)));
            let subscribe = Subscribe {
                waits,
                ..output.subscription(key, start)
            };
            let kind = SubscriptionKind::Output(place);
            self.note(turn, key, (name, kind), &subscribe);
            subscriptions.push(subscribe);
        }
        if let Some(resumed) = resumed {
            self.begin_again(turn, resumed, &mut subscriptions);
        }
        let id = self.id();
        self.pending
            .push_back((id, Pending::Connect { turn, auth }));
        match subscriptions.is_empty() {
            true => Request::Ping { id },
            false => Request::Subscribe { id, subscriptions },
        }
    }

    /// Whether the rules let this principal do or get anything of what a namespace offers.
    fn is_anything_allowed(&self, namespace: &Namespace, principal: &Principal) -> bool {
        let rules = self.common.bus.authorizer();
        let is_read = |filter| rules.authorize_subscribe(principal, filter).is_some();
        let is_written = |topic, retain| {
            let request = PublishRequest::new(topic, retain, Publish::STATE_QOS);
            rules.authorize_publish(principal, &request)
        };
        let outputs = (namespace.outputs.iter()).any(|output| is_read(output.filter.borrowed()));
        let inputs = namespace.inputs.iter().any(|input| match &input.action {
            Action::Press { topic, .. } => is_written(topic.borrowed(), false),
            Action::Publish { topic, retain } => is_written(topic.borrowed(), *retain),
            Action::Echo(_) | Action::EchoAck => true,
        });
        let general = || {
            let mut all = ["#", "$SYS/#"].into_iter().map(TopicFilter::parse);
            rules.may_publish_anything(principal) || all.any(|all| all.is_ok_and(is_read))
        };
        outputs || inputs || namespace.general && general()
    }

    /// What a client can go on with, if it can without missing anything.
    fn resumed(&self, auth: &str, owner: &str) -> Option<Resumed> {
        let ComesBack { pid, offset } = serde_json::from_str(auth).ok()?;
        let pid = pid?.as_str()?.to_owned();
        let offset: Offset = offset?.as_str()?.parse().ok()?;
        let (_, of) = pid.split_once('.')?;
        if of != owner {
            return None;
        }
        let general = self.common.records.get(&pid);
        if offset.general && general.is_none() {
            return None;
        }
        let general = general.unwrap_or_default();
        let bus = &self.common.bus;
        let (oldest, newest) = (offset.oldest(), offset.newest());
        let whole = bus.read(|hub| {
            // Events that have left the ring may have been for one of the client's own subscriptions.
            let events = general.is_empty() || oldest.rev >= hub.left_ring();
            hub.can_resume(oldest) && hub.can_resume(newest) && events
        });
        whole.then_some(Resumed {
            pid,
            offset,
            general,
        })
    }

    /// Begins what the client had subscribed to.
    fn begin_again(&mut self, turn: u64, resumed: Resumed, subscriptions: &mut Vec<Subscribe>) {
        let Resumed {
            offset, general, ..
        } = resumed;
        for (name, general) in general {
            // New names are higher.
            self.next_id = self.next_id.max(name);
            let key = self.id();
            // It was accepted before.
            let subscribe = general_subscription(key, &general.filter, &general.options);
            let Ok(mut subscribe) = subscribe else {
                continue;
            };
            // One that had not begun when the offset was given begins anew.
            let known = offset.names(name) || offset.base.rev > general.began;
            subscribe.start = match known {
                true => Start::Resume(offset.of(name)),
                false => Start::Snapshot,
            };
            let kind = SubscriptionKind::General(Box::new(general));
            self.note(turn, key, (name, kind), &subscribe);
            debug_assert!(
                is_paced(&subscribe, &self.common)
                    || subscribe.pace.is_none_or(|pace| pace.is_zero())
            );
            subscriptions.push(subscribe);
        }
    }

    /// Remembers what the client has subscribed to in a namespace.
    pub(super) fn remember(&self, turn: u64) {
        let Some(joined) = self.joined(turn) else {
            return;
        };
        let recovers = self.namespace(joined.index).is_some_and(|it| it.recovery);
        if !recovers {
            return;
        }
        if (joined.subscriptions - joined.outputs) * SUBSCRIPTION_BYTES > MAX_RECORD_BYTES {
            return self.common.records.forget(&joined.pid);
        }
        let all = self.subscriptions.iter();
        let general = all.filter_map(|(_, subscription)| match &subscription.kind {
            SubscriptionKind::General(general) if subscription.turn == turn => {
                Some((subscription.name, General::clone(general)))
            }
            _ => None,
        });
        let general: Vec<_> = general.collect();
        let bytes = general
            .iter()
            .map(|(_, it)| it.filter.len() + SUBSCRIPTION_BYTES);
        match bytes.sum::<usize>() <= MAX_RECORD_BYTES {
            true => self.common.records.put(&joined.pid, general),
            false => self.common.records.forget(&joined.pid),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for joined in &self.joined {
            self.common.records.left(&joined.pid);
        }
    }
}
