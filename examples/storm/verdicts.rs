//! A credential or a route that no renewal can help.

use std::time::Duration;

use tower_token::{BoxError, Error};

use crate::outcome::Outcome;
use crate::stage::Stage;
use crate::words::grouped;

/// The session is ended under 100 callers, who go on as if nothing had happened.
pub(crate) async fn dead_credential() -> Result<Outcome, BoxError> {
    let stage = Stage::new().await?;
    stage.issuer.lifetime(Duration::from_secs(3600));
    let warm_up = stage.call("/api").await;
    stage.issuer.revoke_all();
    let calls = stage.crowd(100, "/api", Duration::from_secs(2)).leave().await;
    let (asked, sent) = (stage.issuer.counts().token_requests, stage.api.counts());
    stage.sign_in_again()?;
    let after = stage.call("/api").await;
    let told = calls.failed(Error::is_reauth_required);
    let handed_back = calls.count(|call| call.status().is_some_and(|status| status == 401));
    let saw = format!(
        "{handed_back} got the 401, {} were told to sign in, and then answered",
        grouped(told)
    );
    Ok(Outcome::of("T38", "a refresh token is dead under load")
        .callers_saw(saw)
        .token_requests(asked, 1 + 1)
        .promise("every failure is named", told + handed_back == calls.0.len())
        .promise("nothing is sent without a token", sent.without_token == 0)
        .promise(
            "a sign-in is all it takes",
            warm_up.was_answered() && after.was_answered(),
        ))
}

/// 100 callers of a route that answers 401 whatever the token.
pub(crate) async fn refusing_route() -> Result<Outcome, BoxError> {
    let stage = Stage::new().await?;
    stage.issuer.lifetime(Duration::from_secs(3600));
    let calls = stage.crowd(100, "/liar", Duration::from_secs(2)).leave().await;
    let after = stage.call("/api").await;
    let refused = calls.count(|call| call.status().is_some_and(|status| status == 401));
    let api = stage.api.counts();
    let saw = format!(
        "{} of {} got the server's own 401, another route answers",
        grouped(refused),
        grouped(calls.0.len())
    );
    Ok(Outcome::of("T37", "a route refuses every token")
        .callers_saw(saw)
        .token_requests(stage.issuer.counts().token_requests, 1 + 1)
        .promise("the server's own answer is handed on", refused == calls.0.len())
        .promise("no request is sent three times", api.max_deliveries <= 2)
        .promise("other routes are served", after.was_answered()))
}
