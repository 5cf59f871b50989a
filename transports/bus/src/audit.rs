//! What the log keeps for auditors, under the target `audit`: one line for each sign-in, each refusal of one, each thing that
//! an administrator does, and each import.

use core::fmt::Display;

use tracing::{debug, field, info, warn};

use crate::access::{Identity, Principal, SignIn, SignInRefused};
use crate::bus::{Bus, Client};
use crate::log::{Place, place, shown};
use crate::{AdminError, Operate, Operated, OperationError};

/// How the keys of refused sign-ins begin: [`LogLimit`](crate::LogLimit).
const SIGN_IN: &str = "sign-in refused ";

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
pub(crate) fn sign_in_refused(bus: &Bus, who: &Asker, refused: &SignInRefused) {
    bus.metrics().sign_ins_refused.add(refused);
    let from = match who.address {
        Some(address) => address.ip().to_string(),
        None => "unix".to_owned(),
    };
    let key = format!("{SIGN_IN}{} {from} {}", who.transport, refused.cause());
    if let Some(left_out) = bus.log_limit().allow(&key) {
        let by = who.user.as_deref().map(shown).filter(|by| !by.is_empty());
        let name = shown(&who.client_id);
        let client = (!name.is_empty()).then_some(name);
        let transport = who.transport;
        let (address, detail) = (place(transport, who.address), refused.detail());
        warn!(target: "audit", action = "sign-in", by, transport, client, address, result = %refused, detail, left_out, "sign-in refused");
    }
}

/// Lines that were left out of a flood which is over, and that no later line has told of.
pub(crate) fn left_out(bus: &Bus) {
    for (key, left_out) in bus.log_limit().take_left_out(SIGN_IN) {
        let mut words = key.strip_prefix(SIGN_IN).unwrap_or(&key).split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (transport, address, cause) = (word(), word(), word());
        warn!(target: "audit", action = "sign-in", transport, address, cause, left_out, "sign-ins refused: lines left out");
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

/// Somebody was not let look at what only administrators see. Of a flood from one address, few lines and how many were left out.
pub(crate) fn list_refused(client: &Client, what: &str, error: &AdminError) {
    let principal = client.principal();
    if let Some(left_out) = (client.bus().log_limit()).allow(&principal.log_key(what)) {
        let (by, name, address, transport) = who(client, &principal);
        info!(target: "audit", action = what, by, transport, client = name, address, result = %error, left_out, "refused to administer");
    }
}

/// What an administrator has done, or was not let do: `what` with `target`.
pub fn action<E: Display>(client: &Client, what: &str, target: &str, result: Result<&(), &E>) {
    let principal = client.principal();
    let (by, name, address, transport) = who(client, &principal);
    let on = shown(target);
    match result {
        Ok(()) => {
            info!(target: "audit", action = what, on, by, transport, client = name, address, result = "done", "administered");
        }
        Err(error) => {
            info!(target: "audit", action = what, on, by, transport, client = name, address, result = %error, "refused to administer");
        }
    }
}

/// The same of an operation: `on` is the room, the room and the device, or which operation was to be undone.
pub(crate) fn operation(
    client: &Client,
    operate: &Operate,
    operated: Result<&Operated, &OperationError>,
) {
    let (what, on) = (operate.kind(), operate.target());
    let done = match operated {
        Ok(done) => done,
        Err(error) => return action(client, what, &on, Err(error)),
    };
    let principal = client.principal();
    let (by, name, address, transport) = who(client, &principal);
    let on = shown(&on);
    let Operated {
        id,
        room,
        device,
        from,
        to,
        ..
    } = done;
    let (from, to) = (field::display(from), field::display(to));
    info!(target: "audit", action = what, on, id, room, device, %from, %to, by, transport, client = name, address, result = "done", "administered");
}

/// What somebody has imported: how many values of topics, devices and rooms were merged, also where it was refused or cut off then.
pub fn import<E: Display>(
    client: &Client,
    [values, devices, rooms]: [u64; 3],
    result: Result<&(), &E>,
) {
    let principal = client.principal();
    let (by, name, address, transport) = who(client, &principal);
    match result {
        Ok(()) => {
            info!(target: "audit", action = "import", by, transport, client = name, address, values, devices, rooms, result = "done", "imported");
        }
        Err(error) => {
            warn!(target: "audit", action = "import", by, transport, client = name, address, values, devices, rooms, result = %error, "import ended early");
        }
    }
}

/// Who does something: by name, what the client calls itself, where from, and how.
fn who<'a>(
    client: &Client,
    principal: &'a Principal,
) -> (&'a str, Option<&'a str>, Option<Place>, &'static str) {
    let (by, name) = (by(principal), principal.shown_client_id());
    (by, name, client.shown_address(), principal.transport)
}

/// The name of who asks; of who has none, the way that it came.
pub(crate) fn by(principal: &Principal) -> &str {
    principal.identity.name().unwrap_or(principal.transport)
}
