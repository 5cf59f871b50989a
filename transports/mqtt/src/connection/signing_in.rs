//! AUTH: who is connected proves anew who it is (MQTT 5 §4.12.1).

use latchbus_bus::{Credentials, Request, SignInRefused};

use super::Connection;
use crate::opening::token;
use crate::packet::TOKEN_METHOD;
use crate::{Reason, Violation, encode};

impl Connection {
    /// What comes behind it is done when the bus has answered.
    pub(super) fn authenticate(
        &self,
        method: &str,
        data: Option<&[u8]>,
    ) -> Result<Request, Violation> {
        if !self.by_token {
            // MQTT-4.12.0-6
            return Err(Violation::Protocol("AUTH without a method agreed on"));
        }
        if method != TOKEN_METHOD {
            return Err(Violation::AuthenticationMethod);
        }
        Ok(Request::SignIn {
            id: None,
            credentials: Credentials::token(token(data)),
        })
    }

    pub(super) fn signed_in(&mut self, result: Result<(), SignInRefused>) {
        match result {
            Ok(()) => encode::authenticated(&mut self.out),
            Err(refused) => {
                let reason = Reason::of_reauthentication(&refused);
                self.ending = Some(Violation::NotSignedIn(reason, refused));
            }
        }
    }
}
