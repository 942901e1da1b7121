//! A double, the part of a file that asks it, and the sidecar between a caller and the double's API.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::program::Sidecar;
use crate::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use crate::vendors::huawei::{Huawei, HuaweiOptions};
use crate::vendors::tencent::{Smh, SmhOptions};
use crate::vendors::{Double, Vendor};

/// How long tokens live where expiries are waited for. Whole seconds, because three of the vendors count in them.
pub(crate) const LIFE: Duration = Duration::from_secs(1);

/// A token of a file, under the name `it`.
pub(crate) struct Token {
    pub(crate) document: Value,
}

impl Token {
    fn new(provider: Value) -> Self {
        let policy = json!({ "jitter": 0.0, "fetch_timeout": "2s" });
        Self {
            document: json!({ "provider": provider, "policy": policy }),
        }
        .renewed_before_its_end_by("250ms")
    }

    /// Renewed when the mandatory window begins, so that each expiry is one renewal.
    pub(crate) fn renewed_before_its_end_by(mut self, window: &str) -> Self {
        self.document["policy"]["refresh_before"] = window.into();
        self.document["policy"]["require_before"] = window.into();
        self
    }

    /// With this field of its provider.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.document["provider"][field] = value.into();
        self
    }

    /// Fetched only when somebody needs it.
    pub(crate) fn lazy(mut self) -> Self {
        self.document["policy"]["keep_alive"] = false.into();
        self
    }

    /// The sidecar with this token, and with the double's own API behind it.
    pub(crate) fn behind<V: Vendor>(self, double: &Double<V>) -> Sidecar {
        Sidecar::start(&json!({
            "tokens": { "it": self.document },
            "routes": [{ "prefix": "/", "upstream": double.url(), "token": "it" }],
        }))
    }
}

pub(crate) async fn imm(access_lifetime: Duration) -> Imm {
    Imm::start(ImmOptions {
        access_lifetime,
        ..ImmOptions::default()
    })
    .await
}

/// With a pair that was had elsewhere.
pub(crate) fn imm_token(imm: &Imm) -> Token {
    let options = ImmOptions::default();
    let pair = imm.issue();
    let mut token = Token::new(json!({
        "type": "alibaba.weboffice",
        "endpoint": imm.url(),
        "project_name": options.project,
        "access_key_id": options.key.id,
        "access_key_secret": options.key.secret,
        "access_token": pair.access,
        "refresh_token": pair.renew,
    }));
    token.document["inject"] = json!({ "header": { "name": "x-weboffice-token" } });
    token.document["refuse"] = json!({ "status": [401] });
    token
}

/// The pair is taken for dead from the start.
pub(crate) fn dead_imm_token(imm: &Imm) -> Token {
    imm_token(imm)
        .with("expires_at", "2021-08-31T13:07:28.950065359Z")
        .lazy()
}

pub(crate) async fn ecd(login_lifetime: Duration) -> Ecd {
    Ecd::start(EcdOptions {
        login_lifetime,
        ..EcdOptions::default()
    })
    .await
}

/// With a login token that was had elsewhere.
pub(crate) fn ecd_token(ecd: &Ecd, lifetime: &str) -> Token {
    let options = EcdOptions::default();
    Token::new(json!({
        "type": "alibaba.login",
        "endpoint": ecd.url(),
        "region_id": options.region_id,
        "client_id": options.client_id,
        "end_user_id": options.end_user_id,
        "office_site_id": options.office_site_id,
        "lifetime": lifetime,
    }))
}

pub(crate) async fn smh(lifetime: Duration) -> Smh {
    Smh::start(SmhOptions {
        lifetime: Some(lifetime),
        sliding: false,
        ..SmhOptions::default()
    })
    .await
}

pub(crate) fn smh_token(smh: &Smh) -> Token {
    let options = SmhOptions::default();
    Token::new(json!({ "type": "tencent.smh", "endpoint": smh.url(), "library_id": options.library_id }))
}

pub(crate) fn smh_secret() -> String {
    SmhOptions::default().library_secret
}

pub(crate) async fn huawei(lifetime: Duration) -> Huawei {
    Huawei::start(HuaweiOptions {
        access_lifetime: lifetime,
        tenant_lifetime: lifetime,
        ..HuaweiOptions::default()
    })
    .await
}

/// `huawei.oneaccess` or `huawei.tenant`.
pub(crate) fn huawei_token(huawei: &Huawei, kind: &str) -> Token {
    let options = HuaweiOptions::default();
    Token::new(json!({
        "type": kind,
        "endpoint": huawei.url(),
        "client_id": options.client_id,
        "client_secret": options.client_secret,
    }))
}

/// What a caller without a token is told: the status, and the class in the body.
pub(crate) async fn refused(sidecar: &Sidecar) -> (StatusCode, String) {
    let (status, body) = sidecar.get("/business").await;
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let class = body["class"].as_str().unwrap_or_default().to_owned();
    if !class.is_empty() {
        assert_eq!(
            (&body["error"], &body["token"]),
            (&json!("token_unavailable"), &json!("it"))
        );
        let reauth = ["terminal", "needs_interaction", "ambiguous"].contains(&&*class);
        assert_eq!(body["reauth_required"], reauth, "{body}");
    }
    (status, class)
}
