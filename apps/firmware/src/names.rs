//! The room and the device that an image is built for: the environment variables `LATCHBUS_ROOM` and
//! `LATCHBUS_DEVICE` at build time.

/// The room, `main` unless told.
pub const ROOM: &str = match option_env!("LATCHBUS_ROOM") {
    Some(room) => room,
    None => "main",
};

/// The device, `button` unless told.
pub const DEVICE: &str = match option_env!("LATCHBUS_DEVICE") {
    Some(device) => device,
    None => "button",
};

/// The longest room and device together, in bytes.
pub const MAX_NAMES_BYTES: usize = 36;

/// The longest topic of a device of these names, in bytes.
pub const MAX_TOPIC_BYTES: usize = MAX_NAMES_BYTES
    + "clicks//".len()
    + "/count/".len()
    + latchbus_core::clicks::Incarnation::MAX_BYTES;

const _: () = assert!(
    is_name(ROOM) && is_name(DEVICE) && ROOM.len() + DEVICE.len() <= MAX_NAMES_BYTES,
    "LATCHBUS_ROOM and LATCHBUS_DEVICE must match [A-Za-z0-9][A-Za-z0-9._-]* and have 36 bytes together"
);

/// The same rule as the click model's, where the compiler can apply it.
const fn is_name(name: &str) -> bool {
    let mut rest = name.as_bytes();
    let mut first = true;
    while let [byte, tail @ ..] = rest {
        let inner = matches!(byte, b'.' | b'_' | b'-');
        if !(byte.is_ascii_alphanumeric() || inner && !first) {
            return false;
        }
        first = false;
        rest = tail;
    }
    !first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_the_click_model_does() {
        for name in [
            "a",
            "kiosk-1",
            "A.b_c",
            "",
            "-a",
            ".",
            "a/b",
            "caf\u{e9}",
            "a b",
            "a+",
        ] {
            assert_eq!(
                is_name(name),
                latchbus_core::clicks::is_name(name),
                "{name}"
            );
        }
    }
}
