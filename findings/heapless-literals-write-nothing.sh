#!/usr/bin/env bash
# What a failed write! leaves in a full string depends on whether its arguments are literals (heapless 0.9.4, Rust 1.95).
#
# Expected: `write!` hands the text over piece by piece (a piece of the format string, an argument, the next piece), and each `write_str` of
#   a heapless `String` adds all of a piece or fails. Where the whole does not fit, the pieces before the one that failed stay behind,
#   the same ones whatever the arguments are: `write!(topic, "room/{}/{}", "main", "press")` leaves `room/`.
# Seen: with literals (text or whole numbers, plain `{}`) nothing stays behind; with variables of the same values `room/` does; with a
#   literal and a variable it depends on their order. The compiler joins literals into the format string, with and without optimization, so
#   that `write_str` is called once. A `const` counts as a variable. A program that ignores the error, or goes on with the buffer, works
#   with another text once a literal has become a variable.
# Sources: documentation of core::fmt::Arguments::as_str, which allows this without promising it; heapless `String`, whose `fmt::Write` is
#   `push_str`, all or nothing.
# Versions: heapless 0.9.4, rustc 1.95.0. Date: 2026-11-28.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "literals"
version = "0.0.0"
edition = "2021"

[workspace]

[dependencies]
heapless = "=0.9.4"
TOML

cat >"$work/src/main.rs" <<'RUST'
use core::fmt::{self, Write};

/// Counts the pieces that `write!` hands over.
struct Pieces(usize);

impl Write for Pieces {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        self.0 += 1;
        Ok(())
    }
}

/// Writes to a string of 8 bytes, which is too small for it, and checks what stays behind.
macro_rules! check {
    ($same:ident, $what:literal, $left:literal, $pieces:literal, $($format:tt)*) => {
        let mut topic = heapless::String::<8>::new();
        let result = write!(topic, $($format)*);
        let mut pieces = Pieces(0);
        let counted = write!(pieces, $($format)*);
        println!("{:<34} {:<12} {:>2} pieces, left {:?}", $what, format!("{result:?}"), pieces.0, topic.as_str());
        $same &= result.is_err() && counted.is_ok() && topic.as_str() == $left && pieces.0 == $pieces;
    };
}

const PRESS: &str = "press";

fn main() {
    let (room, press, count) = ("main", "press", 3_456_789_u32);
    let mut same = true;
    check!(same, "two literals", "", 1, "room/{}/{}", "main", "press");
    check!(same, "two variables", "room/", 4, "room/{}/{}", room, press);
    check!(same, "the first a literal, then a const", "", 2, "room/{}/{}", "main", PRESS);
    check!(same, "numbers: two literals", "", 1, "lab{}ef{}", 12, 3456789);
    check!(same, "numbers: a literal, a variable", "lab12ef", 2, "lab{}ef{}", 12, count);
    check!(same, "a number literal with a width", "lab00000", 7, "lab{:07}", 12);
    if !same {
        eprintln!("the behaviour has changed");
        std::process::exit(1);
    }
}
RUST

cd "$work"
rustc --version
for profile in dev release; do
  echo "heapless 0.9.4, profile $profile:"
  CARGO_TARGET_DIR="$work/target" timeout 300 cargo run --quiet --jobs 1 --profile "$profile"
done
