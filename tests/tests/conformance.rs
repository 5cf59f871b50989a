//! Every transport keeps every promise.

use latchbus_tests::conformance;
use latchbus_tests::transports::{
    Memory, Mqtt3, Mqtt5, OverPolls, OverWebSocket, SocketIo, WebSocketJson, WebSocketPostcard,
};
use latchbus_tests::users::WithUsers;

conformance!(memory, Memory);
conformance!(websocket_json, WebSocketJson);
conformance!(websocket_postcard, WebSocketPostcard);
conformance!(mqtt_3_1_1, Mqtt3);
conformance!(mqtt_5, Mqtt5);
conformance!(socketio_websocket, SocketIo<OverWebSocket>);
conformance!(socketio_polling, SocketIo<OverPolls>);

// And a second time with users and rules.
conformance!(memory_with_users, WithUsers<Memory>);
conformance!(websocket_json_with_users, WithUsers<WebSocketJson>);
conformance!(websocket_postcard_with_users, WithUsers<WebSocketPostcard>);
conformance!(mqtt_3_1_1_with_users, WithUsers<Mqtt3>);
conformance!(mqtt_5_with_users, WithUsers<Mqtt5>);
conformance!(
    socketio_websocket_with_users,
    WithUsers<SocketIo<OverWebSocket>>
);
conformance!(socketio_polling_with_users, WithUsers<SocketIo<OverPolls>>);
