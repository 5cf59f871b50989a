//! The network between one device and the server: a proxy that cuts, delays, half-opens and duplicates.
//!
//! Bytes of a TCP stream cannot be doubled without breaking the protocol on it, so that what is doubled is a
//! whole PUBLISH, with its DUP flag, or a whole frame. The second PUBACK stays here: a client takes it for a
//! fault of the server. A cut comes in the middle of a unit as often as right after one, before its answer.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::frames::{Frames, Protocol, Published, again, puback, published};
use super::outcome::Counts;
use crate::transports::tcp;

/// Publishes that a proxy remembers, to be said again later.
const REMEMBERED: usize = 64;

/// A cut waits so long for a unit that it can go through the middle of.
const CUT_WITHIN: Duration = Duration::from_millis(100);

/// What the network does now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Network {
    /// It passes everything on.
    Up,
    /// It takes up to so long for each piece, either way.
    Slow(Duration),
    /// Connections stay open, and nothing comes through. They do not live on after it: what was
    /// held back comes late or not at all.
    HalfOpen,
    /// Connections are refused.
    Down,
}

#[derive(Debug, Clone, Copy)]
struct Weather {
    network: Network,
    /// A connection that began before this number of cuts ends.
    cuts: u64,
    /// How likely a publish is doubled.
    duplicate: f64,
}

/// A proxy in front of one server, for one client. Dropped, it ends with all its connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where the client finds it.
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    remembered: Arc<Mutex<Remembered>>,
    accepts: JoinHandle<()>,
}

/// A sample of all that was published.
#[derive(Debug)]
struct Remembered {
    random: Rng,
    seen: usize,
    published: Vec<Published>,
}

impl Proxy {
    /// Begins to listen.
    pub async fn start(server: SocketAddr, seed: u64, counts: Arc<Counts>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut random = Rng::with_seed(seed);
        let remembered = Arc::new(Mutex::new(Remembered {
            random: random.fork(),
            seen: 0,
            published: Vec::new(),
        }));
        let (weather, forecast) = watch::channel(Weather {
            network: Network::Up,
            cuts: 0,
            duplicate: 0.0,
        });
        Self {
            address: listener.local_addr().unwrap(),
            weather,
            remembered: Arc::clone(&remembered),
            accepts: tokio::spawn(accept(
                listener, server, random, forecast, remembered, counts,
            )),
        }
    }

    /// From now on it is so.
    pub fn set(&self, network: Network) {
        self.weather.send_modify(|weather| {
            weather.cuts +=
                u64::from(weather.network == Network::HalfOpen || network == Network::Down);
            weather.network = network;
        });
    }

    /// How likely a publish is doubled from now on.
    pub fn duplicate(&self, share: f64) {
        self.weather
            .send_modify(|weather| weather.duplicate = share);
    }

    /// Cuts what is open, soon.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Some of what went through, in any order.
    pub(super) fn remembered(&self) -> Vec<Published> {
        let mut remembered = lock(&self.remembered);
        let mut published = remembered.published.clone();
        remembered.random.shuffle(&mut published);
        published
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    mut random: Rng,
    forecast: watch::Receiver<Weather>,
    remembered: Arc<Mutex<Remembered>>,
    counts: Arc<Counts>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let connection = Connection {
                    forecast: forecast.clone(),
                    began: forecast.borrow().cuts,
                    random: random.fork(),
                    remembered: Arc::clone(&remembered),
                    counts: Arc::clone(&counts),
                    acks: Arc::default(),
                };
                connections.spawn(connection.run(client, server));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Connection {
    forecast: watch::Receiver<Weather>,
    /// The cuts there had been.
    began: u64,
    random: Rng,
    remembered: Arc<Mutex<Remembered>>,
    counts: Arc<Counts>,
    /// Of the publishes on their way: whether the client is to see the acknowledgement.
    acks: Arc<Mutex<VecDeque<(u16, bool)>>>,
}

impl Connection {
    async fn run(mut self, client: TcpStream, server: SocketAddr) {
        if self.forecast.borrow().network == Network::Down {
            return tcp::cut(&client);
        }
        let Ok(server) = TcpStream::connect(server).await else {
            return tcp::cut(&client);
        };
        for stream in [&client, &server] {
            let _ended = stream.set_nodelay(true);
        }
        // Whatever ends it, both sides see a reset and no last word.
        tcp::cut(&client);
        tcp::cut(&server);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let down = Down {
            forecast: self.forecast.clone(),
            began: self.began,
            random: self.random.fork(),
            acks: Arc::clone(&self.acks),
        };
        tokio::select! {
            () = self.up(from_client, to_server) => {}
            () = down.run(from_server, to_client) => {}
        }
    }

    /// From the client to the server.
    async fn up(&mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut frames = Frames::default();
        let mut buffer = [0; 4 << 10];
        let mut cut = false;
        loop {
            while let Some(unit) = frames.next() {
                if pass(&mut self.forecast, self.began, &mut self.random)
                    .await
                    .is_err()
                {
                    return self.tear(&unit, &mut to).await;
                }
                if self
                    .forward(frames.protocol().unwrap(), unit, &mut to)
                    .await
                    .is_err()
                {
                    return;
                }
            }
            if cut {
                return self.counts.cuts.add(1);
            }
            tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(read) => frames.push(&buffer[..read]),
                },
                () = cut_after(&mut self.forecast, self.began) => {
                    // Rather in the middle of what comes next.
                    if let Ok(Ok(read)) = tokio::time::timeout(CUT_WITHIN, from.read(&mut buffer)).await {
                        frames.push(&buffer[..read]);
                    }
                    cut = true;
                }
            }
        }
    }

    /// The last that comes through: a part of it, or the whole, whose answer then does not.
    async fn tear(&mut self, unit: &Bytes, to: &mut OwnedWriteHalf) {
        let length = match self.random.bool() {
            true => unit.len(),
            false => self.random.usize(..unit.len()),
        };
        let _ended = to.write_all(&unit[..length]).await;
        self.counts.cuts.add(1);
    }

    async fn forward(
        &mut self,
        protocol: Protocol,
        unit: Bytes,
        to: &mut OwnedWriteHalf,
    ) -> Result<(), ()> {
        let said = published(protocol, &unit);
        let share = self.forecast.borrow().duplicate;
        let doubled = said.is_some() && self.random.f64() < share;
        if let Some(said) = said {
            if protocol == Protocol::Mqtt && said.packet_id > 0 {
                let mut acks = lock(&self.acks);
                acks.push_back((said.packet_id, true));
                if doubled {
                    acks.push_back((said.packet_id, false));
                }
            }
            lock(&self.remembered).take(said);
        }
        to.write_all(&unit).await.map_err(drop)?;
        if doubled {
            self.counts.duplicates.add(1);
            to.write_all(&again(protocol, &unit)).await.map_err(drop)?;
        }
        Ok(())
    }
}

impl Remembered {
    fn take(&mut self, said: Published) {
        self.seen += 1;
        if self.published.len() < REMEMBERED {
            self.published.push(said);
        } else if let Some(place) = self.published.get_mut(self.random.usize(..self.seen)) {
            *place = said;
        }
    }
}

/// From the server to the client.
struct Down {
    forecast: watch::Receiver<Weather>,
    began: u64,
    random: Rng,
    acks: Arc<Mutex<VecDeque<(u16, bool)>>>,
}

impl Down {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut packets = Frames::default();
        let mut buffer = [0; 4 << 10];
        // The first byte of a server's MQTT is that of CONNACK.
        let mut is_mqtt = None;
        loop {
            let Ok(read @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            let bytes = &buffer[..read];
            let is_mqtt = *is_mqtt.get_or_insert(bytes[0] == 0x20);
            if pass(&mut self.forecast, self.began, &mut self.random)
                .await
                .is_err()
            {
                // The other direction ends the connection.
                return core::future::pending().await;
            }
            if !is_mqtt {
                if to.write_all(bytes).await.is_err() {
                    return;
                }
                continue;
            }
            packets.push(bytes);
            while let Some(packet) = packets.next() {
                if !self.is_extra(&packet) && to.write_all(&packet).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Whether a packet acknowledges a copy. Servers acknowledge in the order of the publishes.
    fn is_extra(&self, packet: &[u8]) -> bool {
        let Some(id) = puback(packet) else {
            return false;
        };
        let expected = lock(&self.acks).pop_front();
        let (of, shown) = expected.expect("an acknowledgement of something");
        assert_eq!(id, of, "acknowledgements out of order");
        !shown
    }
}

/// Waits until a piece may go on; an error when the connection is to end instead.
async fn pass(
    forecast: &mut watch::Receiver<Weather>,
    began: u64,
    random: &mut Rng,
) -> Result<(), ()> {
    let weather = *forecast.borrow_and_update();
    if let Network::Slow(most) = weather.network {
        sleep(most.mul_f64(random.f64())).await;
    }
    let passes = |weather: &Weather| weather.cuts > began || weather.network != Network::HalfOpen;
    let weather = forecast.wait_for(passes).await.map_err(drop)?;
    if weather.cuts > began {
        Err(())
    } else {
        Ok(())
    }
}

async fn cut_after(forecast: &mut watch::Receiver<Weather>, began: u64) {
    let _proxy_ended = forecast.wait_for(|weather| weather.cuts > began).await;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
