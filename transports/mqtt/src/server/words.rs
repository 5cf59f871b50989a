//! The last words of clients that have left, on their way to the bus.

use latchbus_bus::{PublishRefused, Receipt};

use super::registry::{Hold, LastWords};

/// Last words that are handed to the bus.
#[derive(Debug)]
struct Said {
    words: LastWords,
    /// What becomes of the will, if there is one.
    receipt: Option<Receipt>,
}

impl LastWords {
    /// Publishes and forgets.
    pub(super) async fn say(self) {
        say_all(vec![self]).await;
    }

    /// Hands them to the bus. The wait is for room in the store's queue, no more.
    async fn begin(mut self) -> Said {
        let receipt = match (self.will.take(), &self.disk) {
            (Some(will), Some(disk)) => Some(disk.publish(will, &self.notes).await),
            // What is refused is counted by the bus.
            (Some(will), None) => {
                drop(self.client.enqueue_will(will).await);
                None
            }
            (None, Some(disk)) => {
                disk.remember(core::mem::take(&mut self.notes)).await;
                None
            }
            (None, None) => None,
        };
        Said {
            words: self,
            receipt,
        }
    }
}

impl Said {
    /// Waits until a will is published or refused. A refused one is not to be published at the next start either; what
    /// the bus does not answer before it closes is left to that. What ends for the session that goes on is
    /// given back.
    async fn finish(self) -> Option<LastWords> {
        let words = self.words;
        if let (Some(receipt), Some(disk)) = (self.receipt, &words.disk) {
            let closing = words.client.bus().closing();
            let outcome = tokio::select! {
                biased;
                outcome = receipt => Some(outcome),
                () = closing.cancelled() => None,
            };
            if let Some(Err(refused)) = outcome
                && refused != PublishRefused::Closed
            {
                disk.remember(words.notes).await;
            }
        }
        words.hold.and_then(Hold::release)
    }
}

/// Says them all, so that they share their commits.
pub(super) async fn say_all(mut words: Vec<LastWords>) {
    while !words.is_empty() {
        let mut said = Vec::with_capacity(words.len());
        for words in words {
            said.push(words.begin().await);
        }
        words = Vec::new();
        for said in said {
            words.extend(said.finish().await);
        }
    }
}

/// Publishes wills while the bus closes, and waits until they are in the hub or refused.
pub(super) async fn say_before_the_end(words: Vec<LastWords>) {
    let mut receipts = Vec::with_capacity(words.len());
    for words in words {
        let Some(will) = words.will else {
            continue;
        };
        let receipt = match &words.disk {
            Some(disk) => disk.publish(will, &words.notes).await,
            None => words.client.enqueue_will(will).await,
        };
        receipts.push((receipt, words.disk, words.notes));
    }
    for (receipt, disk, notes) in receipts {
        let outcome = receipt.await;
        if let (Err(refused), Some(disk)) = (outcome, disk)
            && refused != PublishRefused::Closed
        {
            disk.remember(notes).await;
        }
    }
}
