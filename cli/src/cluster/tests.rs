use crate::testing::Server;

const BODY: &str = r#"{"cluster":"demo","node":"n1","revision":42,"storeStalenessSeconds":0.2,"nodes":[
{"name":"n1","id":"a","generation":3,"peerAddress":"127.0.0.1:7400","state":"alive","version":"0.1.0","inFlight":2,
 "instances":1,"memoryUsedMb":128,"memoryMaxMb":4096,"hints":[{"instanceKey":"00ff","function":"default/hello",
 "freeSlots":3,"instances":1,"instanceIds":["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]}]},
{"name":"node-two","id":"b","generation":1,"peerAddress":"127.0.0.1:7401","state":"silent","version":"0.1.0",
 "inFlight":0,"instances":0,"memoryUsedMb":0,"memoryMaxMb":4096,"hints":[]}]}"#;

#[test]
fn it_prints_a_line_for_each_node() {
    let server = Server::new(&[("200 OK", &[], BODY)]);
    let outcome = server.run("cluster");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(server.request().line, "GET /v1/cluster");
    assert_eq!(
        outcome.out,
        "\
cluster demo as n1 sees it: 1 of 2 nodes alive, config store answers, revision 42
NODE      STATE   ADDRESS         IN FLIGHT  INSTANCES  MEMORY           VERSION
n1        alive   127.0.0.1:7400  2          1          128 of 4096 MiB  0.1.0
node-two  silent  127.0.0.1:7401  0          0          0 of 4096 MiB    0.1.0
"
    );
}

#[test]
fn verbose_adds_what_is_warm_where() {
    let outcome = Server::new(&[("200 OK", &[], BODY)]).run("cluster --verbose");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let hints = "
NODE  FUNCTION       INSTANCES  FREE SLOTS  INSTANCE KEY  IDS
n1    default/hello  1          3           00ff          0123456789ab
";
    assert!(outcome.out.ends_with(hints), "{}", outcome.out);
}

#[test]
fn a_store_that_is_away_is_told() {
    let body = BODY.replace(
        r#""storeStalenessSeconds":0.2"#,
        r#""storeStalenessSeconds":61.4"#,
    );
    let outcome = Server::new(&[("200 OK", &[], &body)]).run("cluster");
    assert!(
        outcome.out.contains("config store not heard for 61 s"),
        "{}",
        outcome.out
    );
}

#[test]
fn json_is_the_answer_as_it_came() {
    let outcome = Server::new(&[("200 OK", &[], BODY)]).run("cluster --json");
    assert_eq!(outcome.out, format!("{BODY}\n"));
}
