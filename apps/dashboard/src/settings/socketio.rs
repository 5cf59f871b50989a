//! The table `[socketio]`: Socket.IO, and what the events of its namespaces mean.

use core::time::Duration;
use std::collections::BTreeMap;

use latchbus_core::clicks::Color;
use latchbus_core::hub::Mode;
use latchbus_core::topic::{TopicFilter, TopicName};
use latchbus_socketio::{Action, Config, Input, Namespace, Output};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::values::Within;

/// What a file says of Socket.IO.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketioLayer {
    /// Whether it is served.
    pub enabled: Option<bool>,
    /// How long after the handshake, and after each pong, a ping is sent.
    pub ping_interval_ms: Option<Within<1, 3_600_000>>,
    /// How long a client may take to answer it.
    pub ping_timeout_ms: Option<Within<1, 3_600_000>>,
    /// Bytes of a body that a client is sent, and is told to send.
    pub max_payload: Option<Within<1_000, 268_435_455>>,
    /// How long a session may be without a namespace at its beginning.
    pub connect_timeout_ms: Option<Within<1, 3_600_000>>,
    /// Which of several nodes this is.
    pub node: Option<Node>,
    /// The namespaces. Those of a file take the place of the default.
    pub namespaces: Option<BTreeMap<NamespaceName, NamespaceLayer>>,
}

/// The name of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespaceName(pub String);

/// The name of a node: letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node(pub String);

/// What a file says of one namespace.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamespaceLayer {
    /// Events to the client.
    pub out: BTreeMap<String, OutLayer>,
    /// Events from the client.
    #[serde(rename = "in")]
    pub inputs: BTreeMap<String, InLayer>,
    /// Whether `subscribe`, `unsubscribe` and `publish` are understood; not where it is not said.
    pub general: Option<bool>,
    /// Whether clients can go on where they were after a cut; they can where it is not said.
    pub recovery: Option<bool>,
    /// An event with which a client that has joined is sent its `auth`.
    pub auth_event: Option<String>,
}

/// An event to the client: a topic or filter, alone or with its mode.
#[derive(Debug, Clone)]
pub struct OutLayer(TopicFilter<String>, Mode);

/// An event from the client.
#[derive(Debug, Clone)]
pub struct InLayer(Action);

impl SocketioLayer {
    /// Puts it over what is set so far.
    pub(super) fn apply(self, setting: &mut Option<Config>) {
        match self.enabled {
            Some(false) => return *setting = None,
            Some(true) => _ = setting.get_or_insert_default(),
            None => {}
        }
        let Some(config) = setting else {
            return;
        };
        let set = |setting: &mut Duration, value: Option<Within<1, 3_600_000>>| {
            if let Some(Within(ms)) = value {
                *setting = Duration::from_millis(ms as u64);
            }
        };
        set(&mut config.ping_interval, self.ping_interval_ms);
        set(&mut config.ping_timeout, self.ping_timeout_ms);
        set(&mut config.connect_timeout, self.connect_timeout_ms);
        if let Some(Within(bytes)) = self.max_payload {
            config.max_payload = bytes;
        }
        if let Some(Node(node)) = self.node {
            config.node = node;
        }
        if let Some(namespaces) = self.namespaces {
            let namespaces = namespaces.into_iter();
            config.namespaces = namespaces
                .map(|(NamespaceName(name), layer)| layer.namespace(&name))
                .collect();
        }
    }
}

impl NamespaceLayer {
    fn namespace(self, name: &str) -> Namespace {
        Namespace {
            outputs: (self.out.into_iter())
                .map(|(event, OutLayer(filter, mode))| Output {
                    event,
                    filter,
                    mode,
                })
                .collect(),
            inputs: (self.inputs.into_iter())
                .map(|(event, InLayer(action))| Input { event, action })
                .collect(),
            general: self.general.unwrap_or(false),
            recovery: self.recovery.unwrap_or(true),
            auth_event: self.auth_event,
            ..Namespace::new(name)
        }
    }
}

impl<'de> Deserialize<'de> for NamespaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let is_name = name.starts_with('/')
            && name.len() <= latchbus_socketio::packet::MAX_NAMESPACE_BYTES
            && !name.contains([',', '?']);
        match is_name {
            true => Ok(Self(name)),
            false => Err(D::Error::custom(format_args!(
                "`{name}` is not a namespace: expected one as in `/` or `/chat`"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        match name.bytes().all(allowed) && (1..=32).contains(&name.len()) {
            true => Ok(Self(name)),
            false => Err(D::Error::custom(format_args!(
                "`{name}` is not the name of a node: expected up to 32 letters, digits, `-` or `_`"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for OutLayer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a topic, or a table with `topic` and `mode`"
        )]
        enum Form {
            Topic(String),
            Table {
                topic: String,
                #[serde(default)]
                mode: Mode,
            },
        }

        let (topic, mode) = match Form::deserialize(deserializer)? {
            Form::Topic(topic) => (topic, Mode::Latest),
            Form::Table { topic, mode } => (topic, mode),
        };
        let filter = TopicFilter::parse(topic).map_err(D::Error::custom)?;
        Ok(Self(filter, mode))
    }
}

impl<'de> Deserialize<'de> for InLayer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            press: Option<String>,
            room: Option<String>,
            topic: Option<String>,
            retain: Option<bool>,
            echo: Option<String>,
            #[serde(default)]
            echo_ack: bool,
        }

        const EXPECTED: &str =
            "expected one of `press` (with `room`), `topic` (with `retain`), `echo` and `echo_ack`";
        let table = Table::deserialize(deserializer)?;
        let action = match table {
            Table {
                press: Some(color),
                room,
                topic: None,
                retain: None,
                echo: None,
                echo_ack: false,
            } => {
                let color: Color = color.parse().map_err(D::Error::custom)?;
                let room = room.as_deref().unwrap_or("main");
                Action::press(room, color)
                    .ok_or_else(|| D::Error::custom(format_args!("`{room}` is not a room")))?
            }
            Table {
                press: None,
                room: None,
                topic: Some(topic),
                retain,
                echo: None,
                echo_ack: false,
            } => Action::Publish {
                topic: TopicName::parse(topic).map_err(D::Error::custom)?,
                retain: retain.unwrap_or(false),
            },
            Table {
                press: None,
                room: None,
                topic: None,
                retain: None,
                echo: Some(event),
                echo_ack: false,
            } => Action::Echo(event),
            Table {
                press: None,
                room: None,
                topic: None,
                retain: None,
                echo: None,
                echo_ack: true,
            } => Action::EchoAck,
            _ => return Err(D::Error::custom(EXPECTED)),
        };
        Ok(Self(action))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layer, Settings};
    use super::*;

    fn config(text: &str) -> Option<Config> {
        let layer = Layer::from_toml(text).unwrap();
        Settings::resolve(None, layer, Layer::default())
            .unwrap()
            .socketio
    }

    #[test]
    fn every_key() {
        let config = config(
            r#"
            [socketio]
            enabled = true
            ping_interval_ms = 300
            ping_timeout_ms = 200
            max_payload = 5_000
            connect_timeout_ms = 7
            node = "b-2"
            [socketio.namespaces."/"]
            general = true
            recovery = false
            auth_event = "auth"
            out = { score = "clicks/lab/values", log = { topic = "log/#", mode = "every" } }
            [socketio.namespaces."/".in]
            red = { press = "red", room = "lab" }
            note = { topic = "notes/a", retain = true }
            message = { echo = "message-back" }
            asked = { echo_ack = true }
            [socketio.namespaces."/chat"]
            "#,
        );
        let config = config.unwrap();
        let ms = Duration::from_millis;
        let times = (
            config.ping_interval,
            config.ping_timeout,
            config.connect_timeout,
        );
        assert_eq!(times, (ms(300), ms(200), ms(7)));
        assert_eq!((config.max_payload, config.node.as_str()), (5_000, "b-2"));
        let [main, chat] = &config.namespaces[..] else {
            panic!("{config:?}");
        };
        assert_eq!((main.general, main.recovery), (true, false));
        assert_eq!(main.auth_event.as_deref(), Some("auth"));
        let outputs = main.outputs.iter();
        let outputs: Vec<_> = outputs
            .map(|output| (output.event.as_str(), output.filter.as_str(), output.mode))
            .collect();
        assert_eq!(
            outputs,
            [
                ("log", "log/#", Mode::Every),
                ("score", "clicks/lab/values", Mode::Latest)
            ]
        );
        let action = |event: &str| {
            let mut inputs = main.inputs.iter();
            inputs
                .find(|input| input.event == event)
                .map(|input| input.action.clone())
        };
        assert_eq!(action("red"), Action::press("lab", Color::Red));
        let topic = TopicName::parse("notes/a".to_owned()).unwrap();
        assert_eq!(
            action("note"),
            Some(Action::Publish {
                topic,
                retain: true
            })
        );
        assert_eq!(
            action("message"),
            Some(Action::Echo("message-back".to_owned()))
        );
        assert_eq!(action("asked"), Some(Action::EchoAck));
        assert_eq!(
            (chat.name.as_str(), chat.general, chat.recovery),
            ("/chat", false, true)
        );
    }

    #[test]
    fn off() {
        assert!(config("[socketio]\nenabled = false\nping_timeout_ms = 3").is_none());
        assert!(config("").is_some());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for wrong in [
            "namespaces.chat = {}",
            "namespaces.\"/a,b\" = {}",
            "namespaces.\"/\" = { out = { a = \"b/#/c\" } }",
            "namespaces.\"/\" = { out = { a = 3 } }",
            "namespaces.\"/\" = { out = { a = { topic = \"b\", mode = \"some\" } } }",
            "namespaces.\"/\" = { in = { a = {} } }",
            "namespaces.\"/\" = { in = { a = { press = \"green\" } } }",
            "namespaces.\"/\" = { in = { a = { press = \"red\", room = \"a b\" } } }",
            "namespaces.\"/\" = { in = { a = { press = \"red\", topic = \"a\" } } }",
            "namespaces.\"/\" = { in = { a = { topic = \"a/+\" } } }",
            "namespaces.\"/\" = { in = { a = { room = \"a\" } } }",
            "namespaces.\"/\" = { open = true }",
            "node = \"a.b\"",
            "node = \"\"",
            "ping_interval_ms = 0",
            "max_payload = 10",
            "path = \"/x\"",
        ] {
            let error = Layer::from_toml(&format!("[socketio]\n{wrong}\n")).unwrap_err();
            assert_eq!(error.0, 2, "{wrong}: {error:?}");
        }
    }
}
