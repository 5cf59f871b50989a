//! Threads beside those that serve connections, for what takes long: password hashes, TLS handshakes.
//!
//! They use half of the machine's processors and have a lower priority, so that strangers who cause such work do not
//! hold up who is connected.

use std::thread;

/// The most threads for one kind of work.
pub const MAX_THREADS: usize = 4;

/// How much lower their priority is: nice values, of which each is a tenth less of a processor that others want too.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// How many threads there are to be for one kind of work: half as many as processors, 1 to [`MAX_THREADS`].
pub fn count() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, MAX_THREADS)
}

/// Gives this thread a lower priority, for the rest of its life. On Linux alone: elsewhere priorities are those of the whole
/// process.
pub fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(target: "server", %error, "the priority of a thread stays as it is");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn one_thread_steps_back_and_the_others_stay() {
        let before = getpriority_process(None).unwrap();
        let lowered = thread::spawn(|| {
            lower_priority();
            getpriority_process(None).unwrap()
        });
        // Nobody steps back behind the last.
        assert_eq!(lowered.join().unwrap(), (before + NICE).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
        assert!((1..=MAX_THREADS).contains(&count()));
    }
}
