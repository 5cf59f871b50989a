//! BBC micro:bit (nRF51822, Cortex-M0): the UART is the link, buttons A and B are red and blue, and the LED matrix
//! shows the room's clicks as a binary number. Registers: nRF51 Series Reference Manual 3.0.
#![allow(unsafe_code)] // the registers' writers, and interrupts

use cortex_m::peripheral::NVIC;
use critical_section::CriticalSection;
use latchbus_core::clicks::{Color, Counter};
use nrf51_pac::{GPIO, Interrupt, Peripherals, RNG, TIMER0, UART0, interrupt};

use super::{Hardware, queue::Queue};

const RX_PIN: u32 = 25;
const TX_PIN: u32 = 24;
/// A and B. They pull their pins down.
const BUTTON_PINS: [usize; Color::COUNT] = [17, 26];
/// The matrix: a LED is on where its row is high and its column low.
const COLUMN_PINS: core::ops::RangeInclusive<usize> = 4..=12;
const ROW_PIN: usize = 13;
/// The last column shows that a button is down, those before it the number.
const PRESSED_PIN: u32 = 12;
const NUMBER_BITS: u32 = 8;
const FIRST_COLUMN: u32 = 4;

/// 115,200 baud.
const BAUDRATE: u32 = 0x01d7_e000;

/// Bytes from the link: 5 ms at 115,200 baud.
static INCOMING: Queue<256> = Queue::new();
/// Bytes to the link: a whole frame.
static OUTGOING: Queue<256> = Queue::new();

fn uart() -> &'static nrf51_pac::uart0::RegisterBlock {
    // SAFETY: the main loop and the handler of the UART use it in critical sections alone.
    unsafe { &*UART0::PTR }
}

fn timer() -> &'static nrf51_pac::timer0::RegisterBlock {
    // SAFETY: the handler only clears its event.
    unsafe { &*TIMER0::PTR }
}

/// Moves what can be moved between the registers and the queues. The UART takes the next byte after the event that
/// says that the last is sent.
fn move_bytes(section: CriticalSection<'_>) {
    let uart = uart();
    while uart.events_rxdrdy.read().bits() != 0 {
        uart.events_rxdrdy.reset();
        INCOMING.push(section, uart.rxd.read().bits() as u8);
    }
    if uart.events_txdrdy.read().bits() != 0 {
        match OUTGOING.pop(section) {
            Some(byte) => transmit(byte),
            // The event stays: the transmitter is idle. Its interrupt is not wanted until there is a byte.
            // SAFETY: bit 7 is TXDRDY.
            None => uart.intenclr.write(|w| unsafe { w.bits(1 << 7) }),
        }
    }
}

fn transmit(byte: u8) {
    let uart = uart();
    uart.events_txdrdy.reset();
    // SAFETY: any byte can be sent; bit 7 is TXDRDY.
    uart.txd.write(|w| unsafe { w.bits(byte.into()) });
    uart.intenset.write(|w| unsafe { w.bits(1 << 7) });
}

#[interrupt]
fn UART0() {
    critical_section::with(move_bytes);
}

#[interrupt]
fn TIMER0() {
    if let Some(event) = timer().events_compare.first() {
        event.reset();
    }
}

/// The board.
#[derive(Debug)]
pub struct Board {
    gpio: GPIO,
    rng: RNG,
    /// Microseconds up to the last look at the timer.
    micros: u64,
    last: u32,
    total: u32,
    pressed: bool,
}

impl Board {
    /// Starts the board's devices. To be called once.
    ///
    /// # Panics
    /// When called again.
    #[allow(clippy::expect_used)] // there is nothing to go on with
    pub fn start() -> Self {
        let peripherals = Peripherals::take().expect("called once");
        start_timer();
        start_uart(&peripherals.UART0);
        let gpio = peripherals.GPIO;
        start_pins(&gpio);
        // SAFETY: no critical section relies on these being masked.
        unsafe {
            NVIC::unmask(Interrupt::UART0);
            NVIC::unmask(Interrupt::TIMER0);
        }
        let rng = peripherals.RNG;
        // SAFETY: starts the generator; it corrects its bias when bit 0 is set.
        rng.config.write(|w| unsafe { w.bits(1) });
        rng.tasks_start.write(|w| unsafe { w.bits(1) });
        Self {
            gpio,
            rng,
            micros: 0,
            last: 0,
            total: 0,
            pressed: false,
        }
    }

    fn micros(&mut self) -> u64 {
        // It wraps every 71 minutes; sleeps are shorter.
        let [_, capture, ..] = &timer().tasks_capture;
        // SAFETY: any value triggers the task.
        capture.write(|w| unsafe { w.bits(1) });
        let [_, value, ..] = &timer().cc;
        let value = value.read().bits();
        self.micros += u64::from(value.wrapping_sub(self.last));
        self.last = value;
        self.micros
    }

    fn show(&mut self) {
        // SAFETY: these pins are outputs with nothing but LEDs behind.
        for bit in 0..NUMBER_BITS {
            self.light(FIRST_COLUMN + bit, self.total >> bit & 1 != 0);
        }
        self.light(PRESSED_PIN, self.pressed);
    }

    fn light(&mut self, column: u32, on: bool) {
        let pin = 1 << column;
        // SAFETY: the pins are outputs with nothing but LEDs behind.
        if on {
            self.gpio.outclr.write(|w| unsafe { w.bits(pin) });
        } else {
            self.gpio.outset.write(|w| unsafe { w.bits(pin) });
        }
    }
}

/// A 32-bit counter of microseconds. Compare register 0 ends sleeps, 1 reads the counter.
fn start_timer() {
    let timer = timer();
    // SAFETY: the values are those of the manual, chapter 18: timer mode, 32 bits, 16 MHz / 2^4, and the
    // interrupt of compare register 0.
    unsafe {
        timer.mode.write(|w| w.bits(0));
        timer.bitmode.write(|w| w.bits(3));
        timer.prescaler.write(|w| w.bits(4));
        timer.intenset.write(|w| w.bits(1 << 16));
        timer.tasks_start.write(|w| w.bits(1));
    }
}

fn start_uart(uart: &UART0) {
    // SAFETY: the values are those of the manual, chapter 29: enabled, both directions, interrupts RXDRDY.
    unsafe {
        uart.pselrxd.write(|w| w.bits(RX_PIN));
        uart.pseltxd.write(|w| w.bits(TX_PIN));
        uart.baudrate.write(|w| w.bits(BAUDRATE));
        uart.enable.write(|w| w.bits(4));
        uart.tasks_startrx.write(|w| w.bits(1));
        uart.tasks_starttx.write(|w| w.bits(1));
        // A delimiter as the first byte: the event that it ends with is the mark of an idle transmitter.
        uart.txd.write(|w| w.bits(0));
        uart.intenset.write(|w| w.bits(1 << 2));
    }
}

fn start_pins(gpio: &GPIO) {
    // SAFETY: the values are those of the manual, chapter 14: inputs with a pull-up, and outputs.
    let configure = |pin: usize, bits| {
        if let Some(pin) = gpio.pin_cnf.get(pin) {
            pin.write(|w| unsafe { w.bits(bits) });
        }
    };
    for pin in BUTTON_PINS {
        configure(pin, 3 << 2);
    }
    for pin in COLUMN_PINS.chain([ROW_PIN]) {
        configure(pin, 1);
    }
    // SAFETY: as above. All columns high: dark.
    unsafe {
        gpio.outset
            .write(|w| w.bits(0x1ff << FIRST_COLUMN | 1 << ROW_PIN));
    }
}

impl Hardware for Board {
    fn now(&mut self) -> u64 {
        self.micros() / 1_000
    }

    fn chance(&mut self) -> u32 {
        // The generator makes a byte in about a millisecond; the same one twice does no harm.
        self.rng.value.read().bits() << 24 ^ self.micros() as u32
    }

    fn closed(&mut self) -> [bool; Color::COUNT] {
        let levels = self.gpio.in_.read().bits();
        BUTTON_PINS.map(|pin| levels >> pin & 1 == 0)
    }

    fn receive(&mut self) -> Option<u8> {
        critical_section::with(|section| INCOMING.pop(section))
    }

    fn room(&self) -> usize {
        OUTGOING.room()
    }

    fn send(&mut self, bytes: &[u8]) {
        critical_section::with(|section| {
            bytes.iter().for_each(|byte| OUTGOING.push(section, *byte));
            move_bytes(section);
        });
    }

    fn show_pressed(&mut self, pressed: [bool; Color::COUNT]) {
        let pressed = pressed != [false; Color::COUNT];
        if pressed != self.pressed {
            self.pressed = pressed;
            self.show();
        }
    }

    fn show_values(&mut self, values: Counter) {
        self.total = values.total() as u32;
        self.show();
    }

    fn sleep_until(&mut self, ms: u64) {
        /// Well below the wrap of the timer.
        const LONGEST_MICROS: u64 = 60_000_000;
        /// A compare value that has passed when it is set would wait for the wrap.
        const SHORTEST_MICROS: u64 = 20;
        critical_section::with(|section| {
            let now = self.micros();
            let due = (ms * 1_000).saturating_sub(now).min(LONGEST_MICROS);
            if due < SHORTEST_MICROS || !INCOMING.is_empty(section) {
                return;
            }
            let at = self.last.wrapping_add(due as u32);
            if let Some(compare) = timer().cc.first() {
                // SAFETY: any time is valid.
                compare.write(|w| unsafe { w.bits(at) });
            }
            // An interrupt wakes it also while interrupts are masked, so none can come in between.
            if self.micros() < now + due {
                cortex_m::asm::wfi();
            }
        });
    }
}
