//! Modes and links, which unix has.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

pub(super) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn nobody_else_can_open_the_file_or_its_lock() {
    let (folder, store) = store();
    let lock = folder.path().join("token.json.lock");
    // As another program left it.
    fs::write(&lock, "").unwrap();
    chmod(&lock, 0o666);
    let lease = leased(&store).await;
    store.save(&of(1), 0, &lease).await.unwrap();
    assert_eq!((mode(store.path()), mode(&lock)), (0o600, 0o600));
    for open_to_readers in [0o644, 0o640, 0o604, 0o711] {
        chmod(store.path(), open_to_readers);
        assert_eq!(loaded(&store).await, 1);
        assert_eq!(mode(store.path()) & 0o077, 0);
    }
}

#[tokio::test]
async fn a_file_that_others_may_write_is_refused_by_name_and_left_as_it_is() {
    let (_folder, store) = store();
    let lease = leased(&store).await;
    store.save(&of(1), 0, &lease).await.unwrap();
    for open_to_writers in [0o620, 0o602, 0o666] {
        chmod(store.path(), open_to_writers);
        for error in [
            store.load().await.unwrap_err(),
            store.save(&of(2), 1, &lease).await.unwrap_err(),
        ] {
            let told = error.to_string();
            assert!(
                error.is_unusable() && told.contains("token.json may be written by others"),
                "{told}"
            );
        }
        assert_eq!(mode(store.path()), open_to_writers);
    }
    chmod(store.path(), 0o600);
    assert_eq!(loaded(&store).await, 1);
}

#[tokio::test]
async fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
    let (folder, store) = store();
    let at = |name: &str| folder.path().join(name);
    // The folder by a link, the file by two.
    fs::create_dir(at("v1")).unwrap();
    symlink("v1", at("data")).unwrap();
    symlink("data/token.json", at("link")).unwrap();
    symlink(at("link"), store.path()).unwrap();
    let lease = leased(&store).await;
    assert_eq!(store.save(&of(1), 0, &lease).await.unwrap(), Saved::Kept);
    assert_eq!(store.save(&of(2), 1, &lease).await.unwrap(), Saved::Kept);
    assert!(fs::symlink_metadata(at("v1/token.json")).unwrap().is_file());
    assert!(fs::symlink_metadata(store.path()).unwrap().is_symlink());
    // Whoever comes by another name meets the same lock.
    let other = FileStore::new(at("v1/token.json"));
    assert_eq!(loaded(&other).await, 2);
    assert!(other.lease(TERM).await.unwrap().is_none());
    // A link that leads elsewhere by now: the lock that is held is not that of the new place.
    fs::create_dir(at("v2")).unwrap();
    fs::remove_file(at("data")).unwrap();
    symlink("v2", at("data")).unwrap();
    assert_eq!(store.save(&of(3), 2, &lease).await.unwrap(), Saved::Overtaken);
    assert_eq!(loaded(&other).await, 2);
}

#[tokio::test]
async fn links_in_a_circle_are_named() {
    let (folder, store) = store();
    symlink("token.json", folder.path().join("back")).unwrap();
    symlink("back", store.path()).unwrap();
    let error = store.load().await.unwrap_err();
    assert!(
        error.to_string().ends_with("token.json leads from link to link"),
        "{error}"
    );
}

#[tokio::test]
async fn a_lock_that_is_a_link_is_not_followed() {
    let (folder, store) = store();
    let precious = folder.path().join("precious");
    fs::write(&precious, "as it was").unwrap();
    symlink(&precious, folder.path().join("token.json.lock")).unwrap();
    let error = store.lease(TERM).await.unwrap_err();
    assert!(error.to_string().contains("token.json.lock is a link"), "{error}");
    assert_eq!(fs::read_to_string(precious).unwrap(), "as it was");
}
