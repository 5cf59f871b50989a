//! What one source of settings says: the file, the environment, or the flags.

use core::str::FromStr;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use latchbus_access::rules::Rules;
use serde::Deserialize;
use toml::de::DeTable;

use super::SettingsError;
use super::access::AccessLayer;
use super::sign_in::TokensLayer;
use super::socketio::SocketioLayer;
use super::tls::TlsLayer;
use super::values::{
    Addresses, BasePath, Csp, Filter, Frame, HostName, LogFilter, Origin, Proxy, Room, Serial,
    UnixMode, Within,
};

use crate::log::LogFormat;

/// The settings of one source. What it does not say is left to the sources below it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// Where HTTP listens.
    pub http: Option<Addresses>,
    /// Where MQTT listens.
    pub mqtt: Option<Addresses>,
    /// Where HTTP listens with TLS.
    pub http_tls: Option<Addresses>,
    /// Where MQTT listens with TLS.
    pub mqtt_tls: Option<Addresses>,
    /// The permissions of Unix sockets.
    pub unix_mode: Option<UnixMode>,
    /// Where microcontrollers are.
    pub serial: Option<Vec<Serial>>,
    /// The directory of the store.
    pub data_dir: Option<PathBuf>,
    /// Whether nothing is stored.
    pub ephemeral: Option<bool>,
    /// What is logged.
    pub log: Option<LogFilter>,
    /// How.
    pub log_format: Option<LogFormat>,
    /// Origins of other servers whose pages are welcome.
    pub allow_origins: Option<Vec<Origin>>,
    /// Host names to accept.
    pub allow_hosts: Option<Vec<HostName>>,
    /// Who may show the pages in a frame.
    pub allow_frames: Option<Vec<Frame>>,
    /// Proxies whose word is taken for the client's address, the host and the scheme.
    pub trusted_proxies: Option<Vec<Proxy>>,
    /// The path below which proxies serve this server.
    pub base_path: Option<BasePath>,
    /// The folder of a front end that is served at `/`.
    pub pages: Option<PathBuf>,
    /// Its `Content-Security-Policy`.
    pub pages_csp: Option<Csp>,
    /// The folder of the npm package `socket.io-client`.
    pub socketio_client: Option<PathBuf>,
    /// Who may publish and read what. It is read beside the rest: `[access]`, or `access = FILE`.
    #[serde(skip)]
    pub access: Option<AccessLayer>,
    /// Rooms that are shown before their first click.
    pub rooms: Option<Vec<Room>>,
    /// The longest keep-alive of MQTT 5 clients, in seconds; in the file alone.
    pub mqtt_keep_alive_secs: Option<Within<1, 65_535>>,
    /// Whether a publish that a rule forbids ends the connection of a client of MQTT 3.1.1; in the file alone.
    pub mqtt_disconnect_on_denied: Option<bool>,
    /// Whether messages at QoS 0 wait for MQTT sessions without their client; in the file alone.
    pub mqtt_queue_qos0: Option<bool>,
    /// The pace of subscriptions that name none, in milliseconds; in the file alone.
    pub pace_ms: Option<Within<0, 60_000>>,
    /// How long state that was published at QoS 0 may be shown before it is on disk, in milliseconds; in the file alone.
    pub sync_interval_ms: Option<Within<0, 60_000>>,
    /// The most of the time between two runs that counts for what expires, in seconds; in the file alone.
    pub max_downtime_secs: Option<Within<0, 315_360_000>>,
    /// Threads that serve connections; in the file alone.
    pub threads: Option<Within<1, 1_024>>,
    /// Certificates.
    pub tls: TlsLayer,
    /// The password file.
    pub users: Option<PathBuf>,
    /// Whether clients without credentials are let in.
    pub anonymous: Option<bool>,
    /// Which tokens are accepted; in the file alone.
    pub tokens: TokensLayer,
    /// Bounds; in the file alone.
    pub limits: LimitsLayer,
    /// Socket.IO; in the file alone.
    pub socketio: SocketioLayer,
    /// Topics that keep more than their last value; in the file alone.
    pub history: Vec<HistoryLayer>,
}

/// The bounds that a file may set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsLayer {
    /// Bytes of a payload. At least what the hub's own topics need.
    pub payload_bytes: Option<Within<256, 16_777_216>>,
    /// Bytes of an MQTT packet, announced as Maximum Packet Size.
    pub packet_bytes: Option<Within<1_024, 268_435_455>>,
    /// Bytes of messages that are half received, over all connections.
    pub incoming_bytes: Option<Within<1_048_576, 1_099_511_627_776>>,
    /// Bytes of a topic or a filter. At least what the topics of clicks need.
    pub topic_bytes: Option<Within<256, 65_535>>,
    /// Values that are kept, over all topics.
    pub kept_values: Option<Within<1, 100_000_000>>,
    /// Cleared topics that are remembered.
    pub tombstones: Option<Within<1, 100_000_000>>,
    /// Messages in the recent ring.
    pub recent_messages: Option<Within<1, 100_000_000>>,
    /// Bytes in the recent ring.
    pub recent_bytes: Option<Within<1, 68_719_476_736>>,
    /// Subscriptions, over all sessions.
    pub subscriptions: Option<Within<1, 100_000_000>>,
    /// Subscriptions of one session.
    pub session_subscriptions: Option<Within<1, 1_000_000>>,
    /// Requests of one session that wait for their answers.
    pub session_in_flight: Option<Within<1, 65_535>>,
    /// Connections at a time: so many over HTTP, over WebSocket, and over MQTT.
    pub connections: Option<Within<1, 10_000_000>>,
    /// MQTT sessions that are kept while their clients are away.
    pub sessions_away: Option<Within<1, 10_000_000>>,
    /// Rooms.
    pub rooms: Option<Within<1, 1_000_000>>,
    /// Devices in a room.
    pub room_devices: Option<Within<1, 10_000_000>>,
    /// Live incarnations of a device.
    pub device_incarnations: Option<Within<1, 10_000>>,
    /// TLS handshakes at a time, over all listeners.
    pub tls_handshakes: Option<Within<1, 1_000_000>>,
    /// Connections that wait for one.
    pub tls_handshakes_waiting: Option<Within<0, 10_000_000>>,
    /// How long one may take, waiting included, in seconds.
    pub tls_handshake_secs: Option<Within<1, 3_600>>,
    /// How long one may take while others wait, in seconds.
    pub tls_handshake_crowded_secs: Option<Within<1, 3_600>>,
    /// Wrong passwords from one address that cost no delay.
    pub sign_in_failures: Option<Within<0, 1_000_000>>,
    /// The delay after the first beyond them, in milliseconds; 0: there is none.
    pub sign_in_delay_ms: Option<Within<0, 3_600_000>>,
    /// The longest delay, in seconds.
    pub sign_in_max_delay_secs: Option<Within<0, 86_400>>,
    /// Sessions of browsers.
    pub browser_sessions: Option<Within<1, 1_000_000>>,
    /// Of one user.
    pub user_browser_sessions: Option<Within<1, 1_000_000>>,
    /// How long one may go unused, in seconds.
    pub browser_session_idle_secs: Option<Within<60, 31_536_000>>,
    /// How long one may last, in seconds.
    pub browser_session_secs: Option<Within<60, 31_536_000>>,
    /// Connections of one user; 0: as many as there may be.
    pub user_connections: Option<Within<0, 10_000_000>>,
    /// Connections from one address.
    pub address_connections: Option<Within<0, 10_000_000>>,
    /// Subscriptions of one user, over all sessions.
    pub user_subscriptions: Option<Within<0, 100_000_000>>,
    /// Messages that one user publishes in a second.
    pub publishes_per_second: Option<Within<0, 10_000_000>>,
    /// Bytes of them.
    pub bytes_per_second: Option<Within<0, 1_099_511_627_776>>,
    /// Topics that retain what one user has published last.
    pub user_retained_topics: Option<Within<0, 100_000_000>>,
    /// Bytes of the payloads that are retained of one user.
    pub user_retained_bytes: Option<Within<0, 1_099_511_627_776>>,
}

/// One rule: state that matches `filter` keeps its last `keep` values.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryLayer {
    /// Which topics.
    pub filter: Filter,
    /// How many values.
    pub keep: Within<1, 65_535>,
}

impl Layer {
    /// Reads the text of a settings file (TOML).
    ///
    /// # Errors
    /// With the number of the line, from 1, and what is wrong in it.
    pub fn from_toml(text: &str) -> Result<Self, (usize, String)> {
        Self::from_file(text, Path::new("settings"))
    }

    /// The same, with the path of the file, which rules name when they are asked what decides.
    pub(super) fn from_file(text: &str, path: &Path) -> Result<Self, (usize, String)> {
        let wrong = |error: toml::de::Error| {
            let offset = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().iter().take(offset);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            (line, error.message().to_owned())
        };
        let mut table = DeTable::parse(text).map_err(wrong)?;
        let access = Rules::declared(text, table.get_ref(), &path.display().to_string());
        let access = access.map_err(|error| (error.line, error.reason))?;
        table.get_mut().remove("access");
        let layer = Self::deserialize(toml::Deserializer::from(table)).map_err(|error| {
            let (line, mut reason) = wrong(error);
            if Rules::is_meant_by(text) {
                reason.push_str(
                    " (it is a file of rules: name it by --access, or by `access` in the settings)",
                );
            }
            (line, reason)
        })?;
        Ok(Self {
            access: access.map(Into::into),
            ..layer
        })
    }

    /// Whether the text of a file says something under `access`, as that of settings does.
    pub(super) fn has_rules(text: &str) -> bool {
        DeTable::parse(text).is_ok_and(|table| table.get_ref().contains_key("access"))
    }

    /// Reads the environment: `LATCHBUS_` and the name of a flag. A variable that is empty is not set;
    /// lists are divided by commas.
    ///
    /// # Errors
    /// With the name of the variable that holds no such value.
    pub fn from_env(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingsError> {
        let variables = Variables(&variable);
        Ok(Self {
            http: variables.value("LATCHBUS_HTTP")?,
            mqtt: variables.value("LATCHBUS_MQTT")?,
            http_tls: variables.value("LATCHBUS_HTTP_TLS")?,
            mqtt_tls: variables.value("LATCHBUS_MQTT_TLS")?,
            unix_mode: variables.value("LATCHBUS_UNIX_MODE")?,
            tls: TlsLayer {
                cert: variables.raw("LATCHBUS_TLS_CERT").map(PathBuf::from),
                key: variables.raw("LATCHBUS_TLS_KEY").map(PathBuf::from),
                client_ca: variables.raw("LATCHBUS_TLS_CLIENT_CA").map(PathBuf::from),
                client_certificates: None,
            },
            serial: variables.list("LATCHBUS_SERIAL")?,
            data_dir: variables.raw("LATCHBUS_DATA_DIR").map(PathBuf::from),
            ephemeral: variables.value("LATCHBUS_EPHEMERAL")?,
            log: variables.value("LATCHBUS_LOG")?,
            log_format: variables.value("LATCHBUS_LOG_FORMAT")?,
            allow_origins: variables.list("LATCHBUS_ALLOW_ORIGINS")?,
            allow_hosts: variables.list("LATCHBUS_ALLOW_HOSTS")?,
            allow_frames: variables.list("LATCHBUS_ALLOW_FRAMES")?,
            trusted_proxies: variables.list("LATCHBUS_TRUSTED_PROXIES")?,
            base_path: variables.value("LATCHBUS_BASE_PATH")?,
            pages: variables.raw("LATCHBUS_PAGES").map(PathBuf::from),
            pages_csp: variables.value("LATCHBUS_PAGES_CSP")?,
            socketio_client: variables.raw("LATCHBUS_SOCKETIO_CLIENT").map(PathBuf::from),
            access: variables
                .raw("LATCHBUS_ACCESS")
                .map(|path| AccessLayer::File(path.into())),
            rooms: variables.list("LATCHBUS_ROOMS")?,
            users: variables.raw("LATCHBUS_USERS").map(PathBuf::from),
            anonymous: variables.value("LATCHBUS_ANONYMOUS")?,
            ..Self::default()
        })
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, SettingsError> {
        let text = self.raw(name).map(OsString::into_string).transpose();
        text.map_err(|_| SettingsError::Variable {
            name,
            reason: "not UTF-8".to_owned(),
        })
    }

    fn value<T: FromStr<Err: ToString>>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, SettingsError> {
        let text = self.text(name)?;
        text.map(|text| parse(name, &text)).transpose()
    }

    fn list<T: FromStr<Err: ToString>>(
        &self,
        name: &'static str,
    ) -> Result<Option<Vec<T>>, SettingsError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let items = text.split(',').map(|item| parse(name, item.trim()));
        items.collect::<Result<_, _>>().map(Some)
    }
}

fn parse<T: FromStr<Err: ToString>>(name: &'static str, text: &str) -> Result<T, SettingsError> {
    text.parse()
        .map_err(|error: T::Err| SettingsError::Variable {
            name,
            reason: error.to_string(),
        })
}
