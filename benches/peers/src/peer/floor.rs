//! What there is without renewal: no token, one that never changes, and the least of one that could.

use tower::Layer;
use tower_http::auth::AddAuthorizationLayer;

use crate::issuer::Issuer;
use crate::mirror::Mirror;
use crate::{Lanes, service};

#[path = "../../../cases/floor.rs"]
#[allow(dead_code)] // Its other half is measured elsewhere.
mod cases;

pub fn bare() -> Lanes {
    service(Mirror)
}

pub async fn added(issuer: Issuer) -> Lanes {
    let token = issuer.issue().await.unwrap();
    service(AddAuthorizationLayer::bearer(&token).layer(Mirror))
}

/// The least that we know of a layer whose token can change and be refused, with one origin and a clock.
pub async fn guarded(issuer: Issuer) -> Lanes {
    let token = issuer.issue().await.unwrap();
    service(cases::FloorLayer::<true>::bearer(&token, "api.example.com").layer(Mirror))
}
