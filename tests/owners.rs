//! What strategies say to a store: whose tokens they bring, and what they were configured to begin from.
#![cfg(all(feature = "alibaba", feature = "tencent", feature = "huawei"))]
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use tower_token::alibaba::{Weboffice, WuyingLogin};
use tower_token::huawei::{OneAccess, Tenant};
use tower_token::oauth2::{ClientCredentialsGrant, RefreshTokenGrant};
use tower_token::tencent::SmhLibrary;
use tower_token::{Endpoint, Fixed, Secret, TokenProvider, Tokens};

/// What is said of one configuration.
#[derive(Debug, PartialEq)]
struct Said {
    owner: String,
    seed: Option<Value>,
}

fn said(provider: &impl TokenProvider) -> Said {
    Said {
        owner: provider.owner(),
        seed: provider.seed().as_ref().map(Secret::expose).cloned(),
    }
}

/// One strategy, and others that differ from it in one respect.
struct Case {
    base: Said,
    other_owner: Vec<Said>,
    other_seed: Vec<Said>,
    same: Vec<Said>,
}

macro_rules! case {
    ($base:expr, owner: [$($owner:expr),* $(,)?], seed: [$($seed:expr),* $(,)?], same: [$($same:expr),* $(,)?]) => {
        Case {
            base: said(&$base),
            other_owner: vec![$(said(&$owner)),*],
            other_seed: vec![$(said(&$seed)),*],
            same: vec![$(said(&$same)),*],
        }
    };
}

const ISSUER: &str = "https://login.example.com/token";
const SITE: &str = "https://api.example.com";

fn refresh(url: &str, client: &str) -> RefreshTokenGrant {
    let grant = RefreshTokenGrant::new(url, client).client_secret("canary-secret");
    grant.refresh_token("canary-refresh").scope("read")
}

fn program(url: &str, client: &str) -> ClientCredentialsGrant {
    ClientCredentialsGrant::new(url, client)
        .client_secret("canary-secret")
        .scope("read")
}

fn document(site: &str, project: &str) -> Weboffice {
    Weboffice::new(site, project)
        .access_key("canary-id", "canary-key")
        .tokens("canary-access", "canary-refresh")
        .generate("oss://b/o")
        .generate_parameter("Password", "canary-password")
}

fn login(region: &str, client: &str, user: &str) -> WuyingLogin {
    let login = WuyingLogin::new(region, client, user).office_site_id("dir-1");
    login
        .login_token("canary-login")
        .session_id("canary-session")
        .keep_alive_token("canary-keep")
}

fn library(site: &str, id: &str) -> SmhLibrary {
    let library = SmhLibrary::new(site, id)
        .library_secret("canary-secret")
        .access_token("canary-access");
    library.user_id("u1").space_id(["s1"]).grant(["admin"])
}

fn person(site: &str, client: &str) -> OneAccess {
    OneAccess::new(site, client)
        .client_secret("canary-secret")
        .refresh_token("canary-refresh")
}

fn coded(code: &str) -> OneAccess {
    OneAccess::new(SITE, "app").client_secret("canary-secret").code(code)
}

fn tenant(site: &str, client: &str) -> Tenant {
    Tenant::new(site, client).client_secret("canary-secret")
}

const DOCUMENT: &str = r#"{
    "acquire": { "url": "https://user:canary-pw@api.example.com/token?key=canary-key",
                 "form": { "app_id": "{app_id}", "secret": "{secret}", "tenant": "t1", "code": "{code}" }, "needs": ["code"] },
    "renew": { "url": "https://api.example.com/renew/{app_id}/{access_token}", "form": { "sid": "{sid}" } },
    "vars": { "app_id": "a1", "secret": "canary-secret", "code": "canary-code", "sid": "canary-sid" },
    "answer": { "token": "/t", "keep": { "sid": "/s" } },
    "fallback": "never"
}"#;

fn own(from: &str, to: &str) -> Endpoint {
    assert!(DOCUMENT.contains(from));
    Endpoint::from_json(&DOCUMENT.replace(from, to)).unwrap()
}

fn as_written() -> Endpoint {
    own("a1", "a1")
}

/// As its document calls it.
fn called(owner: &str, from: &str, to: &str) -> Endpoint {
    assert!(DOCUMENT.contains(from));
    let document = DOCUMENT.replace(from, to);
    let body = document.trim_start().strip_prefix('{').unwrap();
    Endpoint::from_json(&format!(r#"{{ "owner": "{owner}",{body}"#)).unwrap()
}

fn cases() -> Vec<Case> {
    vec![
        case!(
            refresh(ISSUER, "app"),
            owner: [
                refresh("https://login.example.com/other", "app"),
                refresh(ISSUER, "other"),
                refresh(ISSUER, "app").scope("read write"),
                refresh(ISSUER, "app").audience("api"),
                refresh(ISSUER, "app").resource("https://api.example.com"),
                refresh(ISSUER, "app").extra("tenant", "t1"),
            ],
            seed: [refresh(ISSUER, "app").refresh_token("canary-other")],
            same: [
                refresh(ISSUER, "app").client_secret("canary-new"),
                refresh("https://LOGIN.example.com:443/token?key=canary-key", "app"),
                refresh(ISSUER, "app").scope(" read  read "),
                refresh(ISSUER, "app").extra("client_assertion", "canary-assertion"),
            ]
        ),
        case!(
            program(ISSUER, "app"),
            owner: [
                program("https://other.example.com/token", "app"),
                program(ISSUER, "other"),
                program(ISSUER, "app").scope("write"),
            ],
            seed: [],
            same: [program(ISSUER, "app").client_secret("canary-new")]
        ),
        case!(
            document(SITE, "p1"),
            owner: [
                document("https://imm.example.com", "p1"),
                document(SITE, "p2"),
                document(SITE, "p1").generate("oss://b/other"),
                document(SITE, "p1").generate_parameter("User", json!({ "Id": "u" })),
                document(SITE, "p1").credential_config(json!({ "Chain": [] })),
            ],
            seed: [
                document(SITE, "p1").tokens("canary-other", "canary-refresh"),
                document(SITE, "p1").tokens("canary-access", "canary-other"),
            ],
            same: [
                document("https://api.example.com/", "p1"),
                document(SITE, "p1").access_key("canary-id2", "canary-key2").security_token("canary-sts"),
            ]
        ),
        case!(
            login("cn-hangzhou", "c1", "alice"),
            owner: [
                login("cn-shanghai", "c1", "alice"),
                login("cn-hangzhou", "c2", "alice"),
                login("cn-hangzhou", "c1", "bob"),
                login("cn-hangzhou", "c1", "alice").office_site_id("dir-2"),
                login("cn-hangzhou", "c1", "alice").endpoint(SITE),
            ],
            seed: [
                login("cn-hangzhou", "c1", "alice").login_token("canary-other"),
                login("cn-hangzhou", "c1", "alice").session_id("canary-other"),
                login("cn-hangzhou", "c1", "alice").keep_alive_token("canary-other"),
            ],
            same: [login("cn-hangzhou", "c1", "alice").access_key("canary-id", "canary-key")]
        ),
        case!(
            library(SITE, "l1"),
            owner: [
                library("https://smh.example.com", "l1"),
                library(SITE, "l2"),
                library(SITE, "l1").user_id("u2"),
                library(SITE, "l1").space_id(["s2"]),
                library(SITE, "l1").grant(["upload_file"]),
                library(SITE, "l1").parameter("client_id", "c1"),
            ],
            seed: [library(SITE, "l1").access_token("canary-other"), library(SITE, "l1").access_token("")],
            same: [library(SITE, "l1").library_secret("canary-new")]
        ),
        case!(
            person(SITE, "app"),
            owner: [person("https://acme.example.com", "app"), person(SITE, "other")],
            seed: [person(SITE, "app").refresh_token("canary-other"), coded("canary-code")],
            same: [person(SITE, "app").client_secret("canary-new")]
        ),
        case!(coded("canary-code"), owner: [], seed: [coded("canary-other")], same: []),
        case!(
            tenant(SITE, "app"),
            owner: [tenant("https://acme.example.com", "app"), tenant(SITE, "other")],
            seed: [],
            same: [tenant(SITE, "app").client_secret("canary-new")]
        ),
        case!(
            as_written(),
            owner: [
                own("a1", "a2"),
                own("t1", "t2"),
                own("api.example.com/token", "login.example.com/token"),
                own("api.example.com/renew", "api.example.com/extend"),
            ],
            seed: [own("canary-code", "canary-other"), own("canary-sid", "canary-other")],
            same: [own("canary-secret", "canary-new"), own("canary-key", "canary-new"), own("canary-pw", "canary-new")]
        ),
        case!(
            called("my app", "a1", "a1"),
            owner: [called("another", "a1", "a1"), as_written()],
            seed: [called("my app", "canary-code", "canary-other")],
            same: [called("my app", "a1", "a2"), called("my app", "api.example.com/token", "login.example.com/token")]
        ),
        case!(Fixed::new("canary-a"), owner: [], seed: [Fixed::new("canary-b")], same: []),
    ]
}

#[test]
fn what_differs_in_one_respect_is_of_another_owner_or_from_another_seed() {
    for case in cases() {
        let Said { owner, seed } = &case.base;
        for other in &case.other_owner {
            assert_ne!((&other.owner, &other.seed), (owner, seed));
            assert_eq!(&other.seed, seed, "{owner}");
            assert_ne!(&other.owner, owner);
        }
        for other in &case.other_seed {
            assert_eq!(&other.owner, owner);
            assert_ne!(&other.seed, seed, "{owner}");
        }
        for same in &case.same {
            assert_eq!(same, &case.base);
        }
    }
}

#[test]
fn no_two_strategies_share_an_owner_and_none_of_them_tells_a_secret() {
    let mut owners: Vec<String> = Vec::new();
    for case in cases() {
        let all = [case.other_owner, case.other_seed, case.same].into_iter().flatten();
        for said in all.chain([case.base]) {
            assert!(
                !said.owner.contains("canary") && !said.owner.contains('\n'),
                "{}",
                said.owner
            );
            owners.push(said.owner.split(' ').next().unwrap().to_owned());
        }
    }
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), 9, "{owners:?}");
}

/// They stand in stores: if one of these changes, all that is kept becomes somebody else's.
#[test]
fn an_owner_reads_the_same_in_every_version() {
    for (owner, text) in [
        (
            refresh(ISSUER, "my app").scope("write read").audience("api").owner(),
            "oauth2.refresh_token https://login.example.com/token client_id=my%20app scope=read%20write audience=api",
        ),
        (
            program(ISSUER, "app").owner(),
            "oauth2.client_credentials https://login.example.com/token client_id=app scope=read",
        ),
        (
            document(SITE, "p1").owner(),
            "alibaba.weboffice https://api.example.com project_name=p1 source_uri=oss%3A%2F%2Fb%2Fo",
        ),
        (
            login("cn-hangzhou", "c1", "alice").owner(),
            "alibaba.login https://ecd.cn-hangzhou.aliyuncs.com region_id=cn-hangzhou client_id=c1 end_user_id=alice \
             office_site_id=dir-1",
        ),
        (
            library(SITE, "l1").parameter("client_id", "c1").owner(),
            "tencent.smh https://api.example.com library_id=l1 space_id=s1 user_id=u1 grant=admin client_id=c1",
        ),
        (
            person(SITE, "app").owner(),
            "huawei.oneaccess https://api.example.com client_id=app",
        ),
        (
            tenant(SITE, "app").owner(),
            "huawei.tenant https://api.example.com client_id=app",
        ),
        (
            as_written().owner(),
            "endpoint https://api.example.com/token renew=https%3A%2F%2Fapi.example.com%2Frenew%2F%7Bapp_id%7D%2F%7Baccess_token%7D \
             app_id=a1 tenant=t1",
        ),
        (called("my app", "a1", "a1").owner(), "endpoint owner=my%20app"),
        (Fixed::new("canary").owner(), "fixed"),
    ] {
        assert_eq!(owner, text);
    }
}

#[test]
fn a_seed_has_the_form_that_a_credential_is_installed_in() {
    let seeds = [
        (
            said(&refresh(ISSUER, "app")).seed,
            json!({ "refresh_token": "canary-refresh" }),
        ),
        (
            said(&document(SITE, "p1")).seed,
            json!({ "access_token": "canary-access", "refresh_token": "canary-refresh" }),
        ),
        (
            said(&login("cn-hangzhou", "c1", "alice")).seed,
            json!({ "login_token": "canary-login", "session_id": "canary-session", "keep_alive_token": "canary-keep" }),
        ),
        (
            said(&library(SITE, "l1")).seed,
            json!({ "access_token": "canary-access" }),
        ),
        (
            said(&person(SITE, "app")).seed,
            json!({ "refresh_token": "canary-refresh" }),
        ),
        (said(&coded("canary-code")).seed, json!({ "code": "canary-code" })),
        (
            said(&as_written()).seed,
            json!({ "code": "canary-code", "sid": "canary-sid" }),
        ),
    ];
    for (seed, form) in seeds {
        assert_eq!(seed, Some(form));
    }
    // The document of an Endpoint names no client, and the one here has a URL that the check refuses.
    #[cfg(feature = "client")]
    {
        let installs = |tokens: Result<Tokens, _>, seed: Option<Secret<Value>>| {
            tokens.unwrap().install(seed.unwrap().expose().clone()).unwrap();
        };
        installs(Tokens::new(refresh(ISSUER, "app")), refresh(ISSUER, "app").seed());
        installs(Tokens::new(document(SITE, "p1")), document(SITE, "p1").seed());
        let wuying = || login("cn-hangzhou", "c1", "alice");
        installs(Tokens::new(wuying()), wuying().seed());
        installs(Tokens::new(library(SITE, "l1")), library(SITE, "l1").seed());
        installs(Tokens::new(person(SITE, "app")), person(SITE, "app").seed());
        installs(Tokens::new(coded("canary-code")), coded("canary-code").seed());
    }
    let none: [Option<Value>; 3] = [
        said(&program(ISSUER, "app")).seed,
        said(&tenant(SITE, "app")).seed,
        said(&library(SITE, "l1").access_token("")).seed,
    ];
    assert_eq!(none, [None, None, None]);
}

#[test]
fn an_account_that_is_found_in_the_environment_is_told_apart_and_not_shown() {
    let of = |source: &str| own("\"a1\"", source).owner();
    let path = of(r#"{ "env": "PATH" }"#);
    assert!(!path.contains("bin"), "{path}");
    assert_ne!(path, of(r#"{ "env": "HOME" }"#));
    assert_eq!(path, of(r#"{ "env": "PATH" }"#));
}
