//! ECD: the login token of a cloud desktop.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::super::acs3::{self, AccessKey, Nonces};
use super::super::wire::Form;
use super::super::{Answer, Asked, Desk, Double, Fault, Tokens, Vendor, request_id};
use super::{error, exchangeable, invalid, is_rpc, missing, no_permission, parameters, words};

/// `RefreshLoginToken` and `GetLoginToken`, version `2020-10-02`, anonymous unless it is told to
/// be signed. A login token is renewed while it lives, by itself.
///
/// Business requests carry it as `LoginToken` in the query, and are refused with 400.
pub(crate) type Ecd = Double<EcdVendor>;

#[derive(Clone, Debug)]
pub(crate) struct EcdOptions {
    /// `Some`: requests are signed with ACS3, and `Action` and the like may be left out of the
    /// query. Default: `None`, anonymous.
    pub(crate) signed: Option<AccessKey>,
    pub(crate) region_id: String,
    pub(crate) client_id: String,
    pub(crate) end_user_id: String,
    pub(crate) office_site_id: String,
    /// Nowhere on the wire. Default: 15 min; newer documents say 8 h.
    pub(crate) login_lifetime: Duration,
    /// Default: 30 days; not documented.
    pub(crate) keep_alive_lifetime: Duration,
    /// A keep-alive login answers a new keep-alive token, and the old one dies. Default: it
    /// answers an empty one, and the old one stays good.
    pub(crate) keep_alive_rotates: bool,
    /// A keep-alive login answers an empty login token and this next stage, like `MFAVerify`.
    pub(crate) next_stage: Option<String>,
    /// How long a replaced login token serves business requests. Default: not at all.
    pub(crate) old_login_grace: Duration,
    /// The server's clock minus the real one. Default: 0.
    pub(crate) clock_offset_secs: i64,
}

impl Default for EcdOptions {
    fn default() -> Self {
        Self {
            signed: None,
            region_id: "cn-hangzhou".into(),
            client_id: "f4a0dc8e-1702-4728-9a60-test".into(),
            end_user_id: "test-alice".into(),
            office_site_id: "cn-hangzhou+dir-test".into(),
            login_lifetime: Duration::from_secs(15 * 60),
            keep_alive_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
            keep_alive_rotates: false,
            next_stage: None,
            old_login_grace: Duration::ZERO,
            clock_offset_secs: 0,
        }
    }
}

pub(crate) struct EcdVendor {
    options: EcdOptions,
    nonces: Nonces,
    tokens: Mutex<Tokens>,
}

/// What stands in the query of an anonymous request beside the parameters of the operation.
const RPC: [&str; 5] = ["Action", "Version", "Format", "Timestamp", "SignatureNonce"];

impl EcdVendor {
    /// Source: captures of the vendor's own client.
    fn is_anonymous(&self, asked: &Asked, desk: &Desk) -> Result<(), Answer> {
        let query = asked.query();
        let nonce = query.get("SignatureNonce").unwrap_or_default();
        let fresh = nonce.is_empty() || self.nonces.spend(nonce);
        if !fresh {
            desk.count(|counts| counts.nonce_reused += 1);
        }
        if let Some(name) = RPC.iter().find(|name| query.get(name).is_none()) {
            return Err(missing(name));
        }
        for (name, header) in [("Action", "x-acs-action"), ("Version", "x-acs-version")] {
            if asked.header(header) != query.get(name) {
                return Err(invalid(name));
            }
        }
        if query.get("Format") != Some("json") {
            return Err(invalid("Format"));
        }
        // No account has part in it: a key would be one that was sent by mistake.
        if asked.header("authorization").is_some() || query.raw("AccessKeyId").is_some() {
            let message = "Specified access key is not found.";
            return Err(error(404, "InvalidAccessKeyId.NotFound", message));
        }
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if nonce.len() != 32 || !nonce.bytes().all(lower_hex) {
            return Err(invalid("SignatureNonce"));
        }
        acs3::in_time(query.get("Timestamp").unwrap_or_default(), desk)?;
        if fresh { Ok(()) } else { Err(acs3::nonce_used().into()) }
    }

    fn refresh(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        const REQUIRED: [&str; 5] = ["RegionId", "ClientId", "EndUserId", "LoginToken", "OfficeSiteId"];
        let known = [&RPC[..], &REQUIRED, &["SessionId"]].concat();
        let form = parameters(asked, &known, &REQUIRED, desk)?;
        self.is_ours(&form)?;
        let mut tokens = self.tokens.lock().unwrap();
        let old = form.get("LoginToken").unwrap_or_default();
        let family = exchangeable(&tokens.access, old, "LoginToken", desk)?;
        if form
            .raw("SessionId")
            .is_some_and(|session| session != session_of(family))
        {
            return Err(invalid("SessionId"));
        }
        tokens.access.spend(old, self.options.old_login_grace);
        let new = tokens.access.mint("login", family, self.options.login_lifetime);
        desk.count(|counts| counts.renewals += 1);
        Ok(Answer::json(
            200,
            &json!({"RequestId": request_id(), "LoginToken": new}),
        ))
    }

    fn keep_alive(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        const REQUIRED: [&str; 5] = ["RegionId", "ClientId", "OfficeSiteId", "CurrentStage", "KeepAliveToken"];
        const OPTIONAL: [&str; 9] = [
            "KeepAlive",
            "EndUserId",
            "SessionId",
            "ClientOS",
            "ClientVersion",
            "ClientType",
            "ClientName",
            "Uuid",
            "AvailableFeatures",
        ];
        let known = [&RPC[..], &REQUIRED, &OPTIONAL].concat();
        let form = parameters(asked, &known, &REQUIRED, desk)?;
        self.is_ours(&form)?;
        if form.get("CurrentStage") != Some("KeepAliveVerify") {
            return Err(invalid("CurrentStage"));
        }
        if !matches!(form.get("KeepAlive"), Some("true" | "True")) {
            return Err(invalid("KeepAlive"));
        }
        let mut tokens = self.tokens.lock().unwrap();
        let old = form.get("KeepAliveToken").unwrap_or_default();
        let family = exchangeable(&tokens.renew, old, "KeepAliveToken", desk)?;
        if let Some(stage) = &self.options.next_stage {
            return Ok(self.logged_in("", family, stage, ""));
        }
        let keep_alive = if self.options.keep_alive_rotates {
            tokens.renew.spend(old, Duration::ZERO);
            tokens
                .renew
                .mint("keep-alive", family, self.options.keep_alive_lifetime)
        } else {
            String::new()
        };
        desk.count(|counts| counts.acquisitions += 1);
        let login = tokens.access.mint("login", family, self.options.login_lifetime);
        Ok(self.logged_in(&login, family, "", &keep_alive))
    }

    fn logged_in(&self, login: &str, family: u64, stage: &str, keep_alive: &str) -> Answer {
        let body = json!({
            "RequestId": request_id(),
            "LoginToken": login,
            "SessionId": session_of(family),
            "EndUserId": self.options.end_user_id,
            "NextStage": stage,
            "KeepAliveToken": keep_alive,
        });
        Answer::json(200, &body)
    }

    /// Where a value is sent, it is that of the login.
    fn is_ours(&self, form: &Form) -> Result<(), Answer> {
        let options = &self.options;
        let ours = [
            ("RegionId", &options.region_id),
            ("ClientId", &options.client_id),
            ("EndUserId", &options.end_user_id),
            ("OfficeSiteId", &options.office_site_id),
        ];
        match ours
            .iter()
            .find(|(name, own)| form.raw(name).is_some_and(|value| value != *own))
        {
            Some((name, _)) => Err(invalid(name)),
            None => Ok(()),
        }
    }
}

fn session_of(family: u64) -> String {
    format!("test-session-{family}")
}

impl Vendor for EcdVendor {
    type Options = EcdOptions;

    fn new(options: EcdOptions) -> Self {
        Self {
            options,
            nonces: Nonces::default(),
            tokens: Mutex::default(),
        }
    }

    fn tokens(&self) -> &Mutex<Tokens> {
        &self.tokens
    }

    fn clock_offset_secs(&self) -> i64 {
        self.options.clock_offset_secs
    }

    fn operation(&self, asked: &Asked) -> &'static str {
        match asked.header("x-acs-action") {
            Some("RefreshLoginToken") => "RefreshLoginToken",
            Some("GetLoginToken") => "GetLoginToken",
            _ => "Unknown",
        }
    }

    fn authenticate(&self, asked: &Asked, desk: &Desk) -> Result<(), Answer> {
        match &self.options.signed {
            Some(key) => Ok(acs3::check(asked, key, &self.nonces, desk)?),
            None => self.is_anonymous(asked, desk),
        }
    }

    fn process(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        is_rpc(asked)?;
        if asked.header("x-acs-version") != Some("2020-10-02") {
            return Err(error(
                400,
                "InvalidVersion",
                "Specified parameter Version is not valid.",
            ));
        }
        match self.operation(asked) {
            "RefreshLoginToken" => self.refresh(asked, desk),
            "GetLoginToken" => self.keep_alive(asked, desk),
            _ => Err(error(404, "InvalidAction.NotFound", "Specified api is not found.")),
        }
    }

    fn words(&self, asked: &Asked, fault: &Fault) -> Answer {
        words(fault, "LoginToken").unwrap_or_else(|| {
            let mut body = json!({"RequestId": request_id()});
            if matches!(fault, Fault::EmptyToken200) {
                body["LoginToken"] = "".into();
            }
            if self.operation(asked) == "GetLoginToken" {
                body["NextStage"] = "".into();
                body["EndUserId"] = self.options.end_user_id.clone().into();
            }
            Answer::json(200, &body)
        })
    }

    fn presented(&self, asked: &Asked) -> Option<String> {
        asked.query().get("LoginToken").map(String::from)
    }

    fn unauthorized(&self) -> Answer {
        invalid("LoginToken")
    }

    fn forbidden(&self) -> Answer {
        no_permission()
    }

    fn issue(&self) {
        let mut tokens = self.tokens.lock().unwrap();
        let family = tokens.family();
        tokens.access.mint("login", family, self.options.login_lifetime);
        tokens
            .renew
            .mint("keep-alive", family, self.options.keep_alive_lifetime);
    }
}
