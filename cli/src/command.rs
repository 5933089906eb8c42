//! The subcommands, and running one of them.

use std::process::ExitCode;

use clap::Subcommand;

use crate::admin::{self, AdminCommand};
use crate::alias::{self, AliasArgs, AliasCommand};
use crate::backup::{self, ExportArgs, ImportArgs};
use crate::build::{self, BuildArgs};
use crate::cluster::{self, ClusterArgs};
use crate::console::{Console, with_process_streams};
use crate::credentials;
use crate::dead_letter::{self, DeadLetterCommand};
use crate::event_type::{self, EventTypeCommand};
use crate::execution::{self, ExecutionCommand};
use crate::failure::{EXIT_CODES, Exit, Failure};
use crate::function::{self, FunctionCommand};
use crate::key::{self, KeyCommand};
use crate::login::{self, LoginArgs};
use crate::new::{self, NewArgs};
use crate::options::Options;
use crate::ready::{self, ReadyArgs};
use crate::schedule::{self, ScheduleCommand};
use crate::secret::{self, SecretCommand};
use crate::space::{self, SpaceCommand};
use crate::subscription::{self, SubscriptionCommand};
use crate::up::{self, UpArgs};
use crate::user::{self, UserCommand};
use crate::version::{self, VersionCommand};

/// The operator's subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make a function of your own: a directory with its code, its test and its Dockerfile
    New(NewArgs),

    /// Build a function of your own, register it and invoke it
    Up(UpArgs),

    /// Build the image of a function of your own
    Build(BuildArgs),

    /// Register, invoke and look after functions
    #[command(subcommand, after_help = EXIT_CODES)]
    Function(FunctionCommand),

    /// Publish versions of functions, which never change
    #[command(subcommand, after_help = EXIT_CODES)]
    Version(VersionCommand),

    /// Name versions, and say which of them gets how many calls
    #[command(subcommand, after_help = EXIT_CODES)]
    Alias(AliasCommand),

    /// Have all calls of an alias go where they all went before; again to undo that
    #[command(after_help = EXIT_CODES)]
    Rollback(AliasArgs),

    /// Bind events to functions
    #[command(subcommand, after_help = EXIT_CODES)]
    Subscription(SubscriptionCommand),

    /// Register the events that typed subscriptions may ask for
    #[command(subcommand, after_help = EXIT_CODES)]
    EventType(EventTypeCommand),

    /// Look after invocations that were queued, on any node
    #[command(subcommand, after_help = EXIT_CODES)]
    Execution(ExecutionCommand),

    /// Let events come by the clock
    #[command(subcommand, after_help = EXIT_CODES)]
    Schedule(ScheduleCommand),

    /// Set values that functions get and nobody is shown
    #[command(subcommand, after_help = EXIT_CODES)]
    Secret(SecretCommand),

    /// Look after events that a function did not take, on the node that is asked
    #[command(subcommand, after_help = EXIT_CODES)]
    DeadLetter(DeadLetterCommand),

    /// Log in; the commands to come are this user's
    #[command(after_help = EXIT_CODES)]
    Login(LoginArgs),

    /// Log out, which ends the session on every node
    #[command(after_help = EXIT_CODES)]
    Logout,

    /// Make an account, and look after your own
    #[command(subcommand, after_help = EXIT_CODES)]
    User(UserCommand),

    /// Make, list and revoke your API keys
    #[command(subcommand, after_help = EXIT_CODES)]
    Key(KeyCommand),

    /// Make the first admin, and look after all users
    #[command(subcommand, after_help = EXIT_CODES)]
    Admin(AdminCommand),

    /// List spaces, and set who may emit their events
    #[command(subcommand, after_help = EXIT_CODES)]
    Space(SpaceCommand),

    /// Write the whole configuration of the cluster into a file
    #[command(after_help = EXIT_CODES)]
    Export(ExportArgs),

    /// Read a whole configuration into a cluster that has none
    #[command(after_help = EXIT_CODES)]
    Import(ImportArgs),

    /// Show the cluster's nodes, as the node that is asked sees them
    #[command(after_help = EXIT_CODES)]
    Cluster(ClusterArgs),

    /// Tell whether a node takes work: exit code 0 when it does, 1 when it does not
    #[command(after_help = EXIT_CODES)]
    Ready(ReadyArgs),
}

/// Runs a subcommand on the process's own streams and returns its exit code.
///
/// A rustls crypto provider must be installed before.
///
/// # Cancel safety
/// Dropping the future gives up the request in flight; what it asked for may still happen.
pub async fn run(options: Options, command: Command) -> ExitCode {
    let code =
        with_process_streams(async |mut console| execute(&options, &command, &mut console).await)
            .await;
    ExitCode::from(code)
}

/// Runs a subcommand, prints its failure, and returns the exit code.
pub(crate) async fn execute(options: &Options, command: &Command, console: &mut Console<'_>) -> u8 {
    let outcome = match log_in(options, command).await {
        Ok(Some(options)) => perform(&options, command, console)
            .await
            .map_err(|failure| own_space(&options, failure)),
        Ok(None) => perform(options, command, console).await,
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => report(options, &failure, console),
    }
}

/// The options with who is logged in, where that matters.
async fn log_in(options: &Options, command: &Command) -> Result<Option<Options>, Failure> {
    // These need nobody, and work when a session has ended.
    let needs_none = matches!(
        command,
        Command::Login(_)
            | Command::New(_)
            | Command::Build(_)
            | Command::Ready(_)
            | Command::User(UserCommand::SignUp(_))
            | Command::Admin(AdminCommand::Init(_))
    );
    if needs_none || options.token_file.is_some() {
        return Ok(None);
    }
    let login = credentials::find(options).await?;
    Ok(login.map(|login| Options {
        login: Some(login),
        ..options.clone()
    }))
}

/// Who has just logged in may do nothing in the space that is meant when none is named.
fn own_space(options: &Options, failure: Failure) -> Failure {
    let about = format!("in space {}", options.space);
    match &options.login {
        Some(login) if failure.exit == Exit::Unauthorised && failure.message.contains(&about) => {
            failure.hint(format!(
                "{} has a space of their own, u-ID, with the id that `hearth user me` shows: --space u-ID or HEARTH_SPACE",
                login.email
            ))
        }
        _ => failure,
    }
}

async fn perform(
    options: &Options,
    command: &Command,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        Command::New(args) => new::run(options, args, console),
        Command::Up(args) => up::run(options, args, console).await,
        Command::Build(args) => build::run(options, args, console).await,
        Command::Function(command) => function::run(options, command, console).await,
        Command::Version(command) => version::run(options, command, console).await,
        Command::Alias(command) => alias::run(options, command, console).await,
        Command::Rollback(args) => alias::roll_back(options, args, console).await,
        Command::Subscription(command) => subscription::run(options, command, console).await,
        Command::EventType(command) => event_type::run(options, command, console).await,
        Command::Execution(command) => execution::run(options, command, console).await,
        Command::Schedule(command) => schedule::run(options, command, console).await,
        Command::Secret(command) => secret::run(options, command, console).await,
        Command::DeadLetter(command) => dead_letter::run(options, command, console).await,
        Command::Login(args) => login::login(options, args, console).await,
        Command::Logout => login::logout(options, console).await,
        Command::User(command) => user::run(options, command, console).await,
        Command::Key(command) => key::run(options, command, console).await,
        Command::Admin(command) => admin::run(options, command, console).await,
        Command::Space(command) => space::run(options, command, console).await,
        Command::Export(args) => backup::export(options, args, console).await,
        Command::Import(args) => backup::import(options, args, console).await,
        Command::Cluster(args) => cluster::run(options, args, console).await,
        Command::Ready(args) => ready::run(options, args, console).await,
    }
}

fn report(options: &Options, failure: &Failure, console: &mut Console<'_>) -> u8 {
    if failure.exit != Exit::OutputClosed {
        // When the streams themselves are broken, the exit code is all that is left.
        if let Some(body) = failure.body.as_deref().filter(|_| options.json) {
            let _ = console.json(body);
        }
        let _ = writeln!(console.err, "{failure}");
    }
    failure.exit.code()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;
    use crate::testing::{Server, parse};

    /// A pipe whose reader is gone, as after `| head`.
    struct ClosedPipe;

    impl Write for ClosedPipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        crate::testing::install_provider();
        let server = Server::new(&[("200 OK", &[], r#"{"functionId":"f"}"#)]);
        let hearth = parse(&format!("--api {} function get f", server.url)).unwrap();
        let mut err = Vec::new();
        let mut console = Console {
            out: &mut ClosedPipe,
            err: &mut err,
            input: &mut io::empty(),
            is_terminal: false,
            is_watched: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let code = runtime.block_on(execute(&hearth.options, &hearth.command, &mut console));
        assert_eq!((code, err.as_slice()), (0, b"".as_slice()));
    }
}
