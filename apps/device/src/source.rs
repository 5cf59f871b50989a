//! Where clicks come from: lines of the input, or a simulation.

use core::time::Duration;
use std::io::{self, Write};
use std::thread;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::device::Device;
use crate::input::{self, Clicks};
use crate::simulation::Pace;

/// Lines that are read and not counted yet; reading waits beyond. All that wait are counted in one write.
const MAX_LINES: usize = 4_096;

/// The shortest time between two writes of a simulation.
const SIMULATION_TICK: Duration = Duration::from_millis(10);

/// The most clicks that a simulation makes at once. One that was held up makes the rest with the next.
const MAX_SIMULATED: u64 = 1_000_000;

/// What a source brings.
#[derive(Debug)]
pub(crate) enum Step {
    /// The device has clicked.
    Clicked,
    /// There will be no more clicks.
    Ended,
    /// There will be no more clicks, because the input cannot be read.
    Failed(io::Error),
}

/// A source of clicks.
#[derive(Debug)]
pub(crate) enum Source {
    Lines(Lines),
    Simulation(Simulation),
}

impl Source {
    /// Waits for clicks and makes them. Cancel-safe: when it is dropped, no click was taken.
    pub(crate) async fn click(&mut self, device: &mut Device) -> Step {
        match self {
            Self::Lines(lines) => lines.click(device).await,
            Self::Simulation(simulation) => simulation.click(device).await,
        }
    }
}

/// The lines of standard input, read by a thread of their own: a read cannot be interrupted, and must not
/// hold up the end of the program.
#[derive(Debug)]
pub(crate) struct Lines {
    read: mpsc::Receiver<io::Result<Clicks>>,
    batch: Vec<io::Result<Clicks>>,
}

impl Lines {
    /// Begins to read. Lines that are no clicks are named on standard error.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn begin() -> io::Result<Self> {
        let (sender, read) = mpsc::channel(MAX_LINES);
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || read_lines(&sender))?;
        Ok(Self {
            read,
            batch: Vec::new(),
        })
    }

    async fn click(&mut self, device: &mut Device) -> Step {
        if self.read.recv_many(&mut self.batch, MAX_LINES).await == 0 {
            return Step::Ended;
        }
        for line in self.batch.drain(..) {
            match line {
                Ok(Clicks { color, n }) => device.click(color, n),
                // The thread has ended with it.
                Err(error) => return Step::Failed(error),
            }
        }
        Step::Clicked
    }
}

fn read_lines(sender: &mpsc::Sender<io::Result<Clicks>>) {
    let each = |number, line: Result<&[u8], _>| match line.and_then(input::parse) {
        Ok(None) => true,
        Ok(Some(clicks)) => sender.blocking_send(Ok(clicks)).is_ok(),
        Err(error) => {
            // Nobody is left to be told that there is nobody to tell.
            let _ = writeln!(io::stderr(), "latchbus-device: line {number}: {error}");
            true
        }
    };
    if let Err(error) = input::lines(io::stdin().lock(), each) {
        // The device may have ended before its input.
        let _ = sender.blocking_send(Err(error));
    }
}

/// The clicks of a device's simulation, at a steady pace from now on.
#[derive(Debug)]
pub(crate) struct Simulation {
    pace: Pace,
    began: Instant,
    /// When it last clicked.
    clicked: Instant,
    /// How many clicks it has made since it began.
    made: u64,
}

impl Simulation {
    pub(crate) fn begin(pace: Pace) -> Self {
        let now = Instant::now();
        Self {
            pace,
            began: now,
            clicked: now,
            made: 0,
        }
    }

    async fn click(&mut self, device: &mut Device) -> Step {
        if device.record().run.is_none_or(|run| run.is_complete()) {
            return Step::Ended;
        }
        let after = self.pace.after(self.made.saturating_add(1));
        match self.began.checked_add(after) {
            Some(due) => sleep_until(due.max(self.clicked + SIMULATION_TICK)).await,
            None => core::future::pending().await,
        }
        self.clicked = Instant::now();
        let due = self.pace.due(self.clicked - self.began);
        let clicks = due.saturating_sub(self.made).min(MAX_SIMULATED);
        self.made = self.made.saturating_add(clicks);
        device.simulate(clicks);
        Step::Clicked
    }
}
