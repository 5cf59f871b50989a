//! Settings: the defaults, over them a file, over it the environment, over all the flags.

mod access;
pub mod defaults;
mod layer;
mod sign_in;
mod socketio;
mod tls;
mod values;

pub use access::AccessLayer;
pub use layer::{HistoryLayer, Layer, LimitsLayer};
pub use sign_in::{SignInSettings, TokensLayer};
pub use socketio::{InLayer, NamespaceLayer, NamespaceName, Node, OutLayer, SocketioLayer};
pub use tls::{Demand, TlsLayer};
pub use values::{
    Addresses, BasePath, Csp, Filter, Frame, HostName, Listen, LogFilter, Origin, Proxy, Room,
    Serial, UnixMode, Within,
};

use core::net::{Ipv4Addr, SocketAddr};
use core::num::NonZeroU64;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use latchbus_access::rules::Rules;
use latchbus_bus::{ClickLimits, HistoryRule, Options, SessionLimits, StoreKind};
use latchbus_core::clicks::ClickTopic;
use latchbus_core::hub;
use latchbus_core::topic::TopicFilter;
use latchbus_ws::OriginPolicy;

use crate::log::LogFormat;

/// The directory of the store unless another is named, below the one in which the program runs.
pub const DEFAULT_DATA_DIR: &str = "latchbus-data";

/// The password file in the directory of the store.
const USERS_FILE: &str = "users";

/// What an MQTT packet may need besides its topic and its payload: its header and its properties.
const PACKET_HEADROOM_BYTES: usize = 16 << 10;

/// All settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where HTTP listens, for the dashboard, the API and WebSockets.
    pub http: Addresses,
    /// Where MQTT listens.
    pub mqtt: Addresses,
    /// Where HTTP listens with TLS.
    pub http_tls: Addresses,
    /// Where MQTT listens with TLS.
    pub mqtt_tls: Addresses,
    /// The permissions of Unix sockets.
    pub unix_mode: UnixMode,
    /// Certificates.
    pub tls: TlsLayer,
    /// The bounds of handshakes.
    pub tls_limits: latchbus_tls::server::Limits,
    /// Where microcontrollers are, on byte links.
    pub serial: Vec<latchbus_serial::Address>,
    /// What is logged.
    pub log: LogFilter,
    /// How.
    pub log_format: LogFormat,
    /// Which web pages may use this server.
    pub origin: OriginPolicy,
    /// Who may show the pages in a frame, as in a `Content-Security-Policy`.
    pub allow_frames: Vec<String>,
    /// The path below which proxies serve this server: see [`BasePath`].
    pub base_path: String,
    /// The folder of a front end that is served at `/` in the place of the dashboard.
    pub pages: Option<PathBuf>,
    /// The `Content-Security-Policy` of that front end; `off` for none.
    pub pages_csp: Option<String>,
    /// The folder of the npm package `socket.io-client`.
    pub socketio_client: Option<PathBuf>,
    /// Connections at a time: so many over HTTP, over WebSocket, and over MQTT.
    pub connections: usize,
    /// MQTT sessions that are kept while their clients are away.
    pub sessions_away: usize,
    /// The largest MQTT packet in bytes; none: what the longest payload needs.
    pub packet_bytes: Option<usize>,
    /// The keep-alive that MQTT 5 clients are told to use instead of their own.
    pub mqtt_keep_alive: Option<Duration>,
    /// Whether a publish that a rule forbids ends the connection of a client of MQTT 3.1.1, instead of being
    /// acknowledged and dropped.
    pub mqtt_disconnect_on_denied: bool,
    /// Whether messages at QoS 0 wait for MQTT sessions without their client.
    pub mqtt_queue_qos0: bool,
    /// Socket.IO; none: it is not served.
    pub socketio: Option<latchbus_socketio::Config>,
    /// Threads that serve connections. On two cores one was cheaper than two, but for the fan-out of what is
    /// stored. The store writes on a thread of its own in each case.
    pub threads: usize,
    /// Who may publish and read what; none: everyone may do everything.
    pub access: Option<Arc<Rules>>,
    /// Who is let in.
    pub sign_in: SignInSettings,
    /// How the bus is set up.
    pub bus: Options,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A variable of the environment is wrong.
    #[error("environment variable {name}: {reason}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// One source names a directory for the store, and says that there is none.
    #[error("{source_name} sets both data_dir and ephemeral")]
    TwoStores {
        /// Which source.
        source_name: String,
    },
    /// Something is said of tokens, and not with which keys they are verified.
    #[error("{source_name} sets up tokens without tokens.keys")]
    TokensWithoutKeys {
        /// Which source.
        source_name: String,
    },
    /// Nothing listens.
    #[error("http and mqtt are both off, and no serial link is named: there is nothing to serve")]
    NothingToServe,
    /// One setting stands beside `off`.
    #[error("{name}: `off` stands beside an address")]
    OffBesideAddress {
        /// Which setting.
        name: &'static str,
    },
    /// A Unix socket with TLS.
    #[error("{name}: a Unix socket has no TLS")]
    UnixTls {
        /// Which setting.
        name: &'static str,
    },
    /// A listener for TLS, and no certificate.
    #[error("{name} needs --tls-cert and --tls-key; `latchbus cert DIR NAME` makes them")]
    NoCertificate {
        /// Which setting.
        name: &'static str,
    },
    /// A setting for TLS that needs another.
    #[error("{what} needs {missing}")]
    Tls {
        /// What is set.
        what: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// More rooms than the bound allows.
    #[error("{named} rooms are named, and limits.rooms is {limit}")]
    Rooms {
        /// How many are named.
        named: usize,
        /// The bound.
        limit: usize,
    },
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            Addresses(vec![Listen::At(address)])
        };
        let limits = hub::Limits::default();
        debug_assert!(limits.topic_bytes >= ClickTopic::MAX_BYTES);
        Self {
            http: local(3000),
            mqtt: local(1883),
            http_tls: Addresses::off(),
            mqtt_tls: Addresses::off(),
            unix_mode: UnixMode(0o660),
            tls: TlsLayer::default(),
            tls_limits: latchbus_tls::server::Limits::default(),
            serial: Vec::new(),
            log: LogFilter::default(),
            log_format: LogFormat::default(),
            origin: OriginPolicy::default(),
            allow_frames: Vec::new(),
            base_path: String::new(),
            pages: None,
            pages_csp: None,
            socketio_client: None,
            connections: 20_000,
            sessions_away: 10_000,
            packet_bytes: None,
            mqtt_keep_alive: None,
            mqtt_disconnect_on_denied: false,
            mqtt_queue_qos0: true,
            socketio: Some(latchbus_socketio::Config::default()),
            threads: 1,
            access: None,
            sign_in: SignInSettings::default(),
            bus: Options {
                store: StoreKind::Directory(DEFAULT_DATA_DIR.into()),
                history: default_history(),
                ..Options::default()
            },
        }
    }
}

/// Rooms of a chat: enough for whoever comes to see what it is about.
fn default_history() -> Vec<HistoryRule> {
    const CHAT_MESSAGES: u16 = 100;
    let filter = TopicFilter::parse("chat/+".to_owned());
    let rule = |filter| HistoryRule {
        filter,
        keep: CHAT_MESSAGES,
    };
    filter.into_iter().map(rule).collect()
}

impl Settings {
    /// Puts the file, if there is one, the environment and the flags over the defaults.
    ///
    /// # Errors
    /// When the file cannot be read, or the settings do not go together.
    pub fn resolve(
        file: Option<&Path>,
        environment: Layer,
        flags: Layer,
    ) -> Result<Self, SettingsError> {
        let (mut settings, access) = Self::layered(file, environment, flags)?;
        settings.access = access.map(AccessLayer::rules).transpose()?;
        Ok(settings)
    }

    /// The same without the rules, whose file is not read: for who works on the files of a server and lets nobody in.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_without_rules(
        file: Option<&Path>,
        environment: Layer,
        flags: Layer,
    ) -> Result<Self, SettingsError> {
        Ok(Self::layered(file, environment, flags)?.0)
    }

    /// All but the rules, and where these are.
    fn layered(
        file: Option<&Path>,
        environment: Layer,
        flags: Layer,
    ) -> Result<(Self, Option<AccessLayer>), SettingsError> {
        let (mut settings, mut access) = (Self::default(), None);
        if let Some(path) = file {
            let mut layer = read(path)?;
            access = layer.access.take();
            settings.apply(layer, &path.display().to_string())?;
        }
        for (mut layer, name) in [
            (environment, "the environment"),
            (flags, "the command line"),
        ] {
            access = layer.access.take().or(access);
            settings.apply(layer, name)?;
        }
        settings.check()?;
        Ok((settings, access))
    }

    /// Puts one source over what is set so far.
    fn apply(&mut self, layer: Layer, source_name: &str) -> Result<(), SettingsError> {
        let Layer {
            http,
            mqtt,
            http_tls,
            mqtt_tls,
            unix_mode,
            tls,
            serial,
            data_dir,
            ephemeral,
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
            // The last of them is read, when all are known.
            access: _,
            rooms,
            mqtt_keep_alive_secs,
            mqtt_disconnect_on_denied,
            mqtt_queue_qos0,
            pace_ms,
            sync_interval_ms,
            max_downtime_secs,
            threads,
            users,
            anonymous,
            tokens,
            limits,
            socketio,
            history,
        } = layer;
        set(&mut self.http, http);
        set(&mut self.mqtt, mqtt);
        set(&mut self.http_tls, http_tls);
        set(&mut self.mqtt_tls, mqtt_tls);
        set(&mut self.unix_mode, unix_mode);
        self.tls.put_over(tls);
        if let Some(serial) = serial {
            self.serial = serial.into_iter().map(|address| address.0).collect();
        }
        set(&mut self.log, log);
        set(&mut self.log_format, log_format);
        if let Some(origins) = allow_origins {
            self.origin.allow_origins = origins.into_iter().map(|origin| origin.0).collect();
        }
        if let Some(hosts) = allow_hosts {
            self.origin.allow_hosts = hosts.into_iter().map(|host| host.0).collect();
        }
        if let Some(frames) = allow_frames {
            let sources = frames.iter().map(|frame| frame.source().to_owned());
            self.allow_frames = sources.collect();
        }
        if let Some(proxies) = trusted_proxies {
            let networks = proxies.into_iter().map(|proxy| proxy.0);
            self.origin.trusted_proxies = networks.collect();
        }
        set(&mut self.base_path, base_path.map(|path| path.0));
        self.pages = pages.or_else(|| self.pages.take());
        self.pages_csp = pages_csp
            .map(|policy| policy.0)
            .or_else(|| self.pages_csp.take());
        self.socketio_client = socketio_client.or_else(|| self.socketio_client.take());
        if let Some(rooms) = rooms {
            self.bus.rooms = rooms.into_iter().map(|room| room.0).collect();
        }
        if let Some(Within(ms)) = pace_ms {
            self.bus.session.pace = Duration::from_millis(ms as u64);
        }
        if let Some(Within(ms)) = sync_interval_ms {
            self.bus.sync_interval = Duration::from_millis(ms as u64);
        }
        if let Some(Within(secs)) = max_downtime_secs {
            self.bus.max_downtime = Duration::from_secs(secs as u64);
        }
        if let Some(Within(secs)) = mqtt_keep_alive_secs {
            self.mqtt_keep_alive = Some(Duration::from_secs(secs as u64));
        }
        set(&mut self.mqtt_queue_qos0, mqtt_queue_qos0);
        set(
            &mut self.mqtt_disconnect_on_denied,
            mqtt_disconnect_on_denied,
        );
        set_within(&mut self.threads, threads);
        match (data_dir, ephemeral) {
            (Some(_), Some(true)) => {
                return Err(SettingsError::TwoStores {
                    source_name: source_name.to_owned(),
                });
            }
            (Some(directory), _) => self.bus.store = StoreKind::Directory(directory),
            (None, Some(true)) => self.bus.store = StoreKind::Memory,
            // What a source below has made ephemeral is stored again, at the usual place.
            (None, Some(false)) if self.bus.store == StoreKind::Memory => {
                self.bus.store = StoreKind::Directory(DEFAULT_DATA_DIR.into());
            }
            (None, _) => {}
        }
        self.sign_in.users = users.or_else(|| self.sign_in.users.take());
        self.sign_in.anonymous = anonymous.or(self.sign_in.anonymous);
        if tokens.lacks_keys() {
            return Err(SettingsError::TokensWithoutKeys {
                source_name: source_name.to_owned(),
            });
        }
        self.sign_in.tokens = tokens.config().or_else(|| self.sign_in.tokens.take());
        self.apply_limits(&limits);
        socketio.apply(&mut self.socketio);
        if !history.is_empty() {
            let rule = |rule: HistoryLayer| HistoryRule {
                filter: rule.filter.0,
                keep: u16::try_from(rule.keep.0).unwrap_or(u16::MAX),
            };
            self.bus.history = history.into_iter().map(rule).collect();
        }
        Ok(())
    }

    /// The largest MQTT packet in bytes: what the longest payload and topic need, unless it is set.
    pub fn max_packet_bytes(&self) -> usize {
        let limits = &self.bus.limits;
        let longest = limits.payload_bytes + limits.topic_bytes + PACKET_HEADROOM_BYTES;
        self.packet_bytes.unwrap_or(longest)
    }

    /// The password file: the one that is set, or the one in the directory of the store, whether it is there or not.
    ///
    /// # Errors
    /// When neither is set.
    pub fn users_file(&self) -> Result<PathBuf, String> {
        match (&self.sign_in.users, &self.bus.store) {
            (Some(path), _) => Ok(path.clone()),
            (None, StoreKind::Directory(directory)) => Ok(directory.join(USERS_FILE)),
            (None, StoreKind::Memory) => {
                Err("nothing is stored: name the file of the users".to_owned())
            }
        }
    }

    fn apply_limits(&mut self, limits: &LimitsLayer) {
        let Options {
            limits: hub,
            clicks:
                ClickLimits {
                    rooms,
                    devices,
                    incarnations,
                },
            session:
                SessionLimits {
                    subscriptions,
                    in_flight,
                    incoming_bytes,
                    ..
                },
            ..
        } = &mut self.bus;
        set_within(&mut hub.payload_bytes, limits.payload_bytes);
        if let Some(Within(bytes)) = limits.packet_bytes {
            self.packet_bytes = Some(bytes);
        }
        set_within(incoming_bytes, limits.incoming_bytes);
        set_within(&mut hub.topic_bytes, limits.topic_bytes);
        set_within(&mut hub.places, limits.kept_values);
        set_within(&mut hub.tombstones, limits.tombstones);
        set_within(&mut hub.recent, limits.recent_messages);
        set_within(&mut hub.recent_bytes, limits.recent_bytes);
        // One message at least: it would be for nobody else.
        hub.recent_bytes = hub.recent_bytes.max(hub.payload_bytes + hub.topic_bytes);
        set_within(&mut hub.subscriptions, limits.subscriptions);
        set_within(subscriptions, limits.session_subscriptions);
        set_within(in_flight, limits.session_in_flight);
        set_within(&mut self.connections, limits.connections);
        set_within(&mut self.sessions_away, limits.sessions_away);
        set_within(rooms, limits.rooms);
        set_within(devices, limits.room_devices);
        set_within(incarnations, limits.device_incarnations);
        limits.apply_tls(&mut self.tls_limits);
        self.sign_in.apply_limits(limits);
        let quotas = &mut self.bus.quotas;
        // 0 is no limit.
        let some = |limit: usize| (limit > 0).then_some(limit);
        let rate = |limit: usize| NonZeroU64::new(limit as u64);
        set(
            &mut quotas.user_connections,
            limits.user_connections.map(|it| some(it.0)),
        );
        set(
            &mut quotas.address_connections,
            limits.address_connections.map(|it| some(it.0)),
        );
        set(
            &mut quotas.user_subscriptions,
            limits.user_subscriptions.map(|it| some(it.0)),
        );
        set(
            &mut quotas.publishes_per_second,
            limits.publishes_per_second.map(|it| rate(it.0)),
        );
        set(
            &mut quotas.bytes_per_second,
            limits.bytes_per_second.map(|it| rate(it.0)),
        );
        set(
            &mut quotas.user_retained_topics,
            limits.user_retained_topics.map(|it| some(it.0)),
        );
        set(
            &mut quotas.user_retained_bytes,
            limits.user_retained_bytes.map(|it| some(it.0)),
        );
    }

    fn check(&self) -> Result<(), SettingsError> {
        let listeners = [&self.http, &self.mqtt, &self.http_tls, &self.mqtt_tls];
        if listeners.iter().all(|listener| listener.is_off()) && self.serial.is_empty() {
            return Err(SettingsError::NothingToServe);
        }
        self.check_listeners()?;
        let (named, limit) = (self.bus.rooms.len(), self.bus.clicks.rooms);
        if named > limit {
            return Err(SettingsError::Rooms { named, limit });
        }
        Ok(())
    }
}

impl Settings {
    fn check_listeners(&self) -> Result<(), SettingsError> {
        let has_certificate = self.tls.options()?.is_some();
        for (name, addresses, is_tls) in [
            ("http", &self.http, false),
            ("mqtt", &self.mqtt, false),
            ("http_tls", &self.http_tls, true),
            ("mqtt_tls", &self.mqtt_tls, true),
        ] {
            let mut all = addresses.0.iter();
            if addresses.is_off() {
                continue;
            }
            if addresses.0.contains(&Listen::Off) {
                return Err(SettingsError::OffBesideAddress { name });
            }
            if is_tls && all.any(|one| matches!(one, Listen::Unix(_))) {
                return Err(SettingsError::UnixTls { name });
            }
            if is_tls && !has_certificate {
                return Err(SettingsError::NoCertificate { name });
            }
        }
        Ok(())
    }
}

/// Reads a settings file.
///
/// # Errors
/// When it cannot be read or something in it is wrong.
fn read(path: &Path) -> Result<Layer, SettingsError> {
    let text = fs::read_to_string(path).map_err(|source| SettingsError::File {
        path: path.to_owned(),
        source,
    })?;
    Layer::from_file(&text, path).map_err(|(line, reason)| SettingsError::Line {
        path: path.to_owned(),
        line,
        reason,
    })
}

fn set<T>(setting: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *setting = value;
    }
}

fn set_within<const MIN: usize, const MAX: usize>(
    setting: &mut usize,
    value: Option<Within<MIN, MAX>>,
) {
    set(setting, value.map(|value| value.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str) -> Layer {
        Layer::from_toml(text).unwrap()
    }

    fn environment(pairs: &'static [(&str, &str)]) -> Result<Layer, SettingsError> {
        Layer::from_env(|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        })
    }

    fn over_all(layers: [&str; 2]) -> Settings {
        let [below, above] = layers.map(layer);
        Settings::resolve(None, below, above).unwrap()
    }

    #[test]
    fn every_key_of_the_file() {
        let text = r##"
            http = "0.0.0.0:80"
            mqtt = "off"
            data_dir = "/data"
            log = "warn"
            allow_origins = ["https://a.example"]
            allow_hosts = ["b.example"]
            allow_frames = ["self", "https://c.example"]
            trusted_proxies = ["10.0.0.0/8"]
            base_path = "/lb/"
            rooms = ["main", "lab"]
            mqtt_disconnect_on_denied = true
            mqtt_queue_qos0 = false
            pace_ms = 0
            threads = 13
            [limits]
            payload_bytes = 1024
            packet_bytes = 5_000
            incoming_bytes = 2_000_000
            topic_bytes = 300
            kept_values = 1
            tombstones = 2
            recent_messages = 3
            recent_bytes = 4_000
            subscriptions = 5
            session_subscriptions = 6
            session_in_flight = 7
            connections = 8
            sessions_away = 9
            rooms = 10
            room_devices = 11
            device_incarnations = 12
            tls_handshakes = 13
            tls_handshakes_waiting = 14
            tls_handshake_secs = 15
            tls_handshake_crowded_secs = 16
            sign_in_failures = 17
            sign_in_delay_ms = 1_800
            sign_in_max_delay_secs = 19
            browser_sessions = 20
            user_browser_sessions = 21
            browser_session_idle_secs = 220
            browser_session_secs = 230
            [[history]]
            filter = "chat/#"
            keep = 50
        "##;
        let settings = over_all(["", text]);
        assert_eq!(settings.http, "0.0.0.0:80".parse().unwrap());
        assert_eq!(settings.mqtt, Addresses::off());
        assert_eq!(settings.log, "warn".parse().unwrap());
        assert_eq!(settings.origin.allow_origins, ["https://a.example"]);
        assert_eq!(settings.origin.allow_hosts, ["b.example"]);
        let proxies = settings.origin.trusted_proxies;
        assert!(proxies.contains("10.1.1.1".parse().unwrap()));
        assert_eq!(settings.allow_frames, ["'self'", "https://c.example"]);
        assert_eq!(settings.base_path, "/lb");
        assert_eq!((settings.connections, settings.sessions_away), (8, 9));
        assert_eq!(settings.threads, 13);
        assert!(settings.mqtt_disconnect_on_denied);
        assert!(!settings.mqtt_queue_qos0);
        let secs = Duration::from_secs;
        let tls = latchbus_tls::server::Limits {
            handshakes: 13,
            waiting: 14,
            timeout: secs(15),
            crowded_timeout: secs(16),
        };
        assert_eq!(settings.tls_limits, tls);
        let delays = latchbus_access::users::Delays {
            free_failures: 17,
            first: Duration::from_millis(1_800),
            longest: secs(19),
        };
        assert_eq!(settings.sign_in.delays, delays);
        let sessions = latchbus_access::sessions::Limits {
            sessions: 20,
            user_sessions: 21,
            idle: secs(220),
            age: secs(230),
        };
        assert_eq!(settings.sign_in.sessions, sessions);
        let bus = settings.bus;
        assert_eq!(bus.store, StoreKind::Directory("/data".into()));
        assert_eq!(bus.rooms, ["main", "lab"]);
        let limits = hub::Limits {
            places: 1,
            tombstones: 2,
            recent: 3,
            recent_bytes: 4_000,
            subscriptions: 5,
            topic_bytes: 300,
            payload_bytes: 1024,
        };
        assert_eq!(bus.limits, limits);
        assert_eq!(settings.packet_bytes, Some(5_000));
        let SessionLimits {
            subscriptions,
            in_flight,
            pace,
            incoming_bytes,
        } = bus.session;
        assert_eq!(incoming_bytes, 2_000_000);
        assert_eq!((subscriptions, in_flight, pace), (6, 7, Duration::ZERO));
        let clicks = bus.clicks;
        assert_eq!(
            (clicks.rooms, clicks.devices, clicks.incarnations),
            (10, 11, 12)
        );
        assert_eq!(
            (bus.history[0].filter.as_str(), bus.history[0].keep),
            ("chat/#", 50)
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (line, text) in [
            (2, "http = \"127.0.0.1:1\"\nhtpp = \"127.0.0.1:1\""),
            (1, "http = \"localhost\""),
            (1, "http = 65536"),
            (1, "mqtt = -1"),
            (1, "http = true"),
            (3, "\n[limits]\npayload_bytes = 0"),
            (2, "[limits]\npayload_bytes = -1"),
            (2, "[limits]\nfoo = 1"),
            (1, "threads = 0"),
            (2, "[[history]]\nfilter = \"a#\"\nkeep = 1"),
            (3, "[[history]]\nfilter = \"#\"\nkeep = 0"),
            (1, "rooms = [\"a/b\"]"),
            (2, "\nhttp = "),
        ] {
            let (found, reason) = Layer::from_toml(text).unwrap_err();
            assert_eq!(found, line, "{text}: {reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
    }

    #[test]
    fn a_port_alone_is_of_this_machine_in_every_source() {
        let expected = (
            "127.0.0.1:3000".parse().unwrap(),
            "127.0.0.1:1883".parse().unwrap(),
        );
        for text in ["http = 3000\nmqtt = 1883", "http = \"3000\"\nmqtt = [1883]"] {
            let layer = layer(text);
            assert_eq!((layer.http.unwrap(), layer.mqtt.unwrap()), expected);
        }
        let layer = environment(&[("LATCHBUS_HTTP", "3000"), ("LATCHBUS_MQTT", "1883")]);
        let layer = layer.unwrap();
        assert_eq!((layer.http.unwrap(), layer.mqtt.unwrap()), expected);
    }

    #[test]
    fn later_sources_win() {
        let settings = over_all(["http = \"off\"\nrooms = [\"a\", \"b\"]", "rooms = [\"c\"]"]);
        assert_eq!(
            (settings.http, settings.bus.rooms),
            (Addresses::off(), vec!["c".to_owned()])
        );
    }

    #[test]
    fn the_store_of_the_last_source_wins() {
        let store = |layers| over_all(layers).bus.store;
        let directory = |path: &str| StoreKind::Directory(path.into());
        assert_eq!(store(["", ""]), directory(DEFAULT_DATA_DIR));
        assert_eq!(
            store(["data_dir = \"a\"", "ephemeral = true"]),
            StoreKind::Memory
        );
        assert_eq!(
            store(["ephemeral = true", "data_dir = \"a\""]),
            directory("a")
        );
        assert_eq!(
            store(["ephemeral = true", "ephemeral = false"]),
            directory(DEFAULT_DATA_DIR)
        );
        assert_eq!(
            store(["data_dir = \"a\"", "ephemeral = false"]),
            directory("a")
        );
        let both = layer("data_dir = \"a\"\nephemeral = true");
        let refused = Settings::resolve(None, both, Layer::default());
        assert!(matches!(refused, Err(SettingsError::TwoStores { .. })));
    }

    #[test]
    fn what_does_not_go_together() {
        let off = layer("http = \"off\"\nmqtt = \"off\"");
        let refused = Settings::resolve(None, off, Layer::default());
        assert!(matches!(refused, Err(SettingsError::NothingToServe)));
        let rooms = layer("rooms = [\"a\", \"b\"]\nlimits = { rooms = 1 }");
        let refused = Settings::resolve(None, rooms, Layer::default());
        assert!(matches!(
            refused,
            Err(SettingsError::Rooms { named: 2, limit: 1 })
        ));
    }

    #[test]
    fn listeners() {
        let resolve = |text: &str| Settings::resolve(None, layer(text), Layer::default());
        let pair = "tls = { cert = \"a\", key = \"b\" }";
        let list = "http = [\"127.0.0.1:3000\", \"[::1]:3000\"]\nmqtt = \"off\"\nmqtt_tls = 8883";
        let settings = resolve(&format!("{list}\n{pair}")).unwrap();
        assert_eq!(settings.http.to_string(), "127.0.0.1:3000,[::1]:3000");
        assert_eq!(settings.mqtt_tls.to_string(), "127.0.0.1:8883");
        assert!(settings.tls.options().unwrap().is_some());
        for (wrong, name) in [
            ("http_tls = 3443", "NoCertificate"),
            ("mqtt_tls = 8883\ntls = { cert = \"a\" }", "Tls"),
            ("http = [\"off\", \"3000\"]", "OffBesideAddress"),
            (
                "http_tls = \"unix:/a\"\ntls = { cert = \"a\", key = \"b\" }",
                "UnixTls",
            ),
        ] {
            let error = format!("{:?}", resolve(wrong).unwrap_err());
            assert!(error.starts_with(name), "{wrong}: {error}");
        }
        assert!(Layer::from_toml("http = []").is_err());
    }

    #[test]
    fn variables() {
        let layer = environment(&[
            ("LATCHBUS_HTTP", "127.0.0.1:1"),
            ("LATCHBUS_MQTT", ""),
            ("LATCHBUS_ROOMS", "a, b"),
            ("LATCHBUS_EPHEMERAL", "true"),
        ])
        .unwrap();
        assert_eq!(layer.http, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!((layer.mqtt, layer.ephemeral), (None, Some(true)));
        let rooms = layer.rooms.unwrap();
        assert_eq!(rooms, ["a", "b"].map(|name| Room(name.to_owned())));
        let wrong = environment(&[("LATCHBUS_MQTT", "here")]);
        let Err(SettingsError::Variable { name, .. }) = wrong else {
            panic!("{wrong:?}");
        };
        assert_eq!(name, "LATCHBUS_MQTT");
    }
}
