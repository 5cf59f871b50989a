//! GatoMQTT, a broker: its store of 16 retained messages and nothing else of it. The bytes of a topic and a payload are
//! fixed, at 128 and 512.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::panic::PanicInfo;

use GatoMQTT::router::RetainedStore;
use cortex_m as _;
use cortex_m_rt::entry;
use mqttrs::QoS;

#[entry]
fn main() -> ! {
    static mut STORE: RetainedStore<16> = RetainedStore::new();
    loop {
        let (topic, payload) = black_box(("lab/temp", [1; 24]));
        black_box(STORE.set(topic, &payload, QoS::AtMostOnce).is_ok());
        black_box(STORE.matching(black_box("lab/#")).count());
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}
