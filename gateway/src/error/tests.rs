//! Statuses, words and headers of errors.

use super::*;

fn check(code: ErrorCode, effect: Effect, expected: u16) {
    let error = Error::from(Failure::new(code, Component::Peer, effect, "why"));
    assert_eq!(error.status.as_u16(), expected, "{code} {effect:?}");
}

#[test]
fn every_code_has_its_status() {
    check(ErrorCode::InvalidRequest, Effect::Refused, 400);
    check(ErrorCode::FunctionNotFound, Effect::Refused, 404);
    check(ErrorCode::PayloadTooLarge, Effect::Refused, 413);
    check(ErrorCode::PayloadTooLarge, Effect::Finished, 502);
    check(ErrorCode::FunctionBusy, Effect::Refused, 429);
    check(ErrorCode::Overloaded, Effect::Refused, 503);
    check(ErrorCode::Draining, Effect::Refused, 503);
    check(ErrorCode::EngineUnavailable, Effect::Refused, 503);
    check(ErrorCode::FunctionFailed, Effect::Finished, 502);
    check(ErrorCode::MalformedAnswer, Effect::Finished, 502);
    check(ErrorCode::StartFailed, Effect::Refused, 502);
    check(ErrorCode::Unreachable, Effect::Refused, 502);
    check(ErrorCode::Interrupted, Effect::Interrupted, 502);
    check(ErrorCode::DeadlineExceeded, Effect::Interrupted, 504);
    check(ErrorCode::Internal, Effect::Refused, 500);
}

fn message(code: ErrorCode, effect: Effect, message: &str) -> String {
    Error::from(Failure::new(code, Component::Peer, effect, message)).functions_message()
}

#[test]
fn an_interrupted_call_says_so_once() {
    assert_eq!(
        message(
            ErrorCode::Interrupted,
            Effect::Interrupted,
            "node n2 was lost"
        ),
        "node n2 was lost; the function may have run"
    );
    let said = "node n2 was lost, the function may have run";
    assert_eq!(
        message(ErrorCode::Interrupted, Effect::Interrupted, said),
        said
    );
    assert_eq!(
        message(ErrorCode::FunctionFailed, Effect::Finished, "exit code 1"),
        "exit code 1"
    );
}

/// Section 7 of the reference: three errors of AWS have messages of their own, and no other cause is told.
#[test]
fn a_client_is_told_when_aws_does_not_know_the_credentials() {
    let message = |said: &str, component| {
        let (code, effect) = (ErrorCode::Unreachable, Effect::Refused);
        let answered = protocol::Answered {
            status: 403,
            said: said.to_owned(),
            retry_after_ms: None,
        };
        let failure = Failure {
            answered: Some(Box::new(answered)),
            ..Failure::new(code, component, effect, "AWS Lambda, function f in eu: why")
        };
        let failed = Failed {
            failure,
            is_forwarded: false,
            phases: protocol::Phases::default(),
            standing: None,
        };
        let error = Error::function_call(failed);
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
        error.failure.message
    };
    for code in [
        "AccessDeniedException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
    ] {
        let said = format!("{code}: for people");
        let expected = format!("Function call failed with {code}. ");
        let told = message(&said, Component::Provider);
        assert!(told.starts_with(&expected), "{told}");
        assert!(!told.contains("for people"), "{told}");
        assert_eq!(message(&said, Component::Function), CALL_FAILED);
    }
    let other = message("ResourceNotFoundException: no", Component::Provider);
    assert_eq!(other, CALL_FAILED);
}

#[test]
fn retry_after_is_whole_seconds_and_never_zero() {
    let error = |code| Failure::new(code, Component::Peer, Effect::Refused, "why");
    let seconds = |failure: Failure| Error::from(failure).retry_after_seconds();
    assert_eq!(seconds(error(ErrorCode::Overloaded)), Some(1));
    assert_eq!(
        seconds(error(ErrorCode::FunctionBusy).retry_after_ms(2_001)),
        Some(3)
    );
    assert_eq!(
        seconds(error(ErrorCode::FunctionBusy).retry_after_ms(0)),
        Some(1)
    );
    assert_eq!(seconds(error(ErrorCode::Unreachable)), None);
    assert_eq!(
        seconds(error(ErrorCode::Unreachable).retry_after_ms(5_000)),
        Some(5)
    );
}
