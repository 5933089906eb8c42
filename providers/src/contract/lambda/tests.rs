//! A runtime that is not of AWS, so that it can do what theirs never would.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use config::settings::LimitsSettings;
use futures_util::StreamExt;
use protocol::invocation::{Call, TraceContext};
use protocol::{Deadline, Effect, ErrorCode, Hop};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::*;
use crate::AnswerLimits;

mod misuse;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);

/// An instance with its Runtime API, whose runtime a test plays.
struct Scene {
    instance: Arc<LambdaInstance>,
    function: Arc<Function>,
    api: std::net::SocketAddr,
    end: Arc<End>,
    broken: tokio_util::sync::CancellationToken,
}

/// A connection of the runtime.
struct Runtime(TcpStream);

/// What the API answered.
#[derive(Debug)]
struct Told {
    status: u16,
    head: String,
    body: String,
}

fn function(slots: u32, timeout_ms: u32) -> Function {
    let record = json!({
        "space": "default", "functionId": "f", "type": "process",
        "provider": {"command": ["x"], "contract": "lambda"},
        "limits": {"concurrency": slots, "timeoutMs": timeout_ms},
    });
    serde_json::from_value(record).unwrap()
}

fn lambda() -> Lambda {
    let settings = LambdaSettings {
        next_timeout: Duration::from_millis(300),
        ..LambdaSettings::default()
    };
    Lambda::new(&settings)
}

async fn server(function: &Function) -> (Server, Arc<End>) {
    let limits = AnswerLimits {
        whole: 64 * 1024,
        ..AnswerLimits::new(&LimitsSettings::default())
    };
    let mut server = Server::bind(
        LOCAL,
        function,
        &lambda(),
        limits,
        &tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap();
    let end = Arc::new(End::default());
    server.serve(function, Arc::clone(&end), &TaskTracker::new());
    (server, end)
}

impl Scene {
    /// An instance of so many slots whose runtime has asked for as many invocations, on connections of their own.
    async fn up(slots: u32, timeout_ms: u32) -> (Self, Vec<Runtime>) {
        let function = function(slots, timeout_ms);
        let (server, end) = server(&function).await;
        server.is_at(LOCAL);
        let api = server.address();
        let mut runtimes = Vec::new();
        for _ in 0..slots {
            let mut runtime = Runtime::connect(api).await;
            runtime.ask().await;
            runtimes.push(runtime);
        }
        server.ready().await.unwrap();
        let broken = server.broken();
        let running = Arc::new(Running::default());
        let instance = server.into_instance(&function, running, Arc::clone(&end));
        let scene = Self {
            instance: Arc::new(instance),
            function: Arc::new(function),
            api,
            end,
            broken,
        };
        (scene, runtimes)
    }

    async fn one() -> (Self, Runtime) {
        let (scene, mut runtimes) = Self::up(1, 5_000).await;
        (scene, runtimes.remove(0))
    }

    /// Invokes in a task.
    fn invoke(&self, id: &str, call: Option<Call>) -> JoinHandle<Result<Reply, Error>> {
        let (instance, function) = (Arc::clone(&self.instance), Arc::clone(&self.function));
        let invocation = Invocation {
            id: id.parse().unwrap(),
            space: "default".parse().unwrap(),
            function_id: "f".parse().unwrap(),
            payload: Bytes::from(format!("\"{id}\"")),
            content_type: "application/json".into(),
            call: call.map(Arc::new),
            deadline: Deadline::at((Instant::now() + PATIENCE).into_std()),
            hop: Hop::Direct,
            trace: TraceContext::default(),
        };
        TaskTracker::new().spawn(async move { instance.invoke(&function, &invocation).await })
    }
}

impl Runtime {
    async fn connect(api: std::net::SocketAddr) -> Self {
        Self(TcpStream::connect(api).await.unwrap())
    }

    async fn ask(&mut self) {
        self.send("GET", "invocation/next", "", "").await;
    }

    async fn send(&mut self, method: &str, path: &str, fields: &str, body: &str) {
        let length = body.len();
        let request = format!(
            "{method} /2018-06-01/runtime/{path} HTTP/1.1\r\nhost: x\r\n{fields}content-length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    async fn post(&mut self, path: &str, fields: &str, body: &str) -> Told {
        self.send("POST", path, fields, body).await;
        self.told().await
    }

    async fn response(&mut self, id: &str, body: &str) -> Told {
        self.post(&format!("invocation/{id}/response"), "", body)
            .await
    }

    /// The answer to a request; one that is closed instead has the status 0.
    async fn told(&mut self) -> Told {
        let read = async {
            let mut text = Vec::new();
            loop {
                let whole = String::from_utf8_lossy(&text).into_owned();
                if let Some((head, body)) = whole.split_once("\r\n\r\n") {
                    let lower = head.to_lowercase();
                    let length = lower.split("content-length: ").nth(1).unwrap();
                    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                    if body.len() >= length {
                        return Told {
                            status: head[9..12].parse().unwrap(),
                            head: head.to_owned(),
                            body: body.to_owned(),
                        };
                    }
                }
                if self.0.read_buf(&mut text).await.unwrap_or(0) == 0 {
                    return Told {
                        status: 0,
                        head: whole,
                        body: String::new(),
                    };
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap()
    }

    /// The id of the invocation that it is given.
    async fn given(&mut self) -> String {
        let told = self.told().await;
        assert_eq!(told.status, 200, "{told:?}");
        let (_, id) = told
            .head
            .split_once("Lambda-Runtime-Aws-Request-Id: ")
            .unwrap();
        let id = id.split("\r\n").next().unwrap().to_owned();
        assert_eq!(told.body, format!("\"{id}\""), "the payload is its own");
        id
    }
}

impl Told {
    fn is_error(&self, status: u16, error_type: &str) {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(
            (self.status, &body["errorType"]),
            (status, &json!(error_type)),
            "{self:?}"
        );
        assert!(body["errorMessage"].is_string(), "{self:?}");
    }
}

async fn ended(call: JoinHandle<Result<Reply, Error>>) -> Result<Reply, Error> {
    tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap()
}

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(reply.body.whole()).unwrap()
}

fn whole(may_stream: bool) -> Option<Call> {
    Some(Call {
        answer: AnswerRule::Whole,
        may_stream,
        ..Call::default()
    })
}

#[tokio::test]
async fn one_invocation_after_the_other_is_given_and_answered() {
    let (scene, mut runtime) = Scene::one().await;
    for id in ["one", "two", "three"] {
        let call = scene.invoke(id, None);
        assert_eq!(runtime.given().await, id);
        let fields = "content-type: text/plain\r\n";
        let path = format!("invocation/{id}/response");
        let told = runtime.post(&path, fields, "done").await;
        assert_eq!(told.status, 202, "{told:?}");
        let reply = ended(call).await.unwrap();
        assert_eq!((reply.status, text(&reply)), (200, "done"));
        assert_eq!(reply.content_type.as_deref(), Some("text/plain"));
        runtime.ask().await;
    }
    let call = scene.invoke("four", None);
    runtime.given().await;
    runtime.response("four", "4").await;
    let reply = ended(call).await.unwrap();
    assert_eq!(reply.content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn an_invocation_waits_until_the_runtime_asks_again_and_is_refused_when_it_does_not() {
    let (scene, mut runtime) = Scene::one().await;
    let first = scene.invoke("one", None);
    runtime.given().await;
    runtime.response("one", "1").await;
    ended(first).await.unwrap();
    let second = scene.invoke("two", None);
    tokio::task::yield_now().await;
    // It asks on another connection.
    let mut other = Runtime::connect(scene.api).await;
    other.ask().await;
    assert_eq!(other.given().await, "two");
    assert_eq!(other.response("two", "2").await.status, 202);
    ended(second).await.unwrap();
    let error = ended(scene.invoke("three", None)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::Unreachable, Effect::Refused)
    );
    assert!(error.to_string().contains("lambda.next_timeout"), "{error}");
}

#[tokio::test]
async fn invocations_that_run_at_once_are_not_mixed_up() {
    let (scene, mut runtimes) = Scene::up(3, 5_000).await;
    let calls = ["one", "two", "three"].map(|id| (id, scene.invoke(id, None)));
    let mut ids = Vec::new();
    for runtime in &mut runtimes {
        ids.push(runtime.given().await);
    }
    // Each is answered by a connection that another one came by, the last one first.
    for (runtime, id) in runtimes.iter_mut().zip(ids.iter().rev()) {
        let told = runtime.response(id, &format!("answer of {id}")).await;
        assert_eq!(told.status, 202);
    }
    for (id, call) in calls {
        let reply = ended(call).await.unwrap();
        assert_eq!(text(&reply), format!("answer of {id}"));
    }
    assert!(!scene.broken.is_cancelled());
}

#[tokio::test]
async fn an_error_is_the_function_s_and_the_instance_goes_on() {
    let (scene, mut runtime) = Scene::one().await;
    let object = r#"{"errorType":"E","errorMessage":"m","stackTrace":["a"]}"#;
    let call = scene.invoke("one", None);
    runtime.given().await;
    let told = runtime.post(
        "invocation/one/error",
        "Lambda-Runtime-Function-Error-Type: Runtime.E\r\n",
        object,
    );
    assert_eq!(told.await.status, 202);
    let error = ended(call).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::FunctionFailed, Effect::Finished)
    );
    assert_eq!(error.to_string(), format!("the function failed: {object}"));
    runtime.ask().await;
    let call = scene.invoke("two", whole(false));
    runtime.given().await;
    runtime.post("invocation/two/error", "", object).await;
    let reply = ended(call).await.unwrap();
    assert_eq!(text(&reply), object);
    assert_eq!(reply.headers[0].0, "x-amz-function-error");
    assert!(!scene.broken.is_cancelled());
}

#[tokio::test]
async fn an_answer_that_comes_piece_by_piece_is_passed_on_so_where_it_may_be() {
    let (scene, mut runtime) = Scene::one().await;
    let head = |id: &str| {
        format!(
            "POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n\
             transfer-encoding: chunked\r\ncontent-type: text/plain\r\n\r\n"
        )
    };
    let call = scene.invoke("one", whole(true));
    runtime.given().await;
    runtime
        .0
        .write_all(format!("{}3\r\nabc\r\n", head("one")).as_bytes())
        .await
        .unwrap();
    let reply = ended(call).await.unwrap();
    let Body::Stream(mut body) = reply.body else {
        panic!("it streams")
    };
    assert_eq!(body.next().await.unwrap().unwrap(), "abc");
    runtime.0.write_all(b"2\r\nde\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "de");
    assert!(body.next().await.is_none());
    assert_eq!(runtime.told().await.status, 202);
    // An error behind it is its end; the connection is as it was.
    runtime.ask().await;
    let call = scene.invoke("two", whole(true));
    runtime.given().await;
    let trailers = "Lambda-Runtime-Function-Error-Type: Function.E\r\nLambda-Runtime-Function-Error-Body: eyJlcnJvclR5cGUiOiJFIn0=\r\n";
    let rest = format!("{}1\r\na\r\n0\r\n{trailers}\r\n", head("two"));
    runtime.0.write_all(rest.as_bytes()).await.unwrap();
    let Body::Stream(mut body) = ended(call).await.unwrap().body else {
        panic!("it streams")
    };
    assert_eq!(body.next().await.unwrap().unwrap(), "a");
    let failure = body.next().await.unwrap().unwrap_err();
    assert_eq!(failure.code, ErrorCode::FunctionFailed);
    assert!(
        failure.message.ends_with(r#"{"errorType":"E"}"#),
        "{failure:?}"
    );
    assert_eq!(runtime.told().await.status, 202);
    // Who can take it only whole gets it whole.
    runtime.ask().await;
    let call = scene.invoke("three", None);
    runtime.given().await;
    let rest = format!("{}1\r\na\r\n1\r\nb\r\n0\r\n\r\n", head("three"));
    runtime.0.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(text(&ended(call).await.unwrap()), "ab");
    assert_eq!(runtime.told().await.status, 202);
    assert!(!scene.broken.is_cancelled());
}

#[tokio::test]
async fn a_stream_that_nobody_reads_any_more_ends_its_connection() {
    let (scene, mut runtime) = Scene::one().await;
    let call = scene.invoke("one", whole(true));
    runtime.given().await;
    let head = "Lambda-Runtime-Function-Response-Mode: streaming\r\ntransfer-encoding: chunked\r\n";
    let request = format!(
        "POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\n{head}\r\n3\r\nabc\r\n"
    );
    runtime.0.write_all(request.as_bytes()).await.unwrap();
    drop(ended(call).await.unwrap());
    assert_eq!(runtime.told().await.status, 0);
}
