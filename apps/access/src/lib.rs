//! Who may use a Latchbus server, and for what: users with their passwords, tokens, and rules.

pub mod explain;
pub mod rules;
mod stamp;
pub mod users;
