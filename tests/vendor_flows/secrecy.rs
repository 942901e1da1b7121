//! No secret is printed, wherever a vendor echoes it.

use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};
use tower_token::{Event, Observe, Tokens};

use super::rig::{self, read, with};
use super::vendors::acs3::AccessKey;
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{Huawei, HuaweiOptions};
use super::vendors::tencent::{Smh, SmhOptions};
use super::vendors::wire::encode;
use super::vendors::{Double, Fault, Live, Vendor};

/// Everything that was printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<String>>);

impl Printed {
    fn note(&self, what: &impl Debug) {
        let mut text = self.0.lock().unwrap();
        *text += &format!("{what:?}\n{what:#?}\n");
    }

    fn note_error(&self, error: &(dyn std::error::Error + 'static)) {
        let mut link = Some(error);
        while let Some(error) = link {
            self.note(&error);
            *self.0.lock().unwrap() += &format!("{error}\n{error:#}\n");
            link = error.source();
        }
    }

    /// None of these, in none of the forms in which they travel.
    fn assert_keeps(&self, secrets: &[String]) {
        let text = self.0.lock().unwrap();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            let form = encode(secret).replace("%20", "+");
            let base64 = [STANDARD.encode(secret), URL_SAFE.encode(secret)].map(|text| text[..12].to_owned());
            let [standard, url_safe] = base64;
            // A part of it is as bad.
            let middle: String = secret.chars().skip(6).take(10).collect();
            for needle in [secret.clone(), encode(secret), form, standard, url_safe, middle] {
                let found = text.lines().find(|line| line.contains(&needle));
                assert!(found.is_none(), "{needle} in {found:?}");
            }
        }
    }
}

impl Observe for Printed {
    fn observe(&self, event: &Event) {
        self.note(event);
        if let Event::FetchFailed { error, .. } = event {
            self.note_error(error);
        }
    }
}

/// Prints whatever can be printed of a document and its tokens, before, during and after echoes.
async fn echoed<V: Vendor>(double: &Double<V>, document: Value, configured: &[&str]) -> Printed {
    let printed = Printed::default();
    let config = read(&with(document, rig::policy(json!({ "keep_alive": false }))));
    printed.note(&config);
    printed.note(&config.clone());
    let mut secrets: Vec<String> = configured.iter().map(ToString::to_string).collect();
    let builder = config.builder("tokens.x", Path::new(".")).unwrap();
    let builder = builder.observe(printed.clone());
    printed.note(&builder);
    let tokens = builder.build().unwrap();
    secrets.extend(double.now_serving().iter().flat_map(parts));
    echoes(double, &tokens, &printed).await;
    if let Ok(token) = tokens.refresh().await {
        printed.note(&token);
        secrets.push(token.secret().to_owned());
        secrets.extend(double.now_serving().iter().flat_map(parts));
        echoes(double, &tokens, &printed).await;
    }
    for part in [
        config.injection("").map(|part| printed.note(&part)),
        config.refusal("").map(|part| printed.note(&part)),
    ] {
        part.unwrap();
    }
    let text = printed.0.lock().unwrap().clone();
    assert!(
        text.contains("FetchFailed") && text.contains("answered 4"),
        "nothing was said"
    );
    printed.assert_keeps(&secrets);
    printed
}

/// Each status with an echo, which may be presented again, corrected, acquired.
async fn echoes<V: Vendor>(double: &Double<V>, tokens: &Tokens, printed: &Printed) {
    for status in [200, 400, 401, 403, 404, 408, 429, 500, 502, 503, 307] {
        for _ in 0..4 {
            double.fault(Fault::Echo(status));
        }
        let error = tokens.refresh().await.unwrap_err();
        printed.note_error(&error);
        printed.note(tokens);
        printed.note(&tokens.status());
        double.no_more_faults();
    }
}

fn parts(live: &Live) -> Vec<String> {
    [Some(live.access.clone()), live.renew.clone()]
        .into_iter()
        .flatten()
        .collect()
}

#[tokio::test]
async fn imm_prints_no_secret_that_it_is_told() {
    const SECRETS: [&str; 4] = [
        "canary-test-key-secret+/=",
        "sts-t0ken-of-test+/==",
        "passw0rd-of-test",
        "us3r-of-test",
    ];
    let key = AccessKey {
        id: "testAccessKeyId".into(),
        secret: SECRETS[0].into(),
        security_token: Some(SECRETS[1].into()),
    };
    let double = Imm::start(ImmOptions {
        key,
        ..ImmOptions::default()
    })
    .await;
    let keys = json!({ "provider": {
        "access_key_secret": SECRETS[0],
        "security_token": SECRETS[1],
        "generate": { "source_uri": "oss://test/a.docx", "Password": SECRETS[2], "User": { "Id": SECRETS[3] } }
    } });
    let document = with(rig::imm(&double), keys);
    echoed(&double, with(document.clone(), rig::pair(&double.issue())), &SECRETS).await;
    echoed(&double, document, &SECRETS).await;
}

#[tokio::test]
async fn ecd_prints_no_secret_that_it_is_told() {
    for signed in [false, true] {
        let options = EcdOptions {
            signed: signed.then(AccessKey::default),
            ..EcdOptions::default()
        };
        let double = Ecd::start(options).await;
        let live = double.issue();
        let document = match signed {
            true => with(rig::ecd(&double), rig::signed()),
            false => rig::ecd(&double),
        };
        let secrets = ["testAccessKeySecret", "test-session-1"];
        echoed(&double, with(document.clone(), rig::login(&live)), &secrets).await;
        echoed(&double, with(document, rig::keep_alive(&double.issue())), &secrets).await;
    }
}

#[tokio::test]
async fn smh_prints_no_secret_that_it_is_told() {
    let secret = "canary-test-library secret+/=&~*";
    let options = SmhOptions {
        library_secret: secret.into(),
        ..SmhOptions::default()
    };
    let double = Smh::start(options).await;
    let document = with(rig::smh(&double), json!({ "provider": { "library_secret": secret } }));
    echoed(&double, document.clone(), &[secret]).await;
    echoed(&double, with(document, rig::access(&double.issue())), &[secret]).await;
}

#[tokio::test]
async fn huawei_prints_no_secret_that_it_is_told() {
    let secret = "canary-test-client secret+/=&~*";
    let options = HuaweiOptions {
        client_secret: secret.into(),
        ..HuaweiOptions::default()
    };
    let double = Huawei::start(options).await;
    let own = json!({ "provider": { "client_secret": secret } });
    let document = with(rig::one_access(&double), own.clone());
    echoed(
        &double,
        with(document.clone(), rig::refresh(&double.issue())),
        &[secret],
    )
    .await;
    let code = rig::code(&double);
    let value = code["provider"]["code"].as_str().unwrap().to_owned();
    echoed(&double, with(document, code), &[secret, &value]).await;
    echoed(&double, with(rig::tenant(&double), own), &[secret]).await;
}
