//! Who is let in: the files that the settings name, and what a listener beyond this machine wants.

use core::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use latchbus_access::SignIns;
use latchbus_access::tokens::Tokens;
use latchbus_access::users::{Delays, LOOK_INTERVAL, Users};
use latchbus_bus::{Authorizer, Grant, Identity, Principal, PublishRequest, Reader, TopicFilter};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::settings::{Listen, Settings};

/// Reads the users and the keys of tokens.
///
/// # Errors
/// When they cannot be read, or when somebody beyond this machine could come in whom nobody has let in.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<SignIns> {
    let wanted = &settings.sign_in;
    let users = match settings.users_file() {
        Ok(path) if wanted.users.is_some() || path.exists() => {
            Some(open_users(path, wanted.delays)?)
        }
        _ => None,
    };
    let tokens = wanted.tokens.clone().map(Tokens::open).transpose();
    let tokens = tokens.context("no tokens can be accepted")?;
    let is_open = users.is_none() && tokens.is_none();
    if is_open && wanted.anonymous.is_none() {
        let mut listeners = vec![("http", &settings.http), ("mqtt", &settings.mqtt)];
        if !settings.tls.requires_client_certificates() {
            listeners.extend([
                ("http_tls", &settings.http_tls),
                ("mqtt_tls", &settings.mqtt_tls),
            ]);
        }
        for (name, addresses) in listeners {
            for listen in &addresses.0 {
                check_reach(listen, name)?;
            }
        }
    }
    let anonymous = wanted.anonymous.unwrap_or(is_open);
    if let Some(users) = &users {
        info!(target: "access", file = %users.path().display(), users = users.len(), anonymous, "users sign in with their passwords");
    }
    Ok(SignIns::builder()
        .users(users)
        .tokens(tokens)
        .anonymous(anonymous)
        .build())
}

/// Says once that a password file came into being at its place, which a server that runs without users does not use: whoever
/// is connected would be turned out by a file.
pub(crate) async fn warn_of_new_users(path: PathBuf) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let looked_at = path.clone();
        match tokio::task::spawn_blocking(move || looked_at.exists()).await {
            Ok(false) => {}
            Ok(true) => {
                warn!(target: "access", file = %path.display(), "there are users now, and this server runs without users: who could come in still can; a restart takes them over");
                return;
            }
            // Only the end of the runtime cancels it.
            Err(_) => return,
        }
    }
}

/// The rules, for those who were let in: whatever way a client came in without being asked who it is, it goes no further
/// than the connect.
pub(crate) struct SignedInOnly {
    anonymous: bool,
    rules: Arc<dyn Authorizer>,
}

impl SignedInOnly {
    pub(crate) fn new(sign_ins: &SignIns, rules: Arc<dyn Authorizer>) -> Self {
        Self {
            anonymous: sign_ins.allows_anonymous(),
            rules,
        }
    }
}

impl Authorizer for SignedInOnly {
    fn authorize_connect(&self, principal: &Principal) -> bool {
        // Whoever sets up the server names its serial lines.
        let is_let_in = self.anonymous
            || principal.identity != Identity::Anonymous
            || principal.transport == "serial";
        is_let_in && self.rules.authorize_connect(principal)
    }

    fn authorize_publish(&self, principal: &Principal, publish: &PublishRequest<'_>) -> bool {
        self.rules.authorize_publish(principal, publish)
    }

    fn authorize_subscribe(
        &self,
        principal: &Principal,
        filter: TopicFilter<&str>,
    ) -> Option<Grant> {
        self.rules.authorize_subscribe(principal, filter)
    }

    fn reader(&self, principal: &Principal) -> Option<Reader> {
        self.rules.reader(principal)
    }

    fn is_admin(&self, principal: &Principal) -> bool {
        self.rules.is_admin(principal)
    }

    fn may_publish_anything(&self, principal: &Principal) -> bool {
        self.rules.may_publish_anything(principal)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.rules.changes()
    }
}

fn open_users(path: PathBuf, delays: Delays) -> anyhow::Result<Users> {
    let users = Users::open_with(path, delays);
    users.map_err(|error| {
        let is_not_found = error.is_not_found();
        let error = anyhow::Error::new(error);
        match is_not_found {
            true => error.context("no users (`latchbus user add NAME --file FILE` makes the file)"),
            false => error.context("no users"),
        }
    })
}

fn check_reach(listen: &Listen, name: &str) -> anyhow::Result<()> {
    let addresses = match listen {
        Listen::At(address) => core::slice::from_ref(address),
        Listen::Name { addresses, .. } => addresses,
        // Who may use a socket of the file system is what its permissions say.
        Listen::Unix(_) | Listen::Off => &[],
    };
    match addresses.iter().find(|address| !is_loopback(**address)) {
        None => Ok(()),
        Some(address) => bail!(
            "{name} = {address} can be reached by others, and everybody would be let in: add a user (`latchbus user add \
             NAME`), or start with `--anonymous` in a network that you trust"
        ),
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
