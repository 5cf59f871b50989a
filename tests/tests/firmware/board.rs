//! A board in QEMU, whose pins, lines and memory the test can reach.

use std::path::Path;

use latchbus_core::clicks::{Color, Counter};
use latchbus_tests::program::installed;
use latchbus_tests::within;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Where RAM begins, on both boards.
const RAM: usize = 0x2000_0000;

/// What the firmware fills free memory with at its start, as it lies in memory.
const PAINT: [u8; 4] = 0xdead_beef_u32.to_le_bytes();

/// Which board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    /// Cortex-M0, one UART, buttons on pins, LEDs.
    Microbit,
    /// Cortex-M3; the second UART is its console.
    Mps2,
}

impl Machine {
    fn name(self) -> &'static str {
        match self {
            Self::Microbit => "microbit",
            Self::Mps2 => "mps2-an385",
        }
    }

    fn ram_bytes(self) -> usize {
        match self {
            Self::Microbit => 16 << 10,
            Self::Mps2 => 20 << 10,
        }
    }
}

/// What the first UART of a board, or its network, is connected to.
#[derive(Debug)]
pub(crate) enum Wire {
    /// A byte link, which [`Board::link`] gives.
    Link,
    /// A network, by QEMU's arguments for it.
    Network(Vec<String>),
}

/// A running board. Dropped, it is switched off.
#[derive(Debug)]
pub(crate) struct Board {
    machine: Machine,
    _child: Child,
    _sockets: TempDir,
    link: Option<UnixStream>,
    test: Port,
    monitor: Port,
    console: Option<Port>,
    /// The last line that the console gave with what the room has counted.
    shown: Option<String>,
}

#[derive(Debug)]
struct Port {
    lines: mpsc::UnboundedReceiver<String>,
    out: OwnedWriteHalf,
    _reading: AbortOnDropHandle<()>,
}

impl Port {
    async fn accept(listener: &UnixListener) -> Self {
        let (read, out) = accept(listener).await.into_split();
        let mut read = BufReader::new(read).lines();
        let (line, lines) = mpsc::unbounded_channel();
        // Read at once, also while the test waits for something else: QEMU's end holds some hundred bytes, and a board
        // leaves out what its console has no room for.
        let reading = tokio::spawn(async move {
            while let Ok(Some(text)) = read.next_line().await
                && line.send(text).is_ok()
            {}
        });
        Self {
            lines,
            out,
            _reading: AbortOnDropHandle::new(reading),
        }
    }

    async fn send(&mut self, text: &str) {
        self.out.write_all(text.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let line = within("the board answers", self.lines.recv()).await;
        line.expect("the board has ended")
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    within("QEMU connects", listener.accept()).await.unwrap().0
}

impl Board {
    /// Switches a board on. None where QEMU is not installed.
    pub(crate) async fn start(machine: Machine, image: &Path, wire: Wire) -> Option<Self> {
        let mut qemu = installed("qemu-system-arm")?;
        let sockets = tempfile::tempdir().unwrap();
        let listen = |name: &str| {
            let path = sockets.path().join(name);
            let listener = UnixListener::bind(&path).unwrap();
            (listener, format!("unix:{}", path.display()))
        };
        let (test_listener, test) = listen("test");
        let (monitor_listener, monitor) = listen("monitor");
        let (link_listener, link) = listen("link");
        let (console_listener, console) = listen("console");
        qemu.args(["-machine", machine.name(), "-accel", "tcg"])
            .args(["-display", "none", "-monitor", "none"])
            .args(["-qtest", &test, "-qtest-log", "/dev/null"])
            .args(["-qmp", &monitor])
            .arg("-kernel")
            .arg(image);
        let has_link = match &wire {
            Wire::Link => {
                qemu.args(["-nic", "none", "-serial", &link]);
                true
            }
            Wire::Network(network) => {
                qemu.args(network).args(["-serial", "null"]);
                false
            }
        };
        if machine == Machine::Mps2 {
            qemu.args(["-serial", &console]);
        }
        let child = qemu.spawn().unwrap();
        // In the order in which QEMU connects, which is not promised: all listen already.
        let test = Port::accept(&test_listener).await;
        let mut monitor = Port::accept(&monitor_listener).await;
        monitor.line().await;
        monitor.send("{\"execute\":\"qmp_capabilities\"}\n").await;
        monitor.line().await;
        let link = match has_link {
            true => Some(accept(&link_listener).await),
            false => None,
        };
        let console = match machine {
            Machine::Mps2 => Some(Port::accept(&console_listener).await),
            Machine::Microbit => None,
        };
        Some(Self {
            machine,
            _child: child,
            _sockets: sockets,
            link,
            test,
            monitor,
            console,
            shown: None,
        })
    }

    /// The board's end of its byte link, once.
    pub(crate) fn link(&mut self) -> UnixStream {
        self.link.take().unwrap()
    }

    /// Presses a button as a finger does, with contacts that bounce, until the board has seen it; and
    /// releases it.
    pub(crate) async fn press(&mut self, color: Color) {
        for down in [true, false] {
            for level in [down, !down, down] {
                self.set(color, level).await;
            }
            self.until_shown(color, down).await;
        }
    }

    async fn set(&mut self, color: Color, down: bool) {
        match &mut self.console {
            Some(console) => {
                let key = match (color, down) {
                    (Color::Red, true) => "R",
                    (Color::Red, false) => "r",
                    (Color::Blue, true) => "B",
                    (Color::Blue, false) => "b",
                };
                console.send(key).await;
            }
            None => {
                let pin = match color {
                    Color::Red => 17,
                    Color::Blue => 26,
                };
                // The button pulls its pin down.
                let level = u8::from(!down);
                let command = format!("set_irq_in /machine/nrf51 unnamed-gpio-in {pin} {level}\n");
                assert_eq!(self.ask(&command).await, "OK");
            }
        }
    }

    /// The board shows which buttons are down, as far as it has debounced them.
    async fn until_shown(&mut self, color: Color, down: bool) {
        if self.console.is_none() {
            return within("the LED shows the button", async {
                while (self.leds().await & 1 << 8 != 0) != down {}
            })
            .await;
        }
        let [red, blue] = match color {
            Color::Red => [u8::from(down), 0],
            Color::Blue => [0, u8::from(down)],
        };
        self.until_line(&format!("pressed {red} {blue}")).await;
    }

    /// Waits until the board shows what the room has counted: a line of the console, or the low bits of the sum.
    pub(crate) async fn shows(&mut self, values: Counter) {
        if self.console.is_none() {
            let low_bits = values.total() as u32 & 0xff;
            return within("the LEDs show the room", async {
                while self.leds().await != low_bits {}
            })
            .await;
        }
        let line = format!("red {} blue {}", values.red(), values.blue());
        if self.shown.as_ref() != Some(&line) {
            self.until_line(&line).await;
        }
    }

    /// Reads the console up to this line.
    async fn until_line(&mut self, expected: &str) {
        loop {
            let line = self.console.as_mut().unwrap().line().await;
            if line.starts_with("red ") {
                self.shown = Some(line.clone());
            }
            if line == expected {
                return;
            }
        }
    }

    /// The micro:bit's row of LEDs: eight bits of the room's clicks, and a ninth while a button is down.
    async fn leds(&mut self) -> u32 {
        let answer = self.ask("readl 0x50000504\n").await;
        let out = answer.strip_prefix("OK 0x").unwrap();
        let out = u64::from_str_radix(out, 16).unwrap() as u32;
        // A LED is on where its row is high and its column low.
        match out & 1 << 13 {
            0 => 0,
            _ => !out >> 4 & 0x1ff,
        }
    }

    /// Restarts the board: a panic where it has a console to ask for it, the reset line where it has none.
    pub(crate) async fn reset(&mut self) {
        if let Some(console) = &mut self.console {
            console.send("!").await;
            // What is pressed before that goes down with it.
            self.until_line("started").await;
            return;
        }
        self.monitor.send("{\"execute\":\"system_reset\"}\n").await;
        // Answer and event, in either order.
        while !self.monitor.line().await.contains("\"RESET\"") {}
    }

    /// The most bytes that the stack has had since the last start, by the paint that is left of it.
    pub(crate) async fn deepest_stack_bytes(&mut self) -> usize {
        let size = self.machine.ram_bytes();
        let answer = self.ask(&format!("read {RAM:#x} {size:#x}\n")).await;
        let hex = answer.strip_prefix("OK 0x").unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        let painted = |word: &usize| (0..4).all(|n| byte(4 * word + n) == PAINT[n]);
        let last_painted = (0..size / 4).rev().find(painted);
        size - 4 * (last_painted.expect("the stack has reached the variables") + 1)
    }

    async fn ask(&mut self, command: &str) -> String {
        self.test.send(command).await;
        self.test.line().await
    }
}

/// Reads whatever a stream still brings, so that its sender never waits.
pub(crate) async fn drain(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut bytes = [0; 256];
    while let Ok(1..) = stream.read(&mut bytes).await {}
}
