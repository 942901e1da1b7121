//! The one connection to the server: made when it is needed, and made anew after it kept somebody waiting.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, PushInfo, RedisError, RedisResult, ServerErrorKind, Value, from_redis_value,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::news::News;
use super::refusal;
use super::scripts::Script;
use super::trust::Trust;
use crate::store::StoreError;

/// The way to the server. Calls share one connection, over which what is published comes as well: if that stands still,
/// the next call that is not answered finds it out for both.
pub(super) struct Line {
    address: Address,
    trust: Trust,
    /// For one call, connecting included.
    timeout: Duration,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
    up: Mutex<Option<Arc<Link>>>,
    /// Held by the one that connects.
    connecting: tokio::sync::Mutex<()>,
    pub(super) news: Arc<News>,
}

impl Line {
    pub(super) fn new(address: Address, trust: Trust, timeout: Duration, channel: &str) -> Self {
        Self {
            address,
            trust,
            timeout,
            tls: OnceLock::new(),
            up: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            news: Arc::new(News::of(channel)),
        }
    }

    /// Begins a call: there is a connection, and nothing was sent yet.
    pub(super) async fn call(&self) -> Result<Call<'_>, StoreError> {
        let until = Instant::now() + self.timeout;
        let link = timeout_at(until, self.link()).await.map_err(|_| self.too_late())??;
        Ok(Call {
            line: self,
            link,
            until,
            answered: false,
        })
    }

    fn too_late(&self) -> StoreError {
        StoreError::unavailable(format!(
            "the server at {} did not answer within {:?}",
            self.at(),
            self.timeout
        ))
    }

    async fn link(&self) -> Result<Arc<Link>, StoreError> {
        if let Some(link) = self.standing() {
            return Ok(link);
        }
        let _others_wait = self.connecting.lock().await;
        if let Some(link) = self.standing() {
            return Ok(link);
        }
        let link = Arc::new(self.connect().await?);
        *self.up() = Some(link.clone());
        Ok(link)
    }

    fn standing(&self) -> Option<Arc<Link>> {
        self.up().clone().filter(|link| !link.has_ended())
    }

    async fn connect(&self) -> Result<Link, StoreError> {
        let out_of_reach = |error: io::Error| {
            StoreError::unavailable(format!("the server at {} cannot be reached", self.at())).caused_by(error)
        };
        let address = (self.address.host.as_str(), self.address.port);
        let stream = TcpStream::connect(address).await.map_err(out_of_reach)?;
        stream.set_nodelay(true).map_err(out_of_reach)?;
        let stream: Box<dyn Wire> = if self.address.secure {
            Box::new(self.shake_hands(stream).await?)
        } else {
            Box::new(stream)
        };
        let news = self.news.clone();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                news.hear(&push);
                Ok::<(), ()>(())
            });
        let made = MultiplexedConnection::new_with_config(&self.address.login, stream, config).await;
        let (connection, driver) = made.map_err(|error| refusal::of(&error, &self.at()))?;
        Ok(Link::driven_by(driver, connection))
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<impl Wire + use<>, StoreError> {
        let config = self.tls.get_or_init(|| Ok(Arc::new(self.trust.config()?)));
        let config = config.as_ref().map_err(|why: &String| {
            // What it cannot be set up with is named, a key never.
            StoreError::unavailable(format!("TLS could not be set up: {why}"))
        })?;
        let failed = |why: String| StoreError::unavailable(format!("no TLS with the server at {}: {why}", self.at()));
        let name = ServerName::try_from(self.address.host.clone()).map_err(|error| failed(error.to_string()))?;
        let shaken = TlsConnector::from(config.clone()).connect(name, stream).await;
        shaken.map_err(|error| failed(error.to_string()))
    }

    /// If it is still that one.
    fn hang_up(&self, link: &Arc<Link>) {
        let mut up = self.up();
        if up.as_ref().is_some_and(|now| Arc::ptr_eq(now, link)) {
            *up = None;
        }
        drop(up);
        link.driver.abort();
    }

    fn up(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self) -> String {
        format!("{}:{}", self.address.host, self.address.port)
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

// ===== impl Call =====

/// A call that has a connection. If it goes without its answer, for whatever reason, nobody else waits on that one.
pub(super) struct Call<'a> {
    line: &'a Line,
    link: Arc<Link>,
    until: Instant,
    answered: bool,
}

impl Call<'_> {
    /// The answer to one command.
    pub(super) async fn ask(self, command: &Cmd) -> Result<Value, StoreError> {
        let answer = timeout_at(self.until, self.link.send(command)).await;
        self.end(answer)
    }

    /// What a script answers, which the server is told in full only if it does not know it.
    pub(super) async fn run(self, script: &Script, keys: &[&str], with: &[&[u8]]) -> Result<Value, StoreError> {
        let asking = async {
            match self.link.send(&script.known(keys, with)).await {
                Err(error) if is_unknown_script(&error) => self.link.send(&script.whole(keys, with)).await,
                answer => answer,
            }
        };
        let answer = timeout_at(self.until, asking).await;
        self.end(answer)
    }

    /// The connection, over which is heard now what is published. `generation` asks what there is already. If the server
    /// does not let us, those who wait for news are told.
    pub(super) async fn subscribe(self, generation: &Cmd) -> Result<Arc<Link>, StoreError> {
        let (news, link) = (&self.line.news, self.link.clone());
        let answer = timeout_at(self.until, link.hear(news, generation)).await;
        let refused = matches!(&answer, Ok(Err(error)) if refusal::is_answer(error));
        self.end(answer).inspect_err(|error| {
            if refused {
                news.is_now(None, Some(error.clone()));
            }
        })?;
        Ok(link)
    }

    fn end(mut self, answer: Result<RedisResult<Value>, Elapsed>) -> Result<Value, StoreError> {
        let answer = answer.map_err(|_| self.line.too_late())?;
        self.answered = !answer.as_ref().is_err_and(refusal::ends_connection);
        answer.map_err(|error| refusal::of(&error, &self.line.at()))
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.line.hang_up(&self.link);
        }
    }
}

// ===== impl Link =====

/// A connection, as long as it lasts.
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    /// Whose sender is gone with the driver, with a runtime that ends too.
    ended: watch::Receiver<()>,
}

impl Link {
    fn driven_by(driver: impl Future<Output = ()> + Send + 'static, connection: MultiplexedConnection) -> Self {
        let (ends, ended) = watch::channel(());
        let driver = tokio::spawn(async move {
            let _ends = ends;
            driver.await;
        });
        Self {
            connection,
            driver: driver.abort_handle(),
            ended,
        }
    }

    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn hear(&self, news: &News, generation: &Cmd) -> RedisResult<Value> {
        self.connection.clone().subscribe(news.channel()).await?;
        let times = news.times();
        let answer = self.send(generation).await?;
        // Something else than a number is for a look at the record to find out.
        let (generation,): (Option<u64>,) = from_redis_value(answer.clone()).unwrap_or_default();
        news.was(generation.unwrap_or_default(), times);
        Ok(answer)
    }

    fn has_ended(&self) -> bool {
        self.ended.has_changed().is_err()
    }

    /// Resolves when it does not last any longer.
    pub(super) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent.
        let _ = ended.changed().await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Plain or TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for S {}
