//! Just enough of each protocol to subscribe, publish and count.
//!
//! No protocol library takes part, so that what the generator costs is the same for every server: about one
//! read and the search for one mark a delivery.

use core::net::SocketAddr;
use std::io::Write as _;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Latchbus over WebSocket, in JSON.
    Latchbus,
    /// The small JSON protocol of the WebSocket servers in `peers/`.
    Plain,
    /// MQTT 3.1.1.
    Mqtt,
    /// NATS.
    Nats,
    /// Socket.IO 4 over WebSocket.
    SocketIo,
}

/// A name and a password, as MQTT and HTTP carry them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    /// Who.
    pub(crate) user: &'a str,
    /// What only they know.
    pub(crate) password: &'a str,
    /// Both, for `Authorization: Basic`.
    pub(crate) basic: &'a str,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A message, with everything that its protocol wraps around the payload.
    Message(&'a [u8]),
    /// The server has opened the conversation, or accepted ours.
    Opened,
    /// A subscription stands.
    Subscribed,
    /// A publish was acknowledged.
    Acknowledged,
    /// To be answered with these bytes.
    Asked(Vec<u8>),
    /// Nothing of interest.
    Other,
}

/// A message to publish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publication<'a> {
    /// Where.
    pub(crate) topic: &'a str,
    /// What: printable, without quotes.
    pub(crate) payload: &'a str,
    /// Whether the server is to keep it.
    pub(crate) retain: bool,
    /// Whether it is to be acknowledged, and its number.
    pub(crate) acknowledged: Option<u16>,
}

impl Protocol {
    /// Whether a connection begins with an HTTP upgrade.
    pub(crate) fn is_web_socket(self) -> bool {
        matches!(self, Self::Latchbus | Self::Plain | Self::SocketIo)
    }

    /// The HTTP request that begins a WebSocket.
    pub(crate) fn upgrade(self, address: SocketAddr, login: Option<Login<'_>>) -> String {
        let (path, more) = match self {
            Self::Latchbus => ("/ws", "Sec-WebSocket-Protocol: latchbus.v1.json\r\n"),
            Self::SocketIo => ("/socket.io/?EIO=4&transport=websocket", ""),
            _ => ("/", ""),
        };
        let login = login.map(|login| format!("Authorization: Basic {}\r\n", login.basic));
        let login = login.unwrap_or_default();
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}{login}\r\n"
        )
    }

    /// What a client says first, behind the upgrade; nothing where the server speaks first or nobody does.
    pub(crate) fn hello(self, client: &str, login: Option<Login<'_>>) -> Vec<u8> {
        match self {
            Self::Mqtt => {
                let mut body = b"\0\x04MQTT\x04".to_vec();
                // A clean session, and 300 s of keep-alive.
                body.extend([0x02 | if login.is_some() { 0xc0 } else { 0 }, 1, 0x2c]);
                push_text(&mut body, client);
                for text in login.iter().flat_map(|login| [login.user, login.password]) {
                    push_text(&mut body, text);
                }
                mqtt_packet(0x10, &body)
            }
            Self::Nats => b"CONNECT {\"verbose\":false,\"echo\":false}\r\nPING\r\n".to_vec(),
            Self::SocketIo => text_frame("40"),
            Self::Latchbus | Self::Plain => Vec::new(),
        }
    }

    /// Whether a subscription is answered.
    pub(crate) fn answers_subscriptions(self) -> bool {
        matches!(self, Self::Latchbus | Self::Mqtt | Self::Nats)
    }

    /// A subscription; with `every`, to each message and not just to the newest state.
    pub(crate) fn subscribe(self, filter: &str, every: bool) -> Vec<u8> {
        match self {
            Self::Latchbus => {
                let mode = if every { "every" } else { "latest" };
                text_frame(&format!(
                    r#"{{"op":"subscribe","id":1,"filter":"{filter}","mode":"{mode}"}}"#
                ))
            }
            Self::Plain => text_frame(&format!(r#"{{"op":"sub","topic":"{filter}"}}"#)),
            Self::SocketIo => text_frame(&format!(r#"42["sub","{filter}"]"#)),
            Self::Nats => format!("SUB {filter} 1\r\nPING\r\n").into_bytes(),
            Self::Mqtt => {
                let mut body = vec![0, 1];
                push_text(&mut body, filter);
                body.push(0);
                mqtt_packet(0x82, &body)
            }
        }
    }

    /// A publish.
    pub(crate) fn publish(self, publication: Publication<'_>) -> Vec<u8> {
        let Publication {
            topic,
            payload,
            retain,
            acknowledged,
        } = publication;
        match self {
            Self::Latchbus => {
                let id = acknowledged.map_or_else(String::new, |id| format!(r#""id":{id},"#));
                let retain = if retain { r#","retain":true"# } else { "" };
                text_frame(&format!(
                    r#"{{"op":"publish",{id}"topic":"{topic}","payload":"{payload}"{retain}}}"#
                ))
            }
            Self::Plain => text_frame(&format!(
                r#"{{"op":"pub","topic":"{topic}","data":"{payload}"}}"#
            )),
            Self::SocketIo => text_frame(&format!(r#"42["pub","{topic}","{payload}"]"#)),
            Self::Nats => format!("PUB {topic} {}\r\n{payload}\r\n", payload.len()).into_bytes(),
            Self::Mqtt => {
                let mut body = Vec::new();
                push_text(&mut body, topic);
                body.extend(acknowledged.into_iter().flat_map(u16::to_be_bytes));
                body.extend_from_slice(payload.as_bytes());
                let qos = u8::from(acknowledged.is_some());
                mqtt_packet(0x30 | qos << 1 | u8::from(retain), &body)
            }
        }
    }

    /// A click of a device, as the click counters of the storm want it.
    pub(crate) fn click(self, device: usize) -> Vec<u8> {
        let topic = match self {
            Self::Latchbus => {
                return text_frame(&format!(
                    r#"{{"op":"publish","topic":"clicks/main/d{device}/press","text":"red"}}"#
                ));
            }
            _ => "bench",
        };
        self.publish(Publication {
            topic,
            payload: "red",
            retain: false,
            acknowledged: None,
        })
    }

    /// Takes the first whole frame of `bytes`: its length and what it says.
    pub(crate) fn next(self, bytes: &[u8]) -> Option<(usize, Found<'_>)> {
        match self {
            Self::Mqtt => next_mqtt(bytes),
            Self::Nats => next_nats(bytes),
            Self::Latchbus | Self::Plain | Self::SocketIo => {
                let (used, opcode, payload) = next_frame(bytes)?;
                let found = match opcode {
                    9 => Found::Asked(frame(10, payload)),
                    1 | 2 => self.text(payload),
                    _ => Found::Other,
                };
                Some((used, found))
            }
        }
    }

    fn text(self, text: &[u8]) -> Found<'_> {
        match self {
            Self::Latchbus => match text.get(7..10) {
                Some(b"mes") => Found::Message(text),
                Some(b"syn") => Found::Subscribed,
                Some(b"ack") => Found::Acknowledged,
                Some(b"wel") => Found::Opened,
                _ => Found::Other,
            },
            Self::SocketIo => match text {
                [b'0' | b'4', b'0' | b'{', ..] => Found::Opened,
                [b'2'] => Found::Asked(text_frame("3")),
                [b'4', b'2', ..] => Found::Message(text),
                _ => Found::Other,
            },
            _ => Found::Message(text),
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn mqtt_packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
    out
}

fn text_frame(text: &str) -> Vec<u8> {
    frame(1, text.as_bytes())
}

/// A client's frame, whose mask of zeros leaves the payload as it is (RFC 6455 §5.3).
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

fn next_frame(bytes: &[u8]) -> Option<(usize, u8, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u16::from_be_bytes(*length).into(), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        length => (usize::from(length), rest),
    };
    let payload = rest.get(..length)?;
    Some((bytes.len() - rest.len() + length, first & 0x0f, payload))
}

fn next_mqtt(bytes: &[u8]) -> Option<(usize, Found<'_>)> {
    let (first, mut rest) = bytes.split_first()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 21 {
            break;
        }
    }
    let body = rest.get(..length)?;
    let found = match first >> 4 {
        2 => Found::Opened,
        3 => Found::Message(body),
        4 => Found::Acknowledged,
        9 => Found::Subscribed,
        _ => Found::Other,
    };
    Some((bytes.len() - rest.len() + length, found))
}

fn next_nats(bytes: &[u8]) -> Option<(usize, Found<'_>)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let (line, rest) = bytes.split_at_checked(end)?;
    let found = match line {
        [b'M', b'S', b'G', ..] => {
            let text = core::str::from_utf8(line).ok()?;
            let length: usize = text.split_whitespace().next_back()?.parse().ok()?;
            let payload = rest.get(..length + 2)?;
            return Some((end + payload.len(), Found::Message(payload)));
        }
        [b'P', b'I', ..] => Found::Asked(b"PONG\r\n".to_vec()),
        [b'P', b'O', ..] => Found::Subscribed,
        [b'I', ..] => Found::Opened,
        _ => Found::Other,
    };
    Some((end, found))
}

/// The shortest payload that holds a mark, and the usual one.
pub(crate) const PAYLOAD_BYTES: usize = 40;

/// A payload that says when it was sent, in nanoseconds of the run, and its number.
pub(crate) fn mark(nanos: u64, number: u32) -> String {
    format!("~{nanos:016x}{number:08x}{:.<15}", "")
}

/// The mark in a message.
pub(crate) fn marked(message: &[u8]) -> Option<(u64, u32)> {
    let begin = message.iter().position(|byte| *byte == b'~')? + 1;
    let digits = core::str::from_utf8(message.get(begin..begin + 24)?).ok()?;
    let (nanos, number) = digits.split_at_checked(16)?;
    let nanos = u64::from_str_radix(nanos, 16).ok()?;
    Some((nanos, u32::from_str_radix(number, 16).ok()?))
}

/// The whole number behind a key, such as `"count":`.
pub(crate) fn number_behind(message: &[u8], key: &[u8]) -> Option<u64> {
    let at = message.windows(key.len()).position(|part| part == key)? + key.len();
    let digits = message
        .get(at..)?
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits
        .map(|digit| u64::from(digit - b'0'))
        .reduce(|number, digit| number * 10 + digit)
}

/// A client identifier that no other client of this machine has.
pub(crate) fn client_name(role: &str, number: usize) -> String {
    let mut name = Vec::new();
    // Writing to a vector cannot fail.
    let _ = write!(name, "bench-{}-{role}-{number}", std::process::id());
    String::from_utf8(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again() {
        let payload = mark(77, 5);
        assert_eq!(payload.len(), PAYLOAD_BYTES);
        assert_eq!(
            marked(format!("{{\"payload\":\"{payload}\"}}").as_bytes()),
            Some((77, 5))
        );
        assert_eq!(marked(b"~short"), None);
        assert_eq!(
            number_behind(br#"{"red":120,"blue":7}"#, b"\"red\":"),
            Some(120)
        );
    }

    #[test]
    fn frames_are_taken_whole() {
        let server = b"\x81\x0f{\"op\":\"synced\"}\x89\x01!";
        assert_eq!(Protocol::Latchbus.next(&server[..9]), None);
        assert_eq!(
            Protocol::Latchbus.next(server),
            Some((17, Found::Subscribed))
        );
        assert_eq!(
            Protocol::Latchbus.next(&server[17..]),
            Some((3, Found::Asked(b"\x8a\x81\0\0\0\0!".to_vec())))
        );
        let packet = Protocol::Mqtt.publish(Publication {
            topic: "t",
            payload: "hello",
            retain: true,
            acknowledged: Some(7),
        });
        assert_eq!(packet, b"\x33\x0a\0\x01t\0\x07hello");
        assert_eq!(
            Protocol::Mqtt.next(b"\x40\x02\0\x07"),
            Some((4, Found::Acknowledged))
        );
        let message = b"MSG bench 1 3\r\nabc\r\nPING\r\n";
        assert_eq!(
            Protocol::Nats.next(message),
            Some((20, Found::Message(b"abc\r\n")))
        );
        assert_eq!(Protocol::Nats.next(&message[..18]), None);
    }
}
