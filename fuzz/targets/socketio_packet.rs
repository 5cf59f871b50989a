//! Socket.IO packets of hostile clients: what is read keeps to the bounds, and is read again when it is written as the protocol says.
#![no_main]

use latchbus_socketio::packet::{Kind, MAX_ATTACHMENTS, MAX_NAMESPACE_BYTES, Packet, placeholder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let Ok(packet) = Packet::decode(input) else {
        return;
    };
    assert!(packet.namespace.starts_with('/') && packet.namespace.len() <= MAX_NAMESPACE_BYTES);
    assert!(!packet.namespace.contains([',', '?']));
    let namespace = match packet.namespace {
        "/" => String::new(),
        other => format!("{other},"),
    };
    let written = match &packet.kind {
        Kind::Connect(auth) => format!("0{namespace}{}", auth.unwrap_or_default()),
        Kind::Disconnect => format!("1{namespace}"),
        Kind::Event(event) => {
            assert!(event.attachments <= MAX_ATTACHMENTS);
            assert!(event.ack.is_none_or(|ack| ack < 1 << 53));
            let (name, arguments) = event.parts();
            let parts: Vec<serde_json::Value> =
                serde_json::from_str(event.json).unwrap_or_default();
            assert!(
                parts.is_empty() || parts.len() == arguments.len() + 1,
                "{name}"
            );
            for argument in arguments {
                let _ = placeholder(argument);
            }
            let ack = event.ack.map_or(String::new(), |ack| ack.to_string());
            let (attachments, json) = (event.attachments, event.json);
            match input.starts_with('5') {
                true => format!("5{attachments}-{namespace}{ack}{json}"),
                false => format!("2{namespace}{ack}{json}"),
            }
        }
        Kind::Ack { attachments } => {
            assert!(*attachments <= MAX_ATTACHMENTS);
            return;
        }
    };
    assert_eq!(Packet::decode(&written), Ok(packet));
});
