//! Builds the test function, and makes records and invocations of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::invocation::{AnswerRule, Call, Ended, Outcome, TraceContext};
use protocol::{Deadline, Function, Hop, Invocation, InvocationId};
use providers::{Launch, LaunchSpec};

/// Compiles the test function once and returns its path.
pub(crate) fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/function.rs");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = directory.join("function");
    let modified = |path: &Path| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    if modified(&built).is_some() && modified(&built) > modified(&source) {
        return built;
    }
    // Tests run at the same time, each in a process of its own: the last rename wins, and all are whole.
    let fresh = directory.join(format!("function-{}", std::process::id()));
    let status = Command::new("rustc")
        .args([
            "--edition",
            "2021",
            "-C",
            "opt-level=1",
            "-C",
            "target-feature=+crt-static",
            "-o",
        ])
        .arg(&fresh)
        .arg(&source)
        .status()
        .expect("rustc is on PATH");
    assert!(status.success(), "the test function does not compile");
    std::fs::rename(&fresh, &built).expect("the built function can be renamed");
    built
}

/// A record from JSON, in the space `default`.
pub(crate) fn function(mut record: serde_json::Value) -> Arc<Function> {
    record["space"] = "default".into();
    Arc::new(serde_json::from_value(record).expect("a record"))
}

pub(crate) fn spec(function: &Arc<Function>) -> LaunchSpec {
    LaunchSpec {
        function: Arc::clone(function),
        key: function.instance_key(|_| None),
        secrets: Arc::default(),
        deadline: within(Duration::from_secs(20)),
    }
}

pub(crate) fn invocation(function: &Function, payload: &str) -> Invocation {
    Invocation {
        id: InvocationId::random(),
        space: function.space.clone(),
        function_id: function.function_id.clone(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        content_type: "text/plain".into(),
        call: None,
        deadline: within(Duration::from_secs(30)),
        hop: Hop::Direct,
        trace: TraceContext::default(),
    }
}

/// Runs a `stdio` function for each end that a run may have, and holds that all that it printed is the answer.
pub(crate) async fn check_outputs(provider: &impl Launch, function: &Arc<Function>) {
    let talk = "one\ntwo\nthree\n";
    for (payload, expected, outcome, exit_code, why) in [
        ("talk", talk, Outcome::Ok, Some(0), None),
        (
            "talk and fail",
            talk,
            Outcome::Failed,
            Some(7),
            Some("exit code 7"),
        ),
        (
            "talk and stay",
            talk,
            Outcome::Timeout,
            None,
            Some("the function ran longer than its limit of 2000 ms and was stopped"),
        ),
    ] {
        let (output, ended) = run_for_output(provider, function, payload).await;
        assert_eq!(output, expected, "{payload}");
        let expected = Ended {
            outcome,
            exit_code,
            why: why.map(str::to_owned),
            cut_bytes: 0,
        };
        assert_eq!(ended, expected, "{payload}");
    }
    // What does not end and prints more than there is room for is read on until its time is over.
    let (output, ended) = run_for_output(provider, function, "flood").await;
    assert_eq!((output.len(), ended.outcome), (1 << 20, Outcome::Timeout));
    assert!(ended.cut_bytes > 0, "{ended:?}");
}

async fn run_for_output(
    provider: &impl Launch,
    function: &Arc<Function>,
    payload: &str,
) -> (String, Ended) {
    let call = Call {
        answer: AnswerRule::Output,
        ..Call::default()
    };
    let invocation = Invocation {
        call: Some(Arc::new(call)),
        ..invocation(function, payload)
    };
    let (_, reply) = provider.run(spec(function), &invocation).await;
    let reply = reply.unwrap();
    let output = String::from_utf8(reply.body.whole().to_vec()).unwrap();
    (output, *reply.ended.unwrap())
}

pub(crate) fn within(duration: Duration) -> Deadline {
    Deadline::at((tokio::time::Instant::now() + duration).into_std())
}

/// Waits until the condition holds, for 20 s at most.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "waited 20 s in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
