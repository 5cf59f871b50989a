//! One peer's subscriptions, and the loop that serves them over a link.

mod entries;
mod permission;
mod presence;
mod reading;
mod writing;

use core::{future::poll_fn, mem, pin::pin, task::Poll, time::Duration};
use std::sync::Arc;

use futures_util::FutureExt;
use latchbus_core::hub::Cursor;
use tokio::time::{Instant, timeout};

use self::permission::Permission;
use self::presence::Present;
use crate::Delivery;
use crate::alarm::Alarm;
use crate::bell::OnBell;
use crate::bus::Client;
use crate::link::{Close, Event, LinkReceiver, LinkSender, Subscribe};
use crate::outbox::Outbox;
use crate::refusal::SubscribeRefused;
use crate::wake::{Wake, lock};

pub use entries::Confirmations;
pub(crate) use entries::Subscriptions;
pub use permission::SignedOut;
pub use presence::Traffic;

/// How long a link of a closing bus may take to deliver what there is.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a link that ends waits for the answers to what its peer has published.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a link may take to send its last answers and say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The subscriptions of one peer. They outlive its links: run the session again over another link, and
/// each subscription goes on where it was, as far as the hub's ring and log reach.
///
/// Dropping a session ends its subscriptions.
#[derive(Debug)]
pub struct Session {
    client: Client,
    wake: Wake,
    subscriptions: Arc<Subscriptions>,
    /// What the last link was not answered in time.
    late: Option<Box<Outbox>>,
}

/// Why a run of a session has ended.
#[derive(Debug)]
pub enum Ended<R, S> {
    /// The peer has left as its protocol provides.
    Left,
    /// The receiving half broke.
    Receiver(R),
    /// The sending half broke.
    Sender(S),
    /// The caller has stopped the run.
    Stopped,
    /// Its peer may not be here any more.
    SignedOut(SignedOut),
    /// The bus closes.
    Closing,
}

impl Session {
    /// A session without subscriptions.
    pub fn new(client: Client) -> Self {
        let bus = client.bus();
        let subscriptions = Arc::new(Subscriptions::new(client.clone()));
        bus.note_session(&subscriptions);
        Self {
            client,
            wake: Wake::default(),
            subscriptions,
            late: None,
        }
    }

    /// Makes the loop look again at the link's credit and buffer.
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// The peer that it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What its transport says of the connection.
    pub fn traffic(&self) -> Traffic {
        Traffic::new(&self.subscriptions)
    }

    /// How many matching messages of the recent ring it has not taken. What waits for a group is nobody's in particular.
    pub fn pending(&self) -> u64 {
        self.subscriptions.pending().1
    }

    /// The ids of its subscriptions, in no order.
    pub fn subscription_ids(&self) -> Vec<u64> {
        let entries = lock(&self.subscriptions.entries);
        entries.iter().map(|(key, _)| key).collect()
    }

    /// Gives messages that a place in a group has taken, and that its peer will not finish, to the other
    /// members of the group (MQTT 5 §4.8.2): for a session that is about to end. Those of other
    /// subscriptions were meant for this session alone, and are dropped.
    pub fn give_back(&self, subscription: u64, deliveries: Vec<Delivery>) {
        let entries = lock(&self.subscriptions.entries);
        if let Some(entry) = entries.get(subscription).filter(|entry| entry.grouped) {
            let bus = self.client.bus();
            let lost = bus.shared().give_back(entry.id, deliveries);
            bus.metrics().skipped.add(lost as u64);
            if lost > 0 {
                self.client.log_not_given_back(lost);
            }
        }
    }

    /// Begins subscriptions while there is no link, and says of each, in their order, whether it was accepted; the next
    /// link serves them. So a transport can refuse before its first byte, with a status of HTTP say, and a session that
    /// outlived a restart goes on with [`Start::Resume`](latchbus_core::hub::Start::Resume) and the cursors that were
    /// stored for it. (What comes over a link is [`Request::Subscribe`](crate::Request::Subscribe).)
    pub fn subscribe(&self, subscriptions: Vec<Subscribe>) -> Vec<Result<(), SubscribeRefused>> {
        let mut begun = Vec::new();
        subscriptions
            .into_iter()
            .map(|subscribe| self.begin(subscribe, &mut begun))
            .collect()
    }

    /// Where a subscription stands: the newest revision that was taken from it for the link, with all before
    /// that were for it. None when it is not there, or a place in a group.
    pub fn cursor(&self, subscription: u64) -> Option<Cursor> {
        let id = {
            let subscriptions = lock(&self.subscriptions.entries);
            subscriptions.get(subscription).filter(|it| !it.grouped)?.id
        };
        let bus = self.client.bus();
        let rev = bus.read(|hub| hub.taken(id)).ok()?;
        let epoch = bus.epoch();
        Some(Cursor { epoch, rev })
    }

    /// What a durable subscription has brought up to `rev` is acknowledged, and needs no storing for it any
    /// more. A lower number than before changes nothing.
    pub fn confirm(&self, subscription: u64, rev: u64) {
        self.subscriptions.confirm(subscription, rev);
    }

    /// A handle that [confirms](Self::confirm) while a link is being served.
    pub fn confirmations(&self) -> Confirmations {
        Confirmations::new(&self.subscriptions)
    }

    /// Serves a link until one side ends it, or `stop` is ready, which is polled often: see [`Ended`]. Reading
    /// and writing run side by side in this one task. What can be sent within two seconds is sent, and then
    /// [`LinkSender::close`] is called, in each case but a failure to send.
    pub async fn run<R: LinkReceiver, S: LinkSender>(
        &mut self,
        mut receiver: R,
        sender: &mut S,
        stop: impl Future<Output = ()> + Send,
    ) -> Ended<R::Error, S::Error> {
        let in_flight = self.client.bus().session_limits().in_flight;
        let outbox = Outbox::new(in_flight);
        self.late = None;
        let present = Present::new(&self.subscriptions, self.client.bus().clock().unix_ms());
        let ended = {
            let mut stop = pin!(stop);
            let read = pin!(self.read(&mut receiver, &outbox));
            let mut read = OnBell::new(read);
            let (mut write, mut reads_first) = (pin!(self.write(sender, &outbox)), false);
            let mut permission = Permission::default();
            let (mut drain_until, mut drained_in_time) = (None, Alarm::default());
            poll_fn(|cx| {
                if stop.poll_unpin(cx).is_ready() {
                    return Poll::Ready(Ended::Stopped);
                }
                if let Poll::Ready(signed_out) = self.poll_permission(&mut permission, cx) {
                    return Poll::Ready(Ended::SignedOut(signed_out));
                }
                if self.subscriptions.poll_closing(cx).is_ready() {
                    let drain_until =
                        *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_TIMEOUT);
                    if drained_in_time.poll_ring(Some(drain_until), cx).is_ready() {
                        return Poll::Ready(Ended::Closing);
                    }
                }
                // Behind what registers this task: it is woken for it.
                if self.subscriptions.is_dismissed() {
                    return Poll::Ready(Ended::SignedOut(SignedOut::Dismissed));
                }
                // Each is first every other time: a peer that never stops sending must not keep the writing from its
                // turn, and an order of chance would make no two runs of a simulation the same.
                reads_first = !reads_first;
                for reads in [reads_first, !reads_first] {
                    if reads && let Poll::Ready(ended) = read.poll_unpin(cx) {
                        return Poll::Ready(match ended {
                            Ok(()) => Ended::Left,
                            Err(error) => Ended::Receiver(error),
                        });
                    }
                    if !reads && let Poll::Ready(written) = write.poll_unpin(cx) {
                        return Poll::Ready(match written {
                            Ok(()) => Ended::Closing,
                            Err(error) => Ended::Sender(error),
                        });
                    }
                }
                Poll::Pending
            })
            .await
        };
        outbox.end();
        self.skip_turns();
        let close = match &ended {
            Ended::Sender(_) => None,
            Ended::Left | Ended::Receiver(_) => Some(Close::ReceiverEnded),
            Ended::Stopped => Some(Close::TakenOver),
            Ended::SignedOut(signed_out) => Some(Close::SignedOut(signed_out.clone())),
            Ended::Closing => Some(Close::GoingAway),
        };
        // A sender that has failed still learns which publishes were answered. A store that is stuck
        // does not answer any more, and the peer is still told goodbye.
        let answers = async {
            while let Some(event) = outbox.next().await {
                if sender.push(event).is_err() {
                    return;
                }
            }
        };
        let answered = timeout(ANSWER_TIMEOUT, answers).await;
        self.late = answered.is_err().then(|| Box::new(outbox));
        if let Some(close) = close {
            // A peer that reads too slowly for this hears nothing more.
            let _too_slow = timeout(CLOSE_TIMEOUT, async {
                if sender.flush().await.is_ok() {
                    sender.close(close).await;
                }
            })
            .await;
        }
        drop(present);
        ended
    }

    /// The next answer to what came over the last link, when [`run`](Self::run) has stopped waiting for it: what
    /// was published may still be accepted, and a peer that is to repeat what was not can be told apart from
    /// one that is not. None when there are no more. Cancel-safe.
    pub async fn late_answer(&mut self) -> Option<Event> {
        match &self.late {
            Some(outbox) => outbox.next().await,
            None => None,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let entries = mem::take(&mut *lock(&self.subscriptions.entries));
        for (_, entry) in entries.iter() {
            self.end(entry);
        }
    }
}
