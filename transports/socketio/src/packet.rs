//! Socket.IO packets (protocol 5), without I/O.
//!
//! A packet is the text of an Engine.IO message: `<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]`. Packets of
//! bytes are followed by so many messages of bytes; `{"_placeholder":true,"num":N}` stands for each in the JSON.

use serde_json::value::RawValue;

/// The most attachments of one packet: socket.io-parser 4.2.7 refuses more.
pub const MAX_ATTACHMENTS: usize = 10;

/// The longest name of a namespace in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 256;

/// The names of events that belong to the client library.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<'a> {
    /// For which namespace; it begins with a slash.
    pub namespace: &'a str,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a packet is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The client joins the namespace, with the JSON object of `auth` if it gave one.
    Connect(Option<&'a str>),
    /// It leaves the namespace.
    Disconnect,
    /// An event, perhaps with attachments.
    Event(Event<'a>),
    /// The answer to an event of the server's, which asks for none.
    Ack {
        /// Messages of bytes that follow.
        attachments: usize,
    },
}

/// An event of a client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Under which the client waits for an answer.
    pub ack: Option<u64>,
    /// Messages of bytes that follow.
    pub attachments: usize,
    /// The JSON array of name and arguments.
    pub json: &'a str,
}

/// What came is no packet; its connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A type that is not known, or that only servers send.
    #[error("a packet of an unknown type")]
    UnknownType,
    /// The number of attachments is missing or no number.
    #[error("a packet without its number of attachments")]
    NoAttachments,
    /// More than [`MAX_ATTACHMENTS`].
    #[error("more than {MAX_ATTACHMENTS} attachments")]
    TooManyAttachments,
    /// A namespace longer than [`MAX_NAMESPACE_BYTES`].
    #[error("a namespace longer than {MAX_NAMESPACE_BYTES} bytes")]
    NamespaceTooLong,
    /// An ack id beyond 2^53.
    #[error("an ack id that is no whole number of JavaScript")]
    AckId,
    /// The JSON is missing, broken, or none that this type may carry.
    #[error("a packet whose JSON is not that of its type")]
    Json,
    /// Text where bytes were announced, or bytes where none were.
    #[error("attachments do not follow their packet")]
    OutOfPlace,
}

impl<'a> Packet<'a> {
    /// Reads the text of a message.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn decode(text: &'a str) -> Result<Self, PacketError> {
        let (kind, rest) = text
            .split_at_checked(1)
            .filter(|(kind, _)| matches!(*kind, "0" | "1" | "2" | "3" | "5" | "6"))
            .ok_or(PacketError::UnknownType)?;
        let (attachments, rest) = match kind {
            "5" | "6" => attachments(rest)?,
            _ => (0, rest),
        };
        let (namespace, rest) = match rest.starts_with('/') {
            false => ("/", rest),
            true => rest.split_once(',').unwrap_or((rest, "")),
        };
        if namespace.len() > MAX_NAMESPACE_BYTES {
            return Err(PacketError::NamespaceTooLong);
        }
        // What comes behind `?` is a query, which says nothing here.
        let namespace = namespace
            .split_once('?')
            .map_or(namespace, |(name, _)| name);
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (id, json) = rest.split_at_checked(digits).ok_or(PacketError::Json)?;
        let ack = match id {
            "" => None,
            id => Some(
                id.parse()
                    .ok()
                    .filter(|id| *id < 1 << 53)
                    .ok_or(PacketError::AckId)?,
            ),
        };
        let kind = match kind {
            "0" if json.is_empty() => Kind::Connect(None),
            "0" if is_object(json) => Kind::Connect(Some(json)),
            "1" if json.is_empty() => Kind::Disconnect,
            "2" | "5" if is_event(json) => Kind::Event(Event {
                ack,
                attachments,
                json,
            }),
            "3" | "6" if serde_json::from_str::<Vec<&RawValue>>(json).is_ok() => {
                Kind::Ack { attachments }
            }
            _ => return Err(PacketError::Json),
        };
        Ok(Self { namespace, kind })
    }
}

impl Event<'_> {
    /// Its name, and its arguments as JSON.
    pub fn parts(&self) -> (String, Vec<&RawValue>) {
        // It was read before.
        let mut parts: Vec<&RawValue> = serde_json::from_str(self.json).unwrap_or_default();
        if parts.is_empty() {
            return (String::new(), parts);
        }
        let name = parts.remove(0).get();
        let name = serde_json::from_str(name).unwrap_or_else(|_| name.to_owned());
        (name, parts)
    }
}

fn attachments(rest: &str) -> Result<(usize, &str), PacketError> {
    let (number, rest) = rest.split_once('-').ok_or(PacketError::NoAttachments)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PacketError::NoAttachments);
    }
    match number.parse() {
        Ok(attachments) if attachments <= MAX_ATTACHMENTS => Ok((attachments, rest)),
        _ => Err(PacketError::TooManyAttachments),
    }
}

fn is_object(json: &str) -> bool {
    json.starts_with('{') && serde_json::from_str::<&RawValue>(json).is_ok()
}

/// An array that begins with a name: a number, or a string that the library keeps for nothing else.
fn is_event(json: &str) -> bool {
    let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(json) else {
        return false;
    };
    let Some(name) = parts.first().map(|name| name.get()) else {
        return false;
    };
    match name.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(name)
            .is_ok_and(|name| !RESERVED.contains(&name.as_str())),
        Some(b'-' | b'0'..=b'9') => true,
        _ => false,
    }
}

/// Which attachment an argument stands for.
pub fn placeholder(argument: &RawValue) -> Option<usize> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Placeholder {
        _placeholder: bool,
        num: usize,
    }

    let text = argument.get();
    if !text.starts_with('{') || !text.contains("_placeholder") {
        return None;
    }
    let placeholder: Placeholder = serde_json::from_str(text).ok()?;
    placeholder._placeholder.then_some(placeholder.num)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event<'a>(
        namespace: &'a str,
        ack: Option<u64>,
        attachments: usize,
        json: &'a str,
    ) -> Packet<'a> {
        let kind = Kind::Event(Event {
            ack,
            attachments,
            json,
        });
        Packet { namespace, kind }
    }

    #[test]
    fn the_examples_of_the_protocol() {
        for (text, packet) in [
            (
                "0",
                Packet {
                    namespace: "/",
                    kind: Kind::Connect(None),
                },
            ),
            (
                "0/admin,{\"token\":\"123\"}",
                Packet {
                    namespace: "/admin",
                    kind: Kind::Connect(Some("{\"token\":\"123\"}")),
                },
            ),
            (
                "0/admin",
                Packet {
                    namespace: "/admin",
                    kind: Kind::Connect(None),
                },
            ),
            (
                "0/admin?a=b,",
                Packet {
                    namespace: "/admin",
                    kind: Kind::Connect(None),
                },
            ),
            (
                "1/admin,",
                Packet {
                    namespace: "/admin",
                    kind: Kind::Disconnect,
                },
            ),
            ("2[\"foo\"]", event("/", None, 0, "[\"foo\"]")),
            ("212[\"foo\"]", event("/", Some(12), 0, "[\"foo\"]")),
            (
                "2/admin,1[\"bar\",{}]",
                event("/admin", Some(1), 0, "[\"bar\",{}]"),
            ),
            (
                "51-/admin,7[\"baz\",{\"_placeholder\":true,\"num\":0}]",
                event(
                    "/admin",
                    Some(7),
                    1,
                    "[\"baz\",{\"_placeholder\":true,\"num\":0}]",
                ),
            ),
            (
                "312[1]",
                Packet {
                    namespace: "/",
                    kind: Kind::Ack { attachments: 0 },
                },
            ),
        ] {
            assert_eq!(Packet::decode(text), Ok(packet), "{text}");
        }
    }

    #[test]
    fn what_is_no_packet() {
        let long = format!("0/{}", "a".repeat(MAX_NAMESPACE_BYTES));
        for (text, error) in [
            ("", PacketError::UnknownType),
            ("abc", PacketError::UnknownType),
            ("\u{e9}", PacketError::UnknownType),
            // A client sends no connect_error.
            ("4{\"message\":\"a\"}", PacketError::UnknownType),
            ("2", PacketError::Json),
            ("2{}", PacketError::Json),
            ("2[]", PacketError::Json),
            ("2[\"foo\"", PacketError::Json),
            ("2[null]", PacketError::Json),
            ("2[{}]", PacketError::Json),
            ("2[\"connect\"]", PacketError::Json),
            ("2[\"disconn\\u0065ct\"]", PacketError::Json),
            ("2abc[\"foo\"]", PacketError::Json),
            ("299999999999999999[\"foo\"]", PacketError::AckId),
            ("5[\"foo\"]", PacketError::NoAttachments),
            ("5-[\"foo\"]", PacketError::NoAttachments),
            ("5+1-[\"foo\"]", PacketError::NoAttachments),
            ("511-[\"foo\"]", PacketError::TooManyAttachments),
            ("0[]", PacketError::Json),
            ("0\"a\"", PacketError::Json),
            ("1{}", PacketError::Json),
            ("31{}", PacketError::Json),
            (&long, PacketError::NamespaceTooLong),
        ] {
            assert_eq!(Packet::decode(text), Err(error), "{text}");
        }
    }

    #[test]
    fn parts_of_an_event() {
        let packet = Packet::decode("2[\"a\\u0062\", 1 ,{\"b\" : [2]}]").unwrap();
        let Kind::Event(event) = packet.kind else {
            panic!("{packet:?}");
        };
        let (name, arguments) = event.parts();
        let arguments: Vec<_> = arguments.iter().map(|it| it.get()).collect();
        assert_eq!(
            (name.as_str(), &arguments[..]),
            ("ab", &["1", "{\"b\" : [2]}"][..])
        );
    }

    #[test]
    fn placeholders() {
        let number = |json: &str| placeholder(serde_json::from_str(json).unwrap());
        assert_eq!(number("{\"_placeholder\":true,\"num\":3}"), Some(3));
        for no in [
            "{\"_placeholder\":false,\"num\":3}",
            "{\"num\":3}",
            "3",
            "\"_placeholder\"",
            "{\"_placeholder\":true,\"num\":-1}",
        ] {
            assert_eq!(number(no), None, "{no}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}|[0-6]{1,2}-?(/[a-z?]{0,3},)?[0-9]{0,3}[\\[{\"a,}\\]]{0,10}") {
            let _ = Packet::decode(&text);
        }
    }
}
