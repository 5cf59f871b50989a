//! `latchbus-device`: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    latchbus_device::run()
}
