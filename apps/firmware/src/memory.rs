//! Copying and filling memory, byte by byte: 60 bytes of code for what takes the compiler's own routines 2.5 KB. A copy
//! costs some ten cycles a byte, which for the topics and payloads of a button is microseconds.
#![allow(unsafe_code)] // written in assembly, as a compiler would turn such loops into calls of themselves

// SAFETY: these are the run-time ABI's signatures (Arm IHI 0043, section 4.3.4) and C's; every one touches only the
// bytes that it is given. Registers other than r0 to r3 are kept.
core::arch::global_asm!(
    ".syntax unified",
    ".thumb",
    ".section .text.latchbus_memory, \"ax\"",
    ".macro routine name",
    ".global \\name",
    ".type \\name, %function",
    ".thumb_func",
    "\\name:",
    ".endm",
    // r0 to, r1 from, r2 bytes; returns r0. Where they overlap, the copy begins at the end that is not lost.
    "routine memmove",
    "routine __aeabi_memmove",
    "routine __aeabi_memmove4",
    "routine __aeabi_memmove8",
    "cmp r0, r1",
    "bhs 1f",
    "push {{r4}}",
    "movs r3, #0",
    "3: cmp r3, r2",
    "bhs 4f",
    "ldrb r4, [r1, r3]",
    "strb r4, [r0, r3]",
    "adds r3, #1",
    "b 3b",
    "4: pop {{r4}}",
    "bx lr",
    "routine memcpy",
    "routine __aeabi_memcpy",
    "routine __aeabi_memcpy4",
    "routine __aeabi_memcpy8",
    "1: subs r2, #1",
    "bmi 2f",
    "ldrb r3, [r1, r2]",
    "strb r3, [r0, r2]",
    "b 1b",
    // r0 to, r1 bytes.
    "routine __aeabi_memclr",
    "routine __aeabi_memclr4",
    "routine __aeabi_memclr8",
    "movs r2, #0",
    // r0 to, r1 bytes, r2 byte.
    "routine __aeabi_memset",
    "routine __aeabi_memset4",
    "routine __aeabi_memset8",
    "5: subs r1, #1",
    "bmi 2f",
    "strb r2, [r0, r1]",
    "b 5b",
    // r0 to, r1 byte, r2 bytes; returns r0.
    "routine memset",
    "6: subs r2, #1",
    "bmi 2f",
    "strb r1, [r0, r2]",
    "b 6b",
    "2: bx lr",
    ".purgem routine",
);
