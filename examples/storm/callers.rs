//! Those who call, and what becomes of their calls. There is no token in sight: that is the layer's business.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt};
use tower_token::{BoxError, Error, TokenService};

pub(crate) type ApiClient = TokenService<Client<HttpConnector, Full<Bytes>>>;

/// What a caller of a crowd does between two calls.
const THINKS: Duration = Duration::from_millis(10);

/// One call, over.
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    outcome: Result<StatusCode, BoxError>,
}

impl Call {
    pub(crate) async fn make(client: ApiClient, url: String) -> Self {
        let began = Instant::now();
        let outcome = status_of(client, url).await;
        Self {
            began,
            took: began.elapsed(),
            outcome,
        }
    }

    pub(crate) fn was_answered(&self) -> bool {
        self.status() == Some(StatusCode::OK)
    }

    pub(crate) fn status(&self) -> Option<StatusCode> {
        self.outcome.as_ref().ok().copied()
    }

    /// Our own error, if that is what the caller got.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.outcome.as_ref().err().and_then(|error| Error::find(&**error))
    }
}

async fn status_of(mut client: ApiClient, url: String) -> Result<StatusCode, BoxError> {
    let response = client.ready().await?.call(request(&url)?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// `GET url`, with an id by which the API tells what was sent twice.
pub(crate) fn request(url: &str) -> http::Result<Request<Full<Bytes>>> {
    static IDS: AtomicU64 = AtomicU64::new(0);
    let id = IDS.fetch_add(1, Ordering::Relaxed);
    Request::get(url).header("x-request-id", id).body(Full::default())
}

#[derive(Default)]
pub(crate) struct Calls(pub(crate) Vec<Call>);

impl Calls {
    pub(crate) fn count(&self, which: impl Fn(&Call) -> bool) -> usize {
        self.0.iter().filter(|call| which(call)).count()
    }

    pub(crate) fn answered(&self) -> usize {
        self.count(Call::was_answered)
    }

    /// How many ended with an error of ours that is so.
    pub(crate) fn failed(&self, so: impl Fn(&Error) -> bool) -> usize {
        self.count(|call| call.error().is_some_and(&so))
    }

    pub(crate) fn slowest(&self) -> Duration {
        self.0.iter().map(|call| call.took).max().unwrap_or_default()
    }
}

/// Callers, each in a task of its own. Dropping it cancels them all, wherever they are.
pub(crate) struct Crowd(JoinSet<Vec<Call>>);

impl Crowd {
    pub(crate) fn calling_once(callers: usize, client: &ApiClient, url: String) -> Self {
        Self::of(callers, || {
            let call = Call::make(client.clone(), url.clone());
            async { vec![call.await] }
        })
    }

    pub(crate) fn calling_for(lasts: Duration, callers: usize, client: &ApiClient, url: String) -> Self {
        let end = Instant::now() + lasts;
        Self::of(callers, || keep_calling(client.clone(), url.clone(), end))
    }

    fn of<F>(callers: usize, one: impl Fn() -> F) -> Self
    where
        F: Future<Output = Vec<Call>> + Send + 'static,
    {
        Self((0..callers).map(|_| one()).collect())
    }

    /// Waits until every caller is done.
    pub(crate) async fn leave(self) -> Calls {
        Calls(self.0.join_all().await.into_iter().flatten().collect())
    }
}

async fn keep_calling(client: ApiClient, url: String, end: Instant) -> Vec<Call> {
    let mut calls = Vec::new();
    while Instant::now() < end {
        calls.push(Call::make(client.clone(), url.clone()).await);
        sleep(THINKS).await;
    }
    calls
}
