//! Acme's clients between an issuer and an API that count. All of it in virtual time.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::error::Error as StdError;
use std::time::Duration;

use acme::{Body, Builder, Client, Error, NewOrder, Tokens};
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::buffer::Buffer;
use tower::util::BoxService;
use tower::{BoxError, ServiceExt, service_fn};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, Issuer};
use tower_token::{Clock, TokenClient};

/// Tokens of this issuer, whose user has just signed in.
fn tokens(issuer: &Issuer) -> Tokens {
    let grant = RefreshTokenGrant::new("https://login.example.com/token", issuer.client_id())
        .client_secret(issuer.client_secret())
        .refresh_token(issuer.sign_in())
        .client(TokenClient::new::<_, Full<Bytes>, _>(issuer.service()));
    Tokens::builder(grant).clock(Clock::of_tokio()).build().unwrap()
}

/// Acme: `api` judges and counts, and what it lets through is answered here.
fn acme(api: &Api) -> impl Client<Error = BoxError> + use<> {
    let api = api.clone();
    service_fn(move |request: Request<Body>| {
        let api = api.clone();
        async move {
            let (mut head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let answer = answer(&head.method, &head.uri, &body);
            head.uri = format!("/api{}", head.uri.path()).parse()?;
            let judged = api
                .service()
                .oneshot(Request::from_parts(head, Full::new(body)))
                .await?;
            let (head, said) = judged.into_parts();
            Ok::<_, BoxError>(Response::from_parts(
                head.clone(),
                match head.status.as_u16() {
                    200 => answer,
                    _ => Full::new(said.bytes().await?),
                },
            ))
        }
    })
}

fn answer(method: &Method, uri: &Uri, body: &[u8]) -> Full<Bytes> {
    let path: Vec<&str> = uri.path().split('/').skip(1).collect();
    Full::from(match (method.as_str(), path.as_slice()) {
        ("POST", ["orders"]) => {
            let mut order: serde_json::Value = serde_json::from_slice(body).unwrap();
            order["id"] = 8.into();
            order.to_string()
        }
        ("GET", ["orders", id]) => format!(r#"{{"id":{id},"item":"anvil","quantity":1}}"#),
        ("GET", ["invoices", order]) => format!(r#"{{"order":{order},"amount":4200}}"#),
        _ => "no JSON".into(),
    })
}

fn two_anvils() -> NewOrder {
    NewOrder {
        item: "anvil".into(),
        quantity: 2,
    }
}

#[tokio::test(start_paused = true)]
async fn calls_go_through_many_expiries_and_none_is_refused() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let orders = Builder::new(&tokens(&issuer)).orders(acme(&api)).unwrap();
    for id in 0..100 {
        assert_eq!(orders.get(id).await.unwrap().id, id);
        sleep(Duration::from_secs(10)).await;
    }
    let counts = api.counts();
    assert_eq!((counts.authorized, counts.refused), (100, 0));
    // A thousand seconds, and tokens that live for sixty.
    let issued = issuer.counts();
    assert!(issued.granted > 1000 / 60, "{issued:?}");
    assert_eq!((issued.token_requests, issued.presented_twice), (issued.granted, 0));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_meets_a_revoked_token_is_placed_once() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let orders = Builder::new(&tokens(&issuer)).orders(acme(&api)).unwrap();
    orders.get(7).await.unwrap();
    issuer.revoke_access();
    let order = orders.place(&two_anvils()).await.unwrap();
    assert_eq!((order.id, order.item.as_str(), order.quantity), (8, "anvil", 2));
    let counts = api.counts();
    assert_eq!((counts.requests, counts.refused, counts.authorized), (3, 1, 2));
    assert_eq!(issuer.counts().token_requests, 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_grant_is_an_error_of_acme_that_says_so_and_keeps_its_cause() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(&issuer);
    let orders = Builder::new(&tokens).orders(acme(&api)).unwrap();
    orders.get(7).await.unwrap();
    issuer.revoke_all();
    // Refused by Acme, and not renewed; then there is no token to go out with.
    for requests in [2, 2] {
        let error = orders.get(7).await.unwrap_err();
        assert!(
            matches!(error, Error::Token(_)) && error.is_reauth_required(),
            "{error:?}"
        );
        let cause = error.source().unwrap().downcast_ref::<tower_token::Error>().unwrap();
        assert!(cause.to_string().contains("invalid_grant"), "{cause}");
        assert_eq!((api.counts().requests, issuer.counts().token_requests), (requests, 2));
    }
    let credential = serde_json::json!({ "refresh_token": issuer.sign_in() });
    tokens.install(credential).unwrap();
    orders.get(7).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_acme_and_the_client_say_is_no_matter_of_tokens() {
    let issuer = Issuer::new();
    let lost = service_fn(|_: Request<Body>| async { Err::<Response<Full<Bytes>>, _>(BoxError::from("no network")) });
    let acme = Builder::new(&tokens(&issuer));
    let error = acme.orders(lost).unwrap().get(7).await.unwrap_err();
    assert!(
        matches!(error, Error::Client(_)) && !error.is_reauth_required(),
        "{error:?}"
    );

    let gone = service_fn(|_: Request<Body>| async { Response::builder().status(404).body(Full::<Bytes>::default()) });
    let error = acme.orders(gone).unwrap().get(7).await.unwrap_err();
    assert!(matches!(error, Error::Status(status) if status == 404), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_clone_serves_with_a_buffer_around_it() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let connection = BoxService::new(acme(&api));
    let orders = Builder::new(&tokens(&issuer))
        .orders(Buffer::new(connection, 4))
        .unwrap();
    orders.get(7).await.unwrap();
    issuer.revoke_access();
    let mut calls: JoinSet<_> = (0..100)
        .map(|id| {
            let orders = orders.clone();
            async move { orders.get(id).await }
        })
        .collect();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    assert_eq!((api.counts().authorized, issuer.counts().token_requests), (101, 2));
}

#[tokio::test(start_paused = true)]
async fn two_libraries_with_the_same_tokens_share_each_fetch() {
    let issuer = Issuer::new();
    issuer.latency(Duration::from_secs(1));
    let (orders_api, invoices_api) = (Api::new(&issuer), Api::new(&issuer));
    let tokens = tokens(&issuer);
    let orders = Builder::new(&tokens).orders(acme(&orders_api)).unwrap();
    let invoices = Builder::new(&tokens).invoices(acme(&invoices_api)).unwrap();
    for fetches in [1, 2] {
        let (orders, invoices) = (orders.clone(), invoices.clone());
        let order = tokio::spawn(async move { orders.get(7).await });
        let invoice = tokio::spawn(async move { invoices.of(7).await });
        assert_eq!(
            (order.await.unwrap().unwrap().id, invoice.await.unwrap().unwrap().order),
            (7, 7)
        );
        assert_eq!(issuer.counts().token_requests, fetches);
        issuer.revoke_access();
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_goes_to_acme_or_where_it_was_told_to() {
    let issuer = Issuer::new();
    let acme_at = |url| Builder::new(&tokens(&issuer)).url(url).orders(acme(&Api::new(&issuer)));
    assert!(acme_at("http://127.0.0.1:8080").is_ok());
    let error = acme_at("http://orders.acme.example").unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    assert!(error.source().unwrap().to_string().contains("https"), "{error:?}");
}

#[tokio::test]
async fn hypers_client_serves_as_it_is() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let server = api.serve().await.unwrap();
    let client: HyperClient<_, Body> = HyperClient::builder(TokioExecutor::new()).build_http();
    let builder = Builder::new(&tokens(&issuer)).url(server.url().to_owned());
    // That API knows no orders, but it knows a good token.
    let error = builder.orders(client).unwrap().get(7).await.unwrap_err();
    assert!(matches!(error, Error::Status(status) if status == 404), "{error:?}");
    assert_eq!((api.counts().with_authorization, api.counts().unknown_seen), (1, 0));
}
