//! The logins of this user, in a file that only the user can read. A token goes to the addresses it was got for and nowhere else.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use crate::api::{Api, Call};
use crate::failure::{Exit, Failure};
use crate::options::Options;

/// A token that ends within this time is refreshed before it is used.
const MARGIN: Duration = Duration::from_secs(30);

/// The token of a login, for the two APIs it was got for.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Login {
    api: String,
    functions_api: String,
    pub(crate) email: String,
    pub(crate) token: String,
    refresh_token: String,
    expires_at_ms: u64,
}

/// What a login and a refresh are answered with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Given {
    token: String,
    refresh_token: String,
    expires_in_seconds: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Logins {
    logins: Vec<Login>,
}

/// The file, which nobody else changes while this lives.
struct Held {
    path: PathBuf,
    logins: Logins,
    _lock: File,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Whether it was got for this API.
    pub(crate) fn is_for(&self, base: &Url) -> bool {
        self.api == base.as_str() || self.functions_api == base.as_str()
    }

    fn new(options: &Options, email: &str, given: Given) -> Self {
        let expires_in = given.expires_in_seconds.saturating_mul(1000);
        Self {
            api: options.api.to_string(),
            functions_api: options.functions_api.to_string(),
            email: email.to_owned(),
            token: given.token,
            refresh_token: given.refresh_token,
            expires_at_ms: now_ms().saturating_add(expires_in),
        }
    }

    fn is_over(&self) -> bool {
        now_ms() + MARGIN.as_secs() * 1000 >= self.expires_at_ms
    }
}

/// Finds the login for the functions API of the options, and refreshes it if its time is nearly over.
///
/// # Errors
/// When the file can not be used, or the session has ended.
pub(crate) async fn find(options: &Options) -> Result<Option<Login>, Failure> {
    let Some(path) = path(options) else {
        return Ok(None);
    };
    let read = read(&path)?;
    let Some(login) = read.of(options) else {
        return Ok(None);
    };
    if !login.is_over() {
        return Ok(Some(login.clone()));
    }
    let mut held = Held::open(path)?;
    // Another command may have refreshed it meanwhile, and its refresh token is good once.
    let Some(login) = held.logins.of(options).cloned() else {
        return Ok(None);
    };
    if !login.is_over() {
        return Ok(Some(login));
    }
    let body = json!({ "refreshToken": login.refresh_token }).to_string();
    let path = ["api", "v1", "users", "refresh"];
    let call = Call::new(Method::POST, &path, Some(body.into_bytes()));
    let answer = Api::functions(options)?.call(call).await?;
    if answer.status == StatusCode::UNAUTHORIZED {
        held.put(options, None)?;
        let message = format!("the session of {} has ended", login.email);
        let failure = Failure::new(Exit::Unauthorised, message);
        return Err(failure.hint(format!("`hearth login {}` begins another", login.email)));
    }
    let login = Login::new(options, &login.email, answer.accept()?.json()?);
    held.put(options, Some(login.clone()))?;
    Ok(Some(login))
}

/// Keeps a login, instead of the one before.
///
/// # Errors
/// When the file can not be written.
pub(crate) fn keep(options: &Options, email: &str, given: Given) -> Result<(), Failure> {
    let Some(path) = path(options) else {
        let message =
            "no directory for credentials is known: neither XDG_CONFIG_HOME nor HOME is set";
        return Err(Failure::usage(message).hint("--credentials-file FILE names a file"));
    };
    Held::open(path)?.put(options, Some(Login::new(options, email, given)))
}

/// Forgets the login.
///
/// # Errors
/// When the file can not be written.
pub(crate) fn forget(options: &Options) -> Result<(), Failure> {
    match path(options) {
        Some(path) => Held::open(path)?.put(options, None),
        None => Ok(()),
    }
}

impl Logins {
    fn of(&self, options: &Options) -> Option<&Login> {
        let mut logins = self.logins.iter();
        logins.find(|login| login.functions_api == options.functions_api.as_str())
    }
}

impl Held {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        let lock_path = path.with_extension("lock");
        let lock = directory(&path).and_then(|()| {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&lock_path)?;
            lock.lock().map(|()| lock)
        });
        Ok(Self {
            _lock: lock.map_err(|error| failed("lock", &lock_path, &error))?,
            logins: read(&path)?,
            path,
        })
    }

    fn put(&mut self, options: &Options, login: Option<Login>) -> Result<(), Failure> {
        let logins = &mut self.logins.logins;
        logins.retain(|login| login.functions_api != options.functions_api.as_str());
        logins.extend(login);
        // A temporary file can be read by its owner only, and takes the place of the one before in one step.
        let text = serde_json::to_vec_pretty(&self.logins).map_err(io::Error::other);
        let written = text.and_then(|text| {
            let parent = self.path.parent().unwrap_or_else(|| Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(parent)?;
            io::Write::write_all(&mut file, &text)?;
            file.persist(&self.path)?;
            Ok(())
        });
        written.map_err(|error| failed("write", &self.path, &error))
    }
}

fn read(path: &Path) -> Result<Logins, Failure> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            failed("read", path, &error.into()).hint("remove it and log in again")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Logins::default()),
        Err(error) => Err(failed("read", path, &error)),
    }
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::usage(format!(
        "cannot {verb} the credentials file {path}: {error}"
    ))
}

fn directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent),
        None => Ok(()),
    }
}

/// Where logins are kept.
fn path(options: &Options) -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    options.credentials_file.clone().or_else(|| {
        let config = of("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| Some(PathBuf::from(of("HOME")?).join(".config")));
        Some(config?.join("hearth").join("credentials.json"))
    })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
