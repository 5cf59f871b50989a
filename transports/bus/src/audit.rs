//! What the log keeps for auditors, under the target `audit`: one line for each sign-in, each refusal of one, and each thing that
//! an administrator does.

use core::fmt::Display;

use tracing::{field, info};

use crate::access::Principal;
use crate::bus::Client;
use crate::log::shown;

/// What an administrator has done, or was not let do: `what` with `target`.
pub fn action<E: Display>(client: &Client, what: &str, target: &str, result: Result<&(), &E>) {
    let principal = client.principal();
    let (by, name) = (by(&principal), shown(&principal.client_id));
    let address = client.address().map(field::display);
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
