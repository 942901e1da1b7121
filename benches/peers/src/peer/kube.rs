//! kube-client: `AuthLayer`, of a token file and of a command.
//!
//! Both have their token when the layer is built, and neither can be made to wait for an issuer without
//! running a program, so there is no cold call.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response};
use kube_client::Config;
use kube_client::client::ConfigExt;
use kube_client::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use tower::{Layer, Service};

use crate::issuer::{DAY, Issuer};
use crate::mirror::Mirror;
use crate::{Body, BoxError, Lanes, service, written};

/// The mirror with the error that the layer asks for.
#[derive(Clone, Copy)]
struct Fallible;

impl Service<Request<Body>> for Fallible {
    type Response = Response<Request<Body>>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Mirror.call(request).into_inner().map_err(|never| match never {}))
    }
}

fn lanes(login: AuthInfo) -> Lanes {
    let mut config = Config::new("https://api.example.com".parse().unwrap());
    config.auth_info = login;
    service(config.auth_layer().unwrap().unwrap().layer(Fallible))
}

/// A token file is read again every 50 seconds.
pub async fn token_file(issuer: Issuer) -> Lanes {
    let path = written("token", &issuer.issue().await.unwrap());
    let token_file = Some(path.display().to_string());
    lanes(AuthInfo {
        token_file,
        ..AuthInfo::default()
    })
}

/// The command runs once, here.
pub async fn exec(issuer: Issuer) -> Lanes {
    let expiry = jiff::Timestamp::now() + DAY;
    let answer = serde_json::json!({
        "kind": "ExecCredential",
        "apiVersion": "client.authentication.k8s.io/v1",
        "status": { "token": issuer.issue().await.unwrap(), "expirationTimestamp": expiry.to_string() },
    });
    let path = written("credential.json", &answer.to_string());
    let command: ExecConfig = serde_json::from_value(serde_json::json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "cat",
        "args": [path],
    }))
    .unwrap();
    let exec = Some(ExecConfig {
        interactive_mode: Some(ExecInteractiveMode::Never),
        ..command
    });
    lanes(AuthInfo {
        exec,
        ..AuthInfo::default()
    })
}
