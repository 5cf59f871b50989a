//! MQTT over WebSocket (MQTT 5 §6): the handshake, and the way to the MQTT server.

use core::net::SocketAddr;
use core::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use latchbus_bus::Credentials;
use latchbus_mqtt::server::Activity;
use latchbus_ws::handshake::{self, Handshake, HandshakeError};
use latchbus_ws::sign_in;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::App;
use super::tunnel::Tunnel;

/// That of MQTT 5 and 3.1.1 (MQTT-6.0.0-4), and that of 3.1, which some clients offer whatever they speak. The level in the
/// CONNECT decides.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// How long a connection that ends waits for its last frame to be sent, and for the client to end it too.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages may hold several packets; one longer than the longest packet and so much besides is refused.
const MESSAGE_HEADROOM_BYTES: usize = 1 << 20;

pub(super) async fn upgrade(State(app): State<App>, mut request: Request) -> Response {
    let accepted = handshake::accept(&mut request, &app.0.guard, &SUBPROTOCOLS);
    let accepted = accepted.and_then(|(handshake, protocol)| match protocol {
        Some(_) => Ok(handshake),
        // MQTT 5 §6.0: the client names the subprotocol.
        None => Err(HandshakeError::NoProtocol("mqtt")),
    });
    match accepted {
        Ok(Handshake { response, upgrade }) => {
            let address = app.0.guard.client(&request);
            let credentials = sign_in::credentials(&request);
            let serve = serve(app.clone(), upgrade, address, credentials);
            app.0.tunnels.spawn(serve);
            response
        }
        Err(refused) => {
            app.0.bus.metrics().connections_refused.add(1);
            let address = app.0.guard.client(&request);
            refused.log(&app.0.bus, "mqtt", address, request.headers());
            refused.into_response()
        }
    }
}

async fn serve(
    app: App,
    upgrade: OnUpgrade,
    address: Option<SocketAddr>,
    credentials: Credentials,
) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(target: "mqtt", ?address, %error, "a connection ended within its handshake");
            return;
        }
    };
    let closing = app.0.closing.clone();
    let max_message_bytes = app.0.mqtt.max_packet_bytes() + MESSAGE_HEADROOM_BYTES;
    let (hold, activity) = (app.0.bus.incoming().hold(), Activity::default());
    let mut tunnel = Tunnel::new(TokioIo::new(upgraded), max_message_bytes, closing)
        .accounted(hold, activity.clone());
    (app.0.mqtt)
        .connection_with(&mut tunnel, address, Some(activity), credentials)
        .await;
    // A socket that is dropped with unread bytes is reset, and the client would never see why.
    let goodbye = async {
        tunnel.shutdown().await?;
        let mut stream = tunnel.into_inner();
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    if !matches!(timeout(CLOSE_TIMEOUT, goodbye).await, Ok(Ok(()))) {
        tracing::debug!(target: "mqtt", ?address, "the peer did not take the goodbye");
    }
}
