//! Builds the test function, and makes records and invocations of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::invocation::TraceContext;
use protocol::{Deadline, Function, Hop, Invocation, InvocationId};
use providers::LaunchSpec;

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
        key: function.instance_key(),
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
