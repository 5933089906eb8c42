use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use config::settings::{OnFailure, PluginSettings};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::*;
use crate::testing::{ECHO, HANG, HOG, PASS, TRAP, answer, module};

const SYNC: &[(&str, &str)] = &[("gateway.event.received", "sync")];
const ASYNC: &[(&str, &str)] = &[("gateway.function.invoked", "async")];

/// Long enough for every call that is not meant to be cut off, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something whose data plugins change.
struct Thing(String);

impl Subject for Thing {
    fn about(&self) -> Bytes {
        self.0.clone().into()
    }

    fn change(&mut self, data: &RawValue) -> Result<(), String> {
        match data.get() {
            "\"bad\"" => Err("it is bad".to_owned()),
            text => {
                text.clone_into(&mut self.0);
                Ok(())
            }
        }
    }
}

struct Files {
    dir: TempDir,
    settings: PluginsSettings,
}

impl Files {
    fn new() -> Self {
        let settings = PluginsSettings {
            timeout: PATIENCE,
            memory_max: ByteSize::mib(4),
            ..PluginsSettings::default()
        };
        let dir = tempfile::tempdir().unwrap();
        Self { dir, settings }
    }

    fn of(modules: &[&str]) -> Self {
        let mut files = Self::new();
        for (index, text) in modules.iter().enumerate() {
            files.add(&format!("p{index}"), text);
        }
        files
    }

    fn add(&mut self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        write(&path, text);
        self.settings.load.push(PluginSettings {
            path,
            name: name.to_owned(),
            on_failure: OnFailure::Refuse,
            settings: [("limit".to_owned(), json!(7))].into_iter().collect(),
        });
    }

    async fn start(&self) -> Result<Plugins, LoadError> {
        Plugins::start(&self.settings).await
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, wat::parse_str(text).unwrap()).unwrap();
}

async fn ask(plugins: &Plugins) -> (Result<(), Refusal>, String) {
    let mut thing = Thing(r#"{"n":1}"#.to_owned());
    let asked = plugins.ask(Stage::Received, &mut thing).await;
    (asked, thing.0)
}

/// Asks plugins, and says in short what came of it.
async fn asked(files: &Files) -> String {
    let plugins = files.start().await.unwrap();
    match ask(&plugins).await {
        (Ok(()), data) => data,
        (Err(Refusal::Vetoed { plugin, text }), _) => format!("vetoed by {plugin}: {text}"),
        (Err(refusal), _) => refusal.to_string(),
    }
}

#[tokio::test]
async fn a_plugin_passes_changes_or_vetoes() {
    let said = |text: &str| answer(SYNC, text);
    let check = async |modules: &[&str], expected: &str| {
        assert_eq!(asked(&Files::of(modules)).await, expected);
    };
    let untouched = r#"{"n":1}"#;
    check(&[&module(SYNC, PASS, &[])], untouched).await;
    check(&[&said("{}")], untouched).await;
    check(&[&said(r#"{"data":[1.0]}"#)], "[1.0]").await;
    check(
        &[&said(r#"{"veto":"not today"}"#)],
        "vetoed by p0: not today",
    )
    .await;
    // Each sees what those before it changed, and after a veto nobody is asked.
    let (two, echo) = (said(r#"{"data":2}"#), module(SYNC, ECHO, &[]));
    let message = r#"{"stage":"gateway.event.received","settings":{"limit":7},"about":2}"#;
    check(&[&two, &echo], message).await;
    check(
        &[&said(r#"{"veto":"no"}"#), &module(SYNC, TRAP, &[])],
        "vetoed by p0: no",
    )
    .await;
    // Who hooks into another stage is not asked.
    let other = module(&[("gateway.function.invoking", "sync")], TRAP, &[]);
    check(&[&other], untouched).await;
}

#[tokio::test]
async fn a_plugin_that_fails_refuses_or_is_passed_over_as_its_settings_say() {
    let far = "(call $pack (i32.const -16) (i32.const 32))";
    let long = "(call $pack (i32.const 0) (i32.const 100000))";
    for (what, text) in [
        ("a trap", module(SYNC, TRAP, &[])),
        ("more memory than it may have", module(SYNC, HOG, &[])),
        ("an endless call", module(SYNC, HANG, &[])),
        ("an answer that is no JSON", answer(SYNC, "yes")),
        ("an answer of another shape", answer(SYNC, r#"{"ok":true}"#)),
        (
            "data that can not be taken",
            answer(SYNC, r#"{"data":"bad"}"#),
        ),
        ("an answer outside of its memory", module(SYNC, far, &[])),
        ("an answer over the limit", module(SYNC, long, &[])),
        ("endless recursion", {
            let recursion = "(call $again (local.get $message) (local.get $length))";
            let text = module(SYNC, recursion, &[]);
            text.replace(
                "(func (export \"hearth_handle\")",
                "(func $again (export \"hearth_handle\")",
            )
        }),
    ] {
        let mut files = Files::of(&[&text]);
        files.settings.answer_max = ByteSize::kib(64);
        if what == "an endless call" {
            files.settings.timeout = Duration::from_millis(100);
        }
        let expected = "plugin p0 failed at gateway.event.received. Please check logs.";
        assert_eq!(asked(&files).await, expected, "{what}");
        files.settings.load[0].on_failure = OnFailure::Continue;
        assert_eq!(asked(&files).await, r#"{"n":1}"#, "{what}");
    }
}

#[tokio::test]
async fn no_call_sees_another_one() {
    let body = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (result i64) (i32.gt_u (global.get $calls) (i32.const 1)) (then (unreachable)) (else (i64.const 0)))";
    let plugins = Files::of(&[&module(SYNC, body, &[])])
        .start()
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&plugins).await.0, Ok(()));
    }
}

#[tokio::test]
async fn a_module_that_can_not_be_loaded_says_why() {
    let good = module(SYNC, PASS, &[]);
    let check = async |text: &str, expected: &str| {
        let mut files = Files::of(&[&good, text]);
        files.settings.timeout = Duration::from_secs(2);
        let error = files.start().await.unwrap_err();
        assert_eq!(error.key, "plugins.load.1.path");
        let message = error.to_string();
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message}"
        );
    };
    check("(module)", "it lacks the export memory").await;
    check(
        &good.replace("hearth_alloc", "alloc"),
        "it lacks the export hearth_alloc",
    )
    .await;
    let of_wasi = r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))) (memory"#;
    check(
        &good.replacen("(memory", of_wasi, 1),
        "it imports what there is not: unknown import: `wasi_snapshot_preview1::fd_write`",
    )
    .await;
    check(
        &module(&[], PASS, &[]),
        "hearth_hooks: a plugin has to hook into something",
    )
    .await;
    check(
        &module(&[("gateway.info", "sync")], PASS, &[]),
        "there is no stage",
    )
    .await;
    check(
        &module(&[("gateway.function.invoked", "sync")], PASS, &[]),
        "can only be observed",
    )
    .await;
    check(
        &good.replace(
            "(memory (export \"memory\") 2)",
            "(memory (export \"memory\") 65)",
        ),
        "needs more than plugins.memory_max",
    )
    .await;
    check(
        &good.replace(
            "(call $pack (i32.const 0)",
            "(loop $again (br $again)) (call $pack (i32.const 0)",
        ),
        "longer than plugins.timeout",
    )
    .await;
    let mut files = Files::of(&[&good]);
    files.settings.load[0].path.set_extension("gone");
    let message = files.start().await.unwrap_err().to_string();
    assert!(
        message.contains("it can not be read: No such file"),
        "{message}"
    );
    let mut files = Files::of(&[&good]);
    std::fs::write(&files.settings.load[0].path, "no module").unwrap();
    let message = files.start().await.unwrap_err().to_string();
    assert!(
        message.contains("it is no WebAssembly module that runs here"),
        "{message}"
    );
    files.settings.file_max = ByteSize::b(4);
    let message = files.start().await.unwrap_err().to_string();
    assert!(
        message.contains("it is larger than plugins.file_max, 4 bytes"),
        "{message}"
    );
}

/// A runtime with one thread for calls: a call that is not ended would keep it.
fn with_one_thread<F: Future>(test: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(test)
}

#[test]
fn a_call_that_nobody_waits_for_any_more_is_ended() {
    let hang_or_pass = "(if (i32.gt_u (local.get $length) (i32.const 70)) (then (loop $again (br $again)))) (i64.const 0)";
    with_one_thread(async {
        let files = Files::of(&[&module(SYNC, hang_or_pass, &[])]);
        let plugins = files.start().await.unwrap();
        let mut thing = Thing(r#"{"n":1}"#.to_owned());
        let hanging = plugins.ask(Stage::Received, &mut thing);
        let given_up = tokio::time::timeout(Duration::from_millis(100), hanging).await;
        assert!(given_up.is_err(), "it does not hang");
        let mut other = Thing("1".to_owned());
        let asked = tokio::time::timeout(PATIENCE, plugins.ask(Stage::Received, &mut other));
        assert_eq!(asked.await.expect("the thread is free"), Ok(()));
    });
}

#[tokio::test]
async fn who_has_no_turn_in_time_is_refused_and_others_do_not_wait() {
    let mut files = Files::of(&[&module(SYNC, PASS, &[])]);
    files.settings.timeout = Duration::from_millis(300);
    files.settings.concurrency = 1;
    let busy = files.start().await.unwrap();
    let other = Files::of(&[&module(SYNC, PASS, &[])])
        .start()
        .await
        .unwrap();
    let turn = busy.plugins[0].turns.acquire().await.unwrap();
    let refused = async { tokio::join!(ask(&busy), ask(&busy)) };
    let passes = async {
        for _ in 0..10 {
            assert_eq!(ask(&other).await.0, Ok(()));
        }
    };
    let ((one, two), ()) = tokio::join!(refused, passes);
    for (asked, _) in [one, two] {
        assert!(matches!(asked, Err(Refusal::Busy { .. })), "{asked:?}");
    }
    drop(turn);
    assert_eq!(ask(&busy).await.0, Ok(()));
}

/// Runs a test with what it counts, on one thread.
fn counted<F: Future<Output = ()>>(test: impl FnOnce(PrometheusHandle) -> F) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(handle)));
}

fn calls(handle: &PrometheusHandle, stage: Stage, outcome: &str) -> u64 {
    let series =
        format!(r#"hearth_plugin_calls_total{{plugin="p0",stage="{stage}",outcome="{outcome}"}} "#);
    let text = handle.render();
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn an_async_plugin_is_told_as_far_as_there_is_room() {
    counted(async |handle| {
        let mut files = Files::of(&[&module(ASYNC, PASS, &[])]);
        files.settings.observe_len_max = 3;
        let plugins = files.start().await.unwrap();
        assert!(
            plugins.any(Stage::Invoked, Mode::Async) && !plugins.any(Stage::Received, Mode::Sync)
        );
        // Nothing is told before this task waits for something.
        for _ in 0..5 {
            plugins.tell(Stage::Invoked, Bytes::from_static(b"{}"));
        }
        plugins.tell(Stage::Received, Bytes::from_static(b"{}"));
        assert_eq!(calls(&handle, Stage::Invoked, "dropped"), 2);
        plugins.drain(Instant::now() + PATIENCE).await;
        assert_eq!(calls(&handle, Stage::Invoked, "passed"), 3);
        assert_eq!(calls(&handle, Stage::Received, "passed"), 0);
    });
}

#[test]
fn an_async_plugin_that_hangs_delays_neither_a_drain_nor_its_teller() {
    counted(async |handle| {
        let mut files = Files::of(&[&module(ASYNC, HANG, &[])]);
        files.settings.timeout = Duration::from_millis(100);
        let plugins = files.start().await.unwrap();
        let begun = Instant::now();
        for _ in 0..1_000 {
            plugins.tell(Stage::Invoked, Bytes::from_static(b"{}"));
        }
        plugins.drain(begun + Duration::from_millis(350)).await;
        assert!(begun.elapsed() < PATIENCE);
        assert!(calls(&handle, Stage::Invoked, "timed_out") > 0);
    });
}

#[test]
fn a_file_that_changes_is_loaded_and_a_broken_one_is_not() {
    counted(async |handle| {
        let mut files = Files::of(&[&answer(SYNC, r#"{"veto":"one"}"#)]);
        files.settings.reload_interval = Duration::from_millis(10);
        let path = files.settings.load[0].path.clone();
        let plugins = files.start().await.unwrap();
        let until = async |what: &str, holds: &dyn Fn() -> bool| {
            let deadline = Instant::now() + PATIENCE;
            while !holds() {
                assert!(Instant::now() < deadline, "{what}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reloads = |outcome: &str| {
            handle.render().contains(&format!(
                r#"hearth_plugin_reloads_total{{plugin="p0",outcome="{outcome}"}} 1"#
            ))
        };
        std::fs::write(&path, "broken, and of another length").unwrap();
        until("the broken file is noticed", &|| reloads("refused")).await;
        assert!(
            matches!(ask(&plugins).await.0, Err(Refusal::Vetoed { text, .. }) if text == "one")
        );
        write(
            &path,
            &module(&[("gateway.function.invoking", "sync")], PASS, &[]),
        );
        until("the new file is noticed", &|| reloads("loaded")).await;
        assert_eq!(ask(&plugins).await.0, Ok(()));
        assert!(
            plugins.any(Stage::Invoking, Mode::Sync) && !plugins.any(Stage::Received, Mode::Sync)
        );
    });
}
