//! How deep the stack has been: what lies below it is painted at the start, and what is no longer painted was used.
#![allow(unsafe_code)] // raw memory below the stack

/// What unused memory is filled with.
pub const PAINT: u32 = 0xdead_beef;

/// Left unpainted below the caller's frame.
const MARGIN_WORDS: usize = 32;

unsafe extern "C" {
    /// The end of the static variables; from the linker script of cortex-m-rt.
    static mut __sheap: u32;
    static mut _stack_start: u32;
}

/// Paints the free memory. To be called first, before anything deep has run.
#[inline(always)]
pub fn paint() {
    let here = cortex_m::register::msp::read() as usize;
    let mut word = &raw mut __sheap;
    while (word as usize) < here - MARGIN_WORDS * 4 {
        // SAFETY: between the end of the statics and the stack there is nothing.
        unsafe {
            word.write_volatile(PAINT);
            word = word.add(1);
        }
    }
}

/// The most bytes that the stack has had since [`paint`].
pub fn deepest_bytes() -> usize {
    let mut word = &raw const __sheap;
    let top = &raw const _stack_start as usize;
    // SAFETY: as above; it ends at the first word that was used, and the stack's own are.
    while (word as usize) < top && unsafe { word.read_volatile() } == PAINT {
        word = word.wrapping_add(1);
    }
    top - word as usize
}
