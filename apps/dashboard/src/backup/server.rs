//! A running server, asked over plain HTTP.

use core::time::Duration;
use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, bail};
use axum::body::{Body, BodyDataStream};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::uri::Scheme;
use axum::http::{Method, Request, StatusCode, Uri};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Progress, Totals};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// What is read of an answer that is no export, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A file is sent in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

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
pub(super) async fn export(url: &str) -> anyhow::Result<Answer> {
    ask(url, Method::GET, "/api/v1/export", Body::empty()).await
}

/// Sends a file, which the server merges.
pub(super) async fn import(url: &str, file: File) -> anyhow::Result<()> {
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
    let text = call(url, Method::POST, "/api/v1/import", body).await?;
    let _merged: Totals =
        serde_json::from_slice(&text).context("the server's answer is not known")?;
    Ok(())
}

/// Asks for something whose answer is short.
pub(crate) async fn call(
    url: &str,
    method: Method,
    path: &str,
    body: Body,
) -> anyhow::Result<Vec<u8>> {
    let mut answer = ask(url, method, path, body).await?;
    whole(&mut answer).await
}

async fn ask(url: &str, method: Method, path: &str, body: Body) -> anyhow::Result<Answer> {
    let address: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
    let is_plain = address
        .scheme()
        .is_none_or(|scheme| *scheme == Scheme::HTTP);
    let (Some(authority), true) = (address.authority(), is_plain) else {
        bail!(
            "{url} is not of the form http://HOST:PORT, with the base path of the server behind it"
        );
    };
    let path = format!("{}{path}", address.path().trim_end_matches('/'));
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
    let unreachable = || format!("cannot reach {authority}");
    let stream = connected
        .with_context(unreachable)?
        .with_context(unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or with the runtime.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/x-ndjson")
        .body(body)?;
    let response = sender.send_request(request).await;
    let response = response.context("the server has ended the connection")?;
    let status = response.status();
    let mut answer = Answer(Body::new(response.into_body()).into_data_stream());
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let text = whole(&mut answer).await?;
    bail!(
        "the server refuses: {}",
        reason(&text).unwrap_or_else(|| status.to_string())
    )
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
