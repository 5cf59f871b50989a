/**
 * How long a test waits for what must come: the one such limit of the tests in JavaScript. On a quiet machine nothing takes a
 * tenth of it; a busy machine may be ten times as slow. A test that passes never waits for it. (In Rust it is
 * tests/deadline.rs, in Python tests/mqtt/deadline.py.)
 */
export const DEADLINE_MS = 180_000;
