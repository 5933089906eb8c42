//! Options that every subcommand takes: where the APIs are, who is asking, and how answers are shown.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use protocol::Space;
use url::Url;

use crate::credentials::Login;

/// Set on each option, not on the struct: a struct's heading would leak to whatever the binary adds after it.
const HEADING: &str = "Options for calling the API";

/// Options of every subcommand that calls the API.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Config API of any node: functions, the cluster, readiness
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "HEARTH_API",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:4001",
        value_parser = base_url
    )]
    pub api: Url,

    /// Functions API of any node: invocations
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "HEARTH_FUNCTIONS_API",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:3000",
        value_parser = base_url
    )]
    pub functions_api: Url,

    /// File with the bearer token, for nodes that run with `--auth required`; it comes before who is logged in
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "HEARTH_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub token_file: Option<PathBuf>,

    /// File where `hearth login` keeps tokens, which later commands use [default: hearth/credentials.json in the user's config directory]
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "HEARTH_CREDENTIALS_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub credentials_file: Option<PathBuf>,

    /// File with the certificates to trust, PEM, for nodes that speak HTTPS [default: those of the system]
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "HEARTH_CA_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub ca_file: Option<PathBuf>,

    /// Print the API's own JSON, errors included, on standard output
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,

    /// Space the function lives in; a user's own is u- and the id that `hearth user me` shows
    #[arg(
        long,
        global = true,
        help_heading = HEADING,
        env = "HEARTH_SPACE",
        hide_env_values = true,
        value_name = "SPACE",
        default_value = "default"
    )]
    pub space: Space,

    /// How long to wait for an answer, such as `500ms`, `30s` or `5m` [default: 60s; `invoke`: until the node answers]
    #[arg(long, global = true,
        help_heading = HEADING, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// Who is logged in, which is read from the credentials file
    #[arg(skip)]
    pub(crate) login: Option<Login>,
}

/// Reads a base URL. A path in it is kept as a prefix, for an API behind a proxy.
fn base_url(text: &str) -> Result<Url, String> {
    let expected = "expected a URL such as http://127.0.0.1:4001";
    let url = Url::parse(text).map_err(|error| format!("{error}; {expected}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(expected.to_owned());
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(format!("{expected}, without user, query and fragment"));
    }
    Ok(url)
}

/// Longer than any run; more could not be added to the clock.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads a duration greater than zero and of at most a year.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("expected more than zero".to_owned()),
        Ok(duration) if duration > DURATION_MAX => Err("expected at most 365 days".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!(
            "{error}; expected a number with a unit, such as 500ms, 30s or 5m"
        )),
    }
}

/// Reads `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_http_with_a_host_and_nothing_after_the_path() {
        let check =
            |text: &str, is_valid: bool| assert_eq!(base_url(text).is_ok(), is_valid, "{text}");
        check("http://127.0.0.1:4001", true);
        check("https://hearth.example/config", true);
        check("http://[::1]:4001/", true);
        check("127.0.0.1:4001", false);
        check("localhost:4001", false);
        check("ftp://localhost", false);
        check("http://user@localhost", false);
        check("http://localhost?x=1", false);
        check("", false);
    }

    #[test]
    fn durations_have_a_unit_and_are_not_zero() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Err("expected more than zero".to_owned()));
        assert!(duration("10years").is_err());
        assert!(
            duration("30")
                .unwrap_err()
                .contains("expected a number with a unit")
        );
    }
}
