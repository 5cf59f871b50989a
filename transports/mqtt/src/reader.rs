//! The data types of MQTT (MQTT 3.1.1 §1.5, MQTT 5 §1.5), read from the front of a packet's bytes.

use core::num::NonZeroU16;

use crate::Violation;

/// What is left of a packet, or of a part of it with a length of its own.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be behind the last field.
    pub(crate) const fn end(&self) -> Result<(), Violation> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(Violation::Malformed("bytes behind the last field")),
        }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Violation> {
        let cut_short = Violation::Malformed("cut short");
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(cut_short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Violation> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer, in as few bytes as it needs (MQTT-1.5.5-1).
    pub(crate) fn varint(&mut self) -> Result<u32, Violation> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << (7 * place);
            if byte == 0 && place > 0 {
                break;
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Violation::Malformed("variable byte integer"))
    }

    /// A part that has its length before it as a variable byte integer.
    pub(crate) fn part(&mut self) -> Result<Self, Violation> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| Violation::Malformed("cut short"))?;
        self.take(length).map(Self)
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// UTF-8 without U+0000 (MQTT 3.1.1 §1.5.3, MQTT 5 §1.5.4).
    pub(crate) fn text(&mut self) -> Result<&'a str, Violation> {
        let text = core::str::from_utf8(self.binary()?)
            .map_err(|_| Violation::Malformed("invalid UTF-8"))?;
        if text.contains('\0') {
            return Err(Violation::Malformed("U+0000 in a string"));
        }
        Ok(text)
    }

    /// A packet identifier: not 0 (MQTT-2.3.1-1, MQTT 5 MQTT-2.2.1-3).
    pub(crate) fn packet_id(&mut self) -> Result<NonZeroU16, Violation> {
        NonZeroU16::new(self.u16()?).ok_or(Violation::Protocol("packet identifier 0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MQTT-1.5.5-1; the boundaries are those of the table in §1.5.5.
    #[test]
    fn lengths_have_no_more_bytes_than_they_need() {
        let read = |bytes: &[u8]| Reader(bytes).varint();
        assert_eq!(read(&[0]), Ok(0));
        assert_eq!(read(&[0x80, 1]), Ok(128));
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0x7F]), Ok(268_435_455));
        for bytes in [
            &[0x80, 0][..],
            &[0xFF, 0],
            &[0x81, 0x80, 0],
            &[0x80, 0x80, 0x80, 0],
            &[0x80, 0x80, 0x80, 0x80, 1],
            &[0x80],
            &[],
        ] {
            let malformed = matches!(read(bytes), Err(Violation::Malformed(_)));
            assert!(malformed, "{bytes:02x?}");
        }
    }
}
