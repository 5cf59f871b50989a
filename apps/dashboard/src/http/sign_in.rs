//! Who asks over HTTP.

use axum::extract::Request;
use latchbus_bus::{Client, SignIn};
use latchbus_ws::sign_in;

use super::App;
use super::error::ApiError;

/// Finds out who has sent a request.
///
/// # Errors
/// When they are not let in: 401 with what they could bring, say.
pub(super) fn client(
    app: &App,
    request: &Request,
) -> impl Future<Output = Result<Client, ApiError>> + Send + use<> {
    let (bus, head) = (app.0.bus.clone(), request.headers().clone());
    let sign_in = SignIn::new("http")
        .with_address(app.0.guard.client(request))
        .with_credentials(sign_in::credentials(request));
    async move {
        let signed_in = bus.sign_in(sign_in).await;
        signed_in.map_err(|refused| ApiError::signed_out(&refused, &head))
    }
}
