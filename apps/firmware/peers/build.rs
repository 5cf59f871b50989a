//! The memory map of the micro:bit, as the firmware has it.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let memory =
        "MEMORY { FLASH : ORIGIN = 0, LENGTH = 64K\n RAM : ORIGIN = 0x20000000, LENGTH = 16K }\n";
    fs::write(out.join("memory.x"), memory)?;
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=--nmagic");
    Ok(())
}
