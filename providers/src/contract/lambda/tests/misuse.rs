//! What a runtime must not do, and who else may not ask.

use super::*;

#[tokio::test]
async fn an_answer_to_what_was_not_asked_breaks_the_instance() {
    for (path, fields) in [
        ("invocation/other/response", ""),
        ("invocation/other/error", ""),
        ("invocation/not%20an%20id/response", ""),
    ] {
        let (scene, mut runtime) = Scene::one().await;
        let call = scene.invoke("one", None);
        runtime.given().await;
        runtime
            .post(path, fields, "x")
            .await
            .is_error(400, "InvalidRequestID");
        let error = ended(call).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::MalformedAnswer, "{error}");
        assert!(error.to_string().contains("broke the protocol"), "{error}");
        assert!(scene.broken.is_cancelled());
        let error = ended(scene.invoke("two", None)).await.unwrap_err();
        assert_eq!(
            error.effect(),
            Effect::Refused,
            "nothing more is given to it"
        );
    }
}

#[tokio::test]
async fn a_second_answer_breaks_the_instance_and_does_not_reach_the_next_invocation() {
    let (scene, mut runtimes) = Scene::up(2, 5_000).await;
    let first = scene.invoke("one", None);
    assert_eq!(runtimes[0].given().await, "one");
    assert_eq!(runtimes[0].response("one", "1").await.status, 202);
    assert_eq!(text(&ended(first).await.unwrap()), "1");
    let second = scene.invoke("two", None);
    assert_eq!(runtimes[1].given().await, "two");
    runtimes[1]
        .response("one", "again")
        .await
        .is_error(400, "InvalidRequestID");
    assert!(scene.broken.is_cancelled());
    let error = ended(second).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::MalformedAnswer, "{error}");
}

#[tokio::test]
async fn an_answer_after_the_time_is_over_is_gone() {
    let (scene, mut runtimes) = Scene::up(1, 200).await;
    let call = scene.invoke("one", None);
    let runtime = &mut runtimes[0];
    runtime.given().await;
    let error = ended(call).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::DeadlineExceeded);
    runtime
        .response("one", "late")
        .await
        .is_error(410, "InvokeTimeout");
    assert!(!scene.broken.is_cancelled(), "its owner replaces it anyway");
}

#[tokio::test]
async fn a_runtime_that_asks_for_more_than_its_slots_is_broken() {
    let (scene, mut runtime) = Scene::one().await;
    let call = scene.invoke("one", None);
    runtime.given().await;
    let mut other = Runtime::connect(scene.api).await;
    other.ask().await;
    other.told().await.is_error(403, "InvalidStateTransition");
    assert!(scene.broken.is_cancelled());
    assert!(ended(call).await.is_err());
}

#[tokio::test]
async fn a_request_before_next_is_answered_breaks_the_instance() {
    let (scene, mut runtime) = Scene::one().await;
    runtime.ask().await;
    assert_eq!(runtime.told().await.status, 0);
    tokio::time::timeout(PATIENCE, scene.broken.cancelled())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_no_http_breaks_the_instance() {
    let (scene, _runtime) = Scene::one().await;
    let mut other = Runtime::connect(scene.api).await;
    other.0.write_all(b"hello\r\n\r\n").await.unwrap();
    other.told().await.is_error(400, "InvalidRequest");
    assert!(scene.broken.is_cancelled());
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_said_to_be() {
    let (scene, mut runtime) = Scene::one().await;
    let call = scene.invoke("one", None);
    runtime.given().await;
    let told = runtime.response("one", &"x".repeat(64 * 1024 + 1)).await;
    told.is_error(413, "RequestEntityTooLarge");
    let error = ended(call).await.unwrap_err();
    assert!(
        matches!(error, Error::AnswerTooLarge { bytes_max: 65_536 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_mode_that_nobody_knows_fails_its_invocation() {
    let (scene, mut runtime) = Scene::one().await;
    let call = scene.invoke("one", None);
    runtime.given().await;
    let mode = "Lambda-Runtime-Function-Response-Mode: buffered\r\n";
    let told = runtime.post("invocation/one/response", mode, "x").await;
    told.is_error(400, "InvalidFunctionResponseMode");
    let error = ended(call).await.unwrap_err();
    assert!(error.to_string().contains("\"buffered\""), "{error}");
}

#[tokio::test]
async fn an_instance_that_dies_takes_its_invocations_along_and_what_it_said_counts() {
    let (scene, mut runtimes) = Scene::up(1, 5_000).await;
    let call = scene.invoke("one", None);
    runtimes[0].given().await;
    scene.end.exited(3, "the instance ended with exit code 3");
    let error = ended(call).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FunctionFailed, "{error}");
    assert!(error.to_string().contains("exit code 3"), "{error}");

    let (scene, mut runtime) = Scene::one().await;
    let call = scene.invoke("one", None);
    runtime.given().await;
    runtime
        .send("POST", "invocation/one/response", "", "last words")
        .await;
    drop(runtime);
    scene.end.exited(3, "the instance ended with exit code 3");
    assert_eq!(text(&ended(call).await.unwrap()), "last words");
}

#[tokio::test]
async fn a_connection_that_is_given_up_takes_its_request_for_next_along() {
    let (scene, runtime) = Scene::one().await;
    drop(runtime);
    let mut other = Runtime::connect(scene.api).await;
    other.ask().await;
    let call = scene.invoke("one", None);
    assert_eq!(other.given().await, "one");
    other.response("one", "1").await;
    assert_eq!(text(&ended(call).await.unwrap()), "1");
    assert!(!scene.broken.is_cancelled());
}

#[tokio::test]
async fn a_runtime_may_say_that_it_can_not_begin_but_only_then() {
    let (server, _end) = server(&function(1, 1_000)).await;
    server.is_at(LOCAL);
    let mut runtime = Runtime::connect(server.address()).await;
    let object =
        r#"{"errorType":"Runtime.ImportModuleError","errorMessage":"no module named app"}"#;
    let told = runtime.post("init/error", "", object).await;
    assert_eq!(told.status, 202);
    let why = server.ready().await.unwrap_err();
    let expected =
        "its runtime failed to initialise: Runtime.ImportModuleError: no module named app";
    assert_eq!(why, expected);
    runtime
        .post("init/error", "", object)
        .await
        .is_error(403, "InvalidStateTransition");

    let (scene, _runtime) = Scene::one().await;
    let mut other = Runtime::connect(scene.api).await;
    other
        .post("init/error", "", object)
        .await
        .is_error(403, "InvalidStateTransition");
    assert!(
        !scene.broken.is_cancelled(),
        "one of several workers may come late"
    );
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_and_the_connection_stays() {
    let (scene, _runtime) = Scene::one().await;
    let mut other = Runtime::connect(scene.api).await;
    other
        .post("restore/error", "", "{}")
        .await
        .is_error(404, "NotFound");
    other
        .post("invocation", "", "x")
        .await
        .is_error(404, "NotFound");
    other
        .post("invocation/next", "", "x")
        .await
        .is_error(405, "MethodNotAllowed");
    other.send("GET", "restore/next", "", "").await;
    other.told().await.is_error(404, "NotFound");
    assert!(!scene.broken.is_cancelled());
}

#[tokio::test]
async fn only_the_instance_is_answered() {
    let (server, _end) = server(&function(1, 1_000)).await;
    server.is_at(IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2)));
    let mut stranger = Runtime::connect(server.address()).await;
    stranger.ask().await;
    stranger.told().await.is_error(403, "Forbidden");
    assert!(
        !server.broken().is_cancelled(),
        "it is not the instance's doing"
    );
}
