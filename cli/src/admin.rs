//! `hearth admin …`: the first admin, and what admins do to the accounts of others.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::password::{PasswordArgs, read_secret};
use crate::records::text;
use crate::space::{LimitArgs, shown};
use crate::table::table;
use crate::user::tell;

/// Users that are asked for at a time.
const PAGE_LEN: usize = 1000;

/// What admins do.
#[derive(Debug, Clone, Subcommand)]
pub enum AdminCommand {
    /// Make the first admin, with the one-time token from a node's log
    Init(InitArgs),

    /// List all users
    Users,

    /// Make a user
    CreateUser(CreateArgs),

    /// Make a user an admin, or a member
    SetRole(RoleArgs),

    /// Give a user a new password, which ends its sessions
    SetPassword(SetPasswordArgs),

    /// Say how much a user may ask for
    SetLimits(SetLimitsArgs),

    /// Delete a user, and all its functions
    DeleteUser(UserArgs),

    /// Make a user a member of the space
    Join(UserArgs),

    /// Let a user be a member of the space no more
    Leave(UserArgs),
}

/// The first admin.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The email of the admin
    #[arg(value_name = "EMAIL")]
    email: String,

    /// File with the one-time token, `-` for standard input [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    one_time_token_file: Option<PathBuf>,

    #[command(flatten)]
    password: PasswordArgs,
}

/// A new user.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The email of the user
    #[arg(value_name = "EMAIL")]
    email: String,

    /// What it may
    #[arg(long, value_name = "ROLE", value_parser = ["admin", "member"], default_value = "member")]
    role: String,

    #[command(flatten)]
    password: PasswordArgs,
}

/// A user and its role.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    /// The user's id, as `hearth admin users` shows it
    #[arg(value_name = "USER")]
    user: String,

    /// What it may
    #[arg(value_name = "ROLE", value_parser = ["admin", "member"])]
    role: String,
}

/// A user and its new password.
#[derive(Debug, Clone, Args)]
pub struct SetPasswordArgs {
    /// The user's id, as `hearth admin users` shows it
    #[arg(value_name = "USER")]
    user: String,

    #[command(flatten)]
    password: PasswordArgs,
}

/// A user and what it may ask for.
#[derive(Debug, Clone, Args)]
pub struct SetLimitsArgs {
    /// The user's id, as `hearth admin users` shows it
    #[arg(value_name = "USER")]
    user: String,

    #[command(flatten)]
    limits: LimitArgs,
}

/// Names one user.
#[derive(Debug, Clone, Args)]
pub struct UserArgs {
    /// The user's id, as `hearth admin users` shows it
    #[arg(value_name = "USER")]
    user: String,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &AdminCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let space = &options.space;
    match command {
        AdminCommand::Init(args) => init(options, args, console).await,
        AdminCommand::Users => list(options, console).await,
        AdminCommand::CreateUser(args) => create(options, args, console).await,
        AdminCommand::SetRole(args) => {
            let path = ["v1", "users", &args.user];
            let body = json!({ "role": args.role });
            let answer = send(options, Method::PATCH, &path, Some(&body)).await?;
            let done = format!("{} is {} now", args.user, args.role);
            show(options, &answer, &done, console)
        }
        AdminCommand::SetPassword(args) => {
            let path = ["v1", "users", &args.user];
            let body = json!({ "password": args.password.read(console)? });
            let answer = send(options, Method::PATCH, &path, Some(&body)).await?;
            let done = format!("{} has a new password", args.user);
            show(options, &answer, &done, console)
        }
        AdminCommand::SetLimits(args) => {
            let limits = args.limits.change(&[]).ok_or_else(|| {
                Failure::usage("no limit is given: see hearth admin set-limits --help")
            })?;
            let path = ["v1", "users", &args.user];
            let body = json!({ "limits": limits });
            let answer = send(options, Method::PATCH, &path, Some(&body)).await?;
            let limits = shown(&answer.json::<Value>()?["limits"]);
            let done = format!("limits of {}: {limits}", args.user);
            show(options, &answer, &done, console)
        }
        AdminCommand::DeleteUser(args) => {
            let path = ["v1", "users", &args.user];
            let answer = send(options, Method::DELETE, &path, None).await?;
            show(options, &answer, &format!("deleted {}", args.user), console)
        }
        AdminCommand::Join(args) => {
            let path = member(options, &args.user);
            let answer = send(options, Method::PUT, &path, None).await?;
            let done = format!("{} is a member of space {space}", args.user);
            show(options, &answer, &done, console)
        }
        AdminCommand::Leave(args) => {
            let path = member(options, &args.user);
            let answer = send(options, Method::DELETE, &path, None).await?;
            let done = format!("{} is no member of space {space}", args.user);
            show(options, &answer, &done, console)
        }
    }
}

async fn init(
    options: &Options,
    args: &InitArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let file = args.one_time_token_file.as_deref();
    let token = read_secret(file, "one time token", console)?;
    let password = args.password.read(console)?;
    let body = json!({ "token": token.trim(), "email": args.email, "password": password });
    let body = body.to_string().into_bytes();
    let path = ["api", "v1", "admin", "init"];
    let call = Call::new(Method::POST, &path, Some(body));
    let answer = Api::functions(options)?.call(call).await?.accept()?;
    tell(options, &answer, console)
}

async fn create(
    options: &Options,
    args: &CreateArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let password = args.password.read(console)?;
    let body = json!({ "email": args.email, "password": password, "role": args.role });
    let answer = send(options, Method::POST, &["v1", "users"], Some(&body)).await?;
    let made: Value = answer.json()?;
    let id = made["id"].as_str().unwrap_or_default();
    show(options, &answer, &format!("created {id}"), console)
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Page {
        users: Vec<Value>,
        next: Option<String>,
    }
    let (api, mut users, mut query) = (
        Api::config(options)?,
        Vec::new(),
        format!("limit={PAGE_LEN}"),
    );
    loop {
        let call = Call::get(&["v1", "users"]).query(&query);
        let page: Page = api.call(call).await?.accept()?.json()?;
        users.extend(page.users);
        match page.next {
            Some(next) => query = format!("limit={PAGE_LEN}&after={next}"),
            None => break,
        }
    }
    if options.json {
        return Ok(console.json(&json!({ "users": users }).to_string())?);
    }
    if users.is_empty() {
        writeln!(console.err, "there are no users")?;
        return Ok(());
    }
    let rows = users.iter().map(|user| {
        let spaces = user["spaces"].as_array().into_iter().flatten();
        [
            text(&user["id"]),
            text(&user["email"]),
            text(&user["role"]),
            text(&user["state"]),
            spaces.map(text).collect::<Vec<_>>().join(","),
        ]
    });
    let heading = ["USER", "EMAIL", "ROLE", "STATE", "SPACES"];
    Ok(console.text(&table(heading, rows))?)
}

fn member<'a>(options: &'a Options, user: &'a str) -> [&'a str; 5] {
    ["v1", "spaces", options.space.as_str(), "members", user]
}

async fn send(
    options: &Options,
    method: Method,
    path: &[&str],
    body: Option<&Value>,
) -> Result<Answer, Failure> {
    let body = body.map(|body| body.to_string().into_bytes());
    let call = Call::new(method, path, body);
    Api::config(options)?.call(call).await?.accept()
}

fn show(
    options: &Options,
    answer: &Answer,
    done: &str,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match options.json {
        true => Ok(console.json(&answer.text())?),
        false => Ok(console.text(done)?),
    }
}
