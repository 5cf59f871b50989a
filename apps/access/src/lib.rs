//! Who may use a Latchbus server, and for what: users with their passwords, tokens, and rules.

mod authorizer;
pub mod explain;
pub mod mosquitto;
pub mod rules;
pub mod sessions;
mod sign_in;
mod stamp;
pub mod tokens;
pub mod users;

pub use authorizer::RulesAuthorizer;
pub use sessions::Sessions;
pub use sign_in::{SignIns, SignInsBuilder};
