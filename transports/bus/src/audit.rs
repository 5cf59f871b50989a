//! What the log keeps for auditors, under the target `audit`: one line for each sign-in, each refusal of one, and each thing that
//! an administrator does.

use core::fmt::Display;

use tracing::{debug, info, warn};

use crate::LogLimit;
use crate::access::{Identity, Principal, SignIn, SignInRefused};
use crate::bus::Client;
use crate::log::{place, shown};

/// Somebody has proved who they are. Over HTTP everyone does with each request, which is no news.
pub(crate) fn signed_in(principal: &Principal) {
    let identity = match &principal.identity {
        Identity::User(_) => "user",
        Identity::Token { .. } => "token",
        Identity::Certificate { .. } => "certificate",
        Identity::Anonymous | Identity::Guest | Identity::Process => return,
    };
    let (by, client) = (by(principal), principal.shown_client_id());
    let transport = principal.transport;
    let address = place(transport, principal.address);
    if transport == "http" {
        debug!(target: "audit", action = "sign-in", by, identity, transport, client, address, result = "done", "signed in");
    } else {
        info!(target: "audit", action = "sign-in", by, identity, transport, client, address, result = "done", "signed in");
    }
}

/// Somebody was not let in. Of a flood from one address, few lines and how many were left out.
pub(crate) fn sign_in_refused(limit: &LogLimit, who: &Asker, refused: &SignInRefused) {
    let address = who.address.map(|address| address.ip());
    let key = format!("sign-in refused {address:?} {}", who.transport);
    if let Some(left_out) = limit.allow(&key) {
        let (by, name) = (who.user.as_deref().map(shown), shown(&who.client_id));
        let client = (!name.is_empty()).then_some(name);
        let transport = who.transport;
        let address = place(transport, who.address);
        warn!(target: "audit", action = "sign-in", by, transport, client, address, result = %refused, left_out, "sign-in refused");
    }
}

/// Who has tried to sign in, without what they have brought to prove it.
#[derive(Debug)]
pub(crate) struct Asker {
    transport: &'static str,
    client_id: String,
    address: Option<core::net::SocketAddr>,
    /// As whom, where they have said so; it is not proved.
    user: Option<String>,
}

impl From<&SignIn> for Asker {
    fn from(sign_in: &SignIn) -> Self {
        Self {
            transport: sign_in.transport,
            client_id: sign_in.client_id.clone(),
            address: sign_in.address,
            user: sign_in.credentials.user.clone(),
        }
    }
}

/// What an administrator has done, or was not let do: `what` with `target`.
pub fn action<E: Display>(client: &Client, what: &str, target: &str, result: Result<&(), &E>) {
    let principal = client.principal();
    let (by, name) = (by(&principal), principal.shown_client_id());
    let address = client.shown_address();
    let (on, transport) = (shown(target), principal.transport);
    match result {
        Ok(()) => {
            info!(target: "audit", action = what, on, by, transport, client = name, address, result = "done", "administered");
        }
        Err(error) => {
            info!(target: "audit", action = what, on, by, transport, client = name, address, result = %error, "refused to administer");
        }
    }
}

/// The name of who asks; of who has none, the way that it came.
fn by(principal: &Principal) -> &str {
    principal.identity.name().unwrap_or(principal.transport)
}
