//! rumqttd with its published settings, on one port: `rumqttd-peer PORT [PORT_FOR_MQTT_5]`.

use std::error::Error;

use rumqttd::{Broker, Config};

fn main() -> Result<(), Box<dyn Error>> {
    let mut ports = std::env::args().skip(1);
    let port: u16 = ports.next().ok_or("which port?")?.parse()?;
    let mut settings = format!(
        r#"
        id = 0
        [router]
        id = 0
        max_connections = 10010
        max_outgoing_packet_count = 200
        max_segment_size = 104857600
        max_segment_count = 10
        [v4.1]
        name = "v4-1"
        listen = "127.0.0.1:{port}"
        next_connection_delay_ms = 1
        [v4.1.connections]
        connection_timeout_ms = 60000
        max_payload_size = 262144
        max_inflight_count = 100
        dynamic_filters = true
        "#
    );
    if let Some(port) = ports.next() {
        let port: u16 = port.parse()?;
        settings += &format!(
            r#"
            [v5.1]
            name = "v5-1"
            listen = "127.0.0.1:{port}"
            next_connection_delay_ms = 1
            [v5.1.connections]
            connection_timeout_ms = 60000
            max_payload_size = 262144
            max_inflight_count = 100
            dynamic_filters = true
            "#
        );
    }
    let config: Config = toml::from_str(&settings)?;
    Broker::new(config).start()?;
    Ok(())
}
