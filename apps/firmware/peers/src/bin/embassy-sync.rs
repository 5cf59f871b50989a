//! embassy-sync: a `Watch` for each of 16 values of 24 bytes, with 4 receivers each. There are no topics, no filters and
//! no wire format.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use cortex_m as _;
use cortex_m_rt::entry;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::watch::Watch;

type Value = [u8; 24];

static VALUES: [Watch<CriticalSectionRawMutex, Value, 4>; 16] = [const { Watch::new() }; 16];

#[entry]
fn main() -> ! {
    loop {
        for watch in &VALUES {
            watch.sender().send(black_box([1; 24]));
            for mut receiver in (0..4).map_while(|_| watch.receiver()) {
                black_box(receiver.try_changed());
            }
        }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
