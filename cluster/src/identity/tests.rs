use super::*;

#[test]
fn a_restart_keeps_the_id_and_grows_the_generation() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("made/on/demand");
    let first = Identity::load(&data_dir).unwrap();
    let (id, generation, fingerprint) = (
        first.node_id().clone(),
        first.generation(),
        first.fingerprint(),
    );
    drop(first);
    let second = Identity::load(&data_dir).unwrap();
    assert_eq!(*second.node_id(), id);
    assert!(second.generation() > generation);
    assert_ne!(
        second.fingerprint(),
        fingerprint,
        "each start has a certificate of its own"
    );
}

#[test]
fn the_generation_grows_when_the_clock_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let far_ahead = 9_000_000_000_000_000_u64;
    fs::write(
        directory.path().join("generation"),
        format!("{far_ahead}\n"),
    )
    .unwrap();
    assert_eq!(
        Identity::load(directory.path()).unwrap().generation(),
        Generation(far_ahead + 1)
    );
}

#[test]
fn two_nodes_can_not_share_a_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = Identity::load(directory.path()).unwrap();
    let error = Identity::load(directory.path()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&directory.path().display().to_string())
    );
    drop(first);
    Identity::load(directory.path()).unwrap();
}

#[test]
fn a_foreign_file_is_named_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node-id");
    fs::write(&path, "not a / node id").unwrap();
    let error = Identity::load(directory.path()).unwrap_err();
    assert!(error.to_string().contains("node-id"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a / node id");
}
