//! What a topic retains besides its last value, page by page.

use std::sync::Arc;

use latchbus_core::topic::TopicName;
use tokio::sync::OwnedSemaphorePermit;

use super::{Client, Delivery};
use crate::refusal::SubscribeRefused;

/// Messages of a page, where none are named.
pub const HISTORY_PAGE: usize = 50;

/// The most messages of a page.
pub const MAX_HISTORY_PAGE: usize = 1_000;

/// A page ends before its payloads are longer than this together, but holds one message at least.
pub const HISTORY_PAGE_BYTES: usize = 256 << 10;

/// Values that a topic retains, from before some revision.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The oldest first.
    pub messages: Vec<Delivery>,
    /// Whether there are older ones: name the revision of the first to get them.
    pub has_more: bool,
    /// One page at a time is on its way to a link.
    pub(crate) _turn: Option<Arc<OwnedSemaphorePermit>>,
}

impl Client {
    /// The last values that a topic retains from before revision `before`, or of all: up to `limit`, which may be cut to
    /// [`MAX_HISTORY_PAGE`] and by [`HISTORY_PAGE_BYTES`].
    ///
    /// # Errors
    /// When the rules do not let it read the topic.
    pub fn history(
        &self,
        topic: TopicName<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<HistoryPage, SubscribeRefused> {
        let bus = self.bus();
        if !self.may_read(topic) {
            let refused = match self.is_guest() {
                true => SubscribeRefused::SignInRequired,
                false => SubscribeRefused::NotAllowed(topic.as_str().into()),
            };
            self.log_refused(&refused, topic.as_str());
            return Err(refused);
        }
        let limit = limit.clamp(1, MAX_HISTORY_PAGE);
        let before = before.unwrap_or(u64::MAX);
        let mut values = bus.read(|hub| hub.history(topic, before, limit + 1));
        let mut has_more = values.len() > limit;
        values.truncate(limit);
        let mut bytes = 0_usize;
        let fits = |value: &&Delivery| {
            bytes = bytes.saturating_add(value.payload.bytes().len());
            bytes <= HISTORY_PAGE_BYTES
        };
        let fitting = values.iter().take_while(fits).count().max(1);
        has_more |= values.len() > fitting;
        values.truncate(fitting);
        let now = bus.clock().deadline_ms();
        values.retain(|value| !value.payload.has_expired(now));
        values.reverse();
        Ok(HistoryPage {
            messages: values,
            has_more,
            _turn: None,
        })
    }
}
