//! Redirects, followed above or below.

use http::{HeaderName, Request, Response, StatusCode, request};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_token::{Header, Inject, Query, TokenLayer};

use crate::stack;
use crate::support::{Api, Page, bearer, get, issuer, origins, page, refusal, send};

pub(crate) fn moved(to: &str) -> Response<Page> {
    let response = Response::builder().status(307).header("location", to);
    response.body("".into()).unwrap()
}

/// Within the origin, to plain http at the same host, to another host, and back.
fn around(_: usize, head: &request::Parts) -> Response<Page> {
    let (scheme, host) = (head.uri.scheme_str().unwrap(), head.uri.host().unwrap());
    match (scheme, host, head.uri.path()) {
        ("https", "api.example.com", "/me") => moved("/you"),
        ("https", "api.example.com", "/you") => moved("http://api.example.com/plain"),
        ("http", "api.example.com", "/plain") => moved("https://elsewhere.example.com/"),
        ("https", "elsewhere.example.com", "/") => moved("https://api.example.com/back"),
        _ => page("welcome"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_takes_the_token_within_its_origin_only() {
    for (above, back) in [(true, "test-1"), (false, "-")] {
        let ((tokens, issuer), api) = (issuer(), Api::answering(around));
        let layer = TokenLayer::new(&tokens, origins());
        let client = stack(above, FollowRedirectLayer::new(), layer, api.clone());
        assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
        // Below, what tower-http has taken off once it does not put on again.
        assert_eq!(api.tokens(), ["test-1", "test-1", "-", "-", back], "above: {above}");
        assert_eq!(issuer.fetches(), 1);
    }
}

/// Which of the five requests of that journey had the token with them, by redirects above and by redirects below.
async fn carried<I: Inject + Clone>(inject: I, has_token: fn(&Request<String>) -> bool) -> [Vec<bool>; 2] {
    let mut carried = [vec![], vec![]];
    for (above, carried) in [true, false].into_iter().zip(&mut carried) {
        let ((tokens, _), api) = (issuer(), Api::answering(around));
        let layer = TokenLayer::new(&tokens, origins()).inject(inject.clone());
        let client = stack(above, FollowRedirectLayer::new(), layer, api.clone());
        assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
        *carried = api.each(has_token);
    }
    carried
}

/// tower-http takes `Authorization` and `Cookie` off, and cannot know other names.
#[tokio::test(start_paused = true)]
async fn a_token_in_a_header_of_another_name_wants_its_redirects_above() {
    let header = Header::new(HeaderName::from_static("x-test-token"));
    let [above, below] = carried(header, |request| request.headers().contains_key("x-test-token")).await;
    assert_eq!(above, [true, true, false, false, true]);
    assert_eq!(below, [true; 5], "if this has changed, say so in the docs");
}

/// Where a `Location` leads is all that the next request has of a URL.
#[tokio::test(start_paused = true)]
async fn so_does_one_in_the_query() {
    let [above, below] = carried(Query::new("t"), |request| request.uri().query().is_some()).await;
    assert_eq!(above, [true, true, false, false, true]);
    assert_eq!(below, [true, false, false, false, false]);
}

#[tokio::test(start_paused = true)]
async fn above_only_the_refused_hop_is_sent_again_and_below_all_of_them() {
    for (above, paths) in [
        (true, &["/me", "/you", "/you"][..]),
        (false, &["/me", "/you", "/me", "/you"]),
    ] {
        let (tokens, issuer) = issuer();
        let api = Api::answering(|_, head| match (head.uri.path(), bearer(head)) {
            ("/me", _) => moved("/you"),
            (_, Some("test-1")) => refusal(),
            _ => page("welcome"),
        });
        let layer = TokenLayer::new(&tokens, origins());
        let client = stack(above, FollowRedirectLayer::new(), layer, api.clone());
        assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
        assert_eq!(
            api.each(|request| request.uri().path().to_owned()),
            paths,
            "above: {above}"
        );
        assert_eq!(issuer.fetches(), 2);
    }
}
