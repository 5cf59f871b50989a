//! The button over Ethernet: MQTT to the server at 10.0.2.100, port 1883.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::entry;
use latchbus_firmware::board::{Board, Ethernet, Hardware};
use latchbus_firmware::button::Button;
use latchbus_firmware::debounce::SAMPLE_MS;
use latchbus_firmware::entropy::Entropy;
use latchbus_firmware::mqtt::{Client, Output};
use latchbus_firmware::stack;
use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};

const SERVER: (IpAddress, u16) = (IpAddress::Ipv4(Ipv4Address::new(10, 0, 2, 100)), 1883);
const OWN: IpCidr = IpCidr::new(IpAddress::Ipv4(Ipv4Address::new(10, 0, 2, 15)), 24);

/// Locally administered; two boards on one network need two.
const MAC: [u8; 6] = [0x02, 0x6c, 0x62, 0x00, 0x00, 0x01];

/// Before a new connection is tried.
const RETRY_MS: u64 = 200;

#[entry]
fn main() -> ! {
    static mut BUTTON: Button = Button::new();
    static mut CLIENT: Client = Client::new();
    static mut ETHERNET: Ethernet = Ethernet::new();
    static mut INCOMING: [u8; 1024] = [0; 1024];
    static mut OUTGOING: [u8; 1024] = [0; 1024];
    static mut SOCKETS: [SocketStorage<'static>; 1] = [SocketStorage::EMPTY];
    stack::paint();
    let (button, client, ethernet) = (BUTTON, CLIENT, ETHERNET);
    let mut board = Board::start();
    if !ethernet.start(MAC) {
        board.line(format_args!("no ethernet"));
    }
    let mut entropy = Entropy::new(board.chance());
    let mut config = Config::new(EthernetAddress(MAC).into());
    config.random_seed = entropy.draw().into();
    let mut interface = Interface::new(config, ethernet, instant(board.now()));
    interface.update_ip_addrs(|addresses| {
        // There is room for one.
        let _full = addresses.push(OWN);
    });
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(&mut INCOMING[..]),
        tcp::SocketBuffer::new(&mut OUTGOING[..]),
    );
    socket.set_timeout(Some(Duration::from_secs(10)));
    // A count is not to wait for the acknowledgement of the ping before it.
    socket.set_nagle_enabled(false);
    let mut sockets = SocketSet::new(&mut SOCKETS[..]);
    let handle = sockets.add(socket);
    client.begin(entropy);

    let mut sample_at = board.now();
    let mut retry_at = board.now();
    let mut is_connected = false;
    loop {
        let now = board.now();
        interface.poll(instant(now), ethernet, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        if !socket.is_open() && now >= retry_at {
            retry_at = now + RETRY_MS;
            is_connected = false;
            // A port of the dynamic range (RFC 6335), by chance: the one before may still be in use.
            let port = 49_152 + (board.chance() & 0x3fff) as u16;
            // It fails on a socket that is open, which this one is not.
            let _open = socket.connect(interface.context(), SERVER, port);
        }
        if socket.may_send() && !is_connected {
            is_connected = true;
            client.connected(now);
        }
        if is_connected {
            let chance = board.chance();
            let _closed = socket.recv(|bytes| {
                client.receive(bytes, chance, now, button);
                (bytes.len(), ())
            });
            let mut out = Output::new();
            if socket.send_capacity() - socket.send_queue() >= out.capacity() {
                client.poll(now, button, &mut out);
                // There is room for all of it.
                let _closed = socket.send_slice(&out);
            }
            if client.is_lost() || !socket.may_recv() {
                socket.abort();
            }
        }
        if now >= sample_at {
            sample_at = now + SAMPLE_MS;
            button.sample(board.closed());
            board.show_pressed(button.pressed());
        }
        if let Some(values) = button.news() {
            board.show_values(values);
        }
        let network = interface.poll_delay(instant(now), &sockets);
        let network_at = network.map_or(u64::MAX, |delay| now + delay.total_millis());
        board.sleep_until(sample_at.min(network_at));
    }
}

fn instant(ms: u64) -> Instant {
    Instant::from_millis(ms as i64)
}

/// A restart loses nothing that was acknowledged, and shows no half-known state.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    SCB::sys_reset()
}
