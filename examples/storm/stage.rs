//! Where the accidents happen: an issuer and an API on loopback, and a client of theirs through the layer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, Issuer, Server};
use tower_token::{BoxError, Event, Observe, Origins, RefreshPolicy, TokenLayer, Tokens};

use crate::callers::{ApiClient, Call, Calls, Crowd};

pub(crate) struct Stage {
    pub(crate) issuer: Issuer,
    pub(crate) api: Api,
    pub(crate) tokens: Tokens,
    pub(crate) client: ApiClient,
    born: Instant,
    api_at: Server,
    issuer_at: SocketAddr,
    /// Gone while the issuer is down.
    issuer_server: Option<Server>,
}

impl Stage {
    pub(crate) async fn new() -> Result<Self, BoxError> {
        Self::with(RefreshPolicy::default(), |_: &Event| {}).await
    }

    pub(crate) async fn with(policy: RefreshPolicy, observer: impl Observe) -> Result<Self, BoxError> {
        let born = Instant::now();
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let (issuer_server, api_at) = (issuer.serve().await?, api.serve().await?);
        // One connection for a thousand callers: with HTTP/1 each would take two file descriptors.
        let http = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http::<Full<Bytes>>();
        let grant = RefreshTokenGrant::new(format!("{}/token", issuer_server.url()), issuer.client_id())
            .client_secret(issuer.client_secret())
            .refresh_token(issuer.sign_in())
            .client(http.clone());
        let tokens = Tokens::builder(grant).policy(policy).observe(observer).build()?;
        let client = ServiceBuilder::new()
            .layer(TokenLayer::new(&tokens, Origins::only(api_at.url())?))
            .service(http);
        Ok(Self {
            issuer,
            api,
            tokens,
            client,
            born,
            api_at,
            issuer_at: issuer_server.addr(),
            issuer_server: Some(issuer_server),
        })
    }

    /// Closes the issuer's port and cuts its connections.
    pub(crate) async fn issuer_goes_down(&mut self) {
        if let Some(server) = self.issuer_server.take() {
            server.stop().await;
        }
    }

    pub(crate) async fn issuer_comes_back(&mut self) -> Result<(), BoxError> {
        self.issuer_server = Some(self.issuer.serve_at(self.issuer_at).await?);
        Ok(())
    }

    /// A user signs in once more, and the program is told.
    pub(crate) fn sign_in_again(&self) -> Result<(), BoxError> {
        let credential = format!(r#"{{"refresh_token":"{}"}}"#, self.issuer.sign_in());
        Ok(self.tokens.install(credential.parse()?)?)
    }

    /// When the issuer minted its first token.
    pub(crate) fn first_minted(&self) -> Option<Instant> {
        self.issuer.timeline().first().map(|first| self.born + first.at)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api_at.url())
    }

    pub(crate) async fn call(&self, path: &str) -> Call {
        Call::make(self.client.clone(), self.url(path)).await
    }

    /// So many call once, all at the same time.
    pub(crate) async fn herd(&self, callers: usize, path: &str) -> Calls {
        Crowd::calling_once(callers, &self.client, self.url(path)).leave().await
    }

    /// So many call again and again.
    pub(crate) fn crowd(&self, callers: usize, path: &str, lasts: Duration) -> Crowd {
        Crowd::calling_for(lasts, callers, &self.client, self.url(path))
    }
}
