//! `hearth ready`: whether a node takes work.

use std::time::Duration;

use clap::Args;
use reqwest::StatusCode;
use tokio::time::Instant;

use crate::api::{Answer, Api, Call};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::options::{self, Options};

/// How often `--wait` asks: often enough that a script loses no time, seldom enough to cost nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Arguments of `hearth ready`.
#[derive(Debug, Clone, Args)]
pub struct ReadyArgs {
    /// Ask again until the node is ready, for at most so long, such as `30s`
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    wait: Option<Duration>,
}

/// Asks the node whether it is ready.
///
/// # Errors
/// When it is not, when it can not be reached, or when either is still so at the end of `--wait`.
pub(crate) async fn run(
    options: &Options,
    args: &ReadyArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let api = Api::config(options)?;
    let give_up = args.wait.map(|wait| Instant::now() + wait);
    loop {
        let outcome = match give_up {
            None => ask(&api).await,
            Some(moment) => match tokio::time::timeout_at(moment, ask(&api)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(api.no_answer()),
            },
        };
        match (outcome, give_up) {
            (Err(failure), Some(moment))
                if failure.exit != Exit::Unauthorised
                    && Instant::now() + POLL_INTERVAL < moment =>
            {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            (outcome, _) => {
                let answer = outcome?;
                let shown = if options.json {
                    console.json(&answer.text())
                } else {
                    console.text("ready")
                };
                return Ok(shown?);
            }
        }
    }
}

async fn ask(api: &Api) -> Result<Answer, Failure> {
    let answer = api.call(Call::get(&["v1", "ready"])).await?;
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        let mut failure = answer.failure();
        failure.message = format!("not ready: {}", failure.message);
        // When to ask again is for --wait to know, not for whoever reads the answer.
        failure.hints.clear();
        return Err(failure);
    }
    answer.accept()
}

#[cfg(test)]
mod tests {
    use crate::testing::Server;

    const READY: (&str, &[&str], &str) = ("200 OK", &[], r#"{"ready":true}"#);
    const DRAINING: (&str, &[&str], &str) = (
        "503 Service Unavailable",
        &["retry-after: 1"],
        r#"{"ready":false,"why":"the node is draining"}"#,
    );

    #[test]
    fn a_ready_node_exits_0() {
        let server = Server::new(&[READY]);
        let outcome = server.run("ready");
        assert_eq!(
            (outcome.code, outcome.out.as_str()),
            (0, "ready\n"),
            "{}",
            outcome.err
        );
        assert_eq!(server.request().line, "GET /v1/ready");
        assert_eq!(
            Server::new(&[READY]).run("ready --json").out,
            "{\"ready\":true}\n"
        );
    }

    #[test]
    fn a_node_that_is_not_ready_exits_1_and_says_why() {
        let outcome = Server::new(&[DRAINING]).run("ready");
        assert_eq!(outcome.code, 1);
        assert_eq!(outcome.err, "hearth: not ready: the node is draining\n");
    }

    #[test]
    fn wait_asks_until_the_node_is_ready() {
        let server = Server::new(&[DRAINING, DRAINING, READY]);
        let outcome = server.run("ready --wait 30s");
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        assert_eq!(server.requests().len(), 3);
    }

    #[test]
    fn wait_ends_with_the_last_failure() {
        assert_eq!(Server::new(&[DRAINING]).run("ready --wait 150ms").code, 1);
        assert_eq!(
            Server::raw(vec![String::new()])
                .run("ready --wait 150ms")
                .code,
            69
        );
    }
}
