//! The two subprotocols, and which of them a connection speaks.

/// The form of the messages on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `latchbus.v1.json`: one JSON object a text frame. Also what a client gets that names no
    /// subprotocol.
    #[default]
    Json,
    /// `latchbus.v1.postcard`: one message of [`latchbus_core::wire`] a binary frame.
    Postcard,
}

impl Protocol {
    /// Every subprotocol.
    pub const ALL: [Self; 2] = [Self::Json, Self::Postcard];

    /// The name in `Sec-WebSocket-Protocol`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "latchbus.v1.json",
            Self::Postcard => "latchbus.v1.postcard",
        }
    }

    /// The subprotocol of this name. Names are case-sensitive (RFC 6455 §4.2.2).
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}
