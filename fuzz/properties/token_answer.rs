//! What an OAuth issuer answers: any status, headers and body.

use tower_token::oauth2::{ClientCredentialsGrant, RefreshTokenGrant};
use tower_token::{IfLost, RefreshPolicy};

use super::issuer::Answer;
use super::outcome::{Fetching, SECRETS, clock, in_paused_time};

const TOKEN_URL: &str = "https://login.example.com/token";

pub(crate) fn hold(answer: &[u8]) {
    let answer = Answer::read(answer);
    for policy in [IfLost::ReplayOnce, IfLost::NeverReplay] {
        let grant = RefreshTokenGrant::new(TOKEN_URL, "my-app")
            .client_secret(SECRETS[0])
            .refresh_token(SECRETS[1])
            .scope("read write")
            .if_lost(policy)
            .client(answer.clone().client());
        in_paused_time(async {
            let fetching = Fetching::of(grant, RefreshPolicy::default(), clock(0));
            fetching.expect("is configured").with(&SECRETS).end_well().await;
        });
    }
    let grant = ClientCredentialsGrant::new(TOKEN_URL, "my-app")
        .client_secret(SECRETS[0])
        .client(answer.client());
    in_paused_time(async {
        let fetching = Fetching::of(grant, RefreshPolicy::default(), clock(0));
        fetching.expect("is configured").with(&SECRETS[..1]).end_well().await;
    });
}
