//! `hearth function logs`.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use protocol::{FunctionId, InvocationId};
use serde::Deserialize;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::table::short_id;

/// The node splits longer lines of a function; more without a line end is no log.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// 9999-12-31T23:59:59.999Z: the last moment that can be written as a date.
const DATE_MS_MAX: u64 = 253_402_300_799_999;

/// Arguments of `hearth function logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// The function's id
    #[arg(value_name = "ID", value_parser = super::function_id)]
    id: FunctionId,

    /// Go on printing lines as they are written, until interrupted
    #[arg(long, short)]
    follow: bool,

    /// Only what was written while this invocation ran; of an execution, its id
    #[arg(long, value_name = "ID")]
    invocation: Option<InvocationId>,
}

/// One line of output, as the API sends it.
#[derive(Deserialize)]
struct Line {
    at_ms: u64,
    node: String,
    stream: String,
    instance: String,
    text: String,
}

/// Prints the lines the node has, then, with `--follow`, each line as it comes.
///
/// # Errors
/// When the node can not be asked, the connection breaks, or the output can not be printed.
pub(super) async fn run(
    options: &Options,
    args: &LogsArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let path = [
        "v1",
        "spaces",
        options.space.as_str(),
        "functions",
        args.id.as_str(),
        "logs",
    ];
    let invocation = args.invocation.as_ref();
    let wanted = [
        args.follow.then(|| "follow=true".to_owned()),
        invocation.map(|id| format!("invocation={id}")),
    ];
    let query: Vec<_> = wanted.into_iter().flatten().collect();
    let query = query.join("&");
    let mut call = Call::get(&path);
    if !query.is_empty() {
        call = call.query(&query);
    }
    let api = Api::config(options)?;
    let mut response = api.open(call).await?;
    let mut pending = Vec::new();
    loop {
        // Who follows waits for as long as the function is silent; a list of lines comes at once.
        let limit = if args.follow {
            Duration::MAX
        } else {
            api.limit()
        };
        let chunk = api.next_chunk(&mut response, limit).await?;
        let Some(chunk) = chunk else { break };
        pending.extend_from_slice(&chunk);
        let whole = pending
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let end = if pending.len() - whole > LINE_BYTES_MAX {
            pending.len()
        } else {
            whole
        };
        print(&pending[..end], options, console)?;
        pending.drain(..end);
    }
    print(&pending, options, console)
}

fn print(lines: &[u8], options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    for line in String::from_utf8_lossy(lines)
        .lines()
        .filter(|line| !line.is_empty())
    {
        if options.json {
            writeln!(console.out, "{line}")?;
        } else {
            writeln!(console.out, "{}", shown(line))?;
        }
    }
    Ok(console.out.flush()?)
}

/// The line for a human; what is not understood is shown as it came, so that no output is lost.
fn shown(line: &str) -> String {
    let Ok(Line {
        at_ms,
        node,
        stream,
        instance,
        text,
    }) = serde_json::from_str(line)
    else {
        return line.to_owned();
    };
    let at = if at_ms <= DATE_MS_MAX {
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at_ms)).to_string()
    } else {
        at_ms.to_string()
    };
    format!("{at} {node} {} {stream}: {text}", short_id(&instance))
}

#[cfg(test)]
mod tests;
