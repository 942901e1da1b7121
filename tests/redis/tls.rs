//! `rediss://`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tower_token::TokenStore;

use super::left_out::left_out;
use super::server::{Redis, free_port, store_at};

#[tokio::test]
async fn a_server_is_trusted_whose_authority_is_given_and_no_other() {
    let Some((redis, made, port)) = with_tls("no") else {
        return;
    };
    let store = |port: u16| store_at(format!("rediss://127.0.0.1:{port}"), "tt");
    assert!(
        store(port)
            .ca_certificate(made.read("ca.pem"))
            .load()
            .await
            .unwrap()
            .is_none()
    );

    for stranger in [store(port), store(port).ca_certificate(made.read("other.pem"))] {
        let said = stranger.load().await.unwrap_err().to_string();
        assert!(
            said.contains("no TLS with the server") && said.contains("certificate"),
            "{said}"
        );
    }
    // A name that the certificate has not.
    let by_name = store_at(format!("rediss://localhost:{port}"), "tt");
    let said = by_name
        .ca_certificate(made.read("ca.pem"))
        .load()
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("not valid for name"), "{said}");
    // TLS where there is none, and none where there is TLS.
    let plain = store(redis.port()).ca_certificate(made.read("ca.pem"));
    assert!(plain.timeout(Duration::from_millis(100)).load().await.is_err());
    let by_mistake = store_at(format!("redis://127.0.0.1:{port}"), "tt");
    assert!(by_mistake.load().await.is_err());
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_told() {
    let Some((_redis, made, port)) = with_tls("yes") else {
        return;
    };
    let store = || {
        let store = store_at(format!("rediss://127.0.0.1:{port}"), "tt");
        store.ca_certificate(made.read("ca.pem"))
    };
    assert!(store().load().await.is_err());
    let known = store().client_certificate(made.read("leaf.pem"), made.read("leaf.key"));
    assert!(known.load().await.unwrap().is_none());
    let mixed = store().client_certificate(made.read("leaf.pem"), made.read("other.key"));
    let said = mixed.load().await.unwrap_err().to_string();
    assert!(
        said.contains("TLS could not be set up: the client's key does not fit"),
        "{said}"
    );
}

#[cfg(all(feature = "config", feature = "tencent"))]
#[tokio::test]
async fn a_document_says_whom_we_trust_and_who_we_are() {
    use serde_json::json;
    use tower_token::config::{self, TokenConfig};

    let Some((_redis, made, port)) = with_tls("yes") else {
        return;
    };
    let url = format!("rediss://127.0.0.1:{port}");
    // Its configured token is in force at once, and what is kept first.
    let document = json!({
        "provider": { "type": "tencent.smh", "endpoint": "http://127.0.0.1:9000", "library_id": "l",
                      "library_secret": "test-secret", "access_token": "test-access", "period": "24h" },
        "origins": ["http://127.0.0.1:9000"],
        "store": { "redis": { "url": url, "key": "tt", "ca_certificate": "ca.pem",
                              "client_certificate": "leaf.pem", "client_key": { "file": "leaf.key" } } },
    });
    let token: TokenConfig = config::read(&document.to_string()).unwrap();
    let tokens = token.builder("token", made.0.path()).unwrap().build().unwrap();
    assert_eq!(tokens.get().await.unwrap().secret(), "test-access");
    tokens.shutdown().await;
    let store = store_at(url, "tt").ca_certificate(made.read("ca.pem"));
    let known = store.client_certificate(made.read("leaf.pem"), made.read("leaf.key"));
    let kept = known.load().await.unwrap().expect("it is kept");
    assert_eq!(kept.token().unwrap().secret(), "test-access");
}

struct Made(tempfile::TempDir);

impl Made {
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

fn with_tls(auth_clients: &str) -> Option<(Redis, Made, u16)> {
    let made = Made(tempfile::tempdir().unwrap());
    let folder = made.0.path();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let alone = ["-subj", "/CN=an authority of a test"];
    let signed = [
        "-subj",
        "/CN=a test",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ];
    for (name, how) in [("ca", &alone[..]), ("other", &alone), ("leaf", &signed)] {
        if !certificate(folder, name, how) {
            left_out("there is no openssl to make certificates with");
            return None;
        }
    }
    let port = free_port();
    let redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("leaf.pem"),
        "--tls-key-file",
        &path("leaf.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        auth_clients,
    ])?;
    Some((redis, made, port))
}

/// `false`: there is no openssl.
fn certificate(folder: &Path, name: &str, how: &[&str]) -> bool {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
        ])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
        .args(how)
        .current_dir(folder)
        .output();
    let Ok(made) = made else { return false };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    true
}
