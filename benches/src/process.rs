//! Servers as child processes, and what they use of the machine.

use core::net::SocketAddr;
use core::time::Duration;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use std::{fs, thread};

use anyhow::Context as _;

/// How long a server may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts a program and waits until it accepts connections. What it says is discarded.
    ///
    /// # Errors
    /// When it ends, or does not listen in time.
    pub(crate) fn start(
        mut command: Command,
        address: SocketAddr,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.current_dir(folder).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut this = Self(child);
        let begun = Instant::now();
        while TcpStream::connect_timeout(&address, START_TIMEOUT).is_err() {
            anyhow::ensure!(this.0.try_wait()?.is_none(), "{name} has ended");
            anyhow::ensure!(
                begun.elapsed() < START_TIMEOUT,
                "{name} does not listen on {address}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        // What a server does at its start is not what is measured.
        thread::sleep(Duration::from_millis(300));
        Ok(this)
    }

    /// The processor time so far, user's and system's, of all its threads, in seconds; in steps of 10 ms.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // Fields 14 and 15 of proc(5); the second, in brackets, may hold spaces.
        let behind = stat.rsplit_once(')').context("a process without a name")?.1;
        let ticks: u64 = (behind.split_whitespace().skip(11).take(2))
            .map(str::parse::<u64>)
            .sum::<Result<_, _>>()?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// The memory that it holds, in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        resident_kib(&self.0.id().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The memory that this process holds, in KiB.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn own_resident_kib() -> anyhow::Result<u64> {
    resident_kib("self")
}

fn resident_kib(process: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("a process without memory")?.parse()?)
}

/// Processor time of the whole machine that is not idle, in seconds.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn machine_cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = (line.split_whitespace().skip(1).take(7))
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((ticks.iter().sum::<u64>() - idle) as f64 / rustix::param::clock_ticks_per_second() as f64)
}
