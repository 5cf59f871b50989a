//! How much a link takes before it is flushed.

/// The messages of a link's batch, by which it estimates how many more fit: the next ones are taken to be as long as the
/// longest of this batch and the one before. For [`LinkSender::credit`](crate::LinkSender::credit).
#[derive(Debug, Clone)]
pub struct BatchEstimate {
    max_messages: usize,
    /// Messages since the last flush.
    messages: usize,
    /// Not 0.
    longest: usize,
}

impl BatchEstimate {
    /// Of batches of up to so many messages, however small.
    pub const fn new(max_messages: usize) -> Self {
        Self {
            max_messages,
            messages: 0,
            longest: 1,
        }
    }

    /// How many more messages fit in so many bytes. One at least, whatever its length, unless there is no room at all or
    /// the batch has as many messages as it may have.
    pub fn fit(&self, room_bytes: usize) -> usize {
        let left = self.max_messages.saturating_sub(self.messages);
        match room_bytes {
            0 => 0,
            _ => (room_bytes / self.longest).max(1).min(left),
        }
    }

    /// The same, but nothing beyond the room, for a link where that takes long to send.
    pub fn fit_strictly(&self, room_bytes: usize) -> usize {
        let left = self.max_messages.saturating_sub(self.messages);
        (room_bytes / self.longest).min(left)
    }

    /// A message was buffered, and took so many bytes.
    pub fn push(&mut self, bytes: usize) {
        let before = match self.messages {
            0 => self.longest / 2,
            _ => self.longest,
        };
        self.longest = bytes.max(before).max(1);
        self.messages += 1;
    }

    /// What was buffered is sent.
    pub const fn flushed(&mut self) {
        self.messages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_fit_as_the_longest_of_late_says() {
        let mut batch = BatchEstimate::new(64);
        assert_eq!((batch.fit(0), batch.fit_strictly(0)), (0, 0));
        // Nothing is known yet.
        assert_eq!(batch.fit(10), 10);
        batch.push(100);
        assert_eq!((batch.fit(1_000), batch.fit(10)), (10, 1));
        assert_eq!((batch.fit_strictly(1_000), batch.fit_strictly(10)), (10, 0));
        batch.push(200);
        batch.push(1);
        assert_eq!(batch.fit(1_000), 5);
        batch.flushed();
        // It forgets by halves.
        batch.push(1);
        assert_eq!(batch.fit(1_000), 10);
        batch.push(0);
        for _ in 2..64 {
            assert!(batch.fit(1) == 1);
            batch.push(1);
        }
        assert_eq!((batch.fit(1_000), batch.fit_strictly(1_000)), (0, 0));
        batch.flushed();
        assert!(batch.fit(1_000) > 0);
        // An empty message does not divide by zero.
        let mut empty = BatchEstimate::new(2);
        empty.push(0);
        assert_eq!(empty.fit(5), 1);
    }
}
