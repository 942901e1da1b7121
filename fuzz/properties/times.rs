//! Whatever names a time: lines of `name: value`.
//!
//! | name | value |
//! |---|---|
//! | `retry-after`, `date`, `x-acs-retry-after` | headers of every answer |
//! | `life`, `hint` | JSON: how long a token lives, when to renew it |
//! | `at`, `refresh-at` | JSON: when it dies, when what renews it dies |
//! | `span` | every duration of a document |
//! | `skew` | by how many seconds our clock is ahead |

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use tower_token::config::{self, TokenConfig};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::{Class, Endpoint, IfLost, RefreshPolicy, TokenProvider};

use super::issuer::Answer;
use super::outcome::{A_YEAR, Fetching, HOUR, SECRETS, clock, in_paused_time};

pub(crate) fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let said = Said::read(text);
    said.a_wait_is_an_hour_at_most();
    said.a_life_is_a_year_at_most();
    said.a_duration_is_a_year_at_most();
}

struct Said<'a> {
    lines: Vec<(&'a str, &'a str)>,
}

impl<'a> Said<'a> {
    fn read(text: &'a str) -> Self {
        let line = |line: &'a str| line.split_once(':').map(|(name, value)| (name, value.trim()));
        Self {
            lines: text.lines().filter_map(line).collect(),
        }
    }

    fn about(&self, name: &str) -> Option<&'a str> {
        self.lines.iter().find(|line| line.0 == name).map(|line| line.1)
    }

    /// What stands in a JSON answer; nothing that would be another field of it.
    fn json(&self, name: &str) -> serde_json::Value {
        let value = self.about(name).and_then(|text| serde_json::from_str(text).ok());
        value.unwrap_or_default()
    }

    fn headers(&self) -> HeaderMap {
        let header = |name: &'static str| {
            let value = self.about(name)?.parse().ok()?;
            Some((HeaderName::from_static(name), value))
        };
        ["retry-after", "date", "x-acs-retry-after"]
            .into_iter()
            .filter_map(header)
            .collect()
    }

    /// By so much may a wall clock be off: from 1974, because it cannot tell times before 1970, to 2094.
    fn skew(&self) -> i64 {
        const A_YEAR: i64 = 365 * 24 * 3600;
        let skew = self.about("skew").and_then(|skew| skew.parse().ok()).unwrap_or(0);
        i64::clamp(skew, -20 * A_YEAR, 100 * A_YEAR)
    }

    fn answer(&self, status: StatusCode) -> Answer {
        let body = serde_json::json!({
            "access_token": "test-a", "token_type": "Bearer", "refresh_token": "test-r",
            "expires_in": self.json("life"), "refresh_in": self.json("hint"),
            "at": self.json("at"), "refresh_at": self.json("refresh-at"),
        });
        let body = if status.is_success() {
            body.to_string()
        } else {
            String::new()
        };
        Answer::new(status, self.headers(), body)
    }

    fn grant(&self, status: StatusCode) -> RefreshTokenGrant {
        RefreshTokenGrant::new("https://login.example.com/token", "my-app")
            .client_secret(SECRETS[0])
            .refresh_token(SECRETS[1])
            .if_lost(IfLost::NeverReplay)
            .client(self.answer(status).client())
    }

    fn endpoint(&self, expires: &str, status: StatusCode) -> Endpoint {
        let document = format!(
            r#"{{ "acquire": {{ "url": "https://login.example.com/token" }},
                 "answer": {{ "token": "/access_token", "expires": {{ {expires} }}, "refresh_expires": {{ "at": "/refresh_at" }} }} }}"#
        );
        let endpoint = Endpoint::from_json(&document).expect("a document");
        endpoint.client(self.answer(status).client())
    }

    fn fetching(&self, provider: impl TokenProvider, policy: RefreshPolicy) -> Fetching {
        // Without traffic nothing is fetched, so that a token can be seen to die.
        let policy = policy.keep_alive(false);
        Fetching::of(provider, policy, clock(self.skew())).expect("is configured")
    }

    fn a_wait_is_an_hour_at_most(&self) {
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            in_paused_time(async {
                let patient = self.fetching(self.grant(status), RefreshPolicy::default());
                asked_for_patience(&patient, status).await;
            });
            in_paused_time(async {
                let endpoint = self.endpoint(r#""seconds": "/expires_in""#, status);
                asked_for_patience(&self.fetching(endpoint, RefreshPolicy::default()), status).await;
            });
        }
    }

    fn a_life_is_a_year_at_most(&self) {
        in_paused_time(async {
            let fetching = self.fetching(self.grant(StatusCode::OK), RefreshPolicy::default());
            lives_and_dies(&fetching).await;
        });
        for expires in [
            r#""seconds": "/expires_in""#,
            r#""millis": "/expires_in""#,
            r#""at": "/at""#,
        ] {
            in_paused_time(async {
                let endpoint = self.endpoint(expires, StatusCode::OK);
                lives_and_dies(&self.fetching(endpoint, RefreshPolicy::default())).await;
            });
        }
    }

    fn a_duration_is_a_year_at_most(&self) {
        let Some(span) = self.about("span") else { return };
        let document = serde_json::json!({
            "provider": { "type": "endpoint", "acquire": { "url": "https://login.example.com/token" },
                          "answer": { "token": "/access_token", "expires": { "lifetime": span } } },
            "policy": { "refresh_before": span, "require_before": span, "fetch_timeout": span, "min_interval": span,
                        "assumed_life": span, "static_stability": span },
        });
        match config::read::<TokenConfig>(&document.to_string()) {
            Ok(token) => assert!(token.fetch_timeout() <= A_YEAR),
            Err(error) => assert!(error.is_config()),
        }
        let Ok(config::Span(span)) = serde_json::from_value(span.into()) else {
            return;
        };
        assert!(span <= A_YEAR);
        let policy = RefreshPolicy::default()
            .refresh_before(span)
            .require_before(span)
            .min_interval(span)
            .assumed_life(span.max(Duration::from_nanos(1)))
            .fetch_timeout(span.max(Duration::from_nanos(1)));
        in_paused_time(async { lives_and_dies(&self.fetching(self.grant(StatusCode::OK), policy)).await });
    }
}

async fn asked_for_patience(fetching: &Fetching, status: StatusCode) {
    let error = fetching.ends_well(fetching.tokens.get()).await.expect_err("no token");
    match error.class() {
        // Until the next attempt, if the issuer did not say.
        Some(Class::Throttled { retry_after }) => assert!(retry_after.is_some_and(|wait| wait <= HOUR)),
        class => assert!(class.is_some() && status == StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn lives_and_dies(fetching: &Fetching) {
    if let Ok(token) = fetching.ends_well(fetching.tokens.get()).await {
        fetching.dies(&token).await;
    }
}
