//! Every setting with its default, as a settings file.

use core::fmt::Write as _;
use core::time::Duration;

use super::{DEFAULT_DATA_DIR, Settings};

/// A key of the file: its name, its default as TOML (or an example of one that has none), and what it is.
type Key = (&'static str, Default, &'static str);

enum Default {
    Is(String),
    Example(&'static str),
}

/// A settings file that says what holds without it. Its comments say what each setting is, and what happens at a limit.
pub fn toml() -> String {
    let settings = Settings::default();
    let mut out = String::from(
        "# Every setting of latchbus with its default. What begins with `#` has none; the value there is an example.\n\
         # The environment (LATCHBUS_HTTP) and the flags (--http) override the file.\n\n",
    );
    write(&mut out, general(&settings));
    out.push_str("\n# `latchbus cert DIR NAME` makes the files.\n[tls]\n");
    write(&mut out, tls());
    out.push_str("\n# Tokens that are accepted: see docs/access.md.\n[tokens]\n");
    write(&mut out, tokens());
    out.push_str("\n# What happens at each limit is in docs/settings.md.\n[limits]\n");
    write(&mut out, limits(&settings));
    socketio(&mut out, &settings);
    out.push_str(
        "\n# Topics that retain more than their last value; the first rule that matches counts. Without any: chat/+ retains 100.\n",
    );
    out.push_str("# [[history]]\n");
    write(
        &mut out,
        vec![
            ("filter", Default::Example("\"chat/#\""), "which topics"),
            ("keep", Default::Example("50"), "how many values"),
        ],
    );
    out
}

fn socketio(out: &mut String, settings: &Settings) {
    let config = settings.socketio.clone().unwrap_or_default();
    let is = |text: &dyn core::fmt::Display| Default::Is(text.to_string());
    out.push_str("\n# The events of each namespace are in docs/socketio.md.\n[socketio]\n");
    let keys = vec![
        ("enabled", is(&true), "false: Socket.IO is not served"),
        (
            "ping_interval_ms",
            is(&config.ping_interval.as_millis()),
            "between a pong and the next ping",
        ),
        (
            "ping_timeout_ms",
            is(&config.ping_timeout.as_millis()),
            "longest time from a ping to its pong",
        ),
        (
            "max_payload",
            is(&config.max_payload),
            "bytes of a body that a client is sent, and is told to send",
        ),
        (
            "connect_timeout_ms",
            is(&config.connect_timeout.as_millis()),
            "longest time without a namespace at the beginning",
        ),
        (
            "node",
            Default::Example("\"a\""),
            "begins the session ids, for a proxy before several nodes",
        ),
    ];
    write(out, keys);
    out.push_str("[socketio.namespaces.\"/\"]\n");
    let keys = vec![
        (
            "general",
            is(&true),
            "whether subscribe, unsubscribe and publish are understood",
        ),
        (
            "recovery",
            is(&true),
            "whether clients can go on where they were",
        ),
        (
            "auth_event",
            Default::Example("\"auth\""),
            "an event with which a client is sent its auth, for tests",
        ),
        (
            "out",
            is(&"{ clickValues = \"clicks/main/values\" }"),
            "events to the client, and their topics",
        ),
        (
            "in",
            is(&"{ redClicked = { press = \"red\" }, blueClicked = { press = \"blue\" } }"),
            "events from the client, and what they do",
        ),
    ];
    write(out, keys);
}

fn tokens() -> Vec<Key> {
    vec![
        (
            "keys",
            Default::Example("\"keys.json\""),
            "a JWK set, public keys or certificates (PEM), or a secret",
        ),
        (
            "issuer",
            Default::Example("\"https://id.example.com\""),
            "demanded of iss",
        ),
        (
            "audience",
            Default::Is("[]".to_owned()),
            "one of these is demanded of aud",
        ),
        (
            "leeway_secs",
            Default::Example("30"),
            "how much clocks may differ; with keys",
        ),
    ]
}

fn write(out: &mut String, keys: Vec<Key>) {
    for (name, value, comment) in keys {
        let line = match value {
            Default::Is(value) => format!("{name} = {value}"),
            Default::Example(value) => format!("# {name} = {value}"),
        };
        // A string takes everything.
        let _always = writeln!(out, "{line:<40} # {comment}");
    }
}

fn general(settings: &Settings) -> Vec<Key> {
    use Default::{Example, Is};

    let text = |text: &dyn core::fmt::Display| Is(format!("\"{text}\""));
    let rooms: Vec<_> = settings
        .bus
        .rooms
        .iter()
        .map(|room| format!("\"{room}\""))
        .collect();
    let none = || Is("[]".to_owned());
    vec![
        (
            "http",
            text(&settings.http),
            "HTTP and WebSocket: an address and a port, unix:PATH, a list, or off",
        ),
        (
            "mqtt",
            text(&settings.mqtt),
            "MQTT: an address and a port, unix:PATH, a list, or off",
        ),
        ("http_tls", text(&settings.http_tls), "HTTP with TLS"),
        ("mqtt_tls", text(&settings.mqtt_tls), "MQTT with TLS"),
        (
            "unix_mode",
            text(&format_args!("{:04o}", settings.unix_mode.0)),
            "the permissions of Unix sockets",
        ),
        (
            "serial",
            none(),
            "microcontrollers: \"/dev/ttyUSB0@115200\", \"tcp:HOST:PORT\"",
        ),
        (
            "data_dir",
            text(&DEFAULT_DATA_DIR),
            "where state survives a restart",
        ),
        (
            "ephemeral",
            Is("false".into()),
            "true: nothing survives a restart",
        ),
        (
            "log",
            text(&"info"),
            "off, error, warn, info, debug, trace; or as in \"info,mqtt=debug\"",
        ),
        ("log_format", text(&"text"), "text; json: one object a line"),
        (
            "users",
            Example("\"latchbus-data/users\""),
            "the password file; the one in data_dir counts without a setting",
        ),
        (
            "anonymous",
            Example("true"),
            "whether clients without credentials are let in; without users and tokens those of this machine are",
        ),
        (
            "allow_origins",
            none(),
            "origins of other servers whose pages may use this one",
        ),
        (
            "allow_hosts",
            none(),
            "host names to accept besides IP addresses and localhost",
        ),
        ("allow_frames", none(), "who may show the pages in a frame"),
        (
            "trusted_proxies",
            none(),
            "proxies whose word is taken for address, host and scheme",
        ),
        (
            "base_path",
            Example("\"/lb\""),
            "the path below which proxies serve this server",
        ),
        (
            "pages",
            Example("\"dist\""),
            "the folder of a front end to serve at /; the dashboard is then at /latchbus/",
        ),
        (
            "pages_csp",
            Example("\"default-src 'self'\""),
            "the Content-Security-Policy of that front end, or off",
        ),
        (
            "socketio_client",
            Example("\"node_modules/socket.io-client\""),
            "the folder of the npm package, for /socket.io/socket.io.js",
        ),
        (
            "access",
            Example("\"access.toml\""),
            "who may publish and read what: the file, or a table: docs/access.md",
        ),
        (
            "rooms",
            Is(format!("[{}]", rooms.join(", "))),
            "rooms that are shown before their first click",
        ),
        (
            "mqtt_keep_alive_secs",
            Example("60"),
            "the longest keep-alive of MQTT 5 clients",
        ),
        (
            "mqtt_disconnect_on_denied",
            Is(settings.mqtt_disconnect_on_denied.to_string()),
            "true: a publish that a rule forbids ends the connection of a 3.1.1 client",
        ),
        (
            "mqtt_queue_qos0",
            Is(settings.mqtt_queue_qos0.to_string()),
            "false: messages at QoS 0 do not wait for a session whose client is away",
        ),
        (
            "pace_ms",
            Is(settings.bus.session.pace.as_millis().to_string()),
            "between two frames of a topic in mode latest without max_rate; 0: no pause",
        ),
        (
            "sync_interval_ms",
            Is(settings.bus.sync_interval.as_millis().to_string()),
            "longest time until state published at QoS 0 is on disk; 0: before it is delivered",
        ),
        (
            "max_downtime_secs",
            Is(settings.bus.max_downtime.as_secs().to_string()),
            "of the time between two runs, at most this much counts for what expires",
        ),
        (
            "threads",
            Is(settings.threads.to_string()),
            "threads that serve connections",
        ),
    ]
}

fn tls() -> Vec<Key> {
    use Default::Example;

    vec![
        (
            "cert",
            Example("\"server.pem\""),
            "the certificate, with its chain; reloaded when it changes",
        ),
        ("key", Example("\"server.key\""), "its private key"),
        (
            "client_ca",
            Example("\"ca.pem\""),
            "the authorities whose certificates clients show",
        ),
        (
            "client_certificates",
            Example("\"required\""),
            "off, optional or required (default where there is a client_ca)",
        ),
    ]
}

fn limits(settings: &Settings) -> Vec<Key> {
    let (hub, session, clicks) = (
        &settings.bus.limits,
        &settings.bus.session,
        &settings.bus.clicks,
    );
    let (tls, delays, sessions) = (
        &settings.tls_limits,
        &settings.sign_in.delays,
        &settings.sign_in.sessions,
    );
    let is = |number: usize| Default::Is(number.to_string());
    let secs = |time: Duration| Default::Is(time.as_secs().to_string());
    vec![
        ("payload_bytes", is(hub.payload_bytes), "a payload"),
        (
            "packet_bytes",
            is(settings.max_packet_bytes()),
            "an MQTT packet; announced as Maximum Packet Size",
        ),
        (
            "incoming_bytes",
            is(session.incoming_bytes),
            "unfinished messages, over all connections",
        ),
        ("topic_bytes", is(hub.topic_bytes), "a topic or filter"),
        (
            "kept_values",
            is(hub.places),
            "retained values, besides the hub's own topics",
        ),
        (
            "tombstones",
            is(hub.tombstones),
            "cleared topics that are remembered for clients that resume",
        ),
        (
            "recent_messages",
            is(hub.recent),
            "messages in the recent ring",
        ),
        (
            "recent_bytes",
            is(hub.recent_bytes),
            "bytes in the recent ring",
        ),
        (
            "subscriptions",
            is(hub.subscriptions),
            "subscriptions, over all clients",
        ),
        (
            "session_subscriptions",
            is(session.subscriptions),
            "subscriptions of one client",
        ),
        (
            "session_in_flight",
            is(session.in_flight),
            "requests of one client that wait for their answers",
        ),
        (
            "connections",
            is(settings.connections),
            "connections, each of HTTP, WebSocket and MQTT",
        ),
        (
            "sessions_away",
            is(settings.sessions_away),
            "MQTT sessions whose clients are away",
        ),
        ("rooms", is(clicks.rooms), "rooms"),
        ("room_devices", is(clicks.devices), "devices of a room"),
        (
            "device_incarnations",
            is(clicks.incarnations),
            "starts of a device that are told apart",
        ),
        (
            "tls_handshakes",
            is(tls.handshakes),
            "TLS handshakes at a time; others wait",
        ),
        (
            "tls_handshakes_waiting",
            is(tls.waiting),
            "connections that wait for a handshake",
        ),
        (
            "tls_handshake_secs",
            secs(tls.timeout),
            "longest time of a handshake, waiting included",
        ),
        (
            "tls_handshake_crowded_secs",
            secs(tls.crowded_timeout),
            "the same while others wait",
        ),
        (
            "sign_in_failures",
            is(delays.free_failures as usize),
            "wrong passwords from one address that cost no delay",
        ),
        (
            "sign_in_delay_ms",
            Default::Is(delays.first.as_millis().to_string()),
            "delay after the first beyond them, doubled by each; 0: none",
        ),
        (
            "sign_in_max_delay_secs",
            secs(delays.longest),
            "longest delay",
        ),
        (
            "browser_sessions",
            is(sessions.sessions),
            "sessions of browsers that have signed in",
        ),
        (
            "user_browser_sessions",
            is(sessions.user_sessions),
            "those of one user",
        ),
        (
            "browser_session_idle_secs",
            secs(sessions.idle),
            "longest time without a request",
        ),
        (
            "browser_session_secs",
            secs(sessions.age),
            "longest time since the sign-in",
        ),
        (
            "user_connections",
            is(0),
            "connections of one user; 0: no limit, here and below",
        ),
        ("address_connections", is(0), "connections from one address"),
        (
            "user_subscriptions",
            is(0),
            "subscriptions of one user, over all clients",
        ),
        (
            "publishes_per_second",
            is(0),
            "messages that one user may publish",
        ),
        (
            "bytes_per_second",
            is(0),
            "bytes of topics and payloads that one user may publish",
        ),
        (
            "user_retained_topics",
            is(0),
            "topics that retain what one user has published",
        ),
        (
            "user_retained_bytes",
            is(0),
            "bytes of payloads that are retained of one user",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use core::fmt;

    use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, Visitor};
    use serde::forward_to_deserialize_any;

    use super::super::{
        HistoryLayer, Layer, LimitsLayer, NamespaceLayer, SocketioLayer, TlsLayer, TokensLayer,
    };
    use super::*;

    /// Finds out which keys a type has.
    struct Fields<'a>(&'a mut Vec<&'static str>);

    #[derive(Debug)]
    struct Known;

    impl fmt::Display for Known {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("known")
        }
    }

    impl core::error::Error for Known {}

    impl Error for Known {
        fn custom<T: fmt::Display>(_: T) -> Self {
            Self
        }
    }

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = Known;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Known> {
            Err(Known)
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Known> {
            self.0.extend(fields);
            Err(Known)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn keys<T: DeserializeOwned>() -> Vec<&'static str> {
        let mut keys = Vec::new();
        let _known = <T as Deserialize<'_>>::deserialize(Fields(&mut keys));
        assert!(!keys.is_empty());
        keys
    }

    #[test]
    fn every_key_is_there_with_its_default() {
        let text = toml();
        let (general, rest) = text.split_once("\n[tokens]\n").unwrap();
        let (tokens, rest) = rest.split_once("\n[limits]\n").unwrap();
        let (limits, rest) = rest.split_once("\n[socketio]\n").unwrap();
        let (socketio, history) = rest.split_once("# [[history]]\n").unwrap();
        let names = |part: &str, key: &str| {
            let begins = |line: &str| {
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.split_once(" = ").is_some_and(|(name, _)| name == key)
            };
            part.lines().any(begins)
        };
        for key in keys::<Layer>() {
            let elsewhere = ["tls", "tokens", "limits", "socketio", "history"].contains(&key);
            assert!(elsewhere || names(general, key), "{key}");
        }
        for key in keys::<TlsLayer>() {
            assert!(names(general, key), "{key}");
        }
        for key in keys::<TokensLayer>() {
            assert!(names(tokens, key), "{key}");
        }
        for key in keys::<LimitsLayer>() {
            assert!(names(limits, key), "{key}");
        }
        for key in keys::<SocketioLayer>() {
            assert!(key == "namespaces" || names(socketio, key), "{key}");
        }
        for key in keys::<NamespaceLayer>() {
            assert!(names(socketio, key), "{key}");
        }
        for key in keys::<HistoryLayer>() {
            assert!(names(history, key), "{key}");
        }
        // It changes nothing.
        let layer = Layer::from_toml(&text).unwrap();
        let settings = Settings::resolve(None, layer, Layer::default()).unwrap();
        let mut expected = Settings::default();
        expected.packet_bytes = Some(expected.max_packet_bytes());
        assert_eq!(format!("{settings:?}"), format!("{expected:?}"));
        // The examples are valid, too.
        let examples: String = text
            .lines()
            .skip(3)
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        let examples = examples
            .replace("\nTokens that are", "\n#")
            .replace("\nWhat happens at each", "\n#")
            .replace("\n`latchbus cert", "\n#")
            .replace("\nThe events of each", "\n#")
            .replace("\nTopics that retain", "\n#");
        Layer::from_toml(&examples).unwrap();
    }

    #[test]
    fn the_documentation_names_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        let text = std::fs::read_to_string(path).unwrap();
        for key in [
            keys::<Layer>(),
            keys::<TlsLayer>(),
            keys::<TokensLayer>(),
            keys::<LimitsLayer>(),
            keys::<SocketioLayer>(),
            keys::<NamespaceLayer>(),
            keys::<HistoryLayer>(),
        ]
        .concat()
        {
            assert!(text.contains(&format!("`{key}`")), "{key}");
        }
    }
}
