//! The generator's sockets: opened one after another, then served together by one thread.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;
use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConfig;

use crate::socket::{self, Socket};
use crate::wire::{Found, Login, Protocol, client_name};

/// How long an answer may take while a connection is opened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read in one go.
const READ_BYTES: usize = 128 << 10;

/// Where a server is and what it speaks.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// With a name and a password, where clients have to sign in.
    pub(crate) login: Option<Login<'static>>,
    /// Whom clients trust, where it speaks TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// A server that lets everybody in, without TLS.
    pub(crate) const fn open(address: SocketAddr, protocol: Protocol) -> Self {
        Self {
            address,
            protocol,
            login: None,
            tls: None,
        }
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    protocol: Protocol,
    /// Bytes of a frame that is not whole yet.
    input: Vec<u8>,
    /// What the socket has not taken yet.
    output: Vec<u8>,
    /// Whether the server has ended it.
    pub(crate) ended: bool,
}

impl Connection {
    /// Connects and says hello. A receive buffer of some size makes a reader whose slowness is felt.
    ///
    /// # Errors
    /// When the server does not answer as its protocol wants.
    pub(crate) fn open(
        target: &Target,
        role: &str,
        number: usize,
        receive_bytes: Option<usize>,
    ) -> anyhow::Result<Self> {
        let Target {
            address,
            protocol,
            login,
            ref tls,
        } = *target;
        let stream = socket::connected(address, None, receive_bytes, ANSWER_TIMEOUT)?;
        let mut this = Self {
            socket: Socket::begin(stream, tls.as_ref())?,
            protocol,
            input: Vec::new(),
            output: Vec::new(),
            ended: false,
        };
        if protocol.is_web_socket() {
            this.send_all(protocol.upgrade(address, login).as_bytes())?;
            this.read_head()?;
        }
        if protocol == Protocol::SocketIo || protocol == Protocol::Nats {
            this.wait(|found| *found == Found::Opened)?;
        }
        this.send_all(&protocol.hello(&client_name(role, number), login))?;
        match protocol {
            Protocol::Plain => {}
            Protocol::Nats => this.wait(|found| *found == Found::Subscribed)?,
            _ => this.wait(|found| *found == Found::Opened)?,
        }
        Ok(this)
    }

    /// Subscribes; waits for the answer where there is one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn subscribe(&mut self, filter: &str, every: bool) -> anyhow::Result<()> {
        self.send_all(&self.protocol.subscribe(filter, every))?;
        if self.protocol.answers_subscriptions() {
            self.wait(|found| *found == Found::Subscribed)?;
        }
        Ok(())
    }

    /// Sends bytes, and waits until the socket has taken them.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.extend_from_slice(bytes);
        while !self.flush()? {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Adds bytes to what is to be sent, and sends what the socket takes.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.output.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what waits; true when all is sent.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return Ok(false),
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.socket.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            flushed => flushed.map(|()| true),
        }
    }

    /// Reads once, at most as much as fits into `room`; false when there was less than that.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn read(
        &mut self,
        room: &mut [u8],
        mut found: impl FnMut(Found<'_>),
    ) -> io::Result<bool> {
        let read = match self.socket.read(room) {
            Ok(0) => {
                self.ended = true;
                return Ok(false);
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        let fresh = room.get(..read).unwrap_or_default();
        if self.input.is_empty() {
            let used = take(self.protocol, fresh, &mut self.output, &mut found);
            self.input
                .extend_from_slice(fresh.get(used..).unwrap_or_default());
        } else {
            self.input.extend_from_slice(fresh);
            let used = take(self.protocol, &self.input, &mut self.output, &mut found);
            self.input.drain(..used);
        }
        if !self.output.is_empty() {
            self.flush()?;
        }
        Ok(read == room.len())
    }

    /// Reads until something wanted has come.
    ///
    /// # Errors
    /// When it does not come in time.
    pub(crate) fn wait(
        &mut self,
        mut wanted: impl FnMut(&Found<'_>) -> bool,
    ) -> anyhow::Result<()> {
        let mut came = false;
        // What an earlier read has left over.
        let input = core::mem::take(&mut self.input);
        let used = take(self.protocol, &input, &mut self.output, &mut |found| {
            came |= wanted(&found)
        });
        self.input
            .extend_from_slice(input.get(used..).unwrap_or_default());
        let mut room = vec![0; READ_BYTES];
        self.until(|this| {
            if !came {
                this.read(&mut room, |found| came |= wanted(&found))?;
            }
            Ok(came)
        })
    }

    fn read_head(&mut self) -> anyhow::Result<()> {
        let mut room = [0; 4096];
        self.until(|this| {
            match this.socket.read(&mut room) {
                Ok(0) => this.ended = true,
                Ok(read) => this
                    .input
                    .extend_from_slice(room.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let end = this.input.windows(4).position(|part| part == b"\r\n\r\n");
            Ok(end.map(|end| this.input.drain(..end + 4)).is_some())
        })
    }

    fn until(&mut self, mut step: impl FnMut(&mut Self) -> io::Result<bool>) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        while !step(self)? {
            anyhow::ensure!(!self.ended, "the server has closed the connection");
            anyhow::ensure!(
                begun.elapsed() < ANSWER_TIMEOUT,
                "the server does not answer"
            );
            let mut watched = [PollFd::new(self.socket.stream(), PollFlags::IN)];
            poll(
                &mut watched,
                Some(&Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                }),
            )?;
        }
        Ok(())
    }
}

/// Takes the whole frames from the front; how many bytes they were.
fn take(
    protocol: Protocol,
    bytes: &[u8],
    output: &mut Vec<u8>,
    found: &mut impl FnMut(Found<'_>),
) -> usize {
    let mut used = 0;
    while let Some((length, item)) = bytes.get(used..).and_then(|rest| protocol.next(rest)) {
        used += length;
        match item {
            Found::Asked(answer) => output.extend_from_slice(&answer),
            item => found(item),
        }
    }
    used
}

/// Many connections and one thread that serves them.
#[derive(Debug)]
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    room: Vec<u8>,
    /// In the order in which they joined.
    pub(crate) members: Vec<Connection>,
}

impl Crowd {
    /// Nobody yet.
    ///
    /// # Errors
    /// When the system gives no more files.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            room: vec![0; READ_BYTES],
            members: Vec::new(),
        })
    }

    /// Opens connections that subscribe to one filter.
    ///
    /// # Errors
    /// When one of them cannot.
    pub(crate) fn subscribers(
        target: &Target,
        count: usize,
        filter: &str,
        every: bool,
    ) -> anyhow::Result<Self> {
        let mut this = Self::new()?;
        for number in 0..count {
            let mut connection = Connection::open(target, "s", number, None)
                .with_context(|| format!("subscriber {number}"))?;
            connection.subscribe(filter, every)?;
            this.join(connection)?;
        }
        if !target.protocol.answers_subscriptions() {
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(this)
    }

    /// Takes a connection; its number.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub(crate) fn join(&mut self, mut connection: Connection) -> io::Result<usize> {
        let number = self.members.len();
        self.poll.registry().register(
            connection.socket.source(),
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.members.push(connection);
        Ok(number)
    }

    /// Waits until something comes, at most for `wait`, and reads all of it.
    ///
    /// # Errors
    /// Those of the sockets.
    pub(crate) fn poll(
        &mut self,
        wait: Duration,
        mut found: impl FnMut(usize, Found<'_>),
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            let number = event.token().0;
            let Some(member) = self.members.get_mut(number) else {
                continue;
            };
            if event.is_writable() {
                member.flush()?;
            }
            if event.is_readable() && !member.ended {
                while member.read(&mut self.room, |item| found(number, item))? {}
            }
        }
        Ok(())
    }

    /// Connections that the server has ended.
    pub(crate) fn ended(&self) -> usize {
        self.members.iter().filter(|member| member.ended).count()
    }
}
