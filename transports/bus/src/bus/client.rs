//! One peer of the bus, and what becomes of its publishes.

use core::{
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use futures_util::{FutureExt, future::BoxFuture};
use latchbus_core::clicks::{self, ClickTopic, NearMiss};
use latchbus_core::topic::{TopicFilter, TopicName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::coop;

use super::Bus;
use crate::access::{Identity, Principal, PublishRequest, SignInRefused};
use crate::backup::{Export, Record};
use crate::holdings::{Holder, Source};
use crate::log::{self, shown};
use crate::quota::{Seat, Table, TooMany};
use crate::refusal::{Forbidden, PublishRefused, Rejected, SubscribeRefused};
use crate::wake::lock;
use crate::{Note, Operate, Operated, OperationError, Publish, audit, pipeline};

/// Payloads from this size on count for the memory of the store's queue; those below are bounded by their number.
const LARGE_BYTES: usize = 16 << 10;

/// One line about a client, under the target of its transport, and few of a kind.
macro_rules! warn_limited {
    ($client:expr, $kind:expr, [$($field:tt)+], $message:literal) => {{
        let principal = $client.principal();
        let limit = $client.bus().log_limit();
        if let Some(left_out) = limit.allow(&principal.log_key($kind)) {
            let (client, user) = (principal.shown_client_id(), principal.shown_user());
            let address = $client.shown_address();
            log::warn_of!(
                principal.transport,
                client,
                user,
                address,
                $($field)+,
                left_out,
                $message
            );
        }
    }};
}

/// One peer of the bus. Clones are handles to one peer.
#[derive(Debug, Clone)]
pub struct Client(pub(super) Arc<ClientInner>);

#[derive(Debug)]
pub(super) struct ClientInner {
    bus: Bus,
    id: u64,
    origin: u64,
    pub(super) principal: RwLock<Arc<Principal>>,
    /// Why it was not let in when it tried to sign in over its connection, if it has to go for that.
    pub(super) refused: OnceLock<SignInRefused>,
    /// How often its principal has changed.
    pub(super) renewed: AtomicU64,
    /// Where it has connected from last: that of the principal is where it began.
    address: Mutex<Option<SocketAddr>>,
    /// Messages of this client that wait for the store. While there are any, its events queue behind
    /// them, so that a client's messages keep their order.
    queued: Arc<AtomicUsize>,
    /// Its place among the connections of its user and its address, where these are bounded.
    seat: Mutex<Option<Seat>>,
}

/// Whether the rate of a publisher has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// It is now.
    Checked,
    /// It has been, by [`Client::charge`].
    Paid,
}

/// A message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// Its revision, or that of the value that it left unchanged.
    pub rev: u64,
}

impl Client {
    pub(super) fn new(bus: Bus, id: u64, principal: Principal) -> Self {
        Self(Arc::new(ClientInner {
            bus,
            id,
            origin: origin(&principal),
            address: Mutex::new(principal.address),
            principal: RwLock::new(Arc::new(principal)),
            refused: OnceLock::new(),
            renewed: AtomicU64::new(0),
            queued: Arc::default(),
            seat: Mutex::default(),
        }))
    }

    /// What stands for who it is beside its messages, also after a restart: the same for clients that have the same name on the
    /// same transport and, where they have signed in, are the same user. Not 0.
    pub fn origin(&self) -> u64 {
        self.0.origin
    }

    /// A number that no other client of this bus has, from 1.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Who this is.
    pub fn principal(&self) -> Arc<Principal> {
        let principal = self.0.principal.read();
        Arc::clone(&principal.unwrap_or_else(PoisonError::into_inner))
    }

    /// Where it has connected from last.
    pub fn address(&self) -> Option<SocketAddr> {
        *lock(&self.0.address)
    }

    /// The same as log lines show it: see [`log::place`].
    pub fn shown_address(&self) -> Option<log::Place> {
        log::place(self.principal().transport, self.address())
    }

    /// Says that it has come back, from this address.
    pub fn set_address(&self, address: Option<SocketAddr>) {
        *lock(&self.0.address) = address;
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Publishes a message, and waits until it is accepted and, where it is to be durable, on disk.
    ///
    /// # Errors
    /// When rules or bounds refuse it. Nothing has changed.
    pub async fn publish(&self, publish: Publish) -> Result<Accepted, PublishRefused> {
        self.enqueue(publish).await.await
    }

    /// Hands a message over: for who publishes the next one before this one is answered. The wait is for room in the
    /// store's queue, no more; the receipt then resolves when the message is accepted and, where it is to be durable, on
    /// disk. Messages of one client keep their order.
    pub async fn enqueue(&self, publish: Publish) -> Receipt {
        self.enqueue_at(publish, Rate::Checked).await
    }

    /// The same for what its rate does not hold up, and counts for it: a will.
    pub async fn enqueue_will(&self, publish: Publish) -> Receipt {
        self.charge(&publish);
        self.enqueue_at(publish, Rate::Paid).await
    }

    async fn enqueue_at(&self, publish: Publish, rate: Rate) -> Receipt {
        match self.begin_publish(publish, rate) {
            Ok(receipt) => {
                if self.0.bus.is_stored() {
                    // Who never waits for receipts fills the queue, and must let the others run meanwhile.
                    coop::consume_budget().await;
                }
                receipt
            }
            Err(room) => room.await,
        }
    }

    /// The same as far as it goes without waiting. Where the store's queue is full, the wait for room.
    pub(crate) fn begin_publish(
        &self,
        publish: Publish,
        rate: Rate,
    ) -> Result<Receipt, BoxFuture<'_, Receipt>> {
        let bus = &self.0.bus.0;
        bus.metrics.messages_received.add(1);
        let bytes = publish.payload.len() as u64;
        bus.metrics.payload_bytes_received.add(bytes);
        let checked = match &bus.quota {
            Some(quota) if rate == Rate::Checked => self.check_rate(quota, &publish),
            _ => Ok(()),
        };
        if let Err(refused) = checked.and_then(|()| self.check_access(&publish)) {
            bus.metrics.refused(&refused);
            let bytes = publish.payload.len();
            self.log_rejected(&refused, Some(&publish.topic), bytes);
            return Ok(Receipt::known(Err(refused)));
        }
        if let Some(near_miss) = ClickTopic::near_miss(publish.topic.as_str()) {
            self.log_near_miss(&publish.topic, near_miss);
        }
        let source = self.source(&publish);
        let Some(writer) = &bus.writer else {
            let accepted = lock(&bus.pipeline).accept(publish, source);
            return Ok(self.known(accepted));
        };
        let publish = match self.may_go_straight(&publish) {
            false => publish,
            true => {
                let (shared, metrics) = (&bus.shared, &bus.metrics);
                match pipeline::accept_event(shared, metrics, publish, self.0.origin) {
                    Ok(accepted) => return Ok(self.known(accepted)),
                    Err(publish) => publish,
                }
            }
        };
        let about = About {
            client: self.clone(),
            topic: publish.topic.clone(),
            bytes: publish.payload.len(),
        };
        let large = match about.bytes {
            ..LARGE_BYTES => None,
            // A payload may be larger than the bound: alone it passes.
            bytes => Some(
                bytes
                    .min(bus.session.incoming_bytes)
                    .try_into()
                    .unwrap_or(u32::MAX),
            ),
        };
        let room = Arc::clone(&bus.queue_bytes);
        let held = match large.map(|bytes| Arc::clone(&room).try_acquire_many_owned(bytes)) {
            None => None,
            Some(Ok(held)) => Some(held),
            Some(Err(_)) => {
                let bytes = large.unwrap_or_default();
                let waits = self.publish_later((publish, source), about, (room, bytes));
                return Err(waits.boxed());
            }
        };
        match writer.accept(publish, source, self.queued(held)) {
            Ok(receipt) => Ok(receipt.about(about)),
            Err(room) => Err(room.map(|receipt| receipt.about(about)).boxed()),
        }
    }

    /// Who publishes this. Where nobody is counted, nobody is named.
    fn source(&self, publish: &Publish) -> Source {
        let is_held = publish.retain && !publish.payload.is_empty();
        Source {
            origin: self.0.origin,
            holder: is_held.then(|| self.holder()).flatten(),
            is_exempt: false,
        }
    }

    /// Who holds what this client publishes, where that is bounded.
    fn holder(&self) -> Option<Arc<Holder>> {
        self.0.bus.0.shared.held_limits?;
        Holder::of(&self.principal()).map(Arc::new)
    }

    fn check_rate(&self, quota: &Table, publish: &Publish) -> Result<(), PublishRefused> {
        let now = self.0.bus.clock().deadline_ms();
        let taken = quota.publish(&self.principal(), now, publish.counted_bytes());
        taken.map_err(|(retry_after, setting)| PublishRefused::RateLimited {
            retry_after,
            setting,
        })
    }

    /// Counts a publish that its rate does not refuse, and says how long to wait before it.
    pub(crate) fn charge(&self, publish: &Publish) -> Duration {
        let bus = &self.0.bus;
        let now = bus.clock().deadline_ms();
        let owed = |quota: &Table| quota.owe(&self.principal(), now, publish.counted_bytes());
        bus.0.quota.as_ref().map(owed).unwrap_or_default()
    }

    /// Takes the place of another connection of the same client, which it goes on for.
    pub fn take_seat_of(&self, other: &Self) {
        let seat = lock(&other.0.seat).take();
        self.sit(seat);
    }

    pub(super) fn sit(&self, seat: Option<Seat>) {
        *lock(&self.0.seat) = seat;
    }

    /// Its connection has ended.
    pub(crate) fn stand_up(&self) {
        self.sit(None);
    }

    /// Takes the place of a subscription.
    pub(crate) fn seat_subscription(&self) -> Result<Option<Seat>, SubscribeRefused> {
        let bus = &self.0.bus;
        let Some(quota) = &bus.0.quota else {
            return Ok(None);
        };
        let seat = quota.subscribe(&self.principal(), bus.clock().deadline_ms());
        seat.map_err(|TooMany { limit, .. }| {
            bus.metrics().subscriptions_over_quota.add(1);
            SubscribeRefused::UserFull { limit }
        })
    }

    /// Waits for memory first.
    async fn publish_later(
        &self,
        (publish, source): (Publish, Source),
        about: About,
        (room, bytes): (Arc<Semaphore>, u32),
    ) -> Receipt {
        // It is never closed.
        let held = room.acquire_many_owned(bytes).await.ok();
        let Some(writer) = &self.0.bus.0.writer else {
            return Receipt::known(Err(PublishRefused::Closed));
        };
        match writer.accept(publish, source, self.queued(held)) {
            Ok(receipt) => receipt.about(about),
            Err(room) => room.await.about(about),
        }
    }

    /// Whether a publish could be accepted: the rules, its sizes and the form of a click. What only its time can
    /// tell, whether the hub is full, is left open. For what is to be published later, a will say.
    ///
    /// # Errors
    /// As the publish would.
    pub fn check_publish(&self, publish: &Publish) -> Result<(), PublishRefused> {
        self.check_access(publish)?;
        pipeline::check_form(&self.0.bus.0.shared, publish)
    }

    fn check_access(&self, publish: &Publish) -> Result<(), PublishRefused> {
        if self.is_guest() {
            return Err(PublishRefused::SignInRequired);
        }
        let (topic, retain, qos) = (publish.topic.borrowed(), publish.retain, publish.qos);
        let named = || publish.topic.as_str().to_owned();
        let request = PublishRequest::new(topic, retain, qos);
        if !self.may_publish(&request) {
            let forbidden = self.forbidden(&request);
            return Err(PublishRefused::NotAllowed(named(), forbidden));
        }
        // What it expects, and whether that is there, says what stands there.
        match publish.expected.is_none() || self.may_read(topic) {
            true => Ok(()),
            false => Err(PublishRefused::Unreadable(named())),
        }
    }

    /// What of a publish the rules refuse. They are asked again about less, which only who is refused pays for.
    fn forbidden(&self, publish: &PublishRequest<'_>) -> Forbidden {
        let PublishRequest { topic, retain, qos } = *publish;
        if clicks::is_reserved(topic.as_str()) {
            return Forbidden::Reserved;
        }
        let may = |retain, qos| self.may_publish(&PublishRequest::new(topic, retain, qos));
        match () {
            () if retain && may(false, qos) => Forbidden::State,
            () if qos > 0 && may(retain, 0) => Forbidden::Qos(qos),
            () if retain && qos > 0 && may(false, 0) => Forbidden::StateAtQos(qos),
            () => Forbidden::Topic,
        }
    }

    /// Whether the rules would let it publish this.
    pub fn may_publish(&self, publish: &PublishRequest<'_>) -> bool {
        !self.is_guest()
            && !clicks::is_reserved(publish.topic.as_str())
            && (self.bus().authorizer()).authorize_publish(&self.principal(), publish)
    }

    fn known(&self, accepted: Result<Accepted, Rejected>) -> Receipt {
        Receipt::known(accepted.map_err(|rejected| {
            let Rejected {
                refused,
                topic,
                bytes,
            } = rejected;
            self.log_rejected(&refused, topic.as_ref(), bytes);
            refused
        }))
    }

    /// One line for a publish that was refused, and few of a kind for one client.
    fn log_rejected(
        &self,
        refused: &PublishRefused,
        topic: Option<&TopicName<String>>,
        bytes: usize,
    ) {
        // Who expects a value is prepared for another.
        if matches!(refused, PublishRefused::Closed | PublishRefused::Raced(_)) {
            return;
        }
        warn_limited!(
            self,
            refused.kind(),
            [
                topic = topic.map(|topic| shown(topic.as_str())),
                bytes,
                limit = refused.limit(),
                setting = refused.setting()
            ],
            "publish rejected: {refused}"
        );
    }

    /// One line for a publish that looks like a misspelt click and is an ordinary message all the same.
    fn log_near_miss(&self, topic: &TopicName<String>, near_miss: NearMiss) {
        warn_limited!(
            self,
            "near miss",
            [topic = shown(topic.as_str())],
            "publish counts no click: {near_miss}"
        );
    }

    /// One line for a subscription that was refused, and few of a kind for one client. Its answer is often not
    /// looked at: MQTT 3.1.1 has one code for all causes, and client libraries leave it to their users.
    pub(crate) fn log_refused(&self, refused: &SubscribeRefused, filter: &str) {
        if *refused != SubscribeRefused::Closed {
            let (cause, limit, setting) = (refused.to_string(), refused.limit(), refused.setting());
            self.log_refused_filter(filter, &cause, limit, setting);
        }
    }

    /// The same for a filter that a transport refuses.
    pub fn log_refused_filter(
        &self,
        filter: &str,
        cause: &str,
        limit: Option<usize>,
        setting: Option<&str>,
    ) {
        warn_limited!(
            self,
            "subscription",
            [filter = shown(filter), limit, setting],
            "subscription refused: {cause}"
        );
    }

    /// One line for events that had left the recent ring before this client could take them. 0: it is not known how many.
    pub(crate) fn log_missed(&self, missed: u64) {
        warn_limited!(
            self,
            "missed",
            [
                missed = (missed > 0).then_some(missed),
                setting = "limits.recent_messages, limits.recent_bytes"
            ],
            "events lost: newer ones had taken their room before the client took them"
        );
    }

    /// One line for messages that this client has taken from a group and not finished, and for which the group has no
    /// room.
    pub(crate) fn log_not_given_back(&self, lost: usize) {
        warn_limited!(
            self,
            "given back",
            [lost],
            "messages of a shared subscription lost: its members leave more unacknowledged than the group retains"
        );
    }

    /// Remembers and forgets what a transport wants to know of its clients after a restart. The wait is for
    /// room in the store's queue, no more; the receipt then resolves when it is on disk, and where nothing is
    /// stored at once. Its revision says nothing.
    pub async fn remember(&self, notes: Vec<Note>) -> Receipt {
        let bus = &self.0.bus.0;
        match &bus.writer {
            Some(writer) => writer.remember(notes, self.queued(None)).await,
            None => Receipt::known(Ok(Accepted { rev: 0 })),
        }
    }

    /// A snapshot of everything that the bus keeps and this peer may read, which is on disk where there is a store: the wait
    /// is for what it is writing.
    ///
    /// # Errors
    /// When the rules let this peer subscribe to neither `#` nor `$SYS/#`, or the bus closes.
    pub async fn export(&self) -> Result<Export, SubscribeRefused> {
        let bus = &self.0.bus;
        let check = |filter| {
            let filter =
                TopicFilter::parse(filter).unwrap_or_else(|_| unreachable!("both are filters"));
            bus.check_subscribe(&self.principal(), filter)
        };
        check("#").or_else(|refused| check("$SYS/#").map_err(|_| refused))?;
        let export = match &bus.0.writer {
            None => lock(&bus.0.pipeline).export(),
            Some(writer) => writer.export().await.ok_or(SubscribeRefused::Closed)?,
        };
        let export = match self.may_administer() {
            true => export,
            false => export.without_holders(),
        };
        // There are topics that neither filter matches.
        Ok(match bus.authorizer().reader(&self.principal()) {
            None => export,
            Some(reader) => export.readable_by(&reader),
        })
    }

    /// Merges a record of an export: see [`backup`](crate::backup). The wait is for room in the store's queue;
    /// the receipt resolves as that of a publish.
    pub async fn import(&self, record: Record) -> Receipt {
        let bus = &self.0.bus.0;
        let topic = record.topic();
        // A record that may take clicks away is an administrator's.
        let allowed = match record.resets() {
            true => self.may_administer(),
            false => TopicName::parse(topic.as_str()).is_ok_and(|topic| {
                !self.is_guest()
                    && self.may_publish(&PublishRequest::new(topic, true, Publish::STATE_QOS))
            }),
        };
        if !allowed {
            let refused = PublishRefused::NotAllowed(topic, Forbidden::Topic);
            bus.metrics.refused(&refused);
            return Receipt::known(Err(refused));
        }
        let is_exempt = self.may_administer();
        let source = Source {
            origin: 0,
            holder: (!is_exempt).then(|| self.holder()).flatten(),
            is_exempt,
        };
        match &bus.writer {
            None => Receipt::known(lock(&bus.pipeline).accept_import(record, source)),
            Some(writer) => writer.import(record, source).await,
        }
    }

    /// Resets a room, removes a device, or undoes that: see [`Operate`]. Waits until it is on disk, if anything is.
    ///
    /// # Errors
    /// When this principal may not, or there is no such thing; nothing has changed.
    pub async fn operate(&self, operate: Operate) -> Result<Operated, OperationError> {
        let bus = &self.0.bus.0;
        let principal = self.principal();
        // Of who has no name others are told nothing but the way that they came.
        let by = audit::by(&principal);
        let operated = match &bus.writer {
            _ if !self.may_administer() => Err(OperationError::NotAllowed),
            None => lock(&bus.pipeline).accept_operation(&operate, by),
            Some(writer) => writer.operate(operate.clone(), by.to_owned()).await,
        };
        audit::operation(self, &operate, operated.as_ref());
        operated
    }

    /// Whether this principal may do what only an administrator may: every door asks here. On a server without users
    /// everyone is one.
    pub fn may_administer(&self) -> bool {
        !self.is_guest() && self.bus().authorizer().is_admin(&self.principal())
    }

    fn queued(&self, held: Option<OwnedSemaphorePermit>) -> Queued {
        self.0.queued.fetch_add(1, Ordering::Relaxed);
        Queued {
            count: Arc::clone(&self.0.queued),
            _bytes: held,
        }
    }

    /// An event that is not a click needs no store, unless a durable subscription waits for it: it does not wait
    /// for one either, unless earlier messages of the same client do.
    fn may_go_straight(&self, publish: &Publish) -> bool {
        !publish.retain
            && publish.expected.is_none()
            && publish.notes.is_empty()
            && !publish.topic.as_str().starts_with("clicks/")
            && self.0.queued.load(Ordering::Relaxed) == 0
    }
}

/// Counts a client's message while it waits for the store.
#[derive(Debug)]
pub(crate) struct Queued {
    count: Arc<AtomicUsize>,
    /// What a large one takes of the memory of the queue.
    _bytes: Option<OwnedSemaphorePermit>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What becomes of a publish: a future.
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Known(Option<Result<Accepted, PublishRefused>>),
    /// Until the store has written.
    Queued(
        oneshot::Receiver<Result<Accepted, PublishRefused>>,
        Option<About>,
    ),
}

/// What the log says of a publish that the store's thread refuses.
#[derive(Debug)]
struct About {
    client: Client,
    topic: TopicName<String>,
    bytes: usize,
}

impl Receipt {
    pub(crate) fn known(result: Result<Accepted, PublishRefused>) -> Self {
        Self(State::Known(Some(result)))
    }

    pub(crate) fn queued(answer: oneshot::Receiver<Result<Accepted, PublishRefused>>) -> Self {
        Self(State::Queued(answer, None))
    }

    fn about(mut self, publish: About) -> Self {
        if let State::Queued(_, about) = &mut self.0 {
            *about = Some(publish);
        }
        self
    }
}

impl Future for Receipt {
    type Output = Result<Accepted, PublishRefused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.0 {
            State::Known(result) => result.take().unwrap_or(Err(PublishRefused::Closed)),
            State::Queued(answer, about) => {
                let answer = ready!(Pin::new(answer).poll(cx));
                let result = answer.unwrap_or(Err(PublishRefused::Closed));
                if let (Err(refused), Some(about)) = (&result, about.take()) {
                    (about.client).log_rejected(refused, Some(&about.topic), about.bytes);
                }
                result
            }
        })
    }
}

/// FNV-1a of the transport, the name and, of who has signed in, who that is. It is stored, so it must not depend on the version of a library.
fn origin(principal: &Principal) -> u64 {
    const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01B3;
    let kind = match principal.identity {
        Identity::User(_) => b'u',
        Identity::Token { .. } => b't',
        Identity::Certificate { .. } => b'c',
        Identity::Anonymous | Identity::Guest | Identity::Process => 0,
    };
    let name = principal.identity.name();
    let identity = name.into_iter().flat_map(|name| {
        let kind = [0, kind];
        kind.into_iter().chain(name.bytes())
    });
    let bytes = principal
        .transport
        .bytes()
        .chain([0])
        .chain(principal.client_id.bytes())
        .chain(identity);
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    hash.max(1)
}
