//! octocrab: an app installation, in its own request type; the one peer that sends a refused request again.
//!
//! Behind it stands a service that is issuer and API in one. It sends everything through a tower
//! `Buffer`, that is through another task; its bare call is the same without authentication.

use ::octocrab::models::{AppId, InstallationId};
use ::octocrab::{AuthState, EncodingKey, OctoBody, Octocrab, OctocrabBuilder};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::util::service_fn;

use crate::issuer::{DAY, Issuer};
use crate::{Body, BoxError, Call, Lane, call_of, key, lane};

/// Issuer and API.
async fn github(issuer: Issuer, request: Request<OctoBody>) -> Result<Response<Body>, BoxError> {
    let (status, document) = if request.uri().path().ends_with("/access_tokens") {
        match issuer.issue().await {
            Ok(token) => {
                let expiry = jiff::Timestamp::now() + DAY;
                (
                    201,
                    format!(r#"{{"token":"{token}","expires_at":"{expiry}","permissions":{{}}}}"#),
                )
            }
            Err(refused) => (400, format!(r#"{{"message":"{refused}"}}"#)),
        }
    } else if request.headers().contains_key("authorization") && !issuer.accepts(request.headers()) {
        (401, String::new())
    } else {
        (200, String::new())
    };
    Ok(Response::builder()
        .status(status)
        .body(Full::from(Bytes::from(document)))?)
}

fn client(issuer: Issuer, auth: AuthState) -> Octocrab {
    let service = service_fn(move |request| github(issuer.clone(), request));
    OctocrabBuilder::new_empty()
        .with_service(service)
        .with_auth(auth)
        .build()
        .unwrap()
}

/// Has to be called within a runtime, as its `Buffer` is a task.
pub fn bare(issuer: Issuer) -> Octocrab {
    client(issuer, AuthState::None)
}

/// As [`bare`].
pub fn open(issuer: Issuer) -> Octocrab {
    let key = EncodingKey::from_rsa_pem(key::pem().as_bytes()).unwrap();
    let app = ::octocrab::auth::AppAuth { app_id: AppId(1), key };
    client(issuer, AuthState::App(app))
        .installation(InstallationId(2))
        .unwrap()
}

async fn send(client: &Octocrab) -> Result<(), BoxError> {
    let request = crate::mirror::request(String::new());
    let (mut parts, body) = request.into_parts();
    // Elsewhere it puts no token on a request.
    parts.uri = http::Uri::from_static("https://api.github.com/v1/things/17?page=3");
    let response = client.execute(Request::from_parts(parts, body)).await?;
    match response.status() {
        http::StatusCode::OK => Ok(()),
        status => Err(format!("the API answered {status}").into()),
    }
}

/// One lane only: what two threads share is the task behind the `Buffer`.
pub fn lane_of(runtime: &'static Runtime, client: Octocrab) -> Lane {
    lane(move |calls| {
        runtime.block_on(async {
            for _ in 0..calls {
                send(&client).await.unwrap();
            }
        });
    })
}

pub fn call(client: Octocrab) -> Call {
    call_of(move || {
        let client = client.clone();
        async move { send(&client).await }
    })
}
