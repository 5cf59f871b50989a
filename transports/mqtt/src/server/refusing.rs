//! How a connection is refused: with a CONNACK that says why, as far as there is room for that.

use core::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Server;
use super::link::{Input, LinkError};
use crate::opening::Opening;
use crate::{Reason, Version, encode};

/// Connections beyond the bound that are told so at a time; the next is closed at once.
pub(super) const MAX_TURNED_AWAY: usize = 64;
/// How long such a connection may take for its CONNECT.
const TURN_AWAY_TIME: Duration = Duration::from_secs(2);

impl Server {
    /// There is no room: says so to a client that says what it speaks, for some of them at a time.
    pub(super) async fn turn_away<R, W>(&self, reader: R, mut writer: W)
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let Ok(_permit) = self.0.turning_away.try_acquire() else {
            return;
        };
        let mut input = Input::new(reader, self.0.bus.clone());
        let answer = async {
            let refused = match self.open(&mut input).await? {
                Opening::Connect(connect) => (
                    connect.version,
                    Reason::QUOTA_EXCEEDED,
                    connect.maximum_packet_bytes,
                ),
                Opening::Refuse {
                    version,
                    reason,
                    limit,
                    ..
                } => (version, reason, limit),
            };
            say_no(&mut writer, refused).await?;
            self.0.metrics.turned_away.add(1);
            Ok::<_, LinkError>(())
        };
        let closing = self.0.bus.closing();
        let told = tokio::select! {
            () = closing.cancelled() => return,
            told = timeout(TURN_AWAY_TIME, answer) => told,
        };
        if matches!(told, Ok(Ok(()))) {
            input.linger().await;
        }
    }

    /// Ends what has only begun.
    pub(super) async fn refuse<R, W>(
        &self,
        mut input: Input<R>,
        mut writer: W,
        refused: (Version, Reason, Option<usize>),
    ) -> Result<(), LinkError>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin,
    {
        self.0.bus.metrics().connections_refused.add(1);
        say_no(&mut writer, refused).await?;
        input.linger().await;
        Ok(())
    }
}

/// A CONNACK that refuses, where the client takes one, and the end of what is sent.
async fn say_no<W: AsyncWrite + Unpin>(
    writer: &mut W,
    (version, reason, limit): (Version, Reason, Option<usize>),
) -> Result<(), LinkError> {
    let mut bytes = BytesMut::new();
    encode::refusal(version, reason, limit, &mut bytes);
    writer.write_all(&bytes).await?;
    Ok(writer.shutdown().await?)
}
