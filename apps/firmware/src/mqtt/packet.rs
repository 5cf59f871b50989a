//! The packets of MQTT 3.1.1 that a button needs. Sections are those of the specification.

use heapless::Vec;

use super::Output;

/// The longest packet that is read; a longer one is none of this device's business, and skipped.
const PACKET_BYTES: usize = 512;

/// §2.2.3: the length has at most four bytes of seven bits.
const LENGTH_BYTES: usize = 4;

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    /// §3.2 CONNACK with return code 0.
    Accepted,
    /// CONNACK with another.
    Refused,
    /// §3.9 SUBACK.
    Subscribed,
    /// §3.4 PUBACK.
    Acknowledged { id: u16 },
    /// §3.3 PUBLISH with QoS 0, which is all that is subscribed to.
    Publish { topic: &'a str, payload: &'a [u8] },
    /// Whatever else may come.
    Other,
}

/// The server does not speak MQTT 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Finds packets in a stream of bytes.
#[derive(Debug)]
pub(super) struct Reader {
    kind: u8,
    stage: Stage,
    body: Vec<u8, PACKET_BYTES>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Kind,
    Length { so_far: usize, bytes: usize },
    Body { left: usize },
    Skip { left: usize },
}

impl Reader {
    pub(super) const fn new() -> Self {
        Self {
            kind: 0,
            stage: Stage::Kind,
            body: Vec::new(),
        }
    }

    /// Takes a byte; gives the packet that it completes.
    pub(super) fn feed(&mut self, byte: u8) -> Option<Result<Incoming<'_>, Malformed>> {
        match self.stage {
            Stage::Kind => {
                self.kind = byte;
                self.body.clear();
                self.stage = Stage::Length {
                    so_far: 0,
                    bytes: 0,
                };
                // §2.2.1: 0 is forbidden.
                (byte >> 4 == 0).then_some(Err(Malformed))
            }
            Stage::Length { so_far, bytes } => {
                let length = so_far | usize::from(byte & 0x7f) << (7 * bytes);
                if byte & 0x80 != 0 {
                    let bytes = bytes + 1;
                    self.stage = Stage::Length {
                        so_far: length,
                        bytes,
                    };
                    return (bytes == LENGTH_BYTES).then_some(Err(Malformed));
                }
                self.stage = match length {
                    0 => Stage::Kind,
                    1..=PACKET_BYTES => Stage::Body { left: length },
                    _ => Stage::Skip { left: length },
                };
                (length == 0).then(|| incoming(self.kind, &[]))
            }
            Stage::Body { left } => {
                let _fits = self.body.push(byte);
                if left > 1 {
                    self.stage = Stage::Body { left: left - 1 };
                    return None;
                }
                self.stage = Stage::Kind;
                Some(incoming(self.kind, &self.body))
            }
            Stage::Skip { left } => {
                self.stage = match left {
                    ..=1 => Stage::Kind,
                    _ => Stage::Skip { left: left - 1 },
                };
                None
            }
        }
    }
}

fn incoming(kind: u8, body: &[u8]) -> Result<Incoming<'_>, Malformed> {
    Ok(match (kind >> 4, body) {
        (2, [_, 0]) => Incoming::Accepted,
        (2, [_, _]) => Incoming::Refused,
        (4, [high, low]) => Incoming::Acknowledged {
            id: u16::from_be_bytes([*high, *low]),
        },
        (9, [_, _, ..]) => Incoming::Subscribed,
        (3, _) => {
            let (length, rest) = body.split_first_chunk().ok_or(Malformed)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (topic, payload) = rest.split_at_checked(length).ok_or(Malformed)?;
            Incoming::Publish {
                topic: core::str::from_utf8(topic).map_err(|_| Malformed)?,
                payload,
            }
        }
        (2 | 4 | 9, _) => return Err(Malformed),
        _ => Incoming::Other,
    })
}

/// A publish of this device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publish<'a> {
    topic: &'a str,
    payload: &'a [u8],
    retain: bool,
    /// With an id it has QoS 1, without one QoS 0.
    id: Option<u16>,
}

impl<'a> Publish<'a> {
    pub(super) const fn event(topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            topic,
            payload,
            retain: false,
            id: None,
        }
    }

    pub(super) const fn state(topic: &'a str, payload: &'a [u8], id: Option<u16>) -> Self {
        Self {
            topic,
            payload,
            retain: true,
            id,
        }
    }
}

/// §3.1: a clean session, whose will is the status `offline`, retained.
pub(super) fn connect(out: &mut Output, id: &str, status: &str, keep_alive_ms: u64) -> Option<()> {
    const CLEAN_SESSION: u8 = 1 << 1;
    const WILL: u8 = 1 << 2;
    const WILL_RETAIN: u8 = 1 << 5;
    const LEVEL: u8 = 4;
    let keep_alive = u16::try_from(keep_alive_ms / 1_000).unwrap_or(u16::MAX);
    let [high, low] = keep_alive.to_be_bytes();
    packet(out, 0x10, |out| {
        text(out, b"MQTT")?;
        extend(out, &[LEVEL, CLEAN_SESSION | WILL | WILL_RETAIN, high, low])?;
        text(out, id.as_bytes())?;
        text(out, status.as_bytes())?;
        text(out, b"offline")
    })
}

/// §3.8: with QoS 0.
pub(super) fn subscribe(out: &mut Output, filter: &str) -> Option<()> {
    packet(out, 0x82, |out| {
        extend(out, &[0, 1])?;
        text(out, filter.as_bytes())?;
        extend(out, &[0])
    })
}

/// §3.10
pub(super) fn unsubscribe(out: &mut Output, filter: &str) -> Option<()> {
    packet(out, 0xa2, |out| {
        extend(out, &[0, 1])?;
        text(out, filter.as_bytes())
    })
}

/// §3.3
pub(super) fn publish(out: &mut Output, publish: &Publish<'_>) -> Option<()> {
    let qos = u8::from(publish.id.is_some());
    let kind = 0x30 | qos << 1 | u8::from(publish.retain);
    packet(out, kind, |out| {
        text(out, publish.topic.as_bytes())?;
        if let Some(id) = publish.id {
            extend(out, &id.to_be_bytes())?;
        }
        extend(out, publish.payload)
    })
}

/// §3.12
pub(super) fn ping(out: &mut Output) -> Option<()> {
    packet(out, 0xc0, |_| Some(()))
}

/// Writes the fixed header around a body. Its length, which has one byte or two, is known only behind it.
fn packet(out: &mut Output, kind: u8, body: impl FnOnce(&mut Output) -> Option<()>) -> Option<()> {
    let begin = out.len();
    extend(out, &[kind, 0])?;
    body(out)?;
    let length = out.len() - begin - 2;
    let low = (length & 0x7f) as u8;
    if length > 0x7f {
        out.insert(begin + 2, (length >> 7) as u8).ok()?;
        *out.get_mut(begin + 1)? = low | 0x80;
    } else {
        *out.get_mut(begin + 1)? = low;
    }
    Some(())
}

/// §1.5.3: two bytes of length, then the text.
fn text(out: &mut Output, text: &[u8]) -> Option<()> {
    extend(out, &u16::try_from(text.len()).ok()?.to_be_bytes())?;
    extend(out, text)
}

fn extend(out: &mut Output, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_in_any_pieces() {
        let mut reader = Reader::new();
        let mut stream = std::vec![0x20, 2, 0, 0, 0xd0, 0, 0x40, 2, 1, 2];
        stream.extend(b"\x30\x07\x00\x03a/bxy");
        // Longer than what is read.
        stream.extend([0x30, 0x81, 0x08]);
        stream.extend([0; 1025]);
        stream.extend([0x90, 3, 0, 1, 0]);
        let mut seen = std::vec::Vec::new();
        for byte in stream {
            match reader.feed(byte) {
                Some(Ok(Incoming::Publish { topic, payload })) => {
                    assert_eq!((topic, payload), ("a/b", &b"xy"[..]));
                }
                Some(Ok(other)) => seen.push(std::format!("{other:?}")),
                Some(Err(malformed)) => panic!("{malformed:?}"),
                None => {}
            }
        }
        assert_eq!(
            seen,
            [
                "Accepted",
                "Other",
                "Acknowledged { id: 258 }",
                "Subscribed"
            ]
        );
    }
}
