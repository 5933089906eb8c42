//! `hearth dead-letter …`: deliveries that ended without success, on the node that is asked.

use clap::{Args, Subcommand};
use protocol::api;
use reqwest::Method;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::table::table;

/// What can be done with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLetterCommand {
    /// List the dead letters of the node, oldest first
    List,

    /// Print a dead letter with its event, as JSON
    Show(DeadLetterArgs),

    /// Deliver dead letters again, as if they had just been accepted
    Redrive(ChosenArgs),

    /// Forget dead letters
    Purge(ChosenArgs),
}

/// Names one dead letter.
#[derive(Debug, Clone, Args)]
pub struct DeadLetterArgs {
    /// The dead letter's id, as `list` prints it
    #[arg(value_name = "ID")]
    id: String,
}

/// Names several dead letters.
#[derive(Debug, Clone, Args)]
pub struct ChosenArgs {
    /// The dead letters' ids, as `list` prints them
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,

    /// All that the node has now, of all spaces
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &DeadLetterCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        DeadLetterCommand::List => list(options, console).await,
        DeadLetterCommand::Show(args) => show(options, &args.id, console).await,
        DeadLetterCommand::Redrive(args) => {
            let api = Api::config(options)?;
            let ids = chosen(&api, args).await?;
            for id in &ids {
                let path = ["v1", "dead-letters", id, "redrive"];
                let call = Call::new(Method::POST, &path, None);
                api.call(call).await?.accept()?;
            }
            told(&ids, "redriven", console)
        }
        DeadLetterCommand::Purge(args) => {
            let api = Api::config(options)?;
            let ids = chosen(&api, args).await?;
            for id in &ids {
                let path = ["v1", "dead-letters", id];
                let call = Call::new(Method::DELETE, &path, None);
                api.call(call).await?.accept()?;
            }
            told(&ids, "purged", console)
        }
    }
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let (node, letters) = all(&Api::config(options)?).await?;
    if options.json {
        let text = serde_json::to_string(&letters).unwrap_or_default();
        return Ok(console.json(&text)?);
    }
    if letters.is_empty() {
        writeln!(console.err, "node {node} has no dead letters")?;
        return Ok(());
    }
    let rows = letters.into_iter().map(|letter| {
        let status = letter.status.map(|status| status.to_string());
        [
            letter.id,
            letter.space.to_string(),
            letter.function_id.to_string(),
            letter.event_type,
            letter.attempts.to_string(),
            letter.code,
            status.unwrap_or_default(),
        ]
    });
    let heading = [
        "ID", "SPACE", "FUNCTION", "EVENT", "ATTEMPTS", "REASON", "STATUS",
    ];
    Ok(console.text(&table(heading, rows))?)
}

async fn show(options: &Options, id: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = ["v1", "dead-letters", id];
    let answer = Api::config(options)?
        .call(Call::get(&path))
        .await?
        .accept()?;
    Ok(console.json(&answer.text())?)
}

fn told(ids: &[String], what: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    Ok(console.text(&format!("{what}: {}", ids.len()))?)
}

async fn chosen(api: &Api, args: &ChosenArgs) -> Result<Vec<String>, Failure> {
    if !args.all {
        return Ok(args.ids.clone());
    }
    // All of them before the first one: one that is redriven may be back at the end of the list.
    let (_, letters) = all(api).await?;
    Ok(letters.into_iter().map(|letter| letter.id).collect())
}

/// The name of the node, and all that it has, page by page.
async fn all(api: &Api) -> Result<(String, Vec<api::DeadLetter>), Failure> {
    let (mut letters, mut after) = (Vec::new(), 0);
    loop {
        let query = format!("limit=500&after={after}");
        let call = Call::get(&["v1", "dead-letters"]).query(&query);
        let answer = api.call(call).await?.accept()?;
        let page: api::DeadLetters = answer.json()?;
        letters.extend(page.dead_letters);
        match page.next {
            Some(next) => after = next,
            None => return Ok((page.node, letters)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Server, check_ok, parse};

    const LETTER: &str = r#"{"id":"d1","position":7,"space":"default","functionId":"f","subscriptionId":"a,f,%2F","eventId":"e","eventType":"a","acceptedAtMs":1,"diedAtMs":2,"attempts":3,"code":"function_failed","message":"status 500","status":500}"#;

    fn page(letters: &str, next: &str) -> String {
        format!(r#"{{"node":"n1","deadLetters":[{letters}],"next":{next}}}"#)
    }

    #[test]
    fn dead_letters_are_listed_page_by_page() {
        let (first, second) = (page(LETTER, "7"), page("", "null"));
        let server = Server::new(&[("200 OK", &[], &first), ("200 OK", &[], &second)]);
        let outcome = server.run("dead-letter list");
        let row = outcome.out.lines().nth(1).unwrap_or_default();
        let cells: Vec<&str> = row.split_whitespace().collect();
        let expected = ["d1", "default", "f", "a", "3", "function_failed", "500"];
        assert_eq!(cells, expected, "{outcome:?}");
        let lines: Vec<_> = server
            .requests()
            .into_iter()
            .map(|sent| sent.line)
            .collect();
        let expected = [0, 7].map(|after| format!("GET /v1/dead-letters?limit=500&after={after}"));
        assert_eq!(lines, expected);
        let server = Server::new(&[("200 OK", &[], &second)]);
        let outcome = server.run("dead-letter list");
        assert!(outcome.err.contains("node n1 has no dead letters"));
    }

    #[test]
    fn those_that_are_named_or_all_are_redriven_and_purged() {
        let server = Server::new(&[("204 No Content", &[], "")]);
        check_ok(&server.run("dead-letter redrive d1"), "redriven: 1\n");
        let line = "POST /v1/dead-letters/d1/redrive";
        assert_eq!(server.request().line, line);
        let all = page(LETTER, "null");
        let server = Server::new(&[("200 OK", &[], &all), ("204 No Content", &[], "")]);
        check_ok(&server.run("dead-letter purge --all"), "purged: 1\n");
        assert!(parse("dead-letter purge").is_err(), "neither ids nor --all");
        assert!(parse("dead-letter purge d1 --all").is_err(), "both");
    }
}
