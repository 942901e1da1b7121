//! IMM: the token pair of a web office page.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::acs3::{self, AccessKey, Nonces};
use super::super::wire::{Form, rfc3339_nanoseconds};
use super::super::{Answer, Asked, Desk, Double, Fault, Tokens, Vendor, request_id};
use super::{error, exchangeable, invalid, is_rpc, no_permission, parameters, words};

/// `RefreshWebofficeToken` and `GenerateWebofficeToken`, version `2020-09-30`, signed.
///
/// Business requests carry the access token in `x-weboffice-token`, and are refused with 401.
pub(crate) type Imm = Double<ImmVendor>;

#[derive(Clone, Debug)]
pub(crate) struct ImmOptions {
    pub(crate) key: AccessKey,
    pub(crate) project: String,
    /// Default: 30 min.
    pub(crate) access_lifetime: Duration,
    /// Default: 1 day.
    pub(crate) refresh_lifetime: Duration,
    /// How long a replaced access token serves on. Not documented. Default: not at all.
    pub(crate) old_access_grace: Duration,
    /// The server's clock minus the real one. Default: 0.
    pub(crate) clock_offset_secs: i64,
}

impl Default for ImmOptions {
    fn default() -> Self {
        Self {
            key: AccessKey::default(),
            project: "test-project".into(),
            access_lifetime: Duration::from_secs(30 * 60),
            refresh_lifetime: Duration::from_secs(24 * 60 * 60),
            old_access_grace: Duration::ZERO,
            clock_offset_secs: 0,
        }
    }
}

pub(crate) struct ImmVendor {
    options: ImmOptions,
    key: Mutex<AccessKey>,
    nonces: Nonces,
    tokens: Mutex<Tokens>,
}

impl ImmVendor {
    /// From now on only this key may sign.
    pub(crate) fn rekey(&self, key: AccessKey) {
        *self.key.lock().unwrap() = key;
    }

    fn refresh(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        const REQUIRED: [&str; 3] = ["ProjectName", "AccessToken", "RefreshToken"];
        const KNOWN: [&str; 4] = ["ProjectName", "AccessToken", "RefreshToken", "CredentialConfig"];
        let form = parameters(asked, &KNOWN, &REQUIRED, desk)?;
        self.of_the_project(&form)?;
        let mut tokens = self.tokens.lock().unwrap();
        let refresh = form.get("RefreshToken").unwrap_or_default();
        let family = exchangeable(&tokens.renew, refresh, "RefreshToken", desk)?;
        // The current one, alive or not.
        let access = form.get("AccessToken").unwrap_or_default();
        if tokens.access.newest(family) != Some(access) {
            return Err(invalid("AccessToken"));
        }
        tokens.access.spend(access, self.options.old_access_grace);
        tokens.renew.spend(refresh, Duration::ZERO);
        desk.count(|counts| counts.renewals += 1);
        let pair = self.pair(&mut tokens, family, desk);
        Ok(Answer::json(200, &pair.into()))
    }

    fn generate(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        const FLAGS: [&str; 3] = ["ExternalUploaded", "Hidecmb", "CachePreview"];
        const OBJECTS: [&str; 4] = ["Permission", "User", "Watermark", "Notification"];
        const TEXTS: [&str; 5] = ["Filename", "UserData", "Password", "NotifyTopicName", "Referer"];
        const OTHERS: [&str; 4] = ["ProjectName", "SourceURI", "PreviewPages", "CredentialConfig"];
        let known = [&FLAGS[..], &OBJECTS, &TEXTS, &OTHERS].concat();
        let form = parameters(asked, &known, &["ProjectName", "SourceURI"], desk)?;
        self.of_the_project(&form)?;
        let uri = form
            .get("SourceURI")
            .and_then(|uri| uri.strip_prefix("oss://")?.split_once('/'));
        if !uri.is_some_and(|(bucket, object)| !bucket.is_empty() && !object.is_empty()) {
            return Err(invalid("SourceURI"));
        }
        let wrong = |name: &&&str, good: &dyn Fn(&str) -> bool| form.raw(name).is_some_and(|value| !good(value));
        let is_flag = |value: &str| ["true", "false", "True", "False"].contains(&value);
        if let Some(name) = FLAGS.iter().find(|name| wrong(name, &is_flag)) {
            return Err(invalid(name));
        }
        if let Some(name) = OBJECTS
            .iter()
            .find(|name| wrong(name, &|value| object(value).is_some()))
        {
            return Err(invalid(name));
        }
        if wrong(&&"PreviewPages", &|value| value.parse::<i64>().is_ok()) {
            return Err(invalid("PreviewPages"));
        }
        desk.count(|counts| counts.acquisitions += 1);
        let mut tokens = self.tokens.lock().unwrap();
        let family = tokens.family();
        let mut pair = self.pair(&mut tokens, family, desk);
        pair.insert("WebofficeURL".into(), WEBOFFICE_URL.into());
        Ok(Answer::json(200, &pair.into()))
    }

    fn of_the_project(&self, form: &Form) -> Result<(), Answer> {
        if form.get("ProjectName") != Some(&self.options.project) {
            return Err(error(400, "ResourceNotFound", "The project does not exist."));
        }
        match form.raw("CredentialConfig") {
            Some(config) if !is_credential_config(config) => Err(invalid("CredentialConfig")),
            _ => Ok(()),
        }
    }

    fn pair(&self, tokens: &mut Tokens, family: u64, desk: &Desk) -> Map<String, Value> {
        let options = &self.options;
        let access = tokens.access.mint("access", family, options.access_lifetime);
        let refresh = tokens.renew.mint("refresh", family, options.refresh_lifetime);
        let time = |token| Value::from(rfc3339_nanoseconds(desk.time(tokens.ends(token))));
        let ends =
            [tokens.access.get(&access), tokens.renew.get(&refresh)].map(|token| token.map_or(Value::Null, time));
        let [access_ends, refresh_ends] = ends;
        Map::from_iter([
            ("RequestId".into(), request_id().into()),
            ("AccessToken".into(), access.into()),
            ("RefreshToken".into(), refresh.into()),
            ("AccessTokenExpiredTime".into(), access_ends),
            ("RefreshTokenExpiredTime".into(), refresh_ends),
        ])
    }
}

const WEBOFFICE_URL: &str = "https://office.example.com/office/w/test?_w_tokentype=1";

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

/// One JSON object of documented members; the policy document in it is a string.
fn is_credential_config(text: &str) -> bool {
    let good = |(name, value): (&String, &Value)| match name.as_str() {
        "ServiceRole" | "Policy" => value.is_string(),
        "Chain" => value.as_array().is_some_and(|links| links.iter().all(Value::is_object)),
        _ => false,
    };
    object(text).is_some_and(|config| config.iter().all(good))
}

impl Vendor for ImmVendor {
    type Options = ImmOptions;

    fn new(options: ImmOptions) -> Self {
        Self {
            key: Mutex::new(options.key.clone()),
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
            Some("RefreshWebofficeToken") => "RefreshWebofficeToken",
            Some("GenerateWebofficeToken") => "GenerateWebofficeToken",
            _ => "Unknown",
        }
    }

    fn authenticate(&self, asked: &Asked, desk: &Desk) -> Result<(), Answer> {
        let key = self.key.lock().unwrap().clone();
        Ok(acs3::check(asked, &key, &self.nonces, desk)?)
    }

    fn process(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        is_rpc(asked)?;
        if asked.header("x-acs-version") != Some("2020-09-30") {
            return Err(error(
                400,
                "InvalidVersion",
                "Specified parameter Version is not valid.",
            ));
        }
        match self.operation(asked) {
            "RefreshWebofficeToken" => self.refresh(asked, desk),
            "GenerateWebofficeToken" => self.generate(asked, desk),
            _ => Err(error(404, "InvalidAction.NotFound", "Specified api is not found.")),
        }
    }

    fn words(&self, asked: &Asked, fault: &Fault) -> Answer {
        words(fault, "RefreshToken").unwrap_or_else(|| {
            let mut body = json!({
                "RequestId": request_id(),
                "AccessTokenExpiredTime": "2099-01-01T00:00:00.950065359Z",
                "RefreshTokenExpiredTime": "2099-01-02T00:00:00.950065359Z",
            });
            if matches!(fault, Fault::EmptyToken200) {
                body["AccessToken"] = "".into();
                body["RefreshToken"] = "".into();
            }
            if self.operation(asked) == "GenerateWebofficeToken" {
                body["WebofficeURL"] = WEBOFFICE_URL.into();
            }
            Answer::json(200, &body)
        })
    }

    fn presented(&self, asked: &Asked) -> Option<String> {
        asked.header("x-weboffice-token").map(String::from)
    }

    fn unauthorized(&self) -> Answer {
        error(401, "InvalidAccessToken", "AccessToken is not valid.")
    }

    fn forbidden(&self) -> Answer {
        no_permission()
    }

    fn issue(&self) {
        let mut tokens = self.tokens.lock().unwrap();
        let family = tokens.family();
        self.pair(&mut tokens, family, &Desk::default());
    }
}
