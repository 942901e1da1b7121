//! What a store keeps: [`Record`].

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::StoreError;
use crate::token::{Secret, Token};

/// What a store keeps: the token in force, what it is renewed with, and whose it is.
///
/// A store needs to know its [generation](Self::generation) and nothing else; [`Envelope`](crate::Envelope) makes bytes
/// of it and a record of bytes. `Debug` prints no secret.
#[derive(Clone)]
pub struct Record {
    pub(crate) generation: u64,
    /// What the provider says of itself, so that nobody uses what is another's.
    pub(crate) owner: String,
    /// Drawn once for all hashes in it.
    pub(crate) salt: String,
    /// The hashes of what was configured to begin from, the newest first. Who is configured with an older one has been
    /// overtaken.
    pub(crate) seeds: Vec<String>,
    pub(crate) standing: Standing,
    pub(crate) token: Option<Token>,
    /// What the next token is fetched with; `None`: what the provider is configured with.
    pub(crate) credential: Option<Secret<Value>>,
    pub(crate) intent: Option<Intent>,
}

/// How a record came about, and so what it means to who holds an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A token was renewed, or only its credential.
    Renewed,
    /// Somebody installed a credential: the tokens before it are forgotten.
    Installed,
    /// Somebody signed out: so are all.
    SignedOut,
}

/// A credential is being presented, and nobody knows yet what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// The hash of the credential.
    pub(crate) of: String,
    /// When it was first presented.
    pub(crate) since: SystemTime,
    /// When it was last presented.
    pub(crate) last: SystemTime,
    pub(crate) times: u32,
    /// The issuer said no.
    pub(crate) refused: bool,
}

impl Record {
    /// Its number: one more with each token.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whose it is, as its provider says: an issuer and a client, no secret.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The token, if there is one.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut fields = json!({
            "generation": self.generation,
            "owner": self.owner,
            "salt": self.salt,
            "seeds": self.seeds,
            "standing": self.standing.word(),
        });
        let mut add = |name: &str, value: Option<Value>| {
            if let (Some(value), Some(fields)) = (value, fields.as_object_mut()) {
                fields.insert(name.into(), value);
            }
        };
        add("token", self.token.as_ref().map(token_to_json));
        let credential = self.credential.as_ref().map(Secret::expose);
        add("credential", credential.cloned());
        add("intent", self.intent.as_ref().map(Intent::to_json));
        fields
    }

    /// Names the field that is missing or wrong, and quotes none.
    pub(crate) fn from_json(value: &Value) -> Result<Self, StoreError> {
        let fields = Fields::of(value, "")?;
        let seeds = fields.required("seeds", |seeds| {
            let texts = seeds.as_array()?.iter().map(|seed| seed.as_str().map(str::to_owned));
            texts.collect()
        })?;
        let token = fields.object("token")?.map(|token| token_from_json(&token));
        let intent = fields.object("intent")?.map(|intent| Intent::from_json(&intent));
        Ok(Self {
            generation: fields.required("generation", Value::as_u64)?,
            owner: fields.text("owner")?,
            salt: fields.text("salt")?,
            seeds,
            standing: fields.required("standing", |word| Standing::of(word.as_str()?))?,
            token: token.transpose()?,
            credential: fields.value("credential").cloned().map(Secret::new),
            intent: intent.transpose()?,
        })
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("generation", &self.generation)
            .field("owner", &self.owner)
            .field("standing", &self.standing)
            .field("token", &self.token)
            .field("credential", &self.credential)
            .field("intent", &self.intent.as_ref().map(|intent| intent.times))
            .finish_non_exhaustive()
    }
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Installed => "installed",
            Self::SignedOut => "signed_out",
        }
    }

    fn of(word: &str) -> Option<Self> {
        let all = [Self::Renewed, Self::Installed, Self::SignedOut];
        all.into_iter().find(|standing| standing.word() == word)
    }
}

impl Intent {
    fn to_json(&self) -> Value {
        json!({
            "of": self.of,
            "since_ms": millis(self.since),
            "last_ms": millis(self.last),
            "times": self.times,
            "refused": self.refused,
        })
    }

    fn from_json(fields: &Fields<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            of: fields.text("of")?,
            since: fields.required("since_ms", time)?,
            last: fields.required("last_ms", time)?,
            times: fields.required("times", |times| u32::try_from(times.as_u64()?).ok())?,
            refused: fields.optional("refused", Value::as_bool)?.unwrap_or(false),
        })
    }
}

/// A token that has landed: both of its times are known.
fn token_to_json(token: &Token) -> Value {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.into(), value);
        }
    };
    add("secret", Some(token.secret().into()));
    add("type", Some(token.kind().into()));
    add("issued_at_ms", token.issue_time().map(millis));
    add("expires_at_ms", token.expiry_time().map(millis));
    add("renew_by_ms", token.renewal_deadline().map(millis));
    let hint = token.refresh_hint();
    add(
        "refresh_in_ms",
        hint.map(|hint| u64::try_from(hint.as_millis()).unwrap_or(u64::MAX).into()),
    );
    add("scope", token.granted_scope().map(Value::from));
    Value::Object(fields)
}

fn token_from_json(fields: &Fields<'_>) -> Result<Token, StoreError> {
    let mut token = Token::bearer(fields.text("secret")?).token_type(fields.text("type")?);
    token = token.issued_at(fields.required("issued_at_ms", time)?);
    token = token.expires_at(fields.required("expires_at_ms", time)?);
    if let Some(by) = fields.optional("renew_by_ms", time)? {
        token = token.renew_by(by);
    }
    if let Some(after) = fields.optional("refresh_in_ms", Value::as_u64)? {
        token = token.refresh_in(Duration::from_millis(after));
    }
    if let Some(scope) = fields.optional("scope", |scope| scope.as_str().map(str::to_owned))? {
        token = token.scope(scope);
    }
    match token.flaw() {
        Some(_) => Err(fields.wrong("secret")),
        None => Ok(token),
    }
}

fn millis(time: SystemTime) -> Value {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).into()
}

fn time(value: &Value) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(value.as_u64()?))
}

/// The fields of an object, whose errors name the path and quote no value.
struct Fields<'a> {
    fields: &'a Map<String, Value>,
    at: &'a str,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, at: &'a str) -> Result<Self, StoreError> {
        let fields = value.as_object();
        let fields =
            fields.ok_or_else(|| StoreError::unusable(format!("what is kept is no record: `{at}` is no object")))?;
        Ok(Self { fields, at })
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn object(&self, name: &'a str) -> Result<Option<Fields<'a>>, StoreError> {
        self.value(name).map(|value| Fields::of(value, name)).transpose()
    }

    fn optional<T>(&self, name: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, StoreError> {
        let read = |value| read(value).ok_or_else(|| self.wrong(name));
        self.value(name).map(read).transpose()
    }

    fn required<T>(&self, name: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<T, StoreError> {
        self.optional(name, read)?.ok_or_else(|| self.wrong(name))
    }

    fn text(&self, name: &str) -> Result<String, StoreError> {
        self.required(name, |value| value.as_str().map(str::to_owned))
    }

    fn wrong(&self, name: &str) -> StoreError {
        let dot = if self.at.is_empty() { "" } else { "." };
        StoreError::unusable(format!(
            "what is kept is no record: `{}{dot}{name}` is missing or not what it should be",
            self.at
        ))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// With everything that a record can have. Each of its secrets has `test-` in it.
    pub(in crate::store) fn record() -> Record {
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        Record {
            generation: 7,
            owner: "an owner".into(),
            salt: "5a17".into(),
            seeds: vec!["new".into(), "old".into()],
            standing: Standing::Installed,
            token: Some(
                Token::bearer("test-secret")
                    .token_type("MAC")
                    .issued_at(now)
                    .expires_at(now + Duration::from_secs(60))
                    .renew_by(now + Duration::from_secs(90))
                    .refresh_in(Duration::from_secs(20))
                    .scope("read"),
            ),
            credential: Some(Secret::new(json!({ "refresh_token": "test-credential" }))),
            intent: Some(Intent {
                of: "h".into(),
                since: now,
                last: now + Duration::from_secs(1),
                times: 2,
                refused: false,
            }),
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let written = record().to_json();
        let read = Record::from_json(&written).unwrap();
        assert_eq!(read.to_json(), written);
        assert_eq!(read.token().unwrap().refresh_hint(), Some(Duration::from_secs(20)));
        assert_eq!(read.intent, record().intent);
    }

    #[test]
    fn debug_prints_no_secret() {
        let printed = format!("{:?}", record());
        assert!(!printed.contains("test-"), "{printed}");
    }

    #[test]
    fn every_field_that_is_missing_or_of_another_type_is_named_and_never_quoted() {
        let whole = record().to_json();
        let paths = ["", "token", "intent"].iter().flat_map(|at| {
            let object = if at.is_empty() { &whole } else { &whole[at] };
            let names: Vec<String> = object.as_object().unwrap().keys().cloned().collect();
            names.into_iter().map(move |name| (*at, name))
        });
        for (at, name) in paths {
            let mut broken = whole.clone();
            let object = if at.is_empty() { &mut broken } else { &mut broken[at] };
            object[&name] = json!([{ "test": "test-canary" }]);
            // Whatever a provider keeps is its own business.
            if (at, name.as_str()) == ("", "credential") {
                continue;
            }
            let error = Record::from_json(&broken).unwrap_err();
            assert!(
                error.is_unusable() && error.to_string().contains(&format!("{name}`")),
                "{error}"
            );
            assert!(!format!("{error:?}").contains("canary"));
        }
    }
}
