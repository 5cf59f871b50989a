//! The command line.

use core::str::FromStr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::access::Access;
use crate::cert::{Holder, Order};
use crate::ctl::Action;
use crate::log::LogFormat;
use crate::remote::{self, Remote};
use crate::settings::defaults;
use crate::settings::{
    AccessLayer, Addresses, BasePath, Csp, Frame, HostName, Layer, LogFilter, Origin, Proxy, Room,
    Serial, TlsLayer, UnixMode,
};
use crate::user;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve {
        /// The settings file.
        config: Option<PathBuf>,
        /// What the flags set.
        flags: Box<Layer>,
    },
    /// Check a settings file.
    CheckConfig(PathBuf),
    /// Write all that is kept to a file, or to the standard output.
    Export {
        /// From where.
        from: Source,
        /// The file.
        file: Option<PathBuf>,
    },
    /// Merge an export into what is kept.
    Import {
        /// Into what.
        into: Source,
        /// The file.
        file: PathBuf,
    },
    /// Ask a running server to do something.
    Ctl {
        /// Which.
        remote: Remote,
        /// What.
        action: Action,
    },
    /// Repair the store.
    Repair {
        /// The settings file.
        config: Option<PathBuf>,
        /// What the flags set.
        flags: Box<Layer>,
    },
    /// Ask the rules.
    Access(Access),
    /// Make a certificate.
    Certificate(Order),
    /// Add, remove, list or check users.
    User {
        /// What is to be done.
        action: user::Action,
        /// The password file; none: the one of the settings.
        file: Option<PathBuf>,
        /// The settings file.
        config: Option<PathBuf>,
        /// What the flags set.
        flags: Box<Layer>,
    },
    /// Print this and exit.
    Print(String),
}

/// What an export or an import is of.
#[derive(Debug)]
pub enum Source {
    /// A running server.
    Server(Remote),
    /// The store that the settings name.
    Store {
        /// The settings file.
        config: Option<PathBuf>,
        /// What the flags set.
        flags: Box<Layer>,
    },
}

/// A retained event bus with a live dashboard: HTTP, WebSocket and MQTT in one program
///
/// Flags override the environment, which overrides the settings file, which overrides the defaults. A file may set
/// everything that a flag sets, and limits and histories; see docs/settings.md.
#[derive(Debug, Parser)]
#[command(name = "latchbus", version, args_conflicts_with_subcommands = true)]
struct Line {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the server (default)
    Serve(Box<Serve>),
    /// Check a settings file, or a file of rules; exit with status 2 if the server would not start with it
    ///
    /// The files that it names are read as at a start: rules, users, keys of tokens, certificates, pages. Ports and the data
    /// directory are not touched, and flags and the environment do not count.
    CheckConfig {
        /// The file
        file: PathBuf,
    },
    /// Print settings as a TOML file
    Config {
        /// Every setting with its default, commented
        #[arg(long, required = true)]
        defaults: bool,
    },
    /// Export the stored state to a file: values, histories and clicks, as JSON lines
    ///
    /// The file is replaced when the export is complete. Its last line counts the others, so that a truncated file is
    /// detected.
    Export {
        #[command(flatten)]
        place: Place,
        /// The file; the standard output if none is named
        file: Option<PathBuf>,
    },
    /// Rules: who may publish and read what
    #[command(subcommand)]
    Access(Access),
    /// Make certificates for TLS: a private authority, and a server's or a client's of it
    ///
    /// Prints how clients trust the authority, and the flags to start the server with.
    Cert(Certificate),
    /// Add, remove, list or check the users of a password file
    ///
    /// A running server that has users reads the file again within a second; one that runs without users begins to use it
    /// at its next start. Exit status 1: there is no such user, or the password is wrong.
    User {
        #[command(subcommand)]
        verb: user::Verb,
    },
    /// Merge an export into the stored state
    ///
    /// The file is checked first. The larger count wins, and a value replaces an older one: importing a file twice
    /// changes nothing more.
    Import {
        #[command(flatten)]
        place: Place,
        /// The file
        file: PathBuf,
    },
    /// List who is connected to a running server, and change what it holds, as its administrator
    ///
    /// Prints a table for a list, else the server's answer.
    Ctl {
        #[command(subcommand)]
        action: Action,
        /// The server: http:// or https://, and its base path; or unix:PATH
        #[arg(
            long,
            value_name = "URL",
            default_value = "http://127.0.0.1:3000",
            global = true
        )]
        url: String,
        #[command(flatten)]
        access: remote::Access,
    },
}

impl From<user::Verb> for Command {
    fn from(verb: user::Verb) -> Self {
        let (action, file) = verb.into();
        Self::User {
            action,
            file: file.file,
            config: file.config,
            flags: Box::new(Layer {
                data_dir: file.data_dir,
                ..Layer::default()
            }),
        }
    }
}

#[derive(Debug, Args)]
struct Certificate {
    /// Where the files are: ca.pem and ca.key, which are made the first time, server.pem and server.key
    directory: PathBuf,
    /// Host names and IP addresses of the server
    #[arg(required_unless_present = "client", conflicts_with = "client")]
    name: Vec<String>,
    /// Make a certificate for a client of this name instead: client-NAME.pem and client-NAME.key
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Replace a certificate that is there, and its key; the authority stays
    #[arg(long)]
    force: bool,
}

impl From<Certificate> for Order {
    fn from(certificate: Certificate) -> Self {
        let Certificate {
            directory,
            name,
            client,
            force,
        } = certificate;
        Self {
            directory,
            holder: client.map_or(Holder::Server(name), Holder::Client),
            force,
        }
    }
}

#[derive(Debug, Args)]
struct Place {
    /// A running server, which has its directory locked: http:// or https://, and its base path; or unix:PATH
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    url: Option<String>,
    #[command(flatten)]
    access: remote::Access,
    /// The directory of a server that is not running [default: latchbus-data] [env: LATCHBUS_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Its settings file [env: LATCHBUS_CONFIG]
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Serve {
    /// Where HTTP and WebSocket listen: HOST:PORT, a port of this machine alone, or unix:PATH; 0 is any that is free; several
    /// are divided by commas [default: 127.0.0.1:3000] [env: LATCHBUS_HTTP]
    #[arg(long, value_name = "ADDRESS|off")]
    http: Option<Vec<Addresses>>,
    /// Where MQTT listens [default: 127.0.0.1:1883] [env: LATCHBUS_MQTT]
    #[arg(long, value_name = "ADDRESS|off")]
    mqtt: Option<Vec<Addresses>>,
    /// Where HTTP and WebSocket listen with TLS [default: off] [env: LATCHBUS_HTTP_TLS]
    #[arg(long, value_name = "ADDRESS|off")]
    http_tls: Option<Vec<Addresses>>,
    /// Where MQTT listens with TLS [default: off] [env: LATCHBUS_MQTT_TLS]
    #[arg(long, value_name = "ADDRESS|off")]
    mqtt_tls: Option<Vec<Addresses>>,
    /// The server's certificate, with its chain; reloaded when it changes [env: LATCHBUS_TLS_CERT]
    #[arg(long, value_name = "FILE.pem")]
    tls_cert: Option<PathBuf>,
    /// Its private key [env: LATCHBUS_TLS_KEY]
    #[arg(long, value_name = "FILE.pem")]
    tls_key: Option<PathBuf>,
    /// The authorities whose certificates clients have to show (or may: see docs/settings.md) [env: LATCHBUS_TLS_CLIENT_CA]
    #[arg(long, value_name = "FILE.pem")]
    tls_client_ca: Option<PathBuf>,
    /// The permissions of Unix sockets [default: 0660] [env: LATCHBUS_UNIX_MODE]
    #[arg(long, value_name = "MODE")]
    unix_mode: Option<UnixMode>,
    /// A microcontroller: a serial port with its speed (default 115200), or a TCP server that passes bytes on to
    /// one; may be given several times [env: LATCHBUS_SERIAL]
    #[arg(long, value_name = "PATH@BAUD|tcp:HOST:PORT")]
    serial: Option<Vec<Serial>>,
    /// Directory in which state survives restarts [default: latchbus-data] [env: LATCHBUS_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep state in memory only [env: LATCHBUS_EPHEMERAL=true]
    #[arg(long)]
    ephemeral: bool,
    /// A settings file [env: LATCHBUS_CONFIG]
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// What to log: off, error, warn, info, debug, trace, or as in info,mqtt=debug [default: info] [env: LATCHBUS_LOG]
    #[arg(long, value_name = "FILTER")]
    log: Option<LogFilter>,
    /// How a line of the log is written [default: text] [env: LATCHBUS_LOG_FORMAT]
    #[arg(long, value_name = "text|json")]
    log_format: Option<LogFormat>,
    /// Origins of other servers whose pages may use this one, separated by commas; `https://*.example.com` are all below
    /// it, `null` the pages without an origin [env: LATCHBUS_ALLOW_ORIGINS]
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = trimmed::<Origin>)]
    allow_origins: Option<Vec<Origin>>,
    /// Host names to accept, besides IP addresses and localhost; `*.local` are all below it [env: LATCHBUS_ALLOW_HOSTS]
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = trimmed::<HostName>)]
    allow_hosts: Option<Vec<HostName>>,
    /// Origins whose pages may show the dashboard in a frame; `self`, or `*` for all [env: LATCHBUS_ALLOW_FRAMES]
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', value_parser = trimmed::<Frame>)]
    allow_frames: Option<Vec<Frame>>,
    /// Proxies that may name the client, by X-Forwarded headers or the PROXY protocol; see docs/deploy.md
    /// [env: LATCHBUS_TRUSTED_PROXIES]
    #[arg(long, value_name = "ADDRESS[/BITS]", value_delimiter = ',', value_parser = trimmed::<Proxy>)]
    trusted_proxies: Option<Vec<Proxy>>,
    /// The path below which a proxy serves this server, as in /lb [env: LATCHBUS_BASE_PATH]
    #[arg(long, value_name = "PATH")]
    base_path: Option<BasePath>,
    /// The folder of a front end to serve at `/`; the dashboard is then at `/latchbus/` [env: LATCHBUS_PAGES]
    #[arg(long, value_name = "DIR")]
    pages: Option<PathBuf>,
    /// The Content-Security-Policy of that front end, or off [env: LATCHBUS_PAGES_CSP]
    #[arg(long, value_name = "POLICY")]
    pages_csp: Option<Csp>,
    /// The folder of the npm package socket.io-client, for `/socket.io/socket.io.js` [env: LATCHBUS_SOCKETIO_CLIENT]
    #[arg(long, value_name = "DIR")]
    socketio_client: Option<PathBuf>,
    /// Rules: who may publish and read what; see docs/access.md [env: LATCHBUS_ACCESS]
    #[arg(long, value_name = "FILE.toml")]
    access: Option<PathBuf>,
    /// Rooms that are shown before their first click [default: main] [env: LATCHBUS_ROOMS]
    #[arg(long, value_name = "ROOM", value_delimiter = ',', value_parser = trimmed::<Room>)]
    rooms: Option<Vec<Room>>,
    /// The password file that `latchbus user` writes [default: users in the data directory, if it is there] [env: LATCHBUS_USERS]
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Let in clients without credentials: on a network that you trust, or beside users [env: LATCHBUS_ANONYMOUS=true]
    #[arg(long)]
    anonymous: bool,
    /// Repair a damaged store, report what was lost, and exit; the damaged file is kept
    #[arg(long, conflicts_with = "ephemeral")]
    repair: bool,
}

/// Reads an item of a list, with spaces around it or without.
fn trimmed<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.trim().parse()
}

/// Reads the command line, the program's own name first.
///
/// # Errors
/// One line that says what is wrong with it.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let line = match Line::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    Ok(Command::Print(error.to_string()))
                }
                _ => Err(one_line(&error)),
            };
        }
    };
    Ok(match line.verb {
        Some(Verb::CheckConfig { file }) => Command::CheckConfig(file),
        Some(Verb::Config { defaults: _ }) => Command::Print(defaults::toml()),
        Some(Verb::Export { place, file }) => Command::Export {
            from: place.source()?,
            file,
        },
        Some(Verb::Import { place, file }) => Command::Import {
            into: place.source()?,
            file,
        },
        Some(Verb::Access(access)) => Command::Access(access),
        Some(Verb::Cert(certificate)) => Command::Certificate(certificate.into()),
        Some(Verb::Ctl {
            action,
            url,
            access,
        }) => Command::Ctl {
            remote: Remote { url, access },
            action,
        },
        Some(Verb::User { verb }) => verb.into(),
        Some(Verb::Serve(serve)) => (*serve).into(),
        None => line.serve.into(),
    })
}

impl From<Serve> for Command {
    fn from(serve: Serve) -> Self {
        let Serve {
            http,
            mqtt,
            http_tls,
            mqtt_tls,
            tls_cert,
            tls_key,
            tls_client_ca,
            unix_mode,
            serial,
            data_dir,
            ephemeral,
            config,
            log,
            log_format,
            allow_origins,
            allow_hosts,
            allow_frames,
            trusted_proxies,
            base_path,
            pages,
            pages_csp,
            socketio_client,
            access,
            rooms,
            users,
            anonymous,
            repair,
        } = serve;
        let all = |several: Option<Vec<Addresses>>| {
            let several = several?.into_iter().flat_map(|some| some.0);
            Some(Addresses(several.collect()))
        };
        let flags = Layer {
            http: all(http),
            mqtt: all(mqtt),
            http_tls: all(http_tls),
            mqtt_tls: all(mqtt_tls),
            unix_mode,
            tls: TlsLayer {
                cert: tls_cert,
                key: tls_key,
                client_ca: tls_client_ca,
                client_certificates: None,
            },
            serial,
            data_dir,
            ephemeral: ephemeral.then_some(true),
            log,
            log_format,
            allow_origins,
            allow_hosts,
            allow_frames,
            trusted_proxies,
            base_path,
            pages,
            pages_csp,
            socketio_client,
            access: access.map(AccessLayer::File),
            rooms,
            users,
            anonymous: anonymous.then_some(true),
            ..Layer::default()
        };
        let flags = Box::new(flags);
        match repair {
            true => Self::Repair { config, flags },
            false => Self::Serve { config, flags },
        }
    }
}

impl Place {
    fn source(self) -> Result<Source, String> {
        let Self {
            url,
            access,
            data_dir,
            config,
        } = self;
        match url {
            Some(url) => Ok(Source::Server(Remote { url, access })),
            None if access != remote::Access::default() => Err(
                "--ca, --cert, --user and --token-file are for a server that --url names (see --help)"
                    .to_owned(),
            ),
            None => Ok(Source::Store {
                config,
                flags: Box::new(Layer {
                    data_dir,
                    ..Layer::default()
                }),
            }),
        }
    }
}

/// The complaint and the advice, without the summary of the usage that clap puts around them.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let words: Vec<_> = lines
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line} (see --help)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Result<Command, String> {
        let words = ["latchbus"].iter().chain(words);
        parse(words.map(OsString::from))
    }

    fn flags(words: &[&str]) -> Layer {
        match line(words) {
            Ok(Command::Serve { flags, .. }) => *flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_work_with_and_without_the_word() {
        let http = Some("127.0.0.1:0".parse().unwrap());
        assert_eq!(flags(&["--http", "127.0.0.1:0"]).http, http);
        assert_eq!(flags(&["serve", "--http", "127.0.0.1:0"]).http, http);
        let several = flags(&["--http", "1,2", "--http", "unix:/a"]).http.unwrap();
        assert_eq!(several.to_string(), "127.0.0.1:1,127.0.0.1:2,unix:/a");
        let serial = flags(&["--serial", "/dev/ttyUSB0@9600", "--serial", "tcp:board:1"]).serial;
        let serial: Vec<_> = serial
            .unwrap()
            .iter()
            .map(|one| one.0.to_string())
            .collect();
        assert_eq!(serial, ["/dev/ttyUSB0@9600", "tcp:board:1"]);
        let rooms = flags(&["--rooms", "a,b"]).rooms.unwrap();
        assert_eq!(rooms, ["a", "b"].map(|name| Room(name.to_owned())));
        let lists = flags(&[
            "--allow-hosts=a.b, *.c.d ",
            "--allow-origins=https://a.b , null",
            "--allow-frames=self, https://a.b",
            "--trusted-proxies=10.0.0.0/8, ::1",
            "--rooms=a, b",
        ]);
        let hosts = ["a.b", "*.c.d"].map(|host| HostName(host.to_owned()));
        assert_eq!(lists.allow_hosts.unwrap(), hosts);
        let origins = ["https://a.b", "null"].map(|origin| Origin(origin.to_owned()));
        assert_eq!(lists.allow_origins.unwrap(), origins);
        let frames = ["self", "https://a.b"].map(|frame| frame.parse::<Frame>().unwrap());
        assert_eq!(lists.allow_frames.unwrap(), frames);
        let proxies = ["10.0.0.0/8", "::1"].map(|proxy| proxy.parse::<Proxy>().unwrap());
        assert_eq!(lists.trusted_proxies.unwrap(), proxies);
        assert_eq!(lists.rooms.unwrap(), rooms);
        assert_eq!(
            (flags(&[]).ephemeral, flags(&["--ephemeral"]).ephemeral),
            (None, Some(true))
        );
    }

    #[test]
    fn what_an_administrator_does_names_a_server() {
        let action = |words: &[&str]| match line(words) {
            Ok(Command::Ctl { remote, action }) => (remote, action),
            other => panic!("{other:?}"),
        };
        let (remote, reset) = action(&["ctl", "reset-room", "main", "--red", "5"]);
        assert_eq!(remote.url, "http://127.0.0.1:3000");
        let (room, red, blue) = (Room("main".to_owned()), 5, 0);
        assert_eq!(reset, Action::ResetRoom { room, red, blue });
        let url = "http://lab:1";
        let (named, _) = action(&["ctl", "remove-device", "main", "k", "--url", url]);
        assert_eq!(named.url, url);
        let (named, undo) = action(&["ctl", "--url", url, "undo", "17"]);
        assert_eq!(
            (named.url.as_str(), undo),
            (url, Action::Undo { id: "17".into() })
        );
        let words = [
            "ctl", "clients", "--json", "--user", "anna", "--ca", "ca.pem",
        ];
        let access = action(&words).0.access;
        assert_eq!(
            (access.user.as_deref(), access.ca),
            (Some("anna"), Some("ca.pem".into()))
        );
        assert!(line(&["ctl", "disconnect", "anna"]).is_err());
        assert!(line(&["ctl", "clients", "--password-file", "f"]).is_err());
        assert!(line(&["ctl", "clients", "--user", "a", "--token-file", "f"]).is_err());
        assert!(line(&["export", "--user", "a"]).is_err());
        assert!(line(&["export", "--user", "a", "--url", url]).is_ok());
        assert!(line(&["ctl", "reset-room", "a b"]).is_err());
        assert!(line(&["ctl", "reset-room", "main", "--red", "9007199254740992"]).is_err());
    }

    #[test]
    fn complaints_are_one_line() {
        for words in [
            &["--htpp", "127.0.0.1:0"][..],
            &["--http", "here"],
            &["--http"],
            &["sevre"],
            &["check-config"],
            &["config"],
            &["--ephemeral", "check-config", "a.toml"],
            &["--rooms", "a b"],
            &["--serial", "/dev/ttyUSB0@fast"],
            &["--log", "loud"],
            &["import"],
            &["export", "--url", "http://a:1", "--data-dir", "b"],
            &["import", "--ephemeral", "a"],
            &["cert"],
            &["cert", "dir"],
            &["cert", "dir", "a.example", "--client", "anna"],
            &["user"],
            &["user", "add"],
            &["user", "add", "anna", "secret"],
            &["user", "list", "--file", "a", "--data-dir", "b"],
        ] {
            let complaint = line(words).unwrap_err();
            assert!(!complaint.contains('\n'), "{complaint}");
        }
        assert!(matches!(line(&["--help"]), Ok(Command::Print(_))));
        assert!(matches!(line(&["--version"]), Ok(Command::Print(_))));
        assert!(matches!(
            line(&["check-config", "a"]),
            Ok(Command::CheckConfig(_))
        ));
    }
}
