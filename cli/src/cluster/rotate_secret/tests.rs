use super::*;
use crate::testing::Server;

const OLD: &str = "a secret that somebody made by hand";

/// A secret that this command made so many minutes after the epoch.
fn made(minutes: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(minutes * 60);
    let at = humantime::format_rfc3339_seconds(at);
    format!("{at}-{}", "0f".repeat(32))
}

fn check(secrets: &[&str], may_add: bool, expected: &Step) {
    let secrets: Vec<String> = secrets.iter().map(|&secret| secret.into()).collect();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * 60);
    assert_eq!(next(&secrets, may_add, now).unwrap(), *expected);
}

#[test]
fn the_new_secret_opens_then_seals_then_stays() {
    let (new, older) = (&*made(999), &*made(900));
    let owned = |secrets: &[&str]| secrets.iter().map(|&secret| secret.into()).collect();
    check(&[OLD], false, &Step::Add);
    check(&[older], false, &Step::Add);
    check(&[OLD, new], false, &Step::Seal(owned(&[new, OLD])));
    check(&[older, new], false, &Step::Seal(owned(&[new, older])));
    check(
        &[OLD, older, new],
        true,
        &Step::Seal(owned(&[new, OLD, older])),
    );
    check(&[new, OLD], false, &Step::Drop(owned(&[new])));
    check(&[new, older], false, &Step::Drop(owned(&[new])));
    check(&[new], false, &Step::Done);
    check(&[new], true, &Step::Add);
}

#[test]
fn which_of_two_is_the_newest_is_not_guessed() {
    let secrets = [OLD.to_owned(), "another one".to_owned()];
    let failure = next(&secrets, false, SystemTime::now()).unwrap_err();
    assert!(failure.message.contains("can not be told"), "{failure}");
    assert_eq!(failure.exit, Exit::Usage);
}

#[test]
fn a_secret_says_when_it_was_made_and_nobody_can_guess_it() {
    let (one, other) = (fresh(), fresh());
    assert_ne!(one, other);
    let age = SystemTime::now().duration_since(made_at(&one).unwrap());
    assert!(age.unwrap() < Duration::from_secs(60), "{one}");
    assert_eq!(made_at(OLD), None);
    assert_eq!(made_at("2026-01-31T12:00:00Z-abc"), None);
}

#[test]
fn nothing_is_written_while_a_node_lacks_what_stands_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    fs::write(&file, OLD).unwrap();
    let id = secret_id("demo", OLD.as_bytes());
    let node = |name: &str, state: &str, id: &str| {
        format!(
            r#"{{"name":"{name}","id":"a","generation":3,"peerAddress":"127.0.0.1:7400","state":"{state}","version":"0.1.0","inFlight":0,
            "instances":0,"memoryUsedMb":0,"memoryMaxMb":0,"hints":[],"secrets":["{id}"]}}"#
        )
    };
    let nodes = [
        node("n1", "alive", &id),
        node("n2", "draining", "0123456789abcdef"),
        node("n3", "dead", "0123456789abcdef"),
        // Of a version that says nothing of secrets.
        node("n4", "silent", &id).replace("\"secrets\"", "\"more\""),
    ];
    let body = format!(
        r#"{{"cluster":"demo","node":"n1","revision":42,"storeStalenessSeconds":0.2,"nodes":[{}]}}"#,
        nodes.join(",")
    );
    let server = Server::new(&[("200 OK", &[], &body)]);
    let line = format!(
        "cluster rotate-secret --wait 1ms --secret-file {}",
        file.display()
    );
    let outcome = server.run(&line);
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    assert!(
        outcome
            .err
            .contains("these nodes do not have what stands in"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains(": n2, n4\nhint: copy it"),
        "{}",
        outcome.err
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), OLD);
}

#[test]
fn a_file_that_is_not_there_or_empty_is_told() {
    let server = Server::new(&[("200 OK", &[], "{}")]);
    let outcome = server.run("cluster rotate-secret --secret-file no/such/file");
    assert_eq!(outcome.code, 64, "{}", outcome.err);
    assert!(
        outcome.err.contains("cannot read no/such/file"),
        "{}",
        outcome.err
    );
    let outcome = server.run("cluster rotate-secret --secret-file /dev/null");
    assert_eq!(outcome.code, 64, "{}", outcome.err);
    assert!(
        outcome.err.contains("/dev/null has no secret"),
        "{}",
        outcome.err
    );
    assert!(server.requests().is_empty());
}
