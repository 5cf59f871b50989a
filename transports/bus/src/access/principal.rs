//! Who asks.

use core::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use latchbus_core::topic::TopicFilter;

use crate::log::shown;

/// Who asks: it comes with everything that a [`Client`](crate::Client) does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// Who that is, as far as it is known.
    pub identity: Identity,
    /// The transport's name, for example `mqtt`.
    pub transport: &'static str,
    /// What the client calls itself: an MQTT client id, or empty. Anyone may call itself anything.
    pub client_id: String,
    /// Where it connects from; none inside the process.
    pub address: Option<SocketAddr>,
    /// What its token says that it may do.
    pub claims: Option<Arc<Claims>>,
    /// When its sign-in ends. None: with the connection.
    pub expires_at: Option<SystemTime>,
    /// The [`version`](crate::SignedIn::version) of its sign-in.
    pub version: u64,
    /// The [`session`](crate::SignedIn::session) of its sign-in.
    pub session: Option<u64>,
}

/// What a token says that its bearer may do, beside what the rules say of it. What it means is the
/// [`Authorizer`](crate::Authorizer)'s to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// Where it may publish. None: the token does not say.
    pub publish: Option<Vec<TopicFilter<String>>>,
    /// What it may subscribe to and read. None: the token does not say.
    pub subscribe: Option<Vec<TopicFilter<String>>>,
    /// Whether it may do what is reserved to administrators.
    pub admin: bool,
}

/// Who a [`Principal`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// Nobody has asked.
    Anonymous,
    /// It has still to sign in: until then it may do nothing, whatever the rules say, and they are not asked.
    Guest,
    /// A user whose name was proved.
    User(String),
    /// The bearer of a token that was verified.
    Token {
        /// Whom it was issued to.
        subject: String,
    },
    /// Who holds the key of a certificate that was verified.
    Certificate {
        /// The name in it that counts as the user: the common name, or one of the alternative names.
        subject: String,
    },
    /// The program that holds the bus.
    Process,
}

impl Identity {
    /// The name of the user, the token's subject or the certificate's; none for who has none.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::User(name) => Some(name),
            Self::Token { subject } | Self::Certificate { subject } => Some(subject),
            Self::Anonymous | Self::Guest | Self::Process => None,
        }
    }
}

impl Principal {
    /// The program that holds the bus in its own process.
    pub fn process() -> Self {
        Self {
            identity: Identity::Process,
            ..Self::anonymous("in-process")
        }
    }

    /// Someone whom nobody has asked for a name, on a transport of this name.
    pub const fn anonymous(transport: &'static str) -> Self {
        Self {
            identity: Identity::Anonymous,
            transport,
            client_id: String::new(),
            address: None,
            claims: None,
            expires_at: None,
            version: 0,
            session: None,
        }
    }

    /// A user whose name was proved, on a transport of this name.
    pub fn user(user: String, transport: &'static str) -> Self {
        Self {
            identity: Identity::User(user),
            ..Self::anonymous(transport)
        }
    }

    /// The same with what the client calls itself.
    #[must_use]
    pub fn with_client_id(self, client_id: impl Into<String>) -> Self {
        let client_id = client_id.into();
        Self { client_id, ..self }
    }

    /// The same with where it connects from.
    #[must_use]
    pub fn with_address(self, address: impl Into<Option<SocketAddr>>) -> Self {
        let address = address.into();
        Self { address, ..self }
    }

    /// What the client calls itself, as log lines show it; none where it does not.
    pub fn shown_client_id(&self) -> Option<&str> {
        (!self.client_id.is_empty()).then(|| shown(&self.client_id))
    }

    /// Who that is, as log lines show it: the name of the user, or the subject of the token or the certificate. None of who has
    /// not signed in.
    pub fn shown_user(&self) -> Option<&str> {
        self.identity.name().map(shown)
    }

    /// What tells it from others in a [`LogLimit`](crate::LogLimit): its client id, or where it has none its
    /// address without the port, which changes with each connection.
    pub fn log_key(&self, what: &str) -> String {
        let (transport, client_id) = (self.transport, &self.client_id);
        match self.address {
            Some(address) if client_id.is_empty() => format!("{what} {transport} {}", address.ip()),
            _ => format!("{what} {transport} {client_id}"),
        }
    }
}
