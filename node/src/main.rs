//! The binary `hearth`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use config::Settings;
use node::args::{Arguments, Command, original};
use node::shutdown::Signals;
use node::telemetry::Telemetry;
use node::{Node, dev};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A setting is wrong (sysexits: EX_USAGE).
const EXIT_SETTINGS: u8 = 64;

/// Something the node needs is not to be had, such as a port (sysexits: EX_UNAVAILABLE).
const EXIT_UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == dev::GUARD)
    {
        // Before any runtime and any parser: a guard is small, one runs for each instance, and what follows is the command's.
        return providers::process::guard::main(std::env::args_os().skip(2));
    }
    let arguments = match original::translate(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error.to_string(), EXIT_SETTINGS),
    };
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return cli::usage_error(&error),
    };
    // The only provider in the tree, chosen before anything makes a connection; it fails only when chosen twice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(
                &format!("the runtime can not start: {error}"),
                EXIT_UNAVAILABLE,
            );
        }
    };
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Operator(command) => cli::run(arguments.options, command).await,
        Command::Settings(node) => match node.load() {
            Ok(settings) => print(&settings.to_toml()),
            Err(error) => fail(&error.to_string(), EXIT_SETTINGS),
        },
        Command::Node(node) => match node.load() {
            Ok(settings) => Box::pin(run_node(settings)).await,
            Err(error) => fail(&error.to_string(), EXIT_SETTINGS),
        },
        Command::Dev(dev) => match Box::pin(dev::run(&dev)).await {
            Ok(code) => code,
            Err(error) => fail(&format!("{error:#}"), dev::exit_code(&error)),
        },
    }
}

/// How long a start may go on that was told to end.
const START_PATIENCE: Duration = Duration::from_secs(5);

async fn run_node(settings: Settings) -> ExitCode {
    let telemetry = match Telemetry::install(&settings) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&format!("{error:#}"), EXIT_SETTINGS),
    };
    // Before the node starts: its last step is to let clients in, and who is in is drained.
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("no signals can be had: {error}"), EXIT_UNAVAILABLE),
    };
    let starting = Box::pin(Node::new(settings).start(&telemetry.metrics));
    let Some((started, is_requested)) = start(starting, &mut signals).await else {
        return ExitCode::SUCCESS;
    };
    let handle = match started {
        Ok(handle) => handle,
        Err(error) if error.is_of_settings() => return fail(&error.to_string(), EXIT_SETTINGS),
        Err(error) => return fail(&error.to_string(), EXIT_UNAVAILABLE),
    };
    let has_failed = tokio::select! {
        () = std::future::ready(()), if is_requested => false,
        () = signals.next() => false,
        () = handle.failed() => true,
    };
    tokio::select! {
        () = handle.stop() => {}
        // A second signal means now.
        () = signals.next() => return ExitCode::FAILURE,
    }
    telemetry.shutdown().await;
    if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// What became of a start, and whether the node was told to end meanwhile; nothing when it waited for something then, and nobody has got in.
async fn start<T>(starting: impl Future<Output = T>, signals: &mut Signals) -> Option<(T, bool)> {
    let mut starting = std::pin::pin!(starting);
    tokio::select! {
        biased;
        started = &mut starting => Some((started, false)),
        () = signals.next() => {
            let started = tokio::time::timeout(START_PATIENCE, starting).await;
            started.ok().map(|started| (started, true))
        }
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    // A reader that went away wants no more.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(why: &str, code: u8) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "hearth: {why}");
    ExitCode::from(code)
}
