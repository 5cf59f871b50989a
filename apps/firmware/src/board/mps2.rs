//! Arm MPS2 with the AN385 image (Cortex-M3): CMSDK UARTs and timers. UART 0 is the link; UART 1 is the console,
//! on which the buttons are simulated and the values shown. Register maps: Arm DDI 0479, chapter 4, and DAI 0385.
#![allow(unsafe_code)] // registers, the only use of it

use core::fmt::{self, Write};

use cortex_m::peripheral::NVIC;
use cortex_m_rt::exception;
use critical_section::CriticalSection;
use latchbus_core::clicks::{Color, Counter};

use super::{Hardware, queue::Queue};

const CLOCK_HZ: u32 = 25_000_000;
const TICKS_PER_MS: u64 = CLOCK_HZ as u64 / 1_000;
const BAUD: u32 = 115_200;

/// The board's own buttons: FPGAIO, bits 0 and 1.
const BUTTONS: Register = Register(0x4002_8008);
/// The free-running clock.
const CLOCK: Timer = Timer(0x4000_0000);
/// Ends a sleep.
const ALARM: Timer = Timer(0x4000_1000);

const ALARM_IRQ: u16 = 9;
const OVERRUN_IRQ: u16 = 12;

/// The link: a whole frame out, and 5 ms of what comes in at 115,200 baud.
static LINK: Uart<256, 256> = Uart::new(0x4000_4000);
/// The console.
static CONSOLE: Uart<32, 128> = Uart::new(0x4000_5000);

#[derive(Clone, Copy, Debug)]
pub(super) struct Register(pub(super) usize);

impl Register {
    pub(super) fn read(self) -> u32 {
        // SAFETY: only addresses of this board's registers are made into a `Register`.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    pub(super) fn write(self, value: u32) {
        // SAFETY: as above; no register here makes the hardware write to memory.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }
}

/// A CMSDK APB timer: counts down, reloads at 0.
struct Timer(usize);

impl Timer {
    const ENABLE: u32 = 1 << 0;
    const INTERRUPT: u32 = 1 << 3;

    fn start(&self, ticks: u32, control: u32) {
        let [ctrl, value, reload, clear] = [0, 4, 8, 12].map(|offset| Register(self.0 + offset));
        ctrl.write(0);
        clear.write(1);
        reload.write(ticks);
        value.write(ticks);
        ctrl.write(Self::ENABLE | control);
    }

    fn stop(&self) {
        Register(self.0).write(0);
        Register(self.0 + 12).write(1);
    }

    fn value(&self) -> u32 {
        Register(self.0 + 4).read()
    }
}

/// A CMSDK APB UART with its queues.
struct Uart<const IN: usize, const OUT: usize> {
    base: usize,
    incoming: Queue<IN>,
    outgoing: Queue<OUT>,
}

impl<const IN: usize, const OUT: usize> Uart<IN, OUT> {
    const TX_FULL: u32 = 1 << 0;
    const RX_FULL: u32 = 1 << 1;

    const fn new(base: usize) -> Self {
        Self {
            base,
            incoming: Queue::new(),
            outgoing: Queue::new(),
        }
    }

    fn start(&self) {
        Register(self.base + 0x10).write(CLOCK_HZ / BAUD);
        // Both directions and their interrupts.
        Register(self.base + 0x08).write(0b1111);
    }

    /// Moves what can be moved between the registers and the queues.
    fn move_bytes(&self, section: CriticalSection<'_>) {
        let (data, state) = (Register(self.base), Register(self.base + 0x04));
        Register(self.base + 0x0c).write(0b1111);
        while state.read() & Self::RX_FULL != 0 {
            self.incoming.push(section, data.read() as u8);
        }
        while state.read() & Self::TX_FULL == 0 {
            match self.outgoing.pop(section) {
                Some(byte) => data.write(byte.into()),
                None => break,
            }
        }
    }

    fn send(&self, bytes: &[u8]) {
        critical_section::with(|section| {
            bytes
                .iter()
                .for_each(|byte| self.outgoing.push(section, *byte));
            self.move_bytes(section);
        });
    }

    fn receive(&self) -> Option<u8> {
        critical_section::with(|section| self.incoming.pop(section))
    }
}

/// Every interrupt of this board comes here.
#[exception]
unsafe fn DefaultHandler(irq: i16) {
    critical_section::with(|section| match u16::try_from(irq) {
        Ok(0 | 1) => LINK.move_bytes(section),
        Ok(2 | 3) => CONSOLE.move_bytes(section),
        Ok(ALARM_IRQ) => ALARM.stop(),
        Ok(OVERRUN_IRQ) => {
            LINK.move_bytes(section);
            CONSOLE.move_bytes(section);
        }
        Ok(ETHERNET_IRQ) => NVIC::mask(Irq(ETHERNET_IRQ)),
        _ => cortex_m::peripheral::SCB::sys_reset(),
    });
}

/// LAN9118. Masked from when it comes until its driver has emptied the chip.
const ETHERNET_IRQ: u16 = 13;

pub(super) fn wake_for_ethernet() {
    // SAFETY: no critical section relies on its being masked.
    unsafe { NVIC::unmask(Irq(ETHERNET_IRQ)) };
}

#[derive(Clone, Copy)]
struct Irq(u16);

// SAFETY: only numbers below the board's 32 interrupts are made into an `Irq`.
unsafe impl cortex_m::interrupt::InterruptNumber for Irq {
    fn number(self) -> u16 {
        self.0
    }
}

/// The board.
#[derive(Debug)]
pub struct Board {
    /// Ticks up to the last look at the clock.
    ticks: u64,
    last: u32,
    /// Buttons that the console holds down.
    held: [bool; Color::COUNT],
    pressed: [bool; Color::COUNT],
}

impl Board {
    /// Starts the board's devices. To be called once.
    pub fn start() -> Self {
        CLOCK.start(u32::MAX, 0);
        LINK.start();
        CONSOLE.start();
        for irq in [0, 1, 2, 3, ALARM_IRQ, OVERRUN_IRQ] {
            // SAFETY: no critical section relies on these being masked.
            unsafe { NVIC::unmask(Irq(irq)) };
        }
        let mut board = Self {
            ticks: 0,
            last: u32::MAX,
            held: [false; Color::COUNT],
            pressed: [false; Color::COUNT],
        };
        board.line(format_args!("started"));
        board
    }

    /// Writes a line to the console; what has no room is left out.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        let _full = writeln!(Console, "{line}");
    }

    fn ticks(&mut self) -> u64 {
        // It counts down and wraps every 171 s; sleeps are shorter.
        let value = CLOCK.value();
        self.ticks += u64::from(self.last.wrapping_sub(value));
        self.last = value;
        self.ticks
    }
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        CONSOLE.send(text.as_bytes());
        Ok(())
    }
}

impl Hardware for Board {
    fn now(&mut self) -> u64 {
        self.ticks() / TICKS_PER_MS
    }

    fn chance(&mut self) -> u32 {
        self.ticks() as u32
    }

    #[allow(clippy::panic)] // on request
    /// The board's two buttons, or those that the console holds down: `R` presses and `r` releases red, `B` and `b`
    /// blue. `!` shows what a panic does.
    fn closed(&mut self) -> [bool; Color::COUNT] {
        while let Some(byte) = CONSOLE.receive() {
            match byte {
                b'!' => panic!("asked for"),
                _ => {
                    let letter = byte.to_ascii_lowercase();
                    for (color, held) in Color::ALL.into_iter().zip(&mut self.held) {
                        if color.as_str().as_bytes().first() == Some(&letter) {
                            *held = byte.is_ascii_uppercase();
                        }
                    }
                }
            }
        }
        let mut buttons = BUTTONS.read();
        self.held.map(|held| {
            let down = buttons & 1 != 0;
            buttons >>= 1;
            held || down
        })
    }

    fn receive(&mut self) -> Option<u8> {
        LINK.receive()
    }

    fn room(&self) -> usize {
        LINK.outgoing.room()
    }

    fn send(&mut self, bytes: &[u8]) {
        LINK.send(bytes);
    }

    fn show_pressed(&mut self, pressed: [bool; Color::COUNT]) {
        if pressed != self.pressed {
            self.pressed = pressed;
            let _full = write!(Console, "pressed");
            for down in pressed {
                let _full = write!(Console, " {}", u8::from(down));
            }
            self.line(format_args!(""));
        }
    }

    fn show_values(&mut self, values: Counter) {
        for (n, color) in Color::ALL.into_iter().enumerate() {
            let between = if n == 0 { "" } else { " " };
            let _full = write!(Console, "{between}{color} {}", values.of(color));
        }
        self.line(format_args!(""));
    }

    fn sleep_until(&mut self, ms: u64) {
        /// Well below the wrap of the clock.
        const LONGEST_MS: u64 = 60_000;
        critical_section::with(|section| {
            let now = self.ticks();
            let due = (ms * TICKS_PER_MS).saturating_sub(now);
            if due == 0 || !LINK.incoming.is_empty(section) || !CONSOLE.incoming.is_empty(section) {
                return;
            }
            let ticks = due.min(LONGEST_MS * TICKS_PER_MS) as u32;
            ALARM.start(ticks, Timer::INTERRUPT);
            // An interrupt wakes it also while interrupts are masked, so none can come in between.
            cortex_m::asm::wfi();
        });
    }
}
