//! The promises, each over any transport.

mod answers;
mod closing;
mod counting;
mod joining;
mod misbehaving;
mod order;
mod overlapping;
mod returning;
mod slow;

pub use answers::{
    answers_come_in_the_order_of_the_publishes, bytes_arrive_as_they_were_published,
    reserved_topics_are_refused_and_counted, shared_subscriptions_are_shared_or_refused,
};
pub use closing::shutdown_tells_peers_and_keeps_what_was_acknowledged;
pub use counting::{count_sent_again_counts_once, press_with_an_id_counts_once};
pub use joining::{
    clear_reaches_subscribers_and_later_ones_see_nothing,
    late_joiner_gets_each_retained_topic_once_before_live,
    synced_comes_after_every_value_that_was_there,
};
pub use misbehaving::{
    malformed_input_hurts_only_its_sender, oversized_input_hurts_only_its_sender,
};
pub use order::revisions_increase_and_topics_end_at_their_newest;
pub use overlapping::{
    messages_of_several_subscriptions_come_in_one_order,
    overlapping_subscriptions_are_each_complete, unsubscribe_ends_one_subscription,
};
pub use returning::{forgotten_tombstone_resets_the_subscriber, resume_brings_only_what_changed};
pub use slow::{
    every_event_is_taken_or_counted_as_missed, slow_reader_gets_the_newest_and_costs_no_memory,
};
