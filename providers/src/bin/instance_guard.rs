//! The guard of `process` instances as a program of its own, for the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    providers::process::guard::main(std::env::args_os().skip(1))
}
