//! `latchbus user`: the users of a password file.

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use latchbus_access::users::{self, MAX_PASSWORD_BYTES, PasswordHash, check_name};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Add a user, or change the password of one.
    Add {
        /// Who.
        name: String,
        /// Where the password comes from.
        password: Password,
    },
    /// Remove a user.
    Remove {
        /// Who.
        name: String,
    },
    /// Print the names.
    List,
    /// Check a password.
    Check {
        /// Whose.
        name: String,
        /// Where the password comes from.
        password: Password,
    },
}

/// Where a password comes from. Never from the command line, which others on the machine can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    /// From the terminal, which does not show it.
    Prompt,
    /// The first line of the standard input.
    Stdin,
}

/// What the command line asks for.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add a user, or change the password of one; asks for the password
    Add(Named),
    /// Remove a user; its connections end
    Remove {
        /// Who
        name: String,
        #[command(flatten)]
        file: UsersFile,
    },
    /// Print the names
    List {
        #[command(flatten)]
        file: UsersFile,
    },
    /// Check a password; asks for it
    Check(Named),
}

/// A user with a password.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Who
    name: String,
    /// Take the first line of the standard input for the password
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    file: UsersFile,
}

/// Which file it is.
#[derive(Debug, Args)]
pub(crate) struct UsersFile {
    /// The password file [default: the setting users, or users in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The directory of the server [default: latchbus-data] [env: LATCHBUS_DATA_DIR]
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Its settings file [env: LATCHBUS_CONFIG]
    #[arg(long, value_name = "FILE.toml", conflicts_with = "file")]
    pub(crate) config: Option<PathBuf>,
}

impl From<Verb> for (Action, UsersFile) {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Add(named) => {
                let password = named.password();
                let name = named.name;
                (Action::Add { name, password }, named.file)
            }
            Verb::Remove { name, file } => (Action::Remove { name }, file),
            Verb::List { file } => (Action::List, file),
            Verb::Check(named) => {
                let password = named.password();
                let name = named.name;
                (Action::Check { name, password }, named.file)
            }
        }
    }
}

impl Named {
    const fn password(&self) -> Password {
        match self.password_stdin {
            true => Password::Stdin,
            false => Password::Prompt,
        }
    }
}

/// Does it. Status 1: there is no such user, or the password is wrong.
///
/// # Errors
/// When the file cannot be read or written, or there is no password.
pub fn run(action: &Action, file: &Path) -> anyhow::Result<ExitCode> {
    match action {
        Action::Add { name, password } => add(file, name, *password),
        Action::Remove { name } => remove(file, name),
        Action::List => {
            let all = users::read(file)?;
            let mut out = io::stdout().lock();
            for name in all.names() {
                writeln!(out, "{name}")?;
            }
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Check { name, password } => check(file, name, *password),
    }
}

fn add(file: &Path, name: &str, password: Password) -> anyhow::Result<ExitCode> {
    check_name(name)?;
    // A file that cannot be used is said before a password is asked for.
    let is_new = match users::read(file) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        found => found.is_err(),
    };
    let text = password.read(&format!("Password for {name}: "))?;
    if password == Password::Prompt && Password::Prompt.read("The same again: ")? != text {
        bail!("the passwords differ; nothing is changed");
    }
    let hash = PasswordHash::new(text.as_bytes())?;
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory {
        latchbus_bus::create_directory(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let before = users::update(file, |file| file.set(name, hash))??;
    let what = match before {
        Some(_) => "password changed",
        None => "added",
    };
    let mut line = format!("{name}: {what} in {}", file.display());
    if is_new {
        line.push_str(", a new file: a server that runs without users uses it after its restart");
    }
    say(&line)
}

fn remove(file: &Path, name: &str) -> anyhow::Result<ExitCode> {
    // A file that is not there is not to be made.
    users::read(file)?;
    match users::update(file, |file| file.remove(name))? {
        true => say(&format!("{name}: removed from {}", file.display())),
        false => no(&format!("{name}: no such user in {}", file.display())),
    }
}

fn check(file: &Path, name: &str, password: Password) -> anyhow::Result<ExitCode> {
    let all = users::read(file)?;
    let Some(hash) = all.hash(name) else {
        return no(&format!("{name}: no such user in {}", file.display()));
    };
    let text = password.read(&format!("Password for {name}: "))?;
    match hash.verify(text.as_bytes()) {
        true => say(&format!("{name}: the password is right")),
        false => no(&format!("{name}: the password is wrong")),
    }
}

fn say(line: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stdout(), "{line}")?;
    Ok(ExitCode::SUCCESS)
}

fn no(line: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "latchbus: {line}")?;
    Ok(ExitCode::FAILURE)
}

impl Password {
    fn read(self, prompt: &str) -> anyhow::Result<String> {
        match self {
            Self::Prompt => rpassword::prompt_password(prompt)
                .context("no terminal to ask for the password; --password-stdin reads it from the standard input"),
            Self::Stdin => first_line(io::stdin().lock()),
        }
    }
}

fn first_line(input: impl io::BufRead) -> anyhow::Result<String> {
    // A line of the longest password and its end; one more byte, and it is too long.
    let mut line = Vec::new();
    input
        .take(MAX_PASSWORD_BYTES as u64 + 2)
        .read_until(b'\n', &mut line)
        .context("cannot read the password from the standard input")?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8(line.to_vec()).context("the password is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        for (input, expected) in [
            ("secret\n", "secret"),
            ("secret\r\nmore", "secret"),
            ("se cret ", "se cret "),
            ("", ""),
        ] {
            assert_eq!(first_line(input.as_bytes()).unwrap(), expected);
        }
        let long = "a".repeat(MAX_PASSWORD_BYTES + 5);
        assert!(first_line(long.as_bytes()).unwrap().len() > MAX_PASSWORD_BYTES);
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
