//! A Latchbus with TLS, users and rules, and clients that sign in.

use core::fmt::Write as _;
use core::net::SocketAddr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use latchbus_tls::client::{Client, Options};
use latchbus_tls::server::Protocol as Inside;
use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::peers::{Workshop, run};
use crate::wire::Login;

/// Who signs in.
pub(crate) const LOGIN: Login<'static> = Login {
    user: "bench",
    password: "bench-secret",
    basic: "YmVuY2g6YmVuY2gtc2VjcmV0",
};

/// Filters for publishing, and as many for reading.
const RULES: usize = 50;

/// The files that such servers need.
#[derive(Debug)]
pub(crate) struct Files {
    program: PathBuf,
    folder: PathBuf,
}

/// Rules for `bench/#`, among others. In each set a denial makes the server look at each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleSet {
    /// They are the same for all.
    Shared,
    /// A third of them names the user or the client, beside `bench/#`.
    NamedElsewhere,
    /// The same below `bench/#`: no two clients may read the same of it.
    Named,
}

impl RuleSet {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Shared, Self::NamedElsewhere, Self::Named];

    const fn file(self) -> &'static str {
        match self {
            Self::Shared => "shared.toml",
            Self::NamedElsewhere => "elsewhere.toml",
            Self::Named => "named.toml",
        }
    }
}

impl Files {
    /// Makes them, in a folder of the workshop.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub(crate) fn new(workshop: &Workshop) -> anyhow::Result<Self> {
        let (program, folder) = (workshop.latchbus(), workshop.folder().join("guarded"));
        // Of a run before.
        let _none = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let mut cert = Command::new(&program);
        cert.arg("cert").arg(&folder).arg("127.0.0.1");
        run(cert)?;
        let this = Self { program, folder };
        let mut add = Command::new(&this.program);
        add.args(["user", "add", LOGIN.user, "--password-stdin", "--file"]);
        add.arg(this.users());
        add.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = add.spawn()?;
        let mut input = child.stdin.take().context("a child without an input")?;
        writeln!(input, "{}", LOGIN.password)?;
        drop(input);
        anyhow::ensure!(child.wait()?.success(), "no user can be added");
        for rules in RuleSet::ALL {
            fs::write(this.rules(rules), text(rules))?;
        }
        Ok(this)
    }

    /// The program with its defaults, listening for HTTP and MQTT.
    pub(crate) fn command(program: &Path, http: SocketAddr, mqtt: SocketAddr) -> Command {
        let mut command = Command::new(program);
        command.args(["--log", "error", "--ephemeral"]);
        command.args(["--http", &http.to_string(), "--mqtt", &mqtt.to_string()]);
        command
    }

    /// The same, with TLS on two more addresses.
    pub(crate) fn with_tls(&self, command: &mut Command, http: SocketAddr, mqtt: SocketAddr) {
        let (http, mqtt) = (http.to_string(), mqtt.to_string());
        command.args(["--http-tls", &http, "--mqtt-tls", &mqtt]);
        command
            .arg("--tls-cert")
            .arg(self.folder.join("server.pem"));
        command.arg("--tls-key").arg(self.folder.join("server.key"));
    }

    /// The same, for [`LOGIN`] alone, with rules or without.
    pub(crate) fn with_users(&self, command: &mut Command, rules: Option<RuleSet>) {
        command.arg("--users").arg(self.users());
        if let Some(rules) = rules {
            command.arg("--access").arg(self.rules(rules));
        }
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Where a server's files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The authority of the servers' certificates.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn users(&self) -> PathBuf {
        self.folder.join("users")
    }

    fn rules(&self, rules: RuleSet) -> PathBuf {
        self.folder.join(rules.file())
    }
}

/// What a client with this authority begins with; each handshake is a whole one.
///
/// # Errors
/// When the file cannot be used.
pub(crate) fn trusting(authority: PathBuf) -> anyhow::Result<Arc<ClientConfig>> {
    let client = Client::open(&Options {
        authorities: Some(authority),
        ..Options::default()
    })?;
    let mut config = Arc::unwrap_or_clone(client.config(Inside::Mqtt));
    config.resumption = Resumption::disabled();
    config.alpn_protocols.clear();
    Ok(Arc::new(config))
}

fn text(rules: RuleSet) -> String {
    let mut filters = r#""bench/#""#.to_owned();
    let top = match rules {
        RuleSet::Named => "bench",
        RuleSet::Shared | RuleSet::NamedElsewhere => "own",
    };
    for number in 1..RULES {
        let filter = match (number % 3, rules) {
            (0, RuleSet::Named | RuleSet::NamedElsewhere) if number % 2 == 0 => {
                format!("{top}/{number}/{{user}}/#")
            }
            (0, RuleSet::Named | RuleSet::NamedElsewhere) => {
                format!("{top}/{number}/{{client}}/#")
            }
            (1, _) => format!("plant/{number}/+/state"),
            _ => format!("plant/{number}/#"),
        };
        // Writing to a string cannot fail.
        let _ = write!(filters, ", \"{filter}\"");
    }
    format!(
        "signed_in = [\"all\"]\n[roles.all]\npublish = [{filters}]\nsubscribe = [{filters}]\n\
         deny = [\"bench/secret/#\", \"plant/+/secret\"]\n"
    )
}
