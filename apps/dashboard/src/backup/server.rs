//! A running server, asked over HTTP.

use core::time::Duration;
use std::fs::File;
use std::io::{ErrorKind, Read as _};

use anyhow::{Context as _, bail};
use axum::body::{Body, BodyDataStream};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use latchbus_tls::client::{HandshakeError, explain};
use latchbus_tls::server::Protocol;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Progress, Totals};
use crate::remote::Server;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// What is read of an answer that is no export, in bytes. A page of a list may have long names in it.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// An answer in plain text is shown when it is no longer than this, in bytes.
const MAX_LINE_BYTES: usize = 200;

/// A file is sent in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answer(BodyDataStream);

impl Answer {
    /// What comes next; `None` at its end.
    pub(super) async fn piece(&mut self) -> anyhow::Result<Option<Bytes>> {
        let piece = timeout(SILENCE, self.0.next()).await;
        let piece = piece.context("the server has fallen silent")?;
        piece.transpose().context("the connection was lost")
    }
}

/// Asks for an export.
pub(super) async fn export(remote: &Server) -> anyhow::Result<Answer> {
    ask(remote, Method::GET, "/api/v1/export", Body::empty()).await
}

/// Sends a file, which the server merges.
pub(super) async fn import(remote: &Server, file: File) -> anyhow::Result<()> {
    let pieces = stream::unfold(
        (file, Progress::new("sent"), 0),
        |(mut file, mut progress, sent)| async move {
            let mut piece = vec![0; PIECE_BYTES];
            match file.read(&mut piece) {
                Ok(0) => None,
                Ok(length) => {
                    piece.truncate(length);
                    let sent = sent + length as u64;
                    progress.tell(format_args!("{} KiB", sent >> 10));
                    Some((Ok(Bytes::from(piece)), (file, progress, sent)))
                }
                Err(error) => Some((Err(error), (file, progress, sent))),
            }
        },
    );
    let body = Body::from_stream(pieces);
    let text = call(remote, Method::POST, "/api/v1/import", body).await?;
    let _merged: Totals =
        serde_json::from_slice(&text).context("the server's answer is not known")?;
    Ok(())
}

/// Asks for something whose answer is short.
pub(crate) async fn call(
    remote: &Server,
    method: Method,
    path: &str,
    body: Body,
) -> anyhow::Result<Vec<u8>> {
    let mut answer = ask(remote, method, path, body).await?;
    whole(&mut answer).await
}

async fn ask(remote: &Server, method: Method, path: &str, body: Body) -> anyhow::Result<Answer> {
    let connected = timeout(CONNECT_TIMEOUT, connect(remote)).await;
    let unreachable = || format!("cannot reach {}", remote.place());
    let stream = connected
        .with_context(unreachable)?
        .with_context(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or with the runtime.
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", remote.base))
        .header(HOST, remote.authority.as_str())
        .header(CONTENT_TYPE, "application/x-ndjson");
    if let Some(authorization) = &remote.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let response = sender.send_request(request.body(body)?).await;
    let response = response.context("the server has ended the connection")?;
    let status = response.status();
    let mut answer = Answer(Body::new(response.into_body()).into_data_stream());
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let text = whole(&mut answer).await?;
    let reason = reason(&text).or_else(|| plain(&text));
    bail!(
        "the server refuses: {}",
        reason.unwrap_or_else(|| status.to_string())
    )
}

async fn connect(remote: &Server) -> anyhow::Result<Box<dyn Stream>> {
    #[cfg(unix)]
    if let Some(path) = &remote.socket {
        return Ok(Box::new(tokio::net::UnixStream::connect(path).await?));
    }
    #[cfg(not(unix))]
    if remote.socket.is_some() {
        bail!("this system has no Unix sockets here");
    }
    let stream = TcpStream::connect((remote.host(), remote.port)).await?;
    let Some(tls) = &remote.tls else {
        return Ok(Box::new(stream));
    };
    match tls.connect(remote.host(), stream, Protocol::Http).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => match explain(&error) {
            Some(HandshakeError::NotTls) => bail!(
                "{} (the address of a port without TLS begins with http://)",
                HandshakeError::NotTls
            ),
            Some(explained) => Err(explained.into()),
            // As a server of MQTT does, which nobody greets so.
            None if error.kind() == ErrorKind::UnexpectedEof => {
                bail!("the connection ends in the TLS handshake, as at a port without TLS")
            }
            None => Err(error.into()),
        },
    }
}

/// An answer that is short.
async fn whole(answer: &mut Answer) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    while let Some(piece) = answer.piece().await? {
        if piece.len() > MAX_ANSWER_BYTES - text.len() {
            bail!("the server's answer is not known");
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

/// A line of text in the place of JSON, as that of a port that speaks TLS.
fn plain(text: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(text).ok()?.trim();
    let is_line = !text.is_empty() && text.len() <= MAX_LINE_BYTES && !text.contains(['<', '\n']);
    (is_line && !text.contains(char::is_control)).then(|| text.to_owned())
}

fn reason(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let refusal: Refusal = serde_json::from_slice(text).ok()?;
    Some(refusal.error.message)
}
