//! Byte links: messages survive in any chunks, and what is damaged is skipped.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what the tests call may fail as they may"
)]

use latchbus_core::wire::{
    ClientFrame, LINK_CHECKSUM_BYTES, LinkCounts, LinkDecoder, WireError, encode, encode_link,
    max_link_bytes, wrap_link,
};
use proptest::collection::vec;
use proptest::prelude::*;

const LARGEST: usize = 1100;

fn publish(payload: &[u8]) -> ClientFrame<'_> {
    ClientFrame::Publish {
        id: Some(1),
        topic: "t",
        payload,
        retain: false,
    }
}

fn message(payload: &[u8]) -> Vec<u8> {
    let mut buffer = [0; LARGEST];
    encode(&publish(payload), &mut buffer).unwrap().to_vec()
}

fn link_frame(payload: &[u8]) -> Vec<u8> {
    let mut buffer = [0; max_link_bytes(LARGEST)];
    encode_link(&publish(payload), &mut buffer)
        .unwrap()
        .to_vec()
}

/// Everything that a decoder makes of these chunks.
fn decoded<const N: usize>(decoder: &mut LinkDecoder<N>, chunks: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for chunk in chunks {
        let mut input = *chunk;
        while !input.is_empty() {
            let (message, rest) = decoder.feed(input);
            messages.extend(message.map(<[u8]>::to_vec));
            input = rest;
        }
    }
    messages
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..40),
        vec(0..2_u8, 0..600),
        // No zero for longer than a COBS block.
        vec(1..=255_u8, 240..1000),
    ]
}

proptest! {
    #[test]
    fn messages_come_through_in_any_chunks(
        payloads in vec(payload(), 1..6),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let stream = payloads.iter().flat_map(|p| link_frame(p)).collect::<Vec<_>>();
        let mut cuts = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect::<Vec<_>>();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect::<Vec<_>>();

        let mut decoder = LinkDecoder::<LARGEST>::default();
        let expected = payloads.iter().map(|p| message(p)).collect::<Vec<_>>();
        prop_assert_eq!(decoded(&mut decoder, &chunks), expected);
        let messages = u32::try_from(payloads.len()).unwrap();
        prop_assert_eq!(decoder.counts(), LinkCounts { messages, ..LinkCounts::default() });
    }

    #[test]
    fn a_link_frame_has_one_zero_and_fits_its_bound(payload in payload(), cut in any::<prop::sample::Index>()) {
        let frame = link_frame(&payload);
        let (last, inside) = frame.split_last().unwrap();
        prop_assert!(*last == 0 && !inside.contains(&0));
        let message = message(&payload);
        prop_assert!(frame.len() <= max_link_bytes(message.len()));

        let mut buffer = vec![0; max_link_bytes(message.len())];
        let (head, tail) = message.split_at(cut.index(message.len()));
        prop_assert_eq!(&*wrap_link(&[head, tail], &mut buffer).unwrap(), &frame);
        let short = &mut buffer[..frame.len() - 1];
        prop_assert_eq!(wrap_link(&[head, tail], short), Err(WireError::BufferFull));
        prop_assert_eq!(encode_link(&publish(&payload), short), Err(WireError::BufferFull));
    }

    /// Whatever happens to one frame, no wrong message comes out, and the one after the next
    /// delimiter is whole.
    #[test]
    fn damage_costs_what_it_touches(
        payload in payload(),
        place in any::<prop::sample::Index>(),
        xor in 1..=255_u8,
        damage in 0..4_u8,
    ) {
        let mut stream = link_frame(&payload);
        let place = place.index(stream.len());
        match damage {
            0 => stream[place] ^= xor,
            1 => {
                stream.remove(place);
            }
            2 => stream.insert(place, xor),
            _ => stream.truncate(place),
        }
        stream.push(0);
        stream.extend(link_frame(b"after"));

        let mut decoder = LinkDecoder::<LARGEST>::default();
        let mut messages = decoded(&mut decoder, &[&stream]);
        prop_assert_eq!(messages.pop(), Some(message(b"after")));
        // Damage to the delimiter alone may leave the frame whole.
        if let Some(first) = messages.pop() {
            prop_assert_eq!(first, message(&payload));
        }
        prop_assert!(messages.is_empty());
    }

    #[test]
    fn noise_never_panics_and_never_sticks(noise in vec(prop_oneof![1 => Just(0), 6 => any::<u8>()], 0..400)) {
        let mut decoder = LinkDecoder::<32>::default();
        // A checksum over four bytes that random noise meets would be news.
        prop_assert!(decoded(&mut decoder, &[&noise, &[0]]).is_empty());
        prop_assert_eq!(decoded(&mut decoder, &[&link_frame(b"after")]), vec![message(b"after")]);
        let counts = decoder.counts();
        prop_assert!(counts.corrupt + counts.oversized <= u32::try_from(noise.len() + 1).unwrap());
    }
}

#[test]
fn each_fault_is_counted_as_what_it_is() {
    const ROOM: usize = 16;
    let mut decoder = LinkDecoder::<ROOM>::default();
    let fits = vec![7; ROOM - LINK_CHECKSUM_BYTES - message(b"").len()];
    let good = link_frame(&fits);
    let mut flipped = good.clone();
    flipped[3] ^= 0x10;
    let cut = [&good[..5], &[0]].concat();
    let too_long = link_frame(&[fits.as_slice(), &[7]].concat());
    let far_too_long = link_frame(&[7; 1000]);
    let mut buffer = [0; 16];
    let empty = wrap_link(&[], &mut buffer).unwrap().to_vec();
    let stream = [
        &[0, 0][..],
        &good,
        &flipped,
        &cut,
        &too_long,
        &far_too_long,
        &empty,
        &[2, 9, 0],
        &good,
    ]
    .concat();
    assert_eq!(
        decoded(&mut decoder, &[&stream]),
        [message(&fits), message(&fits)]
    );
    let expected = LinkCounts {
        messages: 2,
        corrupt: 4,
        oversized: 2,
    };
    assert_eq!(decoder.counts(), expected);
}

#[test]
fn a_lone_delimiter_ends_what_was_half_read() {
    let mut decoder = LinkDecoder::<64>::default();
    let frame = link_frame(b"x");
    assert!(decoded(&mut decoder, &[&frame[..4]]).is_empty());
    // The sender starts anew.
    assert_eq!(decoded(&mut decoder, &[&[0], &frame]), [message(b"x")]);
}
