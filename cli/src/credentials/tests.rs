use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::testing::{Outcome, Server, check_ok, run_against};

const GIVEN: &str =
    r#"{"message":"m","token":"first","expiresInSeconds":900,"refreshToken":"hr_1"}"#;

/// A directory with the credentials file, and the password `password123`.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("password"), "password123\n").unwrap();
        Self(dir)
    }

    fn run(&self, server: &Server, line: &str) -> Outcome {
        let dir = self.0.path().display();
        let line = line.replace("PASSWORD", &format!("--password-file {dir}/password"));
        let file = self.file().display().to_string();
        run_against(
            &server.url,
            &format!("--credentials-file {file} {line}"),
            "",
            false,
        )
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("more").join("credentials.json")
    }
}

fn tokens(server: &Server) -> Vec<String> {
    let requests = server.requests();
    let token = |request: &crate::testing::Request| {
        let value = request.header("authorization").unwrap_or_default();
        format!("{} {value}", request.line)
    };
    requests.iter().map(token).collect()
}

#[test]
fn a_login_is_used_by_what_comes_after_until_the_logout() {
    let home = Home::new();
    let me = r#"{"userId":"7","email":"a@b.c"}"#;
    let server = Server::new(&[
        ("201 Created", &[], GIVEN),
        ("200 OK", &[], me),
        ("200 OK", &[], r#"{"spaces":["team"]}"#),
        ("200 OK", &[], r#"{"message":"bye"}"#),
        ("401 Unauthorized", &[], r#"{"error":"no"}"#),
    ]);
    let login = home.run(&server, "login a@b.c PASSWORD");
    check_ok(&login, "logged in as a@b.c\n");
    let mode = fs::metadata(home.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    check_ok(&home.run(&server, "user me"), "a@b.c 7\n");
    check_ok(&home.run(&server, "space list"), "team\n");
    check_ok(&home.run(&server, "logout"), "logged out a@b.c\n");
    let after = home.run(&server, "user me");
    assert_eq!(after.code, 77);
    assert!(after.err.contains("hearth login EMAIL"), "{}", after.err);
    let expected = [
        "POST /api/v1/users/login ",
        "GET /api/v1/users/me Bearer first",
        "GET /v1/spaces Bearer first",
        "POST /api/v1/users/logout Bearer first",
        "GET /api/v1/users/me ",
    ];
    assert_eq!(tokens(&server), expected);
    let sent = &server.requests()[0].body;
    assert_eq!(sent, r#"{"email":"a@b.c","password":"password123"}"#);
}

#[test]
fn a_token_goes_nowhere_else() {
    let home = Home::new();
    let server = Server::new(&[("201 Created", &[], GIVEN)]);
    home.run(&server, "login a@b.c PASSWORD");
    let other = Server::new(&[("200 OK", &[], r#"{"spaces":[]}"#)]);
    check_ok(&home.run(&other, "space list"), "");
    assert_eq!(tokens(&other), ["GET /v1/spaces "]);
}

#[test]
fn a_token_that_is_over_is_refreshed_and_a_session_that_ended_is_told() {
    let home = Home::new();
    let over = GIVEN.replace("900", "1");
    let next = GIVEN
        .replace("first", "second")
        .replace("hr_1", "hr_2")
        .replace("900", "1");
    let server = Server::new(&[
        ("201 Created", &[], &over),
        ("201 Created", &[], &next),
        ("200 OK", &[], r#"{"spaces":[]}"#),
        ("401 Unauthorized", &[], r#"{"error":"ended"}"#),
    ]);
    home.run(&server, "login a@b.c PASSWORD");
    check_ok(&home.run(&server, "space list"), "");
    let ended = home.run(&server, "space list");
    assert_eq!(ended.code, 77);
    let expected = "the session of a@b.c has ended";
    assert!(ended.err.contains(expected), "{}", ended.err);
    let expected = [
        "POST /api/v1/users/login ",
        "POST /api/v1/users/refresh ",
        "GET /v1/spaces Bearer second",
        "POST /api/v1/users/refresh ",
    ];
    assert_eq!(tokens(&server), expected);
    let sent = server.requests().remove(3).body;
    assert_eq!(sent, r#"{"refreshToken":"hr_2"}"#);
}

#[test]
fn keys_and_users_are_seen_to() {
    let home = Home::new();
    let check = |line: &str, answer: (&str, &str), out: &str, request: &str, body: &str| {
        let server = Server::new(&[(answer.0, &[], answer.1)]);
        check_ok(&home.run(&server, line), out);
        let sent = server.request();
        assert_eq!((sent.line.as_str(), sent.body.as_str()), (request, body));
    };
    check(
        "key create ci --scope read --scope invoke --only-space team --expires-in 1day",
        ("201 Created", r#"{"key":"hk_1","id":"7"}"#),
        "hk_1\n",
        "POST /api/v1/keys",
        r#"{"expiresInSeconds":86400,"name":"ci","scopes":["read","invoke"],"spaces":["team"]}"#,
    );
    check(
        "key revoke 7",
        ("200 OK", r#"{"message":"done"}"#),
        "done\n",
        "DELETE /api/v1/keys/7",
        "",
    );
    check(
        "user sign-up a@b.c PASSWORD",
        ("201 Created", r#"{"message":"made"}"#),
        "made\n",
        "POST /api/v1/users",
        r#"{"email":"a@b.c","password":"password123"}"#,
    );
    check(
        "admin set-role 7 admin",
        ("200 OK", "{}"),
        "7 is admin now\n",
        "PATCH /v1/users/7",
        r#"{"role":"admin"}"#,
    );
    check(
        "--space team admin join 7",
        ("200 OK", "{}"),
        "7 is a member of space team\n",
        "PUT /v1/spaces/team/members/7",
        "",
    );
    check(
        "--space team space set --events open",
        ("200 OK", r#"{"space":"team","events":"open"}"#),
        "events of space team are open, limits: none of its own\n",
        "PATCH /v1/spaces/team",
        r#"{"events":"open"}"#,
    );
    check(
        "--space team space set --rate 50 --burst 80 --queued 9",
        ("200 OK", r#"{"events":"open","limits":{"queued":9}}"#),
        "events of space team are open, limits: {\"queued\":9}\n",
        "PATCH /v1/spaces/team",
        r#"{"limits":{"queued":9,"rate":{"burst":80,"perSecond":50}}}"#,
    );
    check(
        "admin set-limits 7 --no-limits --concurrent 3",
        ("200 OK", r#"{"id":"7","limits":{"concurrent":3}}"#),
        "limits of 7: {\"concurrent\":3}\n",
        "PATCH /v1/users/7",
        r#"{"limits":{"concurrent":3}}"#,
    );
}
