//! `hearth user …`: the account of whoever is logged in.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call};
use crate::console::Console;
use crate::credentials;
use crate::failure::Failure;
use crate::options::Options;
use crate::password::{PasswordArgs, read_secret};

/// What users do to their account.
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Make an account
    SignUp(SignUpArgs),

    /// Print who is logged in
    Me,

    /// Change the password, which ends every session
    Password(ChangeArgs),

    /// Delete the account that is logged in, and all its functions
    Delete,
}

/// A new account.
#[derive(Debug, Clone, Args)]
pub struct SignUpArgs {
    /// The email
    #[arg(value_name = "EMAIL")]
    email: String,

    #[command(flatten)]
    password: PasswordArgs,
}

/// A new password.
#[derive(Debug, Clone, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    password: PasswordArgs,

    /// File whose first line is the new password [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &UserCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        UserCommand::SignUp(args) => {
            let password = args.password.read(console)?;
            let body = json!({ "email": args.email, "password": password });
            let answer = send(options, Method::POST, &[], Some(&body)).await?;
            tell(options, &answer, console)
        }
        UserCommand::Me => me(options, console).await,
        UserCommand::Password(args) => change_password(options, args, console).await,
        UserCommand::Delete => {
            let answer = send(options, Method::DELETE, &["me"], None).await?;
            credentials::forget(options)?;
            tell(options, &answer, console)
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Me {
    user_id: String,
    email: String,
}

async fn me(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let answer = send(options, Method::GET, &["me"], None).await?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Me { user_id, email } = answer.json()?;
    Ok(console.text(&format!("{email} {user_id}"))?)
}

async fn change_password(
    options: &Options,
    args: &ChangeArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let password = args.password.read(console)?;
    let new = read_secret(args.new_password_file.as_deref(), "new password", console)?;
    let body = json!({ "password": password, "newPassword": new });
    let answer = send(options, Method::POST, &["me", "password"], Some(&body)).await?;
    credentials::forget(options)?;
    tell(options, &answer, console)
}

async fn send(
    options: &Options,
    method: Method,
    below: &[&str],
    body: Option<&Value>,
) -> Result<Answer, Failure> {
    let path = [&["api", "v1", "users"], below].concat();
    let body = body.map(|body| body.to_string().into_bytes());
    let call = Call::new(method, &path, body);
    Api::functions(options)?.call(call).await?.accept()
}

/// Prints what the API says of what was done.
pub(crate) fn tell(
    options: &Options,
    answer: &Answer,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Told { message } = answer.json()?;
    Ok(console.text(&message)?)
}
