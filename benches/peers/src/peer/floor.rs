//! What there is without renewal: no token, and one that never changes.

use tower::Layer;
use tower_http::auth::AddAuthorizationLayer;

use crate::issuer::Issuer;
use crate::mirror::Mirror;
use crate::{Lanes, service};

pub fn bare() -> Lanes {
    service(Mirror)
}

pub async fn added(issuer: Issuer) -> Lanes {
    let token = issuer.issue().await.unwrap();
    service(AddAuthorizationLayer::bearer(&token).layer(Mirror))
}
