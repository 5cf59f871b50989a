//! `latchbus access`: which rule decides, and rules of other servers.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Args, Subcommand};
use latchbus_access::explain::{self, Question};
use latchbus_access::mosquitto;
use latchbus_access::rules::{ClaimedFilters, Rules, Subject, Who};
use latchbus_core::topic::{TopicFilter, TopicName};

/// What is asked of the rules.
#[derive(Debug, Subcommand)]
pub enum Access {
    /// Say what the rules allow someone, and which rule decides; exit with status 1 when it is refused
    Explain(Box<Explain>),
    /// Take over the rules and users of Mosquitto; what cannot be carried over is said on the standard error
    Import(Import),
}

/// Who wants to do what.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("question").required(true).args(["publish", "subscribe", "read"])))]
#[command(group(clap::ArgGroup::new("who").args(["user", "token", "certificate"])))]
pub struct Explain {
    /// A settings file with rules, or with the name of their file [env: LATCHBUS_CONFIG]
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// A file of rules [env: LATCHBUS_ACCESS]
    #[arg(long, value_name = "FILE.toml")]
    pub access: Option<PathBuf>,
    /// A user; without any of these three: anonymous
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A token's subject
    #[arg(long, value_name = "SUBJECT")]
    token: Option<String>,
    /// A certificate's subject
    #[arg(long, value_name = "SUBJECT")]
    certificate: Option<String>,
    /// The client id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// What the token claims, as JSON: {"pub": ["a/#"], "sub": ["b/+"]}
    #[arg(long, value_name = "JSON", requires = "token")]
    token_claims: Option<String>,
    /// May it publish to this topic?
    #[arg(long, value_name = "TOPIC")]
    publish: Option<String>,
    /// May it subscribe with this filter?
    #[arg(long, value_name = "FILTER")]
    subscribe: Option<String>,
    /// Is it sent what is published to this topic?
    #[arg(long, value_name = "TOPIC")]
    read: Option<String>,
    /// The QoS of the publish
    #[arg(long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2), allow_negative_numbers = true)]
    qos: u8,
    /// The publish is to be retained
    #[arg(long, requires = "publish")]
    retain: bool,
}

/// The filters that a token brings.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenClaims {
    #[serde(rename = "pub")]
    publish: Option<Vec<String>>,
    #[serde(rename = "sub")]
    subscribe: Option<Vec<String>>,
    #[serde(default)]
    admin: bool,
}

/// The same, parsed.
#[derive(Debug, Default)]
struct Claimed {
    publish: Vec<TopicFilter<String>>,
    subscribe: Vec<TopicFilter<String>>,
    admin: bool,
    /// Whether it names any filters, which then count in the place of the roles.
    is_limited: bool,
}

/// Files of Mosquitto.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("files").required(true).multiple(true).args(["mosquitto_acl", "mosquitto_passwd"])))]
pub struct Import {
    /// Mosquitto's acl_file
    #[arg(long, value_name = "FILE")]
    mosquitto_acl: Option<PathBuf>,
    /// Mosquitto's password_file; its hashes are taken over as they are
    #[arg(long, value_name = "FILE", requires = "out")]
    mosquitto_passwd: Option<PathBuf>,
    /// Where to write access.toml and users, which must not be there yet; without it the rules are printed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Import {
    /// Writes the files. What is to be printed, and what could not be carried over.
    ///
    /// # Errors
    /// One line that says what is wrong. Nothing was written then, or the rules alone.
    pub fn run(&self) -> Result<(String, Vec<String>), String> {
        let (mut left_out, mut files) = (Vec::new(), Vec::new());
        if let Some(path) = &self.mosquitto_acl {
            let imported = mosquitto::acl(&read(path)?, &path.display().to_string());
            let imported = imported.map_err(|error| error.to_string())?;
            files.push(("access.toml", 0o644, imported.text));
            let file = path.display();
            let lines = imported.left_out.into_iter();
            left_out.extend(lines.map(|line| format!("{file}: {line}")));
        }
        if let Some(path) = &self.mosquitto_passwd {
            let imported = mosquitto::passwords(&read(path)?, &path.display().to_string());
            files.push(("users", 0o600, imported.text));
            left_out.extend(imported.left_out);
        }
        let Some(directory) = &self.out else {
            let texts = files.into_iter().map(|(_, _, text)| text);
            return Ok((texts.collect(), left_out));
        };
        let paths = files.iter().map(|(name, ..)| directory.join(name));
        if let Some(path) = paths.into_iter().find(|path| path.exists()) {
            return Err(format!("{} is there already", path.display()));
        }
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let mut written = String::new();
        for (name, mode, text) in files {
            let path = directory.join(name);
            create(&path, mode, &text)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            written.push_str(&format!("{}\n", path.display()));
        }
        Ok((written, left_out))
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Writes a new file.
fn create(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

impl Explain {
    /// What the rules say, in lines, and whether it is allowed. Without rules everyone may do everything, but for what the
    /// filters of a token leave out; `settings` is the file where rules were looked for.
    ///
    /// # Errors
    /// One line that says what is wrong with the question.
    pub fn run(
        &self,
        rules: Option<&Rules>,
        settings: Option<&Path>,
    ) -> Result<(String, bool), String> {
        let Claimed {
            publish,
            subscribe,
            admin,
            is_limited,
        } = self.claims()?;
        let who = match (&self.user, &self.token, &self.certificate) {
            (Some(user), ..) => Who::User(user),
            (_, Some(subject), _) => Who::Token(subject),
            (.., Some(subject)) => Who::Certificate(subject),
            _ => Who::Anonymous,
        };
        let mut subject = Subject::new(who);
        if let Some(client) = &self.client {
            subject = subject.with_client_id(client);
        }
        if is_limited {
            let (publish, subscribe) = (&publish, &subscribe);
            subject = subject.with_claims(ClaimedFilters {
                publish,
                subscribe,
                admin,
            });
        }
        let question = self.question()?;
        let mut explained = match rules {
            Some(rules) => rules.explain(&subject, question),
            None => explain::without_rules(&subject, question),
        };
        if rules.is_none() {
            explained.reasons.extend(looked_at(settings));
        }
        Ok((format!("{explained}\n"), explained.is_allowed))
    }

    fn question(&self) -> Result<Question<'_>, String> {
        let topic = |text| TopicName::parse(text).map_err(|error| format!("\"{text}\": {error}"));
        Ok(
            match (
                self.publish.as_deref(),
                self.subscribe.as_deref(),
                self.read.as_deref(),
            ) {
                (Some(text), ..) => Question::Publish {
                    topic: topic(text)?,
                    qos: self.qos,
                    retain: self.retain,
                },
                (_, Some(text), _) => Question::Subscribe(filter(text)?),
                (.., Some(text)) => Question::Read(topic(text)?),
                _ => {
                    return Err(
                        "--publish, --subscribe or --read is needed (see --help)".to_owned()
                    );
                }
            },
        )
    }

    fn claims(&self) -> Result<Claimed, String> {
        let Some(text) = &self.token_claims else {
            return Ok(Claimed::default());
        };
        let claims: TokenClaims =
            serde_json::from_str(text).map_err(|error| format!("--token-claims: {error}"))?;
        let is_limited = claims.publish.is_some() || claims.subscribe.is_some();
        let parsed = |texts: Option<Vec<String>>| {
            let texts = texts.into_iter().flatten();
            texts.map(filter).collect::<Result<_, _>>()
        };
        Ok(Claimed {
            publish: parsed(claims.publish)?,
            subscribe: parsed(claims.subscribe)?,
            admin: claims.admin,
            is_limited,
        })
    }
}

/// Where no rules were found, and how to name them.
fn looked_at(settings: Option<&Path>) -> [String; 2] {
    [
        match settings {
            Some(file) => format!("{} names no rules", file.display()),
            None => "no settings file is named (--config FILE.toml, or LATCHBUS_CONFIG)".to_owned(),
        },
        "no file of rules is named (--access FILE.toml, or LATCHBUS_ACCESS)".to_owned(),
    ]
}

fn filter<S: AsRef<str> + Clone>(text: S) -> Result<TopicFilter<S>, String> {
    let shown = text.clone();
    TopicFilter::parse(text).map_err(|error| format!("\"{}\": {error}", shown.as_ref()))
}
