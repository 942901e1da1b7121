//! Huawei OneAccess: OAuth 2.0 for users, and the tenant token of an application.
//!
//! `/api/v1/oauth2/token` answers errors with `error` and `error_description`,
//! `/api/v2/tenant/token` with `error_code` and `error_msg`, both with 400.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Asked, Desk, Double, Fault, Tokens, Vendor, request_id};

/// `POST /api/v1/oauth2/token` and `POST /api/v2/tenant/token`, with the credentials in the form
/// and nowhere else.
///
/// Business requests carry the access token as a bearer, and are refused with 401.
pub(crate) type Huawei = Double<HuaweiVendor>;

#[derive(Clone, Debug)]
pub(crate) struct HuaweiOptions {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) refresh: Refresh,
    pub(crate) expires_in: ExpiresIn,
    /// Of a user's token. Default: 7200 s; `expires_in` is rounded down.
    pub(crate) access_lifetime: Duration,
    /// Of a tenant token. Default: 1800 s; `expires_in` is rounded down.
    pub(crate) tenant_lifetime: Duration,
    /// Default: 1 day; a setting of the instance.
    pub(crate) refresh_lifetime: Duration,
    /// How long an access token serves on after its login was refreshed. Not documented.
    /// Default: not at all. A new tenant token never ends an older one.
    pub(crate) old_access_grace: Duration,
}

/// What becomes of a refresh token that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// It dies, and the answer has the next one.
    Rotates,
    /// It stays good, and the answer repeats it.
    Repeats,
    /// It stays good, and the answer has none.
    LeftOut,
    /// There never is one, which is the vendor's default setting.
    Off,
}

/// How `expires_in` is written: both are documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpiresIn {
    Number,
    Text,
}

impl Default for HuaweiOptions {
    fn default() -> Self {
        Self {
            client_id: "test-client".into(),
            client_secret: "test secret+/=&~*".into(),
            refresh: Refresh::Rotates,
            expires_in: ExpiresIn::Number,
            access_lifetime: Duration::from_secs(7_200),
            tenant_lifetime: Duration::from_secs(1_800),
            refresh_lifetime: Duration::from_secs(86_400),
            old_access_grace: Duration::ZERO,
        }
    }
}

pub(crate) struct HuaweiVendor {
    options: HuaweiOptions,
    codes: Mutex<HashMap<String, Code>>,
    tokens: Mutex<Tokens>,
}

struct Code {
    redirect_uri: String,
    used: bool,
}

impl HuaweiVendor {
    /// A user signs in: a code that is good once.
    pub(crate) fn authorize(&self, redirect_uri: &str) -> String {
        let code = format!("test-code-{:016x}+/=", fastrand::u64(..));
        let known = Code {
            redirect_uri: redirect_uri.into(),
            used: false,
        };
        self.codes.lock().unwrap().insert(code.clone(), known);
        code
    }

    fn grant(&self, asked: &Asked, api: Api, desk: &Desk) -> Result<Answer, Answer> {
        const KNOWN: [&str; 7] = [
            "grant_type",
            "code",
            "redirect_uri",
            "refresh_token",
            "client_id",
            "client_secret",
            "scope",
        ];
        let form = asked.form();
        // Not documented, and a secret that came along here would stand in a log.
        if asked.header("authorization").is_some() {
            return Err(api.error(400, "invalid_client", "Bad client credentials"));
        }
        if form.is_empty() || form.repeated().is_some() || !asked.query.is_empty() {
            return Err(api.error(400, "invalid_request", "Not one form with each parameter once"));
        }
        desk.count(|counts| counts.unknown_parameters += form.unknown(&KNOWN));
        let need = |name: &str| {
            let missing = || api.error(400, "invalid_request", &format!("Missing {name}"));
            form.get(name).ok_or_else(missing)
        };
        let kind = need("grant_type")?;
        let (id, secret) = (need("client_id")?, need("client_secret")?);
        if id != self.options.client_id || secret != self.options.client_secret {
            return Err(api.error(400, "invalid_client", "Bad client credentials"));
        }
        let mut tokens = self.tokens.lock().unwrap();
        match (api, kind) {
            (Api::User, "authorization_code") => {
                self.redeem(need("code")?, form.raw("redirect_uri"), desk)?;
                desk.count(|counts| counts.acquisitions += 1);
                let family = tokens.family();
                let refresh = self.first_refresh(&mut tokens, family);
                Ok(self.user_token(&mut tokens, family, refresh))
            }
            (Api::User, "refresh_token") => {
                let old = need("refresh_token")?;
                let Some(family) = tokens
                    .renew
                    .get(old)
                    .filter(|known| known.is_current())
                    .map(|known| known.family)
                else {
                    let twice = tokens.renew.get(old).is_some_and(|known| known.spent);
                    desk.count(|counts| counts.presented_twice += u64::from(twice));
                    return Err(api.error(400, "invalid_grant", "Invalid refresh token"));
                };
                desk.count(|counts| counts.renewals += 1);
                if let Some(access) = tokens.access.newest(family).map(String::from) {
                    tokens.access.spend(&access, self.options.old_access_grace);
                }
                let refresh = match self.options.refresh {
                    Refresh::Rotates => {
                        tokens.renew.spend(old, Duration::ZERO);
                        self.first_refresh(&mut tokens, family)
                    }
                    Refresh::Repeats => Some(old.to_owned()),
                    Refresh::LeftOut | Refresh::Off => None,
                };
                Ok(self.user_token(&mut tokens, family, refresh))
            }
            (Api::Tenant, "client_credentials") => {
                desk.count(|counts| counts.acquisitions += 1);
                let family = tokens.family();
                let token = tokens.access.mint("tenant", family, self.options.tenant_lifetime);
                let mut body = self.token(&token, self.options.tenant_lifetime);
                body["id_token"] = "test.id.token".into();
                Ok(Answer::json(200, &body))
            }
            _ => Err(api.error(400, "unsupported_grant_type", "Unsupported grant type")),
        }
    }

    fn redeem(&self, code: &str, redirect_uri: Option<&str>, desk: &Desk) -> Result<(), Answer> {
        let mut codes = self.codes.lock().unwrap();
        // Documented with this code of error, not with `invalid_grant`.
        let invalid = || Api::User.error(400, "invalid_client", "Invalid authorization code");
        let known = codes.get_mut(code).ok_or_else(invalid)?;
        if known.used {
            desk.count(|counts| counts.presented_twice += 1);
            return Err(invalid());
        }
        if redirect_uri.is_some_and(|uri| uri != known.redirect_uri) {
            return Err(Api::User.error(400, "invalid_grant", "Invalid redirect_uri"));
        }
        known.used = true;
        Ok(())
    }

    fn first_refresh(&self, tokens: &mut Tokens, family: u64) -> Option<String> {
        let kept = self.options.refresh != Refresh::Off;
        kept.then(|| tokens.renew.mint("refresh", family, self.options.refresh_lifetime))
    }

    fn user_token(&self, tokens: &mut Tokens, family: u64, refresh: Option<String>) -> Answer {
        let token = tokens.access.mint("access", family, self.options.access_lifetime);
        let mut body = self.token(&token, self.options.access_lifetime);
        if let Some(refresh) = refresh {
            body["refresh_token"] = refresh.into();
        }
        Answer::json(200, &body)
    }

    fn token(&self, token: &str, lives: Duration) -> Value {
        let expires_in = match self.options.expires_in {
            ExpiresIn::Number => Value::from(lives.as_secs()),
            ExpiresIn::Text => Value::from(lives.as_secs().to_string()),
        };
        json!({"access_token": token, "token_type": "Bearer", "expires_in": expires_in, "scope": "get_user_info"})
    }
}

#[derive(Clone, Copy)]
enum Api {
    User,
    Tenant,
}

impl Api {
    fn of(asked: &Asked) -> Option<Self> {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/api/v1/oauth2/token") => Some(Self::User),
            ("POST", "/api/v2/tenant/token") => Some(Self::Tenant),
            _ => None,
        }
    }

    fn error(self, status: u16, error: &str, description: &str) -> Answer {
        let body = match self {
            Self::User => json!({"error": error, "error_description": description}),
            Self::Tenant => json!({"error_code": code(error), "error_msg": description}),
        };
        Answer::json(status, &body)
    }
}

/// The form of these codes is documented, which code means what is not.
fn code(error: &str) -> &'static str {
    match error {
        "invalid_client" => "APP.0001",
        "invalid_request" => "APP.0002",
        "unsupported_grant_type" => "APP.0003",
        "access_denied" => "APP.0004",
        "invalid_grant" => "LOGIN.0001",
        _ => "SYSTEM.0001",
    }
}

impl Vendor for HuaweiVendor {
    type Options = HuaweiOptions;

    fn new(options: HuaweiOptions) -> Self {
        Self {
            options,
            codes: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    fn tokens(&self) -> &Mutex<Tokens> {
        &self.tokens
    }

    /// `authorization_code`, `refresh_token`, `client_credentials`.
    fn operation(&self, asked: &Asked) -> &'static str {
        match (Api::of(asked), asked.form().get("grant_type")) {
            (Some(Api::User), Some("authorization_code")) => "authorization_code",
            (Some(Api::User), Some("refresh_token")) => "refresh_token",
            (Some(Api::Tenant), Some("client_credentials")) => "client_credentials",
            _ => "Unknown",
        }
    }

    fn process(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        match Api::of(asked) {
            Some(api) => self.grant(asked, api, desk),
            None => Err(Answer::json(
                404,
                &json!({"error": "not_found", "request_id": request_id()}),
            )),
        }
    }

    fn words(&self, asked: &Asked, fault: &Fault) -> Answer {
        const BUSY: &str = "System busy. Please try again later.";
        let api = Api::of(asked).unwrap_or(Api::User);
        match fault {
            Fault::Throttle400 { .. } => api.error(400, "temporarily_unavailable", BUSY),
            Fault::Throttle429 { retry_after } => api
                .error(429, "temporarily_unavailable", BUSY)
                .with("retry-after", retry_after.as_secs()),
            Fault::NoPermission403 => api.error(403, "access_denied", "No permission"),
            Fault::Token403 => api.error(403, "invalid_grant", "Invalid refresh token"),
            Fault::Unavailable503 => api.error(503, "temporarily_unavailable", BUSY),
            Fault::EmptyToken200 => {
                let mut body = self.token("", self.options.access_lifetime);
                body["refresh_token"] = "".into();
                Answer::json(200, &body)
            }
            _ => Answer::json(200, &json!({"token_type": "Bearer", "expires_in": 7_200})),
        }
    }

    fn is_business(&self, asked: &Asked) -> bool {
        asked.method == "GET" && asked.path == "/api/v1/oauth2/userinfo"
    }

    fn presented(&self, asked: &Asked) -> Option<String> {
        asked.bearer().map(String::from)
    }

    fn unauthorized(&self) -> Answer {
        let body = json!({
            "error": "unauthorized",
            "error_description": "Full authentication is required to access this resource",
        });
        Answer::json(401, &body).with("www-authenticate", "Bearer")
    }

    fn forbidden(&self) -> Answer {
        Api::User.error(403, "access_denied", "No permission")
    }

    fn issue(&self) {
        let mut tokens = self.tokens.lock().unwrap();
        let family = tokens.family();
        let refresh = self.first_refresh(&mut tokens, family);
        self.user_token(&mut tokens, family, refresh);
    }
}
