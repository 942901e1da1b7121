//! `print_token`.

use http::StatusCode;
use serde_json::{Value, json};
use tower_token::testkit::Fault;

use crate::program::{Login, full, run, written};
use crate::upstream::{Upstream, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_printed_in_each_form() {
    let login = Login::new().await;
    let file = written(&json!({ "tokens": { "app": login.app() } }).to_string());
    let file = file.to_str().unwrap();
    let printed = |arguments: &[&str]| {
        let output = run("print_token", arguments);
        let (out, err) = (output.stdout, output.stderr);
        (
            output.status.code(),
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    };

    let (code, token, _) = printed(&[file, "app"]);
    assert_eq!(code, Some(0));
    assert!(login.issuer.is_alive(token.strip_suffix('\n').unwrap()));

    let (code, credential, _) = printed(&[file, "app", "--exec-credential"]);
    let mut credential: Value = serde_json::from_str(&credential).unwrap();
    assert_eq!(code, Some(0));
    assert!(
        login
            .issuer
            .is_alive(credential["status"]["token"].take().as_str().unwrap())
    );
    let expiry = credential["status"]["expirationTimestamp"].take();
    assert!(
        expiry.as_str().unwrap().len() == 20 && expiry.as_str().unwrap().ends_with('Z'),
        "{expiry}"
    );
    let expected = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": { "token": null, "expirationTimestamp": null },
    });
    assert_eq!(credential, expected);

    let (code, out, err) = printed(&[file, "app", "--credential-process"]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("access_key_id"), "{err}");

    login
        .issuer
        .fault_always(Some(Fault::oauth_error(400, "invalid_client")));
    let (code, out, err) = printed(&[file, "app"]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("invalid_client"), "{err}");

    for wrong in [
        &[file][..],
        &[file, "nobody"],
        &[file, "app", "--yaml"],
        &["nowhere", "app"],
        &[],
    ] {
        let (code, out, err) = printed(wrong);
        assert_eq!((code, &*out), (Some(2), ""), "{wrong:?}");
        assert!(!err.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_provider_keeps_are_printed_for_aws() {
    let vendor = Upstream::new(|_| {
        let mut answer = status(StatusCode::OK);
        *answer.body_mut() =
            full(r#"{"token":"test-t","expires_in":3600,"id":"test-id","key":"test-key","session":"test-session"}"#);
        answer
    })
    .await;
    let document = json!({ "tokens": { "aws": { "provider": {
        "type": "endpoint",
        "acquire": { "method": "POST", "url": format!("{}keys", vendor.url()) },
        "answer": {
            "token": "/token", "expires": { "seconds": "/expires_in" },
            "keep": { "access_key_id": "/id", "secret_access_key": "/key", "session_token": "/session" },
        },
    }, "store": { "file": { "path": "keys.json" } } } } });
    let file = written(&document.to_string());
    // The second run has them from the store.
    for _ in 0..2 {
        let output = run("print_token", &[file.to_str().unwrap(), "aws", "--credential-process"]);
        assert!(output.status.success(), "{output:?}");
        let mut keys: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(keys["Expiration"].take().as_str().unwrap().len(), 20);
        let expected = json!({
            "Version": 1, "AccessKeyId": "test-id", "SecretAccessKey": "test-key", "SessionToken": "test-session", "Expiration": null,
        });
        assert_eq!(keys, expected);
    }
    assert_eq!(vendor.take().len(), 1);
}

/// A refresh token that is good for one use does for any number of runs. The store lies beside the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_store_is_fetched_once() {
    let login = Login::new().await;
    let mut user = login.user();
    user["store"] = json!({ "file": { "path": "token.json" } });
    let file = written(&json!({ "tokens": { "user": user } }).to_string());
    let outputs = [(); 3].map(|()| run("print_token", &[file.to_str().unwrap(), "user"]));
    for output in &outputs {
        assert!(
            output.status.success() && output.stdout == outputs[0].stdout,
            "{output:?}"
        );
    }
    assert_eq!(login.requests(), 1);
    assert!(file.with_file_name("token.json").is_file());
}
