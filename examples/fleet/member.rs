//! One process of the fleet: the program that you would write, which tells what happens to it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::{
    BoxError, Error, Event, Origins, RefreshPolicy, StorePolicy, Token, TokenLayer, TokenService, Tokens,
};

use crate::facts::{Fact, Time};
use crate::orders::Orders;
use crate::watched::Watched;

type ApiClient = TokenService<Client<HttpConnector, Full<Bytes>>>;

/// Calls the API until standard input is closed.
pub(crate) async fn serve(orders: Orders) -> Result<(), BoxError> {
    // A plain HTTP client, as you have one already.
    let http = Client::builder(TokioExecutor::new()).build_http();

    // How a new token is obtained. Somebody signed in once; what that left is good for one use.
    let asks = ServiceBuilder::new()
        .map_request(|request| {
            Fact::Presents.tell();
            request
        })
        .service(http.clone());
    let grant = RefreshTokenGrant::new(format!("{}/token", orders.issuer), "test-client")
        .client_secret("test-secret")
        .refresh_token(&orders.seed)
        .client(asks);

    // Where the token is kept, and by what all members share it.
    let store = Watched(orders.place.open()?);

    // The one current token of the whole fleet.
    let tokens = Tokens::builder(grant)
        .store(store)
        .store_policy(StorePolicy::default().lease(orders.lease).alone(orders.alone))
        .policy(RefreshPolicy::default().fetch_timeout(orders.lease.saturating_sub(LEASE_OUTLIVES_FETCH)))
        .observe(tell)
        .build()?;

    // The client, with that token on each request.
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&orders.api)?))
        .service(http);

    tokio::spawn(tell_tokens(tokens.clone()));
    if let Some(every) = orders.refresh_every {
        tokio::spawn(refresh(tokens.clone(), every));
    }
    Fact::Started.tell();
    let asked_to_leave = standard_input_closed();
    tokio::select! {
        () = call(&client, format!("{}/api/orders", orders.api), orders.rate) => {}
        _ = asked_to_leave => {}
    }
    // A renewal that is under way gets its token into the store.
    tokens.shutdown().await;
    Ok(())
}

/// By what an exchange has to be shorter than the lease under which it is made.
const LEASE_OUTLIVES_FETCH: Duration = Duration::from_secs(5);

/// Begins so many calls a second, whatever becomes of those before.
async fn call(client: &ApiClient, url: String, rate: f64) {
    let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
    // After a pause it goes on where it is, and does not make up for what it missed.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            match status_of(client, &url).await {
                Ok(StatusCode::OK) => Fact::Answered(begun.elapsed()),
                Ok(other) => Fact::Failed(other.to_string()),
                Err(error) => Fact::Failed(in_words(&*error)),
            }
            .tell();
        });
    }
}

async fn status_of(mut client: ApiClient, url: &str) -> Result<StatusCode, BoxError> {
    let request = Request::get(url).body(Full::default())?;
    let response = client.ready().await?.call(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

async fn refresh(tokens: Tokens, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Asking again would present a dead one again. Whoever watches is told by the observer.
        if tokens.refresh().await.is_err_and(|error| error.is_reauth_required()) {
            return;
        }
    }
}

// ===== what is told =====

fn tell(event: &Event) {
    match event {
        Event::Renewed { .. } => Fact::Renewed.tell(),
        Event::Adopted { .. } => Fact::Adopted.tell(),
        Event::Undurable { .. } => Fact::Undurable.tell(),
        Event::Durable => Fact::Durable.tell(),
        Event::StoreRecovered => Fact::StoreRecovered.tell(),
        Event::StoreFailed { error, .. } => Fact::StoreFailed(error.to_string()).tell(),
        Event::FetchFailed { error, .. } => {
            if error.is_reauth_required() {
                Fact::SessionLost.tell();
            }
            Fact::FetchFailed(in_words(error)).tell();
        }
        _ => {}
    }
}

async fn tell_tokens(tokens: Tokens) {
    loop {
        let token = tokens.changed().await;
        let now = Time::now();
        Fact::On(number(&token), token.issue_time().map_or(now, Time::of)).tell();
    }
}

/// The same in every process, other than [`Token::fingerprint`], which is for the logs of one. These tokens are worth
/// nothing; of one that is, no such number may be printed.
fn number(token: &Token) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.secret().hash(&mut hasher);
    hasher.finish()
}

fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    Error::find(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// A thread waits for it: a read of standard input cannot be broken off, and would hold up the end of the runtime.
fn standard_input_closed() -> oneshot::Receiver<()> {
    let (closed, is_closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        let _ = closed.send(());
    });
    is_closed
}
