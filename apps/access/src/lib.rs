//! Who may use a Latchbus server, and for what: users with their passwords, and tokens.

pub mod users;
