//! Redirects, followed above or below.

use http::{HeaderName, Response, StatusCode, request};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_token::{Header, TokenLayer};

use crate::stack;
use crate::support::{Api, Page, bearer, get, issuer, origins, page, refusal, send};

pub(crate) fn moved(to: &str) -> Response<Page> {
    let response = Response::builder().status(307).header("location", to);
    response.body("".into()).unwrap()
}

/// Within the origin, to plain http at the same host, to another host, and back.
fn around(_: usize, head: &request::Parts) -> Response<Page> {
    match head.uri.to_string().as_str() {
        "https://api.example.com/me" => moved("/you"),
        "https://api.example.com/you" => moved("http://api.example.com/plain"),
        "http://api.example.com/plain" => moved("https://elsewhere.example.com/"),
        "https://elsewhere.example.com/" => moved("https://api.example.com/back"),
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

/// tower-http takes `Authorization` and `Cookie` off, and cannot know other names.
#[tokio::test(start_paused = true)]
async fn a_token_in_a_header_of_another_name_wants_its_redirects_above() {
    let name = HeaderName::from_static("x-test-token");
    for (above, carried) in [(true, [true, true, false, false, true]), (false, [true; 5])] {
        let ((tokens, _), api) = (issuer(), Api::answering(around));
        let layer = TokenLayer::new(&tokens, origins()).inject(Header::new(name.clone()));
        let client = stack(above, FollowRedirectLayer::new(), layer, api.clone());
        assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
        assert_eq!(
            api.each(|request| request.headers().contains_key(&name)),
            carried,
            "above: {above}"
        );
    }
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
