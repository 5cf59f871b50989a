//! The transports as the suite sees them, each with a peer of its own making.

mod memory;
mod mqtt;
pub(crate) mod mqtt_packet;
mod socketio;
mod socketio_form;
pub(crate) mod tcp;
mod websocket;
mod websocket_form;

pub use memory::{Memory, MemoryPeer};
pub use mqtt::{Mqtt, Mqtt3, Mqtt5, MqttPeer};
pub use socketio::{Carrier, OverPolls, OverWebSocket, PollingPeer, SocketIo, SocketIoPeer};
pub use websocket::{WebSocket, WebSocketJson, WebSocketPeer, WebSocketPostcard};
pub use websocket_form::{Form, Json, Postcard};
