//! Messages and link frames from hostile peers: what is read can be written and read again, and the link decoder
//! agrees with a second one that was written from the definitions of COBS and CRC-32.
//!
//! Input: any bytes, taken as a message of a client, as one of a server, and as what comes over a link.
#![no_main]

use latchbus_core::wire::{
    self, ClearedTail, ClientFrame, Frame, LINK_CHECKSUM_BYTES, LinkDecoder, MessageTail,
    ServerFrame, WireError,
};
use libfuzzer_sys::fuzz_target;

/// Small, so that frames that are too long are common.
const LINK_BYTES: usize = 48;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = wire::decode_client(bytes) {
        let again = |message: &[u8]| {
            wire::decode_client(message).and_then(|frame| wire::encode_vec(&frame))
        };
        round_trip(&frame, again);
    }
    if let Ok(frame) = wire::decode_server(bytes) {
        let again = |message: &[u8]| {
            wire::decode_server(message).and_then(|frame| wire::encode_vec(&frame))
        };
        let message = round_trip(&frame, again);
        if let Some(shared) = in_two_pieces(&frame) {
            assert_eq!(shared, message);
        }
    }
    link(bytes);
});

/// Compares bytes and not frames: a rate that is no number does not equal itself.
fn round_trip(frame: &impl Frame, again: impl Fn(&[u8]) -> Result<Vec<u8>, WireError>) -> Vec<u8> {
    let message = wire::encode_vec(frame).expect("memory for what fitted into the input");
    assert_eq!(again(&message).as_ref(), Ok(&message));
    for cut in 0..message.len() {
        assert!(again(&message[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = message.clone();
    longer.push(0);
    assert_eq!(again(&longer), Err(WireError::Trailing));

    let mut exact = vec![0xaa; message.len()];
    assert_eq!(wire::encode(frame, &mut exact).as_deref(), Ok(&*message));
    exact.pop();
    assert_eq!(wire::encode(frame, &mut exact), Err(WireError::BufferFull));

    let mut on_link = vec![0xaa; wire::max_link_bytes(message.len())];
    let on_link = wire::encode_link(frame, &mut on_link)
        .expect("room for any message of this length")
        .to_vec();
    let mut wrapped = vec![0xaa; wire::max_link_bytes(message.len())];
    let (front, back) = message.split_at(message.len() / 2);
    assert_eq!(
        wire::wrap_link(&[front, back], &mut wrapped).as_deref(),
        Ok(&*on_link)
    );
    let mut decoder = LinkDecoder::<LINK_BYTES>::default();
    let (received, rest) = decoder.feed(&on_link);
    let fits = message.len() + LINK_CHECKSUM_BYTES <= LINK_BYTES;
    assert_eq!(received, fits.then_some(&*message));
    assert!(rest.is_empty());
    message
}

fn in_two_pieces(frame: &ServerFrame<'_>) -> Option<Vec<u8>> {
    let (head, tail) = match *frame {
        ServerFrame::Message {
            id,
            topic,
            payload,
            rev,
            at,
        } => (
            wire::message_head(id),
            MessageTail {
                topic,
                payload,
                rev,
                at,
            }
            .encode_vec(),
        ),
        ServerFrame::Cleared { id, topic, rev, at } => (
            wire::cleared_head(id),
            ClearedTail { topic, rev, at }.encode_vec(),
        ),
        _ => return None,
    };
    Some(
        [
            &*head,
            &*tail.expect("memory for what fitted into the input"),
        ]
        .concat(),
    )
}

fn link(bytes: &[u8]) {
    let mut decoder = LinkDecoder::<LINK_BYTES>::default();
    let at_once = receive(&mut decoder, bytes);
    let mut slow = LinkDecoder::<LINK_BYTES>::default();
    let one_by_one: Vec<_> = bytes
        .chunks(1)
        .flat_map(|byte| receive(&mut slow, byte))
        .collect();
    assert_eq!(at_once, one_by_one);
    assert_eq!(decoder.counts(), slow.counts());

    let (messages, corrupt, oversized) = model(bytes);
    assert_eq!(at_once, messages);
    let counts = decoder.counts();
    assert_eq!(
        (counts.messages, counts.corrupt, counts.oversized),
        (messages.len() as u32, corrupt, oversized)
    );

    // Whatever came before: after a delimiter a whole frame is read.
    let mut frame = [0; 32];
    let frame =
        wire::encode_link(&ClientFrame::Ping { id: 3 }, &mut frame).expect("room for a ping");
    receive(&mut decoder, &[0]);
    assert_eq!(
        receive(&mut decoder, frame),
        [wire::encode_vec(&ClientFrame::Ping { id: 3 }).expect("memory")]
    );
}

fn receive(decoder: &mut LinkDecoder<LINK_BYTES>, mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !input.is_empty() {
        let (message, rest) = decoder.feed(input);
        messages.extend(message.map(<[u8]>::to_vec));
        assert!(rest.len() < input.len());
        input = rest;
    }
    messages
}

/// The messages in what came over the link, and how many frames were corrupt and oversized.
fn model(bytes: &[u8]) -> (Vec<Vec<u8>>, u32, u32) {
    let (mut messages, mut corrupt, mut oversized) = (Vec::new(), 0, 0);
    let mut frames = bytes.split(|byte| *byte == 0).peekable();
    while let Some(frame) = frames.next() {
        let ended = frames.peek().is_some();
        let (data, whole) = unstuff(frame);
        if data.len() > LINK_BYTES {
            oversized += 1;
        } else if !ended || frame.is_empty() {
            // Nothing to say yet, or nothing between two delimiters.
        } else if let Some((message, checksum)) = data.split_last_chunk::<LINK_CHECKSUM_BYTES>()
            && whole
            && !message.is_empty()
            && crc32(message).to_le_bytes() == *checksum
        {
            messages.push(message.to_vec());
        } else {
            corrupt += 1;
        }
    }
    (messages, corrupt, oversized)
}

/// COBS: a code byte n stands before n - 1 bytes and for the zero after them, unless it is 255 or the end.
fn unstuff(mut frame: &[u8]) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    while let Some((code, rest)) = frame.split_first() {
        let run = usize::from(*code) - 1;
        let Some((bytes, rest)) = rest.split_at_checked(run) else {
            data.extend(rest);
            return (data, false);
        };
        data.extend(bytes);
        if *code != 255 && !rest.is_empty() {
            data.push(0);
        }
        frame = rest;
    }
    (data, true)
}

/// CRC-32/ISO-HDLC, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
