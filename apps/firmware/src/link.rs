//! The conversation with a `latchbus` over a byte link that may lose, damage and repeat what it carries.
//!
//! The device first learns which boot this is: it walks through its own retained topics until two walks agree.
//! Then it publishes its count until that is acknowledged, and keeps a subscription to the room's values,
//! which it renews now and then: so nothing that is lost, at either end, stays lost.

use core::fmt::Write;

use latchbus_core::clicks::Incarnation;
use latchbus_core::hub::{Cursor, Mode};
use latchbus_core::wire::{
    self, ClientFrame, ErrorCode, LINK_CHECKSUM_BYTES, LinkDecoder, ServerFrame,
};

use crate::boots::Boots;
use crate::button::{Button, Topic};
use crate::entropy::Entropy;
use crate::names::{DEVICE, MAX_TOPIC_BYTES, ROOM};

/// The longest message that is understood: a count topic with a payload of 256 bytes and the largest numbers. What
/// is longer is none of this device's business.
const MESSAGE_BYTES: usize = 2 + 10 + 2 + MAX_TOPIC_BYTES + 2 + 256 + 10 + 10 + LINK_CHECKSUM_BYTES;

/// The most bytes that [`Link::poll`] gives at a time.
pub const MAX_FRAME_BYTES: usize = wire::max_link_bytes(2 + 11 + 1 + MAX_TOPIC_BYTES + 64);

/// How long an answer may take before the question is asked again: at first, and at most.
const PATIENCE_MS: u64 = 250;
const LONGEST_PATIENCE_MS: u64 = 4_000;

/// The device shows that it is there, whatever was acknowledged.
const REPORT_AGAIN_MS: u64 = 60_000;

/// How often the subscription is renewed: it brings what was lost on the line, and finds a server that has
/// restarted unheard.
const RENEW_MS: u64 = 5_000;

/// After damage on the line, what may have been lost is asked for soon, but not more often than this.
const MEND_MS: u64 = 100;

/// One side of the link. Drive it with [`receive`](Self::receive) for what comes in, and [`poll`](Self::poll) whenever
/// there is room to send and at the latest at [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Link {
    decoder: LinkDecoder<MESSAGE_BYTES>,
    entropy: Entropy,
    greeted: bool,
    boots: Boots,
    walk: Walk,
    values: Values,
    publish: Publish,
    /// A subscription that was ended, or is of an earlier boot, and still brings messages.
    stray: Option<u64>,
}

/// A walk through this device's own topics.
#[derive(Debug)]
struct Walk {
    /// The ids of its two subscriptions are this and the next.
    id: u64,
    asked: [bool; 2],
    synced: [bool; 2],
    /// Skipped frames before it began.
    skipped_before: u32,
    /// When it is given up.
    until: u64,
}

/// The subscription to the room's values.
#[derive(Debug)]
struct Values {
    id: u64,
    /// The revision is that of the last message, never that of a `Synced`, which may arrive when the message before it
    /// was lost on the line.
    cursor: Option<Cursor>,
    renew_at: u64,
}

/// The count on its way.
#[derive(Debug)]
struct Publish {
    /// The id of a publish is this and the clicks in it.
    base: u64,
    acked: Option<u64>,
    sent: Option<u64>,
    again_at: u64,
    patience_ms: u64,
}

impl Link {
    /// A link that has said nothing yet.
    pub const fn new() -> Self {
        Self {
            decoder: LinkDecoder::new(),
            entropy: Entropy::new(0),
            greeted: false,
            boots: Boots::new(),
            walk: Walk {
                id: 0,
                asked: [true; 2],
                synced: [false; 2],
                skipped_before: 0,
                until: 0,
            },
            values: Values {
                id: 0,
                cursor: None,
                renew_at: 0,
            },
            publish: Publish {
                base: 0,
                acked: None,
                sent: None,
                again_at: 0,
                patience_ms: PATIENCE_MS,
            },
            stray: None,
        }
    }

    /// To be called once, before anything else. `entropy` is what the board knows of chance.
    pub fn begin(&mut self, entropy: Entropy) {
        self.entropy = entropy;
        // Drawn at each boot, as an earlier one's subscriptions may still be there. The low bits are its own.
        self.walk.id = u64::from(self.entropy.draw() & !7);
    }

    /// Takes a byte from the line. `chance` is whatever is unpredictable about its arrival.
    pub fn receive(&mut self, byte: u8, chance: u32, now: u64, button: &mut Button) {
        let before = self.skipped();
        let (message, _) = self.decoder.feed(core::slice::from_ref(&byte));
        if let Some(frame) = message.and_then(|message| wire::decode_server(message).ok()) {
            let state = Heard {
                boots: &mut self.boots,
                walk: &mut self.walk,
                values: &mut self.values,
                publish: &mut self.publish,
                stray: &mut self.stray,
            };
            state.hear(frame, now, button);
            self.entropy.mix(chance);
        }
        if self.skipped() != before {
            self.values.mend(now);
        }
    }

    /// The next frame to be sent, if one is due; call it again while it gives one. `out` holds at least
    /// [`MAX_FRAME_BYTES`].
    pub fn poll<'o>(
        &mut self,
        now: u64,
        button: &mut Button,
        out: &'o mut [u8],
    ) -> Option<&'o [u8]> {
        if !self.greeted {
            // Ends whatever the server has half read of an earlier boot.
            self.greeted = true;
            let first = out.get_mut(..1)?;
            first.fill(0);
            return Some(first);
        }
        if let Some(id) = self.stray.take() {
            return encode(&ClientFrame::Unsubscribe { id }, out);
        }
        if button.has_begun() {
            self.poll_publish(now, button, out)
        } else {
            self.poll_walk(now, button, out)
        }
    }

    /// When [`poll`](Self::poll) has something to do at the latest, unless something happens.
    pub fn deadline(&self, button: &Button) -> u64 {
        if button.has_begun() {
            self.values.renew_at.min(self.publish.again_at)
        } else {
            self.walk.until
        }
    }

    /// Whether all clicks were acknowledged.
    pub fn is_settled(&self, button: &Button) -> bool {
        button.has_begun() && self.publish.acked == Some(button.counter().total())
    }

    fn skipped(&self) -> u32 {
        let counts = self.decoder.counts();
        counts.corrupt.wrapping_add(counts.oversized)
    }

    fn poll_walk<'o>(
        &mut self,
        now: u64,
        button: &mut Button,
        out: &'o mut [u8],
    ) -> Option<&'o [u8]> {
        if self.walk.synced == [true; 2] {
            let whole = self.walk.skipped_before == self.skipped();
            if let Some(boot) = whole.then(|| self.boots.walked()).flatten() {
                self.boot(boot, now, button);
                return self.poll_publish(now, button, out);
            }
            self.walk.until = now;
        }
        if now >= self.walk.until {
            self.walk = Walk {
                // Two pairs of ids in turn: the server holds no more of them, and what is still told of the
                // walk before is not taken for this one's.
                id: self.walk.id ^ 2,
                asked: [false; 2],
                synced: [false; 2],
                skipped_before: self.skipped(),
                until: now + 2 * PATIENCE_MS,
            };
        }
        let mut filter = Topic::new();
        let id = match self.walk.asked {
            [false, _] => {
                self.walk.asked = [true, false];
                write!(filter, "clicks/{ROOM}/{DEVICE}/count/+").ok()?;
                self.walk.id
            }
            [true, false] => {
                self.walk.asked = [true; 2];
                write!(filter, "clicks/{ROOM}/{DEVICE}/floor").ok()?;
                self.walk.id + 1
            }
            [true, true] => return None,
        };
        subscribe(id, &filter, None, out)
    }

    fn boot(&mut self, boot: u32, now: u64, button: &mut Button) {
        let nonce = self.entropy.draw();
        // A boot that follows another is not 0.
        if let Some(incarnation) = Incarnation::new(boot, nonce) {
            self.values = Values {
                id: (self.walk.id & !7) + 4,
                cursor: None,
                renew_at: now,
            };
            self.publish.base = u64::from(self.entropy.draw());
            self.publish.again_at = now;
            button.begin(incarnation);
        }
    }

    fn poll_publish<'o>(
        &mut self,
        now: u64,
        button: &mut Button,
        out: &'o mut [u8],
    ) -> Option<&'o [u8]> {
        if now >= self.values.renew_at {
            self.values.renew_at = now + RENEW_MS;
            let mut filter = Topic::new();
            write!(filter, "clicks/{ROOM}/values").ok()?;
            return subscribe(self.values.id, &filter, self.values.cursor, out);
        }
        let report = button.report()?;
        let publish = &mut self.publish;
        let in_flight = publish.sent > publish.acked;
        let news = publish.sent != Some(report.total);
        if now < publish.again_at && (in_flight || !news) {
            return None;
        }
        if in_flight {
            publish.patience_ms = (2 * publish.patience_ms).min(LONGEST_PATIENCE_MS);
        } else {
            publish.patience_ms = PATIENCE_MS;
        }
        publish.sent = Some(report.total);
        publish.again_at = now + publish.patience_ms;
        if publish.acked >= publish.sent {
            // It is only shown again.
            publish.acked = None;
        }
        let publish = ClientFrame::Publish {
            id: Some(publish.base + report.total),
            topic: report.topic,
            payload: report.payload,
            retain: true,
        };
        encode(&publish, out)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// The parts of a link that a message changes, while the decoder lends it.
struct Heard<'l> {
    boots: &'l mut Boots,
    walk: &'l mut Walk,
    values: &'l mut Values,
    publish: &'l mut Publish,
    stray: &'l mut Option<u64>,
}

impl Heard<'_> {
    fn hear(self, frame: ServerFrame<'_>, now: u64, button: &mut Button) {
        let begun = button.has_begun();
        match frame {
            // The server has begun, or has opened the port again: it knows of no subscription.
            ServerFrame::Welcome { .. } => {
                self.values.renew_at = now;
                self.walk.until = now;
                self.publish.again_at = now;
            }
            ServerFrame::Message {
                id,
                topic,
                payload,
                rev,
                ..
            } => {
                if begun && id == self.values.id {
                    button.heard(topic, payload);
                    if let Some(cursor) = &mut self.values.cursor {
                        cursor.rev = rev;
                    }
                } else if !begun && self.walk.has(id) {
                    self.boots.found(topic, payload);
                } else {
                    *self.stray = Some(id);
                }
            }
            ServerFrame::Synced { id, cursor } => {
                if begun && id == self.values.id {
                    self.values.synced(cursor.epoch);
                } else if !begun && self.walk.has(id) {
                    let [counts, floor] = &mut self.walk.synced;
                    *if id == self.walk.id { counts } else { floor } = true;
                }
            }
            ServerFrame::Ack { id, .. } => self.publish.acked(id, now),
            // A frame of this device was damaged on its way: it need not wait for its time to run out.
            ServerFrame::Error {
                id: None,
                code: ErrorCode::BadMessage,
                ..
            } => {
                self.values.mend(now);
                self.publish.again_at = self.publish.again_at.min(now + MEND_MS);
                if !begun {
                    self.walk.until = self.walk.until.min(now + MEND_MS);
                }
            }
            // A refused publish is tried again as one that was not answered.
            ServerFrame::Error { .. } => {}
            ServerFrame::Reset { .. }
            | ServerFrame::Gap { .. }
            | ServerFrame::Cleared { .. }
            | ServerFrame::Pong { .. } => {}
        }
    }
}

impl Walk {
    fn has(&self, id: u64) -> bool {
        id == self.id || id == self.id + 1
    }
}

impl Values {
    fn synced(&mut self, epoch: u64) {
        if self.cursor.is_none_or(|cursor| cursor.epoch != epoch) {
            self.cursor = Some(Cursor { epoch, rev: 0 });
        }
    }

    fn mend(&mut self, now: u64) {
        self.renew_at = self.renew_at.min(now + MEND_MS);
    }
}

impl Publish {
    /// Ids are drawn at each boot, so that what an earlier one is still told is not taken for an answer.
    fn acked(&mut self, id: u64, now: u64) {
        let Some(total) = id.checked_sub(self.base) else {
            return;
        };
        if self.sent < Some(total) {
            return;
        }
        self.acked = self.acked.max(Some(total));
        if self.acked == self.sent {
            self.again_at = now + REPORT_AGAIN_MS;
            self.patience_ms = PATIENCE_MS;
        }
    }
}

fn subscribe<'o>(
    id: u64,
    filter: &str,
    since: Option<Cursor>,
    out: &'o mut [u8],
) -> Option<&'o [u8]> {
    let subscribe = ClientFrame::Subscribe {
        id,
        filter,
        mode: Mode::Latest,
        max_rate: None,
        since,
    };
    encode(&subscribe, out)
}

/// Nothing that this device sends is longer than [`MAX_FRAME_BYTES`].
fn encode<'o>(frame: &ClientFrame<'_>, out: &'o mut [u8]) -> Option<&'o [u8]> {
    wire::encode_link(frame, out).ok().map(|frame| &*frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device whose boot is known, and what it has to say.
    struct Device {
        link: Link,
        button: Button,
        now: u64,
    }

    impl Device {
        fn new() -> Self {
            let mut device = Self {
                link: Link::new(),
                button: Button::new(),
                now: 0,
            };
            device.link.begin(Entropy::new(7));
            for _ in 0..2 {
                for (id, _) in device.asked() {
                    device.hears(&ServerFrame::Synced {
                        id,
                        cursor: Cursor { epoch: 9, rev: 0 },
                    });
                }
            }
            device
        }

        /// The subscriptions that it asks for now.
        fn asked(&mut self) -> Vec<(u64, Option<Cursor>)> {
            let mut asked = Vec::new();
            let mut out = [0; MAX_FRAME_BYTES];
            while let Some(frame) = self.link.poll(self.now, &mut self.button, &mut out) {
                let mut decoder = LinkDecoder::<MESSAGE_BYTES>::new();
                if let (Some(message), _) = decoder.feed(frame)
                    && let Ok(ClientFrame::Subscribe { id, since, .. }) =
                        wire::decode_client(message)
                {
                    asked.push((id, since));
                }
            }
            asked
        }

        /// The subscription to the values, when it is next renewed.
        fn renews(&mut self) -> (u64, Option<Cursor>) {
            self.now += RENEW_MS;
            *self.asked().first().unwrap()
        }

        fn hears(&mut self, frame: &ServerFrame<'_>) {
            let mut out = [0; MESSAGE_BYTES + 16];
            for byte in &*wire::encode_link(frame, &mut out).unwrap() {
                self.link.receive(*byte, 0, self.now, &mut self.button);
            }
        }

        fn hears_values(&mut self, id: u64, rev: u64) {
            self.hears(&ServerFrame::Message {
                id,
                topic: "clicks/main/values",
                payload: br#"{"red":1,"blue":2}"#,
                rev,
                at: 0,
            });
        }
    }

    #[test]
    fn a_message_that_was_lost_before_its_synced_is_asked_for_again() {
        let mut device = Device::new();
        let (id, since) = device.renews();
        assert_eq!(since, None);
        device.hears_values(id, 4);
        let synced = |epoch, rev| ServerFrame::Synced {
            id,
            cursor: Cursor { epoch, rev },
        };
        device.hears(&synced(9, 4));
        device.renews();
        device.hears_values(id, 5);
        device.hears(&synced(9, 5));
        assert_eq!(device.renews().1, Some(Cursor { epoch: 9, rev: 5 }));
        // The message with revision 8 does not arrive.
        device.hears(&synced(9, 8));
        assert_eq!(device.renews().1, Some(Cursor { epoch: 9, rev: 5 }));
        // Nor does the first message of a server that has started anew.
        device.hears(&synced(10, 3));
        assert_eq!(device.renews().1, Some(Cursor { epoch: 10, rev: 0 }));
    }
}
