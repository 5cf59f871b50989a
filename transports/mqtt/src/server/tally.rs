//! How many packets a stream of bytes has, whatever is done with them.

/// Counts packets in bytes that come in pieces of any length. It goes by the fixed headers alone (MQTT 3.1.1 §2.2), a few
/// steps a packet.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Bytes of the packet that are still to come.
    rest: usize,
    /// Within a remaining length: its value so far, and its bits.
    length: Option<(usize, u32)>,
}

/// A remaining length has no more bits than this.
const MAX_LENGTH_BITS: u32 = 28;

impl Tally {
    /// How many packets begin in the next bytes.
    pub(crate) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut packets = 0;
        loop {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            let Some((&byte, rest)) = bytes.get(skipped..).and_then(<[u8]>::split_first) else {
                return packets;
            };
            bytes = rest;
            match self.length {
                None => {
                    packets += 1;
                    self.length = Some((0, 0));
                }
                Some((value, bits)) => {
                    let value = value | usize::from(byte & 0x7F) << bits;
                    let bits = bits + 7;
                    // A longer one ends the connection.
                    let is_whole = byte & 0x80 == 0 || bits >= MAX_LENGTH_BITS;
                    self.length = (!is_whole).then_some((value, bits));
                    self.rest = if is_whole { value } else { 0 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_however_they_are_cut() {
        let mut bytes = vec![0xC0, 0, 0x30, 0x80, 0x02];
        bytes.extend([0xFF; 256]);
        bytes.extend([0x40, 2, 0, 1, 0xD0, 0, 0x30, 3, 0, 1, b'a']);
        for cut in 1..bytes.len() {
            let mut tally = Tally::default();
            let packets: u64 = bytes.chunks(cut).map(|piece| tally.count(piece)).sum();
            assert_eq!(packets, 5, "{cut}");
            assert_eq!((tally.rest, tally.length), (0, None));
        }
        let mut tally = Tally::default();
        assert_eq!(tally.count(&[0xFF; 1_000]), 1);
    }
}
