//! Every transport keeps every promise.

use latchbus_tests::conformance;
use latchbus_tests::transports::{
    Memory, Mqtt3, Mqtt5, OverPolls, OverWebSocket, SocketIo, WebSocketJson, WebSocketPostcard,
};

conformance!(memory, Memory);
conformance!(websocket_json, WebSocketJson);
conformance!(websocket_postcard, WebSocketPostcard);
conformance!(mqtt_3_1_1, Mqtt3);
conformance!(mqtt_5, Mqtt5);
conformance!(socketio_websocket, SocketIo<OverWebSocket>);
conformance!(socketio_polling, SocketIo<OverPolls>);
