//! What Latchbus promises, written once and checked for every transport.
//!
//! A transport implements [`Transport`] and [`Peer`] and then runs the whole suite with one line:
//!
//! ```
//! use latchbus_tests::transports::Memory;
//!
//! latchbus_tests::conformance!(memory, Memory);
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`transport`] | what a transport has to bring, and what it can say |
//! | [`promises`] | the promises; each is a function over any transport |
//! | [`transports`] | in memory, WebSocket (JSON, postcard), MQTT (3.1.1, 5), Socket.IO (WebSocket, polls): raw peers that share no code with the servers' own |
//! | [`users`] | users for the suite, rules for them, and a transport whose peers have signed in |
//! | [`bench`](mod@bench) | a bus behind a transport, for the length of one test |
//! | [`program`] | the built programs, started as a user would |
//! | [`chaos`] | those programs, killed, cut off and out of disk |
//! | [`kills`] | a server that is killed again and again under load |
//! | [`power`] | a real store on a disk whose power fails |
//! | [`simulator`] | a whole room in virtual time, by seed |
//! | [`cost`] | what durability costs, beside others |
//! | [`http`] | requests to the built server |
//! | [`seed`] | the seed of a run |
//! | [`depth`](mod@depth) | how much a test does, usually and in `tests/run deep` |
//!
//! # What MQTT cannot say
//! A promise that a protocol has no words for is checked in the form that it has there, never left out:
//!
//! | promise | WebSocket and in memory | MQTT |
//! |---|---|---|
//! | a snapshot is complete | `synced` | the retain flag: every retained message comes before the first live one; what was changed before it could be sent comes as live |
//! | events that were missed | `gap` with their number | not told; what came and what the bus counts as skipped add up |
//! | going on after a cut | `since` and the cursor: each changed topic once | the persistent session: every change in order, as far as the recent ring reaches |
//! | a tombstone was forgotten | `reset`, then all that is left | all that is left comes again, flagged as retained |
//! | which subscription a message is for | its id | 5: the subscription identifier; 3.1.1: one copy for each that matches |
//! | a publish is refused | an error with a code | 5: the reason code; 3.1.1: acknowledged and dropped |
//! | the server stops | 1001 | 5: reason 0x8B; 3.1.1: the connection ends |

// All of this is test code: a failed assumption is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod bench;
pub mod chaos;
pub mod cost;
pub mod deadline;
pub mod depth;
pub mod http;
pub mod kills;
pub mod power;
pub mod program;
pub mod promises;
pub mod seed;
pub mod simulator;
pub mod transport;
pub mod transports;
pub mod users;

pub use bench::Bench;
pub use deadline::{DEADLINE, within};
pub use transport::{Incoming, Message, Peer, Transport};

/// Runs every promise over one transport: a module with a test for each.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $transport:ty) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::conformance!(@tests $transport:
                late_joiner_gets_each_retained_topic_once_before_live,
                synced_comes_after_every_value_that_was_there,
                revisions_increase_and_topics_end_at_their_newest,
                slow_reader_gets_the_newest_and_costs_no_memory,
                every_event_is_taken_or_counted_as_missed,
                resume_brings_only_what_changed,
                clear_reaches_subscribers_and_later_ones_see_nothing,
                forgotten_tombstone_resets_the_subscriber,
                malformed_input_hurts_only_its_sender,
                oversized_input_hurts_only_its_sender,
                bytes_arrive_as_they_were_published,
                count_sent_again_counts_once,
                press_with_an_id_counts_once,
                overlapping_subscriptions_are_each_complete,
                messages_of_several_subscriptions_come_in_one_order,
                unsubscribe_ends_one_subscription,
                answers_come_in_the_order_of_the_publishes,
                reserved_topics_are_refused_and_counted,
                shared_subscriptions_are_shared_or_refused,
                shutdown_tells_peers_and_keeps_what_was_acknowledged,
            );
        }
    };
    (@tests $transport:ty: $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::promises::$promise::<$transport>().await;
            }
        )*
    };
}
