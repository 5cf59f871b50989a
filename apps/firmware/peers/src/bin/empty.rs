//! What every image has, to be taken off.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m as _;
use cortex_m_rt::entry;

#[entry]
fn main() -> ! {
    loop {
        cortex_m::asm::nop();
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
