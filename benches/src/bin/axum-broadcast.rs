//! A peer: WebSockets on axum, a `tokio::sync::broadcast` channel for each topic, a task for each connection. The
//! obvious way to write it in Rust. It bounds neither topics nor messages: it is no product.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};

type Topics = Arc<Mutex<HashMap<String, broadcast::Sender<Utf8Bytes>>>>;

#[derive(Deserialize)]
struct Request {
    op: String,
    topic: String,
    #[serde(default)]
    data: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let upgrade = |upgrade: WebSocketUpgrade, State(topics): State<Topics>| async move {
        upgrade.on_upgrade(move |socket| serve(socket, topics))
    };
    let app = Router::new()
        .route("/", get(upgrade))
        .with_state(Topics::default());
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(listener, app).await?)
}

async fn serve(mut socket: WebSocket, topics: Topics) {
    let mut news: Option<broadcast::Receiver<Utf8Bytes>> = None;
    loop {
        let next = async {
            match &mut news {
                Some(news) => news.recv().await,
                None => core::future::pending().await,
            }
        };
        tokio::select! {
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) => {
                    let Ok(request) = serde_json::from_str::<Request>(&text) else {
                        return;
                    };
                    let topic = {
                        let mut topics = topics.lock().unwrap_or_else(PoisonError::into_inner);
                        let topic = topics.entry(request.topic.clone());
                        topic.or_insert_with(|| broadcast::channel(1024).0).clone()
                    };
                    if request.op == "sub" {
                        news = Some(topic.subscribe());
                    } else {
                        let message = serde_json::json!({"topic": request.topic, "data": request.data});
                        // Nobody may be subscribed.
                        let _ = topic.send(message.to_string().into());
                    }
                }
                Some(Ok(_)) => {}
                _ => return,
            },
            message = next => match message {
                Ok(message) => {
                    if socket.send(Message::Text(message)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}
