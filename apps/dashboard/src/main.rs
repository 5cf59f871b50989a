//! The `latchbus` program: see the library of this name.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, io};

use latchbus::access::Access;
use latchbus::cli::{self, Command, Source};
use latchbus::settings::{AccessLayer, Layer, Settings, SettingsError};
use latchbus::{backup, cert, check, ctl, failure, server, user};

fn main() -> ExitCode {
    match run() {
        Ok(status) => status,
        Err(line) => {
            // Where even this cannot be written, the status has to do.
            let _ = writeln!(io::stderr(), "latchbus: {line}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let done = match cli::parse(env::args_os())? {
        Command::User {
            action,
            file,
            config,
            flags,
        } => {
            let file = match file {
                Some(file) => file,
                None => settings_without_rules(config, *flags)?.users_file()?,
            };
            let ended = user::run(&action, &file);
            return ended.map_err(|error| failure::one_line(error.as_ref()));
        }
        Command::Print(text) => print(&text),
        Command::CheckConfig(file) => {
            let checked = check::run(&file);
            print(&checked.map_err(|error| failure::one_line(error.as_ref()))?)
        }
        Command::Export { from, file } => {
            let ended = backup::export::run(place(from)?, file.as_deref());
            ended.map_err(|error| failure::one_line(error.as_ref()))
        }
        Command::Import { into, file } => {
            let ended = backup::import::run(place(into)?, &file);
            ended.map_err(|error| failure::one_line(error.as_ref()))
        }
        Command::Ctl { remote, action } => {
            let answer = ctl::run(&remote, &action);
            print(&answer.map_err(|error| failure::one_line(error.as_ref()))?)
        }
        Command::Repair { config, flags } => {
            let report = server::repair(&settings_without_rules(config, *flags)?);
            print(&report.map_err(|error| failure::one_line(error.as_ref()))?)
        }
        Command::Certificate(order) => {
            let made = cert::run(&order);
            print(&made.map_err(|error| failure::one_line(error.as_ref()))?)
        }
        Command::Serve { config, flags } => {
            let read = move || settings(config.clone(), (*flags).clone());
            server::run(read()?, Box::new(read)).map_err(|error| failure::one_line(error.as_ref()))
        }
        Command::Access(Access::Import(import)) => {
            let (text, left_out) = import.run()?;
            for line in left_out {
                // Where even this cannot be written, the files have to do.
                let _ = writeln!(io::stderr(), "latchbus: {line}");
            }
            print(&text)
        }
        Command::Access(Access::Explain(explain)) => {
            let flags = Layer {
                access: explain.access.clone().map(AccessLayer::File),
                ..Layer::default()
            };
            let file = settings_file(explain.config.clone());
            let rules = settings(file.clone(), flags)?.access;
            let (text, is_allowed) = explain.run(rules.as_deref(), file.as_deref())?;
            print(&text)?;
            return Ok(ExitCode::from(u8::from(!is_allowed)));
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn settings(config: Option<PathBuf>, flags: Layer) -> Result<Settings, String> {
    resolved(Settings::resolve, config, flags)
}

fn settings_without_rules(config: Option<PathBuf>, flags: Layer) -> Result<Settings, String> {
    resolved(Settings::resolve_without_rules, config, flags)
}

fn resolved(
    resolve: impl Fn(Option<&Path>, Layer, Layer) -> Result<Settings, SettingsError>,
    config: Option<PathBuf>,
    flags: Layer,
) -> Result<Settings, String> {
    let environment =
        Layer::from_env(|name| env::var_os(name)).map_err(|error| failure::one_line(&error))?;
    resolve(settings_file(config).as_deref(), environment, flags)
        .map_err(|error| failure::one_line(&error))
}

/// The one that is named, or the one of the environment.
fn settings_file(config: Option<PathBuf>) -> Option<PathBuf> {
    let named = env::var_os("LATCHBUS_CONFIG").filter(|path| !path.is_empty());
    config.or(named.map(Into::into))
}

fn place(source: Source) -> Result<backup::Place, String> {
    Ok(match source {
        Source::Server(remote) => backup::Place::Server(remote),
        Source::Store { config, flags } => {
            backup::Place::Store(Box::new(settings_without_rules(config, *flags)?))
        }
    })
}

fn print(text: &str) -> Result<(), String> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("cannot write to the standard output: {error}"))
}
