//! `hearth function …`: the records of functions, their invocation and their output.

use clap::{Args, Subcommand};
use protocol::FunctionId;

use crate::api::Call;
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::records;

pub(crate) mod invoke;
mod list;
mod logs;
mod record;
mod register;

/// What can be done with functions.
#[derive(Debug, Clone, Subcommand)]
pub enum FunctionCommand {
    /// Register a function, or replace its record with `--update`
    #[command(visible_alias = "add")]
    Register(Box<register::RegisterArgs>),

    /// List the functions of the space
    List,

    /// Print a function's record, as JSON
    Get(FunctionArgs),

    /// Delete a function; its instances end after their last call
    Delete(FunctionArgs),

    /// Invoke a function and print its result
    Invoke(invoke::InvokeArgs),

    /// Print what a function wrote to its standard output and standard error
    Logs(logs::LogsArgs),
}

/// Names one function.
#[derive(Debug, Clone, Args)]
pub struct FunctionArgs {
    /// The function's id: letters, digits, `.`, `-` and `_`
    #[arg(value_name = "ID", value_parser = function_id)]
    id: FunctionId,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &FunctionCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        FunctionCommand::Register(args) => register::run(options, args, console).await,
        FunctionCommand::List => list::run(options, console).await,
        FunctionCommand::Get(args) => {
            let path = one(options, &args.id);
            records::get(options, Call::get(&path), console).await
        }
        FunctionCommand::Delete(args) => {
            let path = one(options, &args.id);
            records::delete(options, Call::delete(&path), args.id.as_str(), console).await
        }
        FunctionCommand::Invoke(args) => invoke::run(options, args, console).await,
        FunctionCommand::Logs(args) => logs::run(options, args, console).await,
    }
}

fn one<'a>(options: &'a Options, id: &'a FunctionId) -> [&'a str; 5] {
    let space = options.space.as_str();
    ["v1", "spaces", space, "functions", id.as_str()]
}

/// Reads a function's id. `.` and `..` are refused: in a URL they mean another path, however they are written.
pub(crate) fn function_id(text: &str) -> Result<FunctionId, String> {
    match text {
        "." | ".." => Err("this id can not stand in a URL".to_owned()),
        _ => text
            .parse()
            .map_err(|error: protocol::id::InvalidId| error.to_string()),
    }
}

#[cfg(test)]
mod tests;
