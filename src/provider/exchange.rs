//! One token request and its answer: [`TokenClient`].
//!
//! The client is the user's own, any tower service; this module adds what a token request needs and
//! a plain client does not give: the mark against recursion, a limit on time and size, and the
//! answer to the one question that decides about one-time credentials: may the request have arrived?

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tower_service::Service;
use zeroize::Zeroizing;

use super::{BoxFuture, FetchContext};
use crate::error::{BoxError, Error, FetchError, links};
use crate::token::Secret;

/// The HTTP client of a token provider: any tower service, its type forgotten.
///
/// It must not go through the layer that waits for the provider's token. Clones share the service;
/// every request gets a clone of it, polled ready first. Redirects are not followed, unless the
/// service does so itself, which it should not: a token request carries credentials.
///
/// Strategies take one with their method `client`. Mostly the service itself is written there; this type is for one that
/// several strategies share, or whose type of request body is not known from elsewhere:
///
/// ```
/// # #[cfg(feature = "testkit")] {
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower_token::{TokenClient, oauth2::ClientCredentialsGrant, testkit::Issuer};
///
/// let issuer = Issuer::new();
/// let grant = ClientCredentialsGrant::new("https://login.example.com/token", issuer.client_id())
///     .client_secret(issuer.client_secret())
///     .client(TokenClient::new::<_, Full<Bytes>, _>(issuer.service()));
/// # let _ = grant; }
/// ```
#[derive(Clone)]
pub struct TokenClient {
    exchange: Arc<dyn Exchange>,
}

impl TokenClient {
    /// Sends token requests through `service`. Request bodies are made from [`Bytes`]; of an answer 1 MiB is read at most.
    ///
    /// It must not send a request again by itself: what is presented may be good for one use, and whether an answer that was
    /// lost is asked for once more is up to [`IfLost`](crate::IfLost). Give it no retry middleware.
    pub fn new<S, B, RB>(service: S) -> Self
    where
        S: Service<http::Request<B>, Response = http::Response<RB>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: From<Bytes> + Send + 'static,
        RB: http_body::Body + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<BoxError>,
    {
        Self {
            exchange: Arc::new(Through {
                service: Mutex::new(service),
                body: PhantomData,
            }),
        }
    }

    /// Over [`client::https`](crate::client::https), with a new connection for every request: a kept one that its peer has
    /// just closed would lose the answer of a request that had gone out.
    #[cfg(feature = "client")]
    pub fn https() -> Self {
        Self::new(super::client::Https::unpooled())
    }

    /// Sends `request` and brings the answer, whatever its status.
    ///
    /// The whole exchange ends within [`FetchContext::timeout`]. Nothing of `hidden` gets into an error.
    /// It is one of the three that a fetch may make; the fourth is not sent.
    pub(crate) async fn send(
        &self,
        mut request: http::Request<Bytes>,
        context: &FetchContext,
        hidden: &Hidden<'_>,
    ) -> Result<Answer, FetchError> {
        context.budget.take()?;
        context.mark(request.extensions_mut());
        let host = request.uri().host().unwrap_or_default().to_owned();
        let timeout = context.timeout().min(LONGEST);
        let sent = self.exchange.send(request, Instant::now() + timeout).await;
        sent.map_err(|failure| failure.into_fetch_error(&host, timeout, hidden))
    }
}

impl fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient").finish_non_exhaustive()
    }
}

/// What a grant's `client` method takes: a [`TokenClient`], or a service to make one from. Sealed.
///
/// The parameter `Via` is inferred, always.
pub trait IntoTokenClient<Via>: sealed::Sealed<Via> {
    #[doc(hidden)]
    fn into_token_client(self) -> TokenClient;
}

impl IntoTokenClient<()> for TokenClient {
    fn into_token_client(self) -> TokenClient {
        self
    }
}

impl<S, B, RB> IntoTokenClient<(B, RB)> for S
where
    S: Service<http::Request<B>, Response = http::Response<RB>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: From<Bytes> + Send + 'static,
    RB: http_body::Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    fn into_token_client(self) -> TokenClient {
        TokenClient::new(self)
    }
}

mod sealed {
    pub trait Sealed<Via> {}
    impl Sealed<()> for super::TokenClient {}
    impl<S, B, RB> Sealed<(B, RB)> for S where S: tower_service::Service<http::Request<B>, Response = http::Response<RB>> {}
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body, at most [`ANSWER_LIMIT`] bytes, or why there is none. A status and its headers may
    /// mean something although the body broke off (429, 503).
    pub(crate) body: Result<Zeroizing<Vec<u8>>, Broken>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    TooLong,
    CutOff,
    TimedOut,
}

impl Broken {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Broken::TooLong => "the answer is longer than 1 MiB",
            Broken::CutOff => "the answer was cut off",
            Broken::TimedOut => "the answer did not end within the fetch timeout",
        }
    }
}

/// What must not be printed of a request: the secrets that a list adds.
///
/// Their forms are made when a text is to be printed. An exchange that brings a token prints none.
pub(crate) struct Hidden<'a> {
    list: Box<dyn Fn(&mut Needles) + Send + Sync + 'a>,
}

impl<'a> Hidden<'a> {
    pub(crate) fn of(list: impl Fn(&mut Needles) + Send + Sync + 'a) -> Self {
        Self { list: Box::new(list) }
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        let mut needles = Needles::default();
        (self.list)(&mut needles);
        needles.are_in(text)
    }
}

/// Secrets, in each of the forms in which they travel.
#[derive(Debug, Default)]
pub(crate) struct Needles {
    forms: Vec<Secret<String>>,
}

impl Needles {
    pub(crate) fn add(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        // A URL may have it in either of two encodings.
        let in_url = crate::percent::encoded(secret);
        self.forms.extend([start(secret.into()), start(form), start(in_url)]);
        self.add_base64(secret);
    }

    /// Of something that travels in base64 only.
    pub(crate) fn add_base64(&mut self, secret: &str) {
        self.forms
            .extend([start(STANDARD.encode(secret)), start(URL_SAFE.encode(secret))]);
    }

    fn are_in(&self, text: &str) -> bool {
        self.forms.iter().any(|form| text.contains(form.expose().as_str()))
    }
}

/// Eight characters tell a secret, and an issuer may echo a shortened one.
fn start(form: String) -> Secret<String> {
    let form = Zeroizing::new(form);
    let end = form.char_indices().nth(8).map_or(form.len(), |(at, _)| at);
    Secret::new(form[..end].to_owned())
}

// ===== the exchange itself =====

trait Exchange: Send + Sync {
    fn send(&self, request: http::Request<Bytes>, deadline: Instant) -> BoxFuture<'_, Result<Answer, Failure>>;
}

struct Through<S, B> {
    /// Only ever cloned; the lock is what makes a service that is not `Sync` shareable.
    service: Mutex<S>,
    body: PhantomData<fn(B)>,
}

impl<S, B, RB> Exchange for Through<S, B>
where
    S: Service<http::Request<B>, Response = http::Response<RB>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: From<Bytes> + Send + 'static,
    RB: http_body::Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    fn send(&self, request: http::Request<Bytes>, deadline: Instant) -> BoxFuture<'_, Result<Answer, Failure>> {
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(send(service, request.map(B::from), deadline))
    }
}

async fn send<S, B, RB>(mut service: S, request: http::Request<B>, deadline: Instant) -> Result<Answer, Failure>
where
    S: Service<http::Request<B>, Response = http::Response<RB>>,
    S::Error: Into<BoxError>,
    RB: http_body::Body,
    RB::Error: Into<BoxError>,
{
    by(deadline, poll_fn(|cx| service.poll_ready(cx)))
        .await
        .map_err(|_| Failure::NeverReady)?
        .map_err(|error| Failure::Unready(error.into()))?;
    let response = by(deadline, service.call(request))
        .await
        .map_err(|_| Failure::Unanswered)?
        .map_err(|error| Failure::Broken(error.into()))?;
    let (head, body) = response.into_parts();
    let body = by(deadline, read(body)).await.unwrap_or(Err(Broken::TimedOut));
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}

async fn by<F: Future>(deadline: Instant, future: F) -> Result<F::Output, tokio::time::error::Elapsed> {
    tokio::time::timeout_at(deadline, future).await
}

/// Reads to the end, or to one byte too many.
async fn read<RB: http_body::Body>(body: RB) -> Result<Zeroizing<Vec<u8>>, Broken> {
    let mut body = pin!(body);
    let mut kept = Zeroizing::new(Vec::new());
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(mut data) = frame.map_err(|_| Broken::CutOff)?.into_data() else {
            continue;
        };
        if data.remaining() > ANSWER_LIMIT - kept.len() {
            return Err(Broken::TooLong);
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            kept.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
    }
    Ok(kept)
}

/// Why there is no answer, by how far the request got.
enum Failure {
    /// The service did not become ready in time: nothing was sent.
    NeverReady,
    /// The service said that it cannot send: nothing was sent.
    Unready(BoxError),
    /// Sent, as far as anybody knows, and not answered in time.
    Unanswered,
    /// The service failed during the call; how far it got stands in the error, if anywhere.
    Broken(BoxError),
}

impl Failure {
    fn into_fetch_error(self, host: &str, timeout: Duration, hidden: &Hidden<'_>) -> FetchError {
        let seconds = timeout.as_secs_f32();
        match self {
            Self::NeverReady => FetchError::transient(format!(
                "the token client was not ready to send to {host} within {seconds} s{LIKELY_RECURSION}"
            )),
            Self::Unanswered => {
                FetchError::transient(format!("no answer from {host} within {seconds} s{LIKELY_RECURSION}")).lost()
            }
            Self::Unready(error) => recursion(&*error).unwrap_or_else(|| {
                FetchError::transient(format!(
                    "the token client cannot send to {host}: {}",
                    reason(&*error, hidden)
                ))
            }),
            Self::Broken(error) => recursion(&*error).unwrap_or_else(|| {
                let reason = reason(&*error, hidden);
                if links(&*error).any(is_unsent) {
                    return FetchError::transient(format!("no connection to {host}: {reason}"));
                }
                FetchError::transient(format!("the exchange with {host} broke off: {reason}")).lost()
            }),
        }
    }
}

/// The layer that waits for this very token refused the request.
fn recursion(error: &(dyn StdError + 'static)) -> Option<FetchError> {
    let ours = links(error)
        .filter_map(|link| link.downcast_ref::<Error>())
        .find(|ours| ours.is_recursion())?;
    Some(
        FetchError::config("the token request went through the layer that waits for its token").caused_by(ours.clone()),
    )
}

/// Whether this proves that no byte of the request left. What is not known may have left.
fn is_unsent(link: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "client")]
    if super::client::is_connect(link) {
        return true;
    }
    if let Some(ours) = link.downcast_ref::<Error>() {
        // A token layer of its own around the client, which had no token for it.
        return ours.class().is_some() || ours.is_overloaded() || ours.is_signed_out() || ours.is_shut_down();
    }
    #[cfg(feature = "reqwest")]
    if link.downcast_ref().is_some_and(reqwest::Error::is_connect) {
        return true;
    }
    let Some(error) = link.downcast_ref::<io::Error>() else {
        return false;
    };
    // Not the unreachable kinds: some systems report them for a connection that has sent already.
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::NotFound
    ) || error.to_string().starts_with(STD_RESOLVER_FAILED)
}

/// The innermost text of the chain that can be shown. A client's error may quote the URL or worse,
/// so that one which holds anything hidden is passed over.
fn reason(error: &(dyn StdError + 'static), hidden: &Hidden<'_>) -> String {
    let mut texts: Vec<String> = links(error).take(CHAIN_LIMIT).map(|link| link.to_string()).collect();
    let shown = texts.iter().rposition(|text| {
        !text.is_empty() && text.len() <= REASON_LIMIT && !text.contains(char::is_control) && !hidden.is_in(text)
    });
    match shown {
        Some(at) => texts.swap_remove(at),
        None => "the client gave no reason that can be shown".into(),
    }
}

/// 1 MiB: what an issuer may answer at most.
const ANSWER_LIMIT: usize = 1 << 20;
/// No exchange takes a day; a limit beyond it only risks overflow.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const REASON_LIMIT: usize = 200;
const CHAIN_LIMIT: usize = 16;
/// How the standard library words a name that does not resolve; the kind of that error has no stable name.
const STD_RESOLVER_FAILED: &str = "failed to lookup address information";
const LIKELY_RECURSION: &str =
    " (if the token client goes through the layer that waits for this token, give the provider a client of its own)";

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use http_body_util::Full;
    use tower::service_fn;

    use super::*;
    use crate::clock::Clock;
    use crate::error::{Class, Kind};
    use crate::provider::{Cause, TokenRequest};

    pub(crate) fn context() -> FetchContext {
        FetchContext {
            previous: None,
            refused: false,
            credential: None,
            cause: Cause::Initial,
            challenge: None,
            clock: Clock::of_tokio(),
            timeout: Duration::from_secs(30),
            engine: 0,
            budget: Arc::default(),
        }
    }

    /// A step of a scripted body.
    #[derive(Clone)]
    pub(crate) enum Step {
        Data(Bytes),
        Cut,
        Hang,
    }

    #[derive(Clone, Default)]
    pub(crate) struct Script(VecDeque<Step>);

    impl Script {
        pub(crate) fn of(steps: impl IntoIterator<Item = Step>) -> Self {
            Self(steps.into_iter().collect())
        }
    }

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
            if let Some(Step::Hang) = self.0.front() {
                return Poll::Pending;
            }
            match self.0.pop_front() {
                None => Poll::Ready(None),
                Some(Step::Data(bytes)) => Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
                Some(_) => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            }
        }
    }

    async fn exchange<S, B, RB>(service: S) -> Result<Answer, FetchError>
    where
        S: Service<http::Request<B>, Response = http::Response<RB>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: From<Bytes> + Send + 'static,
        RB: http_body::Body + Send + 'static,
        RB::Data: Send,
        RB::Error: Into<BoxError>,
    {
        let request = http::Request::post("https://login.example.com/token?tenant=test-canary")
            .body(Bytes::from_static(b"refresh_token=test-canary"))
            .unwrap();
        let hidden = Hidden::of(|needles| needles.add("test-canary"));
        TokenClient::new(service).send(request, &context(), &hidden).await
    }

    async fn failing<E: Into<BoxError> + Clone + Send + Sync + 'static>(error: E) -> FetchError {
        exchange(service_fn(move |_: http::Request<Bytes>| {
            let error = error.clone();
            async move { Err::<http::Response<Full<Bytes>>, BoxError>(error.into()) }
        }))
        .await
        .unwrap_err()
    }

    async fn answering(steps: Vec<Step>) -> Answer {
        exchange(service_fn(move |_: http::Request<Bytes>| {
            let body = Script::of(steps.clone());
            async move { Ok::<_, Infallible>(http::Response::new(body)) }
        }))
        .await
        .unwrap()
    }

    /// What a service of an error type that is not `Clone` fails with, as a closure's clone needs it.
    #[derive(Clone, Debug)]
    struct Wrapped(Arc<io::Error>);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("error sending request for url (https://login.example.com/token?tenant=test-canary)")
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    fn wrapped(error: impl Into<io::Error>) -> Wrapped {
        Wrapped(Arc::new(error.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_connection_is_not_lost() {
        let error = failing(wrapped(io::ErrorKind::ConnectionRefused)).await;
        assert_eq!((error.class(), error.is_lost()), (Class::Transient, false));
        assert_eq!(
            error.to_string(),
            "transient: no connection to login.example.com: connection refused"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_does_not_resolve_is_not_lost() {
        let text = "failed to lookup address information: Name or service not known";
        assert!(!failing(wrapped(io::Error::other(text))).await.is_lost());
    }

    #[cfg(feature = "client")]
    #[tokio::test]
    async fn the_own_clients_connect_failure_is_not_lost() {
        let port = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let request = http::Request::post(format!("http://127.0.0.1:{port}/token"))
            .body(Bytes::new())
            .unwrap();
        let client = TokenClient::new(crate::provider::client::https());
        let error = client.send(request, &context(), &Hidden::of(|_| ())).await.unwrap_err();
        assert!(!error.is_lost(), "{error}");
        assert!(error.to_string().contains("no connection to 127.0.0.1"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_is_lost() {
        let error = failing(wrapped(io::ErrorKind::ConnectionReset)).await;
        assert_eq!((error.class(), error.is_lost()), (Class::Transient, true));
        assert_eq!(
            error.to_string(),
            "transient: the exchange with login.example.com broke off: connection reset"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_quotes_the_url_or_a_secret_is_not_passed_on() {
        for leak in ["https://x/?tenant=test-canary", "sent dGVzdC1jYW5hcnk=", "test-can..."] {
            let error = failing(wrapped(io::Error::other(leak))).await;
            let printed = format!("{error} {error:?}");
            assert!(
                !printed.contains("canary") && !printed.contains("test-can"),
                "{printed}"
            );
            assert!(!printed.contains("dGVzdC1j"), "{printed}");
            assert!(StdError::source(&error).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn recursion_is_a_fault_of_configuration_and_names_its_cause() {
        let error = failing(wrapped(io::Error::other(Error::new(Kind::Recursion)))).await;
        assert_eq!((error.class(), error.is_lost()), (Class::Config, false));
        assert!(error.to_string().contains("went through the layer"), "{error}");
        assert!(
            StdError::source(&error)
                .unwrap()
                .to_string()
                .contains("a client of its own")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_own_token_is_missing_has_sent_nothing() {
        let error = failing(Error::from(FetchError::transient("the gateway's issuer is down"))).await;
        assert_eq!((error.class(), error.is_lost()), (Class::Transient, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_carries_the_mark() {
        let answer = exchange(service_fn(|request: http::Request<Bytes>| async move {
            assert!(request.extensions().get::<TokenRequest>().is_some());
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::new())))
        }));
        assert!(answer.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_issuer_ends_at_the_timeout_and_is_lost() {
        let start = Instant::now();
        let error = exchange(service_fn(|_: http::Request<Bytes>| async {
            std::future::pending::<Result<http::Response<Full<Bytes>>, Infallible>>().await
        }))
        .await
        .unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 30);
        assert!(error.is_lost());
        assert!(error.to_string().contains("within 30 s"), "{error}");
        assert!(error.to_string().contains("a client of its own"), "{error}");
    }

    #[derive(Clone)]
    struct NeverReady;

    impl Service<http::Request<Bytes>> for NeverReady {
        type Response = http::Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Pending
        }

        fn call(&mut self, _: http::Request<Bytes>) -> Self::Future {
            panic!("called although never ready")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_gets_ready_has_sent_nothing() {
        let error = exchange(NeverReady).await.unwrap_err();
        assert_eq!((error.class(), error.is_lost()), (Class::Transient, false));
    }

    /// Ready only after two polls of this very clone.
    struct Fussy(usize);

    impl Clone for Fussy {
        fn clone(&self) -> Self {
            Self(0)
        }
    }

    impl Service<http::Request<Bytes>> for Fussy {
        type Response = http::Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.0 += 1;
            if self.0 < 2 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Bytes>) -> Self::Future {
            assert_eq!(self.0, 2, "called unreadied");
            std::future::ready(Ok(http::Response::new(Full::default())))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clone_that_is_called_was_readied() {
        assert!(exchange(Fussy(7)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn exactly_the_limit_is_read_and_one_byte_more_is_not() {
        let half = Bytes::from(vec![b'x'; ANSWER_LIMIT / 2]);
        let whole = answering(vec![Step::Data(half.clone()), Step::Data(half.clone())]).await;
        assert_eq!(whole.body.unwrap().len(), ANSWER_LIMIT);
        let long = answering(vec![
            Step::Data(half.clone()),
            Step::Data(half),
            Step::Data(Bytes::from_static(b"x")),
        ]);
        assert_eq!(long.await.body.unwrap_err(), Broken::TooLong);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_or_breaks_off_keeps_its_status() {
        let cut = answering(vec![Step::Data(Bytes::from_static(b"{")), Step::Cut]).await;
        assert_eq!((cut.status, cut.body.unwrap_err()), (StatusCode::OK, Broken::CutOff));
        let hung = answering(vec![Step::Data(Bytes::from_static(b"{")), Step::Hang]).await;
        assert_eq!(hung.body.unwrap_err(), Broken::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn redirects_are_not_followed() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let answer = exchange(service_fn(move |_: http::Request<Bytes>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async {
                http::Response::builder()
                    .status(307)
                    .header("location", "https://sink.example.com/")
                    .body(Full::<Bytes>::default())
            }
        }));
        assert_eq!(answer.await.unwrap().status, 307);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn secrets_are_known_in_every_form_they_travel_in() {
        let mut needles = Needles::default();
        needles.add("p@ss:w/rd+ %25&=~");
        for text in [
            "p@ss:w/rd+ %25&=~",
            "p%40ss%3Aw%2Frd%2B",
            "cEBzczp3L3JkKyAlMjUmPX4=",
            "a p@ss:w/r b",
        ] {
            assert!(needles.are_in(text), "{text}");
        }
        assert!(!needles.are_in("connection refused"));
        assert!(!format!("{needles:?}").contains("p@ss"));
        needles.add("");
        assert!(!needles.are_in(""));
    }
}
