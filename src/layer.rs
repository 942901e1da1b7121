//! Builds the service: [`TokenLayer`].

use std::fmt;
use std::sync::Arc;

use http::Method;
use tower_layer::Layer;

use crate::classify::{Grpc, Unauthorized};
use crate::inject::{Authorization, Inject};
use crate::origin::Origins;
use crate::presentation::Presentation;
use crate::replay::{Auto, Buffered, Methods, Replaceable, ReplayBody};
use crate::service::TokenService;
use crate::tokens::Tokens;

/// Puts a token on each request, renews it, and sends a refused request again.
///
/// Composes with any `Service<http::Request<B>>` that is `Clone`. If yours is not (a boxed service, an
/// HTTP/1 connection), put a `tower::buffer` below.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_token::BoxError> {
/// use tower::{Service, ServiceBuilder, ServiceExt};
/// use tower_token::{provider_fn, Origins, Token, TokenLayer, Tokens};
///
/// let tokens = Tokens::new(provider_fn(|_| async { Ok(Token::bearer("test-abc")) }))?;
/// let mut api = ServiceBuilder::new()
///     .layer(TokenLayer::new(&tokens, Origins::only("https://api.example.com")?))
///     .service_fn(|request: http::Request<String>| async move {
///         assert_eq!(request.headers()["authorization"], "Bearer test-abc");
///         Ok::<_, tower_token::BoxError>(http::Response::new(String::new()))
///     });
/// let request = http::Request::get("https://api.example.com/me").body(String::new())?;
/// let response = api.ready().await?.call(request).await?;
/// # let _ = response; Ok(()) }
/// ```
pub struct TokenLayer<R = Auto, C = Unauthorized, I: Inject = Authorization> {
    presentation: Arc<Presentation<I>>,
    replay: R,
    classify: C,
}

impl TokenLayer {
    /// The token of `tokens` goes to `origins` and nowhere else, as `Authorization: Bearer`; a 401 is
    /// answered by a renewal and one replay.
    pub fn new(tokens: &Tokens, origins: Origins) -> Self {
        Self {
            presentation: Arc::new(Presentation::new(tokens.clone(), origins, Authorization::new())),
            replay: Auto,
            classify: Unauthorized::new(),
        }
    }
}

impl TokenLayer<Auto, Grpc> {
    /// For a gRPC channel: UNAUTHENTICATED (16) is answered by a renewal and one replay, and the token goes
    /// to [the one peer](Origins::connected_peer) that the channel is connected to.
    ///
    /// `TokenLayer::grpc(&tokens).replay_via(tonic::body::Body::new)`: without the second half nothing is
    /// replayed, because a gRPC message is never an empty body.
    pub fn grpc(tokens: &Tokens) -> Self {
        TokenLayer::new(tokens, Origins::connected_peer()).classify(Grpc::new())
    }
}

impl<R, C, I: Inject> TokenLayer<R, C, I> {
    /// Keeps requests like this. Default: [`Auto`].
    ///
    /// The strategy has to fit the request body; the compiler says what to write if it does not.
    #[must_use]
    pub fn replay<R2>(self, replay: R2) -> TokenLayer<R2, C, I>
    where
        R: Replaceable,
    {
        TokenLayer {
            presentation: self.presentation,
            replay,
            classify: self.classify,
        }
    }

    /// Records bodies as they pass, up to 64 KiB, and hands them on as the type that they were, with
    /// the constructor it already has: `.replay_via(tonic::body::Body::new)`. See [`Buffered`].
    #[must_use]
    pub fn replay_via<B>(self, wrap: fn(ReplayBody<B>) -> B) -> TokenLayer<Buffered<B>, C, I>
    where
        R: Replaceable,
    {
        self.replay(Buffered::via(wrap))
    }

    /// Replays only requests of these methods. Default: all, because a refused request was not processed. It limits the
    /// strategy that is there: call [`replay`](Self::replay) before.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> TokenLayer<Methods<R>, C, I> {
        TokenLayer {
            presentation: self.presentation,
            replay: Methods::new(self.replay, methods),
            classify: self.classify,
        }
    }

    /// Tells refusals like this. Default: [`Unauthorized`].
    #[must_use]
    pub fn classify<C2>(self, classify: C2) -> TokenLayer<R, C2, I> {
        TokenLayer {
            presentation: self.presentation,
            replay: self.replay,
            classify,
        }
    }

    /// Presents the token like this. Default: [`Authorization`].
    #[must_use]
    pub fn inject<I2: Inject>(self, inject: I2) -> TokenLayer<R, C, I2> {
        let Presentation { tokens, origins, .. } = &*self.presentation;
        TokenLayer {
            presentation: Arc::new(Presentation::new(tokens.clone(), origins.clone(), inject)),
            replay: self.replay,
            classify: self.classify,
        }
    }
}

/// An inner service that a second attempt can be made with: any that is `Clone`.
///
/// A trait of its own only so that the compiler says what to do about one that is not:
///
/// ```compile_fail,E0277
/// struct Connection; // not `Clone`
/// # fn layer(layer: tower_token::TokenLayer) {
/// tower::Layer::layer(&layer, Connection); // put a buffer below ...
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "the inner service `{Self}` is not `Clone`, and a refused request goes to a second one",
    label = "not `Clone`",
    note = "put a buffer below: `ServiceBuilder::new().layer(token_layer).buffer(1024).service(..)`, or `tower::buffer::Buffer::new(service, 1024)`"
)]
pub trait Prototype: Clone {}

#[diagnostic::do_not_recommend]
impl<S: Clone> Prototype for S {}

impl<S: Prototype, R: Clone, C: Clone, I: Inject> Layer<S> for TokenLayer<R, C, I> {
    type Service = TokenService<S, R, C, I>;

    fn layer(&self, inner: S) -> Self::Service {
        TokenService::new(
            inner,
            self.presentation.clone(),
            self.replay.clone(),
            self.classify.clone(),
        )
    }
}

impl<R: Clone, C: Clone, I: Inject> Clone for TokenLayer<R, C, I> {
    fn clone(&self) -> Self {
        Self {
            presentation: self.presentation.clone(),
            replay: self.replay.clone(),
            classify: self.classify.clone(),
        }
    }
}

impl<R: fmt::Debug, C: fmt::Debug, I: Inject> fmt::Debug for TokenLayer<R, C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLayer")
            .field("tokens", &self.presentation.tokens)
            .field("origins", &self.presentation.origins)
            .field("replay", &self.replay)
            .field("classify", &self.classify)
            .finish_non_exhaustive()
    }
}
