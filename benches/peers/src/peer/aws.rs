//! aws-smithy-runtime: `LazyCache`, and of `HttpBearerAuthSigner` the lines that make a header of its identity.
//!
//! The signer itself takes the SDK's own request type; what it does with it (`client/auth/http.rs`) is
//! done here with `http`'s.

use std::sync::Arc;
use std::time::SystemTime;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::identity::http::Token;
use aws_smithy_runtime_api::client::identity::{
    Identity, IdentityFuture, ResolveCachedIdentity, ResolveIdentity, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use http::Request;
use http::header::AUTHORIZATION;

use crate::issuer::{DAY, Issuer};
use crate::{Body, BoxError, Peer, bearer};

#[derive(Debug)]
struct Resolver(Issuer);

impl ResolveIdentity for Resolver {
    fn resolve_identity<'a>(&'a self, _: &'a RuntimeComponents, _: &'a ConfigBag) -> IdentityFuture<'a> {
        IdentityFuture::new(async move {
            let expiry = Some(SystemTime::now() + DAY);
            let token = self.0.issue().await?;
            Ok(Identity::new(Token::new(token, expiry), expiry))
        })
    }
}

#[derive(Clone)]
pub struct Aws(Arc<Parts>);

struct Parts {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
    config: ConfigBag,
}

/// Its cache makes a timer for every call, so calls have to come from within a runtime.
pub fn open(issuer: Issuer) -> Aws {
    let components = RuntimeComponentsBuilder::for_tests()
        .with_time_source(Some(SystemTimeSource::new()))
        .with_sleep_impl(Some(TokioSleep::new()))
        .build()
        .unwrap();
    Aws(Arc::new(Parts {
        cache: IdentityCache::lazy().build(),
        resolver: SharedIdentityResolver::new(Resolver(issuer)),
        components,
        config: ConfigBag::base(),
    }))
}

impl Peer for Aws {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let Parts {
            cache,
            resolver,
            components,
            config,
        } = &*self.0;
        let identity = cache
            .resolve_cached_identity(resolver.clone(), components, config)
            .await?;
        let token = identity.data::<Token>().ok_or("not a token")?;
        request.headers_mut().insert(AUTHORIZATION, bearer(token.token())?);
        Ok(())
    }
}
