//! The button over a byte link.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m::peripheral::SCB;
use cortex_m_rt::entry;
use latchbus_firmware::board::{Board, Hardware};
use latchbus_firmware::button::Button;
use latchbus_firmware::debounce::SAMPLE_MS;
use latchbus_firmware::entropy::Entropy;
use latchbus_firmware::link::{Link, MAX_FRAME_BYTES};
use latchbus_firmware::stack;

#[entry]
fn main() -> ! {
    static mut BUTTON: Button = Button::new();
    static mut LINK: Link = Link::new();
    stack::paint();
    let (button, link) = (BUTTON, LINK);
    let mut board = Board::start();
    link.begin(Entropy::new(board.chance()));
    let mut sample_at = board.now();
    let mut frame = [0; MAX_FRAME_BYTES];
    loop {
        while let Some(byte) = board.receive() {
            let (chance, now) = (board.chance(), board.now());
            link.receive(byte, chance, now, button);
        }
        let now = board.now();
        if now >= sample_at {
            sample_at = now + SAMPLE_MS;
            button.sample(board.closed());
            board.show_pressed(button.pressed());
        }
        while board.room() >= MAX_FRAME_BYTES
            && let Some(bytes) = link.poll(now, button, &mut frame)
        {
            board.send(bytes);
        }
        if let Some(values) = button.news() {
            board.show_values(values);
        }
        board.sleep_until(sample_at.min(link.deadline(button)));
    }
}

/// A restart loses nothing that was acknowledged, and shows no half-known state.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    SCB::sys_reset()
}
