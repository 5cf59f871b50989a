#![cfg_attr(not(test), no_std)]
//! A button on a microcontroller: its presses are debounced, counted cumulatively and published through a hub on
//! the device itself; what the room has counted comes back and is shown.
//!
//! | module | what it holds |
//! |---|---|
//! | [`debounce`] | levels of a pin become presses |
//! | [`names`] | the room and the device that an image is built for |
//! | [`button`] | the counter and the hub on the device |
//! | [`boots`] | which boot this is, learned from the bus, for a device without storage |
//! | [`entropy`] | a nonce from what little chance there is |
//! | [`link`] | the conversation with a `latchbus` over a byte link |
//! | [`mqtt`] | the same conversation over MQTT 3.1.1, for the Ethernet image |
//! | [`operations`] | what the image `hub-model` is asked to do, for a test |
//! | `stack` | how deep the stack has been, on the target |
//! | `memory` | small routines in the place of the compiler's fast ones, on the target |
//! | `board` | the registers of the boards, on their targets |
//!
//! Nothing here allocates, and nothing but `board`, `memory` and `stack` knows a machine. Time comes in as milliseconds.

pub mod boots;
pub mod button;
pub mod debounce;
pub mod entropy;
pub mod link;
pub mod mqtt;
pub mod names;
pub mod operations;

#[cfg(target_os = "none")]
pub mod board;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
pub mod stack;
