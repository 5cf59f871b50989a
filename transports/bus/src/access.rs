//! Who someone is ([`Authenticator`]), and what they may do ([`Authorizer`]).

mod authenticator;
mod authorizer;
mod principal;
mod reader;

pub use self::authenticator::{
    AnonymousOnly, Authenticator, Certificate, Credentials, SignIn, SignInRefused, SignedIn,
};
pub use self::authorizer::{AllowAll, Authorizer, Grant, PublishRequest};
pub use self::principal::{Claims, Identity, Principal};
pub use self::reader::{ReadRules, Reader};
