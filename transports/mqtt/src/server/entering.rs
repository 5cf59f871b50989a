//! How a connection begins: from its first byte to the session that serves it.

use core::mem;
use core::net::SocketAddr;
use std::io;
use std::sync::Arc;

use latchbus_bus::{
    Alarm, Client, Credentials, Ended, Principal, PublishRefused, SignIn, SignInRefused, proxy,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::Server;
use super::disk::Disk;
use super::link::{Activity, Input, LinkError, Receiver, Sender, Shared};
use super::logging::{self, Arrived};
use super::registry::{Away, Claim, Present, session_name};
use crate::connection::Connection;
use crate::opening::{Opening, opening};
use crate::record::Note;
use crate::{Connect, Reason, Version, Violation};

/// A connection whose client was accepted.
#[derive(Debug)]
pub(super) struct Entered<R, W> {
    pub(super) open: Open,
    pub(super) subscriptions: latchbus_bus::Session,
    pub(super) receiver: Receiver<R>,
    pub(super) sender: Sender<W>,
    pub(super) disk: Option<Disk>,
    /// Whether the client had a will at its CONNECT.
    pub(super) has_will: bool,
    pub(super) claim: Claim,
}

impl<R, W> Entered<R, W>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    /// Serves it until one side ends it, or another connection of the same client.
    pub(super) async fn serve(&mut self) -> Ended<LinkError, LinkError> {
        let taken_over = self.claim.taken_over();
        let session = &mut self.subscriptions;
        session
            .run(&mut self.receiver, &mut self.sender, taken_over)
            .await
    }
}

/// Counts a connection while it is open, and takes one place of those that there are.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) server: Server,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(server: Server, permit: OwnedSemaphorePermit) -> Self {
        let metrics = server.0.bus.metrics();
        metrics.connections_accepted.add(1);
        metrics.connections.up();
        Self {
            server,
            _permit: permit,
        }
    }

    /// Takes note of how the connection has ended.
    pub(super) fn ended(&self, error: &LinkError) {
        let metrics = &self.server.0.metrics;
        match error {
            LinkError::Violation(Violation::PublishRejected(_)) => {
                metrics.rejected_publish_disconnects.add(1);
            }
            // It has kept to the protocol.
            LinkError::Violation(Violation::NotSignedIn(..)) => {}
            LinkError::Violation(_) | LinkError::ProxyHeader => metrics.violations.add(1),
            LinkError::Io(_) | LinkError::Eof => {}
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server.0.bus.metrics().connections.down();
    }
}

impl Server {
    /// Takes a connection in, if there is room for it. None when it was refused.
    pub(super) async fn enter<R, W>(
        self,
        reader: R,
        writer: W,
        address: Option<SocketAddr>,
        activity: Option<Activity>,
        brought: Credentials,
    ) -> Option<Entered<R, W>>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let Ok(permit) = Arc::clone(&self.0.connections).try_acquire_owned() else {
            self.0.bus.metrics().connections_refused.add(1);
            logging::no_room(&self, address);
            self.turn_away(reader, writer).await;
            return None;
        };
        let open = Open::new(self.clone(), permit);
        match self.begin(reader, writer, address, brought).await {
            Ok(Some(begun)) => {
                let mut entered = self.accept(open, begun).await;
                entered.receiver.activity = activity;
                Some(entered)
            }
            Ok(None) => None,
            Err(error) => {
                open.ended(&error);
                logging::not_begun(&self, address, &error);
                None
            }
        }
    }

    /// Reads what the client opens with. None when it was refused, or when the bus closes.
    async fn begin<R, W>(
        &self,
        reader: R,
        writer: W,
        address: Option<SocketAddr>,
        brought: Credentials,
    ) -> Result<Option<Begun<R, W>>, LinkError>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let mut input = Input::new(reader, self.0.bus.clone());
        let deadline = Instant::now() + self.0.config.connect_timeout;
        let closing = self.0.bus.closing();
        let opened = tokio::select! {
            () = closing.cancelled() => return Ok(None),
            opened = timeout_at(deadline, self.open(&mut input)) => opened,
        };
        let opening = match opened {
            Ok(opening) => opening?,
            Err(_) => {
                self.0.metrics.connect_timeouts.add(1);
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
        };
        let refused = match opening {
            Opening::Connect(mut connect) => {
                connect.credentials = connect.credentials.or(brought);
                let (version, client) = (connect.version, connect.client_id.clone());
                let limit = connect.maximum_packet_bytes;
                match self.admit_client(*connect, address, deadline).await {
                    Ok(admitted) => return Ok(Some((input, writer, admitted))),
                    Err(Refusal {
                        reason,
                        cause,
                        user,
                    }) => {
                        let who = (client.as_str(), user.as_deref(), address);
                        logging::refused(self, who, version, reason, &cause);
                        (version, reason, limit)
                    }
                }
            }
            Opening::Refuse {
                version,
                reason,
                limit,
                violation,
            } => {
                let cause = violation.map(|violation| violation.to_string());
                let cause = cause.as_deref().unwrap_or(reason.words());
                logging::refused(self, ("", None, address), version, reason, cause);
                (version, reason, limit)
            }
        };
        self.refuse(input, writer, refused).await?;
        Ok(None)
    }

    pub(super) async fn open<R: AsyncRead + Unpin + Send>(
        &self,
        input: &mut Input<R>,
    ) -> Result<Opening, LinkError> {
        loop {
            let max_packet_bytes = self.0.bounds.max_packet_bytes;
            match opening(&mut input.bytes, max_packet_bytes) {
                Ok(Some(opening)) => return Ok(opening),
                Ok(None) => {}
                Err(_) if proxy::is_header(&input.bytes) => return Err(LinkError::ProxyHeader),
                Err(violation) => return Err(violation.into()),
            }
            input.read().await?;
        }
    }

    /// Looks whether a client may enter, and takes its identifier.
    async fn admit_client(
        &self,
        mut connect: Connect,
        address: Option<SocketAddr>,
        deadline: Instant,
    ) -> Result<Admitted, Refusal> {
        let (bytes, limit) = (connect.client_id.len(), self.0.bounds.client_id_bytes);
        if bytes > limit {
            let cause = format!("client identifier of {bytes} bytes is longer than {limit}");
            return Err(Refusal::new(Reason::CLIENT_IDENTIFIER_NOT_VALID, cause));
        }
        let assigned = connect.client_id.is_empty();
        if assigned {
            connect.client_id = format!("latchbus-{:016x}", fastrand::u64(..));
        }
        if !Connection::can_accept(&connect, assigned, &self.0.bounds) {
            let cause = "the client's maximum packet size is smaller than the CONNACK";
            return Err(Refusal::new(Reason::PACKET_TOO_LARGE, cause));
        }
        let sign_in = SignIn::new("mqtt")
            .with_client_id(&connect.client_id)
            .with_address(address)
            .with_credentials(mem::take(&mut connect.credentials));
        let closing = self.0.bus.closing();
        let signed_in = tokio::select! {
            () = closing.cancelled() => Err(SignInRefused::Unavailable),
            signed_in = timeout_at(deadline, self.0.bus.sign_in(sign_in)) => {
                signed_in.unwrap_or(Err(SignInRefused::Unavailable))
            }
        };
        let client = signed_in
            .map_err(|refused| Refusal::new(Reason::from(&refused), refused.to_string()))?;
        let user = || client.principal().identity.name().map(str::to_owned);
        if let Some(will) = connect.will.take_if(|will| is_bridge_state(&will.publish)) {
            logging::bridge_will_left_out(&client, will.publish.topic.as_str());
        }
        if let Some(will) = &connect.will
            && let Err(refused) = client.check_publish(&will.publish)
            && !self.tolerates(connect.version, &refused)
        {
            let setting = refused
                .setting()
                .map(|setting| format!(" (setting: {setting})"));
            let cause = format!("will rejected: {refused}{}", setting.unwrap_or_default());
            return Err(Refusal {
                user: user(),
                ..Refusal::new(Reason::from(&refused), cause)
            });
        }
        let name = session_name(&client.principal());
        let claim = self.0.registry.claim(&name, address);
        let (claim, away) = timeout_at(deadline, claim).await.map_err(|_| {
            let cause = "the connection that has its client identifier does not end";
            Refusal {
                user: user(),
                ..Refusal::new(Reason::SERVER_UNAVAILABLE, cause)
            }
        })?;
        Ok(Admitted {
            connect,
            assigned,
            client,
            claim,
            away,
        })
    }

    /// Whether a client may have a will that is going to be rejected: as it is with its publishes.
    fn tolerates(&self, version: Version, refused: &PublishRefused) -> bool {
        version == Version::V3
            && matches!(refused, PublishRefused::NotAllowed(..))
            && !self.0.bounds.disconnect_on_denied
    }

    /// Begins a session, or goes on with the one that was kept.
    async fn accept<R, W>(&self, open: Open, begun: Begun<R, W>) -> Entered<R, W>
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let (input, writer, admitted) = begun;
        let Admitted {
            connect,
            assigned,
            client,
            claim,
            away,
        } = admitted;
        let (address, arrived) = (client.address(), Arrived::from(&connect));
        let disk = Disk::of(&client);
        let is_new = away.is_none();
        let mut replaces = false;
        let (kept, subscriptions) = match away {
            Some(Away {
                session: Some(session),
                subscriptions,
                expires,
                ..
            }) if !connect.clean_start && expires > Instant::now() => {
                let principal = client.principal();
                subscriptions.client().renew(Principal::clone(&principal));
                subscriptions.client().take_seat_of(&client);
                (Some(session), subscriptions)
            }
            Some(mut ended) => {
                replaces = ended.is_stored();
                ended.will.take_if(|will| will.returns);
                ended.end().say().await;
                (None, latchbus_bus::Session::new(client))
            }
            None => (None, latchbus_bus::Session::new(client)),
        };
        subscriptions.client().set_address(address);
        arrived.log(subscriptions.client(), kept.is_some());
        let has_will = connect.will.is_some();
        let bounds = Arc::clone(&self.0.bounds);
        let now = Instant::now().into_std();
        let bus = &self.0.bus;
        let mut connection = Connection::accept(connect, kept, assigned, bounds, now).on_bus(
            subscriptions.client().origin(),
            bus.epoch(),
            bus.clock().clone(),
        );
        connection = connection.away_to(bus.read(|hub| hub.revision()));
        connection = connection.of_client(subscriptions.client().clone());
        if let Some(disk) = &disk {
            connection = connection.on_disk(replaces);
            if is_new && (has_will || connection.is_durable()) {
                // Of a client that the rules did not allow at the start, say.
                disk.remember(vec![Note::ForgetAll]).await;
            }
        }
        if has_will {
            claim.present(Present {
                will: connection.last_will(),
                client: subscriptions.client().clone(),
                disk: disk.clone(),
                delays: connection.outlives_the_server(),
            });
        }
        let traffic = subscriptions.traffic();
        traffic.set_keep_alive(connection.keep_alive());
        traffic.set_in_flight(connection.unacknowledged());
        let is_paced = !connection.can_be_told();
        let shared = Shared::new(connection);
        let wake = subscriptions.wake();
        Entered {
            open,
            receiver: Receiver {
                shared: Arc::clone(&shared),
                input,
                wake: wake.clone(),
                disk: disk.clone(),
                confirmations: subscriptions.confirmations(),
                bus: bus.clone(),
                client: subscriptions.client().clone(),
                traffic: traffic.clone(),
                is_paced,
                alarm: Alarm::default(),
                activity: None,
            },
            sender: Sender::new(shared, writer, disk.clone(), wake, (bus.clone(), traffic)),
            subscriptions,
            disk,
            has_will,
            claim,
        }
    }
}

/// Whether a will is the one that a bridge of Mosquitto has unless it is told otherwise: it says on the other server that the
/// bridge is gone. `$SYS` is the bus's own here; the bridge is to come in all the same.
fn is_bridge_state(publish: &latchbus_bus::Publish) -> bool {
    let topic = publish.topic.as_str();
    topic.starts_with("$SYS/broker/connection/") && topic.ends_with("/state")
}

type Begun<R, W> = (Input<R>, W, Admitted);

/// Why a client may not enter.
struct Refusal {
    reason: Reason,
    cause: String,
    /// Who it has proved to be.
    user: Option<String>,
}

impl Refusal {
    fn new(reason: Reason, cause: impl Into<String>) -> Self {
        Self {
            reason,
            cause: cause.into(),
            user: None,
        }
    }
}

/// A client that may enter.
struct Admitted {
    connect: Connect,
    /// Whether its identifier was chosen here.
    assigned: bool,
    client: Client,
    claim: Claim,
    away: Option<Away>,
}
