//! Who may use a Latchbus server, and for what: users with their passwords, tokens, and rules.

mod authorizer;
pub mod explain;
pub mod mosquitto;
pub mod rules;
mod sessions;
mod sign_in;
mod stamp;
pub mod tokens;
pub mod users;

pub use authorizer::RulesAuthorizer;
pub use sessions::{MAX_AGE, MAX_IDLE, MAX_SESSIONS, MAX_USER_SESSIONS, Sessions};
pub use sign_in::{SignIns, SignInsBuilder};
