//! Many presses on each board.

use fastrand::Rng;
use latchbus_core::clicks::{Color, Counter};
use latchbus_tests::depth::sized;
use latchbus_tests::program::Server;

use crate::board::{Board, Machine, Wire};
use crate::images::{self, Image};
use crate::line::Line;
use crate::network::Network;
use crate::room::Room;

/// Five seconds of them: buttons are debounced in real time.
const PRESSES: usize = 200;
const DEEP_PRESSES: usize = 1_000;

/// The stack may be this deep: what the images leave free is more.
const STACK_BYTES: usize = 3 << 10;
const NETWORK_STACK_BYTES: usize = 6 << 10;

/// Presses buttons at random and adds to what was made.
async fn press(board: &mut Board, presses: usize, rng: &mut Rng, made: &mut Counter) {
    for _ in 0..presses {
        let color = match rng.bool() {
            true => Color::Red,
            false => Color::Blue,
        };
        board.press(color).await;
        made.add(color, 1);
    }
}

async fn presses_over_a_bad_line(machine: Machine, image: &str) {
    let Some(images) = images::build().await else {
        return;
    };
    let image = &images[image];
    let Some(mut board) = Board::start(machine, &image.path, Wire::Link).await else {
        return;
    };
    let seed = 7;
    let mut rng = Rng::with_seed(seed);
    let line = Line::new(board.link(), seed).await;
    let server = Server::start(&["--ephemeral", "--serial", &line.address]).await;
    let Some(mut room) = Room::watch(server.mqtt).await else {
        return;
    };

    many_presses(&mut board, &mut room, &mut rng).await;
    judge(board, image, STACK_BYTES).await;
}

/// Presses many times, with a restart in the middle, and waits until the room shows exactly that, and the board
/// what the room shows.
async fn many_presses(board: &mut Board, room: &mut Room, rng: &mut Rng) {
    let presses = sized(PRESSES, DEEP_PRESSES);
    let mut made = Counter::ZERO;
    press(board, presses / 2, rng, &mut made).await;
    // What a board without storage has not delivered dies with it, so the restart waits for this.
    room.shows(made).await;
    board.reset().await;
    press(board, presses / 2, rng, &mut made).await;
    room.shows(made).await;
    board.shows(made).await;
}

async fn judge(mut board: Board, image: &Image, most_stack_bytes: usize) {
    let stack_bytes = board.deepest_stack_bytes().await;
    println!(
        "{}: flash {} bytes, static RAM {} bytes, deepest stack {stack_bytes} bytes",
        image.name, image.flash_bytes, image.ram_bytes
    );
    assert!(stack_bytes <= most_stack_bytes, "{stack_bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_sees_every_press_of_a_cortex_m0_over_a_bad_line() {
    presses_over_a_bad_line(Machine::Microbit, "microbit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_sees_every_press_of_a_cortex_m3_over_a_bad_line() {
    presses_over_a_bad_line(Machine::Mps2, "mps2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_sees_every_press_over_mqtt_and_a_bad_network() {
    let Some(images) = images::build().await else {
        return;
    };
    let image = &images["ethernet"];
    let server = Server::start(&["--ephemeral"]).await;
    let Some(mut room) = Room::watch(server.mqtt).await else {
        return;
    };
    let mut rng = Rng::with_seed(7);
    let network = Network::new(server.mqtt.port(), rng.u64(..));
    let wire = Wire::Network(network.qemu.clone());
    let Some(mut board) = Board::start(Machine::Mps2, &image.path, wire).await else {
        return;
    };
    many_presses(&mut board, &mut room, &mut rng).await;
    judge(board, image, NETWORK_STACK_BYTES).await;
}
