use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::*;

#[test]
fn keys_differ_by_secret_use_and_cluster() {
    let secret = ClusterSecret::of(&"s".repeat(32));
    let same = ClusterSecret::of(&format!("  {}\n", "s".repeat(32)));
    let key = secret.derive("gossip", "hearth");
    assert_eq!(key, same.derive("gossip", "hearth"));
    assert_ne!(key, secret.derive("gossip", "other"));
    assert_ne!(key, secret.derive("goss", "iphearth"));
    assert_ne!(
        key,
        ClusterSecret::of(&"t".repeat(32)).derive("gossip", "hearth")
    );
    assert_eq!(format!("{secret:?}"), "<redacted>");
}

fn settings(file: &std::path::Path) -> ClusterSettings {
    ClusterSettings {
        secret_file: Some(file.to_owned()),
        secret_reload_interval: Duration::from_millis(5),
        ..ClusterSettings::default()
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let (old, new) = ("o".repeat(32), "n".repeat(32));
    std::fs::write(&file, &old).unwrap();
    let settings = settings(&file);
    let sender = watch::Sender::new(Keyring::read(&settings, dir.path()).unwrap());
    let mut keyring = sender.subscribe();
    assert_eq!(*keyring.borrow(), Keyring::with(&[&old]));
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(Keyring::keep_fresh(settings, sender, stop.clone()));
    let written = [
        ("", None),
        (&*format!("{old}\n{new}\n"), Some([&*old, &new])),
        ("too short", None),
        (&*format!("{new}\n{old}\n"), Some([&*new, &old])),
    ];
    for (text, expected) in written {
        std::fs::write(&file, text).unwrap();
        if let Some(expected) = expected {
            let expected = Keyring::with(&expected);
            let changed = keyring.wait_for(|keyring| *keyring == expected);
            let changed = time::timeout(Duration::from_secs(10), changed).await;
            assert!(changed.is_ok(), "{text:?}");
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[test]
fn a_node_without_a_file_keeps_a_secret_of_its_own() {
    let settings = ClusterSettings::default();
    let read = |dir: &tempfile::TempDir| Keyring::read(&settings, dir.path()).unwrap();
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(read(&one), read(&one));
    assert_ne!(read(&one), read(&other));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(one.path().join(OWN_FILE))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let gone = one.path().join("no-such-directory");
    let error = Keyring::read(&settings, &gone).unwrap_err().to_string();
    assert!(error.contains("node.data_dir"), "{error}");
}
