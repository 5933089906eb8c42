//! `hearth login` and `hearth logout`.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::credentials;
use crate::failure::Failure;
use crate::options::Options;
use crate::password::PasswordArgs;

/// Who logs in.
#[derive(Debug, Clone, Args)]
pub struct LoginArgs {
    /// The user's email
    #[arg(value_name = "EMAIL")]
    email: String,

    #[command(flatten)]
    password: PasswordArgs,
}

/// Logs in, and keeps the tokens for the commands to come.
///
/// # Errors
/// When email or password is wrong, or the credentials file can not be written.
pub(crate) async fn login(
    options: &Options,
    args: &LoginArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let password = args.password.read(console)?;
    let body = json!({ "email": args.email, "password": password }).to_string();
    let path = ["api", "v1", "users", "login"];
    let call = Call::new(Method::POST, &path, Some(body.into_bytes()));
    let answer = Api::functions(options)?.call(call).await?.accept()?;
    credentials::keep(options, &args.email, answer.json()?)?;
    Ok(console.text(&format!("logged in as {}", args.email))?)
}

/// Ends the session, and forgets its tokens.
///
/// # Errors
/// When the node can not be asked, or the credentials file can not be written.
pub(crate) async fn logout(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let Some(login) = &options.login else {
        writeln!(
            console.err,
            "nobody is logged in at {}",
            options.functions_api
        )?;
        return Ok(());
    };
    let path = ["api", "v1", "users", "logout"];
    let call = Call::new(Method::POST, &path, None);
    let answer = Api::functions(options)?.call(call).await?;
    // A session that has ended already is as good as ended.
    if answer.status != reqwest::StatusCode::UNAUTHORIZED {
        answer.accept()?;
    }
    credentials::forget(options)?;
    Ok(console.text(&format!("logged out {}", login.email))?)
}
