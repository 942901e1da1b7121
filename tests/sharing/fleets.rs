//! What a run of `examples/fleet` with real processes showed about those who did not make the exchange themselves.

use tokio::time::sleep;
use tower_token::StoreError;
use tower_token::testkit::StoreCall;

use crate::scene::{Fault, LIFE, SECOND, Scene};

#[tokio::test(start_paused = true)]
async fn a_verdict_on_a_spent_credential_holds_for_all_who_share_the_store() {
    let scene = Scene::new();
    let fleet: Vec<_> = (0..4).map(|_| scene.process()).collect();
    for process in &fleet {
        process.secret().await;
    }
    sleep(LIFE).await;
    // The rotation is lost. The second presentation, which the policy allows, brings the verdict.
    scene.issuer.next(&[Fault::LostAfter]);
    for process in &fleet {
        assert!(process.tokens.get().await.unwrap_err().is_reauth_required());
    }
    assert_eq!(scene.issuer.presented_again(), 1, "presented by each process again");
}

#[tokio::test(start_paused = true)]
async fn who_only_adopts_has_no_trouble_with_a_store_that_is_well_again() {
    let scene = Scene::new();
    let (one, other) = (scene.process(), scene.process());
    assert_eq!(one.secret().await, other.secret().await);
    other.store.on(StoreCall::Lease).fail(StoreError::unavailable("OOM"));
    assert!(other.tokens.refresh().await.is_err());
    assert!(other.tokens.status().store_error.is_some());

    other.store.heal();
    one.tokens.refresh().await.unwrap();
    sleep(10 * SECOND).await;
    assert_eq!(other.secret().await, "test-access-2");
    assert!(
        other.tokens.status().store_error.is_none(),
        "{:?}",
        other.tokens.status()
    );
}
