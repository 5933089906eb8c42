//! The `provider` objects of functions on other clouds: kept and shown; their keys are in no log.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Invalid;

/// `provider` of type `gcloudfunction`: a function of Google Cloud that only those may call who show an ID token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcloudFunctionProvider {
    /// The absolute URL that invocations are posted to.
    pub url: String,
    /// The key of the service account that it is called as: the JSON object that Google gives out.
    pub service_account_key: ServiceAccountKey,
    /// Whom tokens are for; the URL without its query when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// `provider` of type `azurefunction`: a function of Azure with an HTTP trigger.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureFunctionProvider {
    /// The absolute URL that invocations are posted to.
    pub url: String,
    /// The function's or the host's key, sent as `x-functions-key`; none is sent when absent, as triggers with `authLevel` anonymous have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_key: Option<String>,
}

/// `provider` of type `openwhisk`: an action of Apache OpenWhisk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenWhiskProvider {
    /// The API host: a URL, or a host that is called by `https`.
    pub api_host: String,
    /// The action's namespace, `_` (that of the key) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The action, with its package where it has one: `hello`, `tools/hello`.
    pub action: String,
    /// The key, `user:password`.
    pub key: String,
}

/// The key of a Google service account, as it was sent.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct ServiceAccountKey(Map<String, Value>);

impl ServiceAccountKey {
    /// Who the key is of.
    pub fn client_email(&self) -> &str {
        self.text("client_email")
    }

    /// The private key, PKCS #8 in PEM.
    pub fn private_key(&self) -> &str {
        self.text("private_key")
    }

    /// The id of the private key; empty when it has none.
    pub fn private_key_id(&self) -> &str {
        self.text("private_key_id")
    }

    /// Where tokens are asked for.
    pub fn token_uri(&self) -> &str {
        self.text("token_uri")
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn check(&self) -> Result<(), Invalid> {
        let field = |name: &str| format!("provider.serviceAccountKey.{name}");
        if self.text("type") != "service_account" {
            let (field, value) = (field("type"), self.0.get("type").unwrap_or(&Value::Null));
            return Err(Invalid(format!(
                "{field} is {value}, expected \"service_account\": the key of a service account, as Google gives it out"
            )));
        }
        if !self.client_email().contains('@') {
            let (field, value) = (field("client_email"), self.client_email());
            return Err(Invalid(format!(
                "{field} is \"{value}\", expected the account's address"
            )));
        }
        if !self.private_key().contains("-----BEGIN PRIVATE KEY-----") {
            let field = field("private_key");
            return Err(Invalid(format!(
                "{field} is no private key, expected PEM that begins with -----BEGIN PRIVATE KEY-----"
            )));
        }
        check_url(&field("token_uri"), self.token_uri())
    }
}

impl GcloudFunctionProvider {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        check_url("provider.url", &self.url)?;
        check_set("provider.audience", self.audience.as_deref())?;
        self.service_account_key.check()
    }
}

impl AzureFunctionProvider {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        check_url("provider.url", &self.url)?;
        match &self.function_key {
            Some(key) => check_secret("provider.functionKey", key),
            None => Ok(()),
        }
    }
}

impl OpenWhiskProvider {
    /// The namespace that the action is looked for in.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("_")
    }

    /// The URL of the API host.
    pub fn api_url(&self) -> String {
        match self.api_host.contains("://") {
            true => self.api_host.clone(),
            false => format!("https://{}", self.api_host),
        }
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        if check_url("provider.apiHost", &self.api_url()).is_err() {
            let host = &self.api_host;
            return Err(Invalid(format!(
                "provider.apiHost is \"{host}\", expected a host, or a URL of http or https"
            )));
        }
        let namespace = self.namespace();
        // Names of OpenWhisk: https://github.com/apache/openwhisk/blob/master/docs/reference.md#entity-names
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 256
                && !name.starts_with([' ', '.'])
                && name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "_@.- ".contains(c))
        };
        if !is_name(namespace) {
            return Err(Invalid(format!(
                "provider.namespace is \"{namespace}\", expected the name of a namespace, or _ for that of the key"
            )));
        }
        let action = &self.action;
        if action.split('/').count() > 2 || !action.split('/').all(is_name) {
            return Err(Invalid(format!(
                "provider.action is \"{action}\", expected the name of an action, or package/action"
            )));
        }
        check_secret("provider.key", &self.key)?;
        match self.key.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
            _ => Err(Invalid(
                "provider.key is no key of OpenWhisk, expected user:password".into(),
            )),
        }
    }
}

/// Checks an absolute URL of HTTP.
pub(super) fn check_url(field: &str, url: &str) -> Result<(), Invalid> {
    match url::Url::parse(url) {
        Ok(parsed) if parsed.has_host() && matches!(parsed.scheme(), "http" | "https") => Ok(()),
        _ => Err(Invalid(format!(
            "{field} is \"{url}\", expected an absolute URL of http or https"
        ))),
    }
}

fn check_set(field: &str, value: Option<&str>) -> Result<(), Invalid> {
    match value {
        Some("") => Err(Invalid(format!("{field} is empty, expected a text"))),
        _ => Ok(()),
    }
}

/// Checks what is sent as a header, without repeating it.
fn check_secret(field: &str, secret: &str) -> Result<(), Invalid> {
    match !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(Invalid(format!(
            "{field} can not be sent, expected letters, digits and signs of ASCII, without white space"
        ))),
    }
}

/// Keys are masked wherever a record is logged.
impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccountKey")
            .field("client_email", &self.client_email())
            .field("private_key", &"*****")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AzureFunctionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureFunctionProvider")
            .field("url", &self.url)
            .field("function_key", &self.function_key.as_ref().map(|_| "*****"))
            .finish()
    }
}

impl fmt::Debug for OpenWhiskProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenWhiskProvider")
            .field("api_host", &self.api_host)
            .field("namespace", &self.namespace)
            .field("action", &self.action)
            .field("key", &"*****")
            .finish()
    }
}
