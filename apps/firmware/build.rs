//! Gives each target's board its memory map. All are capped at the size of a small part, 64 KiB of flash and
//! 20 KiB of RAM, so that an image which outgrows it does not link.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let (board, ram) = match env::var("TARGET")?.as_str() {
        "thumbv7m-none-eabi" => ("mps2", "20K"),
        // The nRF51822 of the micro:bit has no more.
        "thumbv6m-none-eabi" => ("microbit", "16K"),
        _ => return Ok(()),
    };
    let memory = format!(
        "MEMORY {{ FLASH : ORIGIN = 0x00000000, LENGTH = 64K\n RAM : ORIGIN = 0x20000000, LENGTH = {ram} }}\n"
    );
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("memory.x"), memory)?;
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    // Some linkers align the start of .text to a page otherwise.
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rustc-cfg=board=\"{board}\"");
    Ok(())
}
