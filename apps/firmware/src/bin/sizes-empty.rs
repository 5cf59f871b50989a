//! What every image has: the start-up code, the vector table and a panic handler. It is what the others are measured
//! against.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // two registers

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use {latchbus_firmware as _, nrf51_pac as _};

const RECEIVED: *const u32 = 0x4000_2518 as *const u32;
const SENT: *mut u32 = 0x4000_251c as *mut u32;

#[entry]
fn main() -> ! {
    loop {
        // SAFETY: the UART's received byte, and its byte to send.
        unsafe { SENT.write_volatile(RECEIVED.read_volatile()) };
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
