//! Greets, says what came on stdin, and ends; with `EXIT_CODE` as that says.

use std::io::{self, Read};
use std::{env, process};

/// Bytes of input that are read.
const INPUT_BYTES_MAX: u64 = 1 << 20;

fn main() -> io::Result<()> {
    println!("Hello from Hearth!");
    let mut input = String::new();
    io::stdin()
        .take(INPUT_BYTES_MAX)
        .read_to_string(&mut input)?;
    if !input.is_empty() {
        println!("You said: {}", input.trim_end());
    }
    let code = env::var("EXIT_CODE")
        .ok()
        .and_then(|code| code.parse().ok());
    let code = code.unwrap_or(0);
    if code != 0 {
        eprintln!("EXIT_CODE is {code}");
    }
    process::exit(code);
}
