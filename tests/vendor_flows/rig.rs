//! What the flows share: the documents of the vendors, and a client made of one.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_token::config::{self, Injection, Refusal, TokenConfig};
use tower_token::{Auto, BoxError, Class, Error, Origins, Peeked, TokenLayer, TokenService, Tokens};

use super::vendors::alibaba::{Ecd, Imm};
use super::vendors::huawei::Huawei;
use super::vendors::tencent::Smh;
use super::vendors::{Double, Live, Vendor};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Nothing here takes so long: whatever does has hung.
const HUNG: Duration = Duration::from_secs(60);

// ===== Documents =====

/// Changes some fields of a document: `with(document, json!({"provider": {"period": "2s"}}))`.
pub(crate) fn with(mut document: Value, changes: Value) -> Value {
    fn merge(into: &mut Value, changes: Value) {
        match (into, changes) {
            (Value::Object(into), Value::Object(changes)) => {
                for (name, change) in changes {
                    merge(into.entry(name).or_insert(Value::Null), change);
                }
            }
            (into, change) => *into = change,
        }
    }
    merge(&mut document, changes);
    document
}

/// Without a pair, and without `generate`.
pub(crate) fn imm(double: &Imm) -> Value {
    json!({
        "provider": {
            "type": "alibaba.weboffice",
            "endpoint": double.url(),
            "project_name": "test-project",
            "access_key_id": "testAccessKeyId",
            "access_key_secret": "testAccessKeySecret",
            "security_token": null,
            "credential_config": null,
            "expires_at": null
        },
        "inject": { "header": { "name": "x-weboffice-token" } },
        "refuse": { "status": [401] }
    })
}

pub(crate) fn pair(live: &Live) -> Value {
    json!({ "provider": { "access_token": live.access, "refresh_token": live.renew } })
}

pub(crate) fn generate() -> Value {
    let generate = json!({
        "source_uri": "oss://test-bucket/a b/é.docx",
        "Permission": { "Readonly": true, "History": false },
        "CachePreview": true,
        "PreviewPages": 5
    });
    json!({ "provider": { "generate": generate } })
}

pub(crate) fn credential_config() -> Value {
    let config = json!({
        "ServiceRole": "test role",
        "Policy": "{\"Version\":\"1\",\"Statement\":[]}",
        "Chain": [{ "AssumeRoleFor": "1234", "Role": "test+role/=&", "RoleType": "service" }]
    });
    json!({ "provider": { "credential_config": config } })
}

/// Without a token of any kind.
pub(crate) fn ecd(double: &Ecd) -> Value {
    json!({
        "provider": {
            "type": "alibaba.login",
            "endpoint": double.url(),
            "region_id": "cn-hangzhou",
            "client_id": "f4a0dc8e-1702-4728-9a60-test",
            "end_user_id": "test-alice",
            "office_site_id": "cn-hangzhou+dir-test",
            "sign": null
        }
    })
}

/// The session is the one of the double's first login.
pub(crate) fn login(live: &Live) -> Value {
    json!({ "provider": { "login_token": live.access, "session_id": "test-session-1" } })
}

pub(crate) fn keep_alive(live: &Live) -> Value {
    json!({ "provider": { "keep_alive_token": live.renew } })
}

pub(crate) fn signed() -> Value {
    let keys = json!({ "access_key_id": "testAccessKeyId", "access_key_secret": "testAccessKeySecret" });
    json!({ "provider": { "sign": keys } })
}

/// Without a token and without the secret.
pub(crate) fn smh(double: &Smh) -> Value {
    json!({ "provider": { "type": "tencent.smh", "endpoint": double.url(), "library_id": "smh0test" } })
}

pub(crate) fn library_secret() -> Value {
    json!({ "provider": { "library_secret": "test secret+/=&~*" } })
}

pub(crate) fn access(live: &Live) -> Value {
    json!({ "provider": { "access_token": live.access } })
}

/// Without anything to begin with.
pub(crate) fn one_access(double: &Huawei) -> Value {
    json!({
        "provider": {
            "type": "huawei.oneaccess",
            "endpoint": double.url(),
            "client_id": "test-client",
            "client_secret": "test secret+/=&~*"
        }
    })
}

pub(crate) fn refresh(live: &Live) -> Value {
    json!({ "provider": { "refresh_token": live.renew } })
}

pub(crate) fn code(double: &Huawei) -> Value {
    const REDIRECT_URI: &str = "https://app.example.com/back?a=1&b=2";
    let code = double.vendor().authorize(REDIRECT_URI);
    json!({ "provider": { "code": code, "redirect_uri": REDIRECT_URI } })
}

pub(crate) fn tenant(double: &Huawei) -> Value {
    with(one_access(double), json!({ "provider": { "type": "huawei.tenant" } }))
}

/// The life that a document assumes where no answer says one.
pub(crate) fn lifetime(text: &str) -> Value {
    json!({ "provider": { "lifetime": text } })
}

pub(crate) fn period(text: &str) -> Value {
    json!({ "provider": { "period": text } })
}

pub(crate) fn policy(policy: Value) -> Value {
    json!({ "policy": policy })
}

// ===== The client =====

type Api = TokenService<Client<HttpConnector, Full<Bytes>>, Auto, Refusal, Injection>;

/// What a caller has: a status with a body, or an error of ours.
pub(crate) type Outcome = Result<(u16, Bytes), BoxError>;

/// A client through the layer, and the handle of its tokens. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) tokens: Tokens,
    api: Api,
    url: String,
}

pub(crate) fn read(document: &Value) -> TokenConfig {
    config::read(&document.to_string()).unwrap()
}

/// The double's own origin is the API's.
pub(crate) fn rig<V: Vendor>(double: &Double<V>, document: Value) -> Rig {
    let config = read(&document);
    let tokens = config.builder("tokens.x", Path::new(".")).unwrap().build().unwrap();
    let layer = TokenLayer::new(&tokens, Origins::only(&double.url()).unwrap())
        .inject(config.injection("tokens.x").unwrap())
        .classify(config.refusal("tokens.x").unwrap());
    let api = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let url = double.url();
    Rig { tokens, api, url }
}

impl Rig {
    /// Posts a body to the API, which sends an accepted one back.
    pub(crate) async fn call(&self, path: &str) -> Outcome {
        self.post(path, Bytes::from_static(b"test body")).await
    }

    pub(crate) async fn post(&self, path: &str, body: Bytes) -> Outcome {
        let request = Request::post(format!("{}{path}", self.url))
            .body(Full::new(body))
            .unwrap();
        let exchange = async {
            let (head, body) = self.send(request).await?.into_parts();
            Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
        };
        timeout(HUNG, exchange).await.expect("an end of this call")
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Peeked<Incoming>>, BoxError> {
        self.api.clone().oneshot(request).await
    }

    pub(crate) async fn business(&self) -> Outcome {
        self.call("/business").await
    }

    /// What becomes of a business request, in a word or two.
    pub(crate) async fn says(&self) -> String {
        says(&self.business().await)
    }

    pub(crate) async fn refreshed(&self) -> String {
        match timeout(HUNG, self.tokens.refresh())
            .await
            .expect("an end of this fetch")
        {
            Ok(_) => "renewed".into(),
            Err(error) => class(&error),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        let generation = self.tokens.status().generation;
        generation.map_or(0, |generation| generation.get())
    }

    /// So many at once; how many of them came back whole, and what the first other one came to.
    pub(crate) async fn burst(&self, calls: usize) -> (usize, Option<String>) {
        let mut under_way = JoinSet::new();
        for nth in 0..calls {
            let rig = self.clone();
            under_way.spawn(async move {
                let body = Bytes::from(format!("test body {nth}"));
                match rig.post("/business", body.clone()).await {
                    Ok((200, echo)) if echo == body => Ok(()),
                    outcome => Err(says(&outcome)),
                }
            });
        }
        let outcomes = under_way.join_all().await;
        let whole = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        (whole, outcomes.into_iter().find_map(Result::err))
    }
}

/// `200`, `401`, `terminal`.
pub(crate) fn says(outcome: &Outcome) -> String {
    match outcome {
        Ok((status, _)) => status.to_string(),
        Err(error) => class(&ours(&**error)),
    }
}

pub(crate) fn ours(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::find(error).expect("an error of this crate").clone()
}

/// How long a throttled one has to wait: `soon` is a second or two, `90` is that, less what has passed since.
pub(crate) fn class(error: &Error) -> String {
    match (error.class(), error.retry_after().map(|wait| wait.as_secs_f64())) {
        (Some(Class::Throttled { .. }), Some(wait)) if wait <= 2.0 => "throttled soon".into(),
        (Some(Class::Throttled { .. }), Some(wait)) if (45.0..=90.5).contains(&wait) => "throttled 90".into(),
        (Some(Class::Throttled { .. }), wait) => format!("throttled {wait:?}"),
        (Some(class), _) => class.to_string(),
        (None, _) => error.to_string(),
    }
}

/// Waits until it is so.
pub(crate) async fn until(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            sleep(5 * MILLISECOND).await;
        }
    };
    timeout(HUNG, waiting).await.expect("what is waited for");
}

/// All of them side by side, whatever they borrow.
pub(crate) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
            {
                *output = Some(done);
            }
        }
        match futures.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}
