//! Varints as postcard writes them: seven bits a byte, the low ones first. Unlike postcard's own
//! reader this one takes only the shortest form, so that a counter has one encoding.

use super::counter::{MAX_COUNT, ReportError};

/// The most bytes that a count takes: 53 bits in groups of seven.
pub(super) const MAX_VARINT_BYTES: usize = 8;

/// Splits a count off the front.
pub(super) fn take(bytes: &[u8]) -> Result<(u64, &[u8]), ReportError> {
    let mut value = 0;
    let mut rest = bytes;
    for group in 0..MAX_VARINT_BYTES {
        let (byte, tail) = rest.split_first().ok_or(ReportError::Truncated)?;
        rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            if *byte == 0 && group > 0 {
                return Err(ReportError::Varint);
            }
            if value > MAX_COUNT {
                return Err(ReportError::TooLarge);
            }
            return Ok((value, rest));
        }
    }
    Err(ReportError::Varint)
}

/// Writes `value` into the slots; `None` when they run out.
pub(super) fn put<'b>(mut value: u64, slots: &mut impl Iterator<Item = &'b mut u8>) -> Option<()> {
    while value >= 0x80 {
        *slots.next()? = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
    }
    *slots.next()? = value as u8;
    Some(())
}
