//! Measures Hearth beside nginx and the container engine, in one run; `scripts/bench.sh` builds and starts it.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use cluster_tests::bench::{self, Selection};

const USAGE: &str = "bench [--only ROW,...] [--rounds N] [--seconds S]
bench serve [--port N]
bench ask

Measures the warm path, forwards, cold starts, the loss of a node, memory and start-up, prints a table and
writes target/bench/results.json. Ends with 0 when everything was measured, whether or not the targets are met.

  --only ROW,...  measures what these rows of the table need, and nothing else
  --rounds N      how often each load is run (5)
  --seconds S     how long each load is run (1)

serve is the function that is called; it listens on --port or on $PORT. ask is one that asks the Runtime API of AWS Lambda, at
$AWS_LAMBDA_RUNTIME_API, for its invocations.
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|first| first == "serve").is_some() {
        bench::serve(port(arguments)?).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.next_if(|first| first == "ask").is_some() {
        bench::ask().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(selection) = selection(arguments)? else {
        say(USAGE);
        say(&format!("\nThe rows: {}\n", bench::names().join(", ")));
        return Ok(ExitCode::SUCCESS);
    };
    let report = bench::run(&selection).await?;
    let path = report.write()?;
    say(&format!("{report}written to {}\n", path.display()));
    Ok(ExitCode::SUCCESS)
}

fn selection(arguments: impl Iterator<Item = String>) -> anyhow::Result<Option<Selection>> {
    let mut selection = Selection::default();
    let mut arguments = arguments;
    while let Some(flag) = arguments.next() {
        if flag == "--help" {
            return Ok(None);
        }
        let value = arguments
            .next()
            .with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
        let what = || format!("{flag} {value} is no number");
        match flag.as_str() {
            "--only" => selection.only(&value)?,
            "--rounds" => selection.rounds(value.parse().with_context(what)?)?,
            "--seconds" => selection.seconds(value.parse().with_context(what)?)?,
            _ => bail!("unknown flag {flag}\n{USAGE}"),
        }
    }
    Ok(Some(selection))
}

fn port(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<u16> {
    let port = match arguments.next().as_deref() {
        None => std::env::var("PORT").context("serve needs --port or $PORT")?,
        Some("--port") => arguments.next().context("--port needs a number")?,
        Some(other) => bail!("unknown argument {other}\n{USAGE}"),
    };
    port.parse()
        .with_context(|| format!("the port {port} is no number"))
}

fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
