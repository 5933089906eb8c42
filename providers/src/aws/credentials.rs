//! In whose name requests are made: the record's, or the node's.

use aws_credential_types::Credentials;
use config::settings::AwsSettings;
use protocol::Space;

use super::Call;
use crate::Error;

/// Whose credentials they are, as the library logs it.
const PROVIDER: &str = "hearth";

/// Has the node's credentials, and says who may use them.
#[derive(Debug)]
pub(super) struct Owner {
    node: Option<Credentials>,
    /// The spaces whose functions may use them; none where all may.
    spaces: Option<Vec<String>>,
}

impl Owner {
    pub(super) fn new(settings: &AwsSettings, is_open: bool) -> Self {
        let key = settings.access_key_id.as_deref();
        let key = key.zip(settings.secret_access_key.as_ref());
        let token = settings.session_token.as_ref();
        let token = token.map(|token| token.expose().to_owned());
        let is_all = is_open || settings.spaces.iter().any(|space| space == "*");
        Self {
            node: key
                .map(|(id, secret)| Credentials::new(id, secret.expose(), token, None, PROVIDER)),
            spaces: (!is_all).then(|| settings.spaces.clone()),
        }
    }

    /// The record's, where it has some, else the node's, where the space may use them.
    ///
    /// # Errors
    /// Nothing was sent; what is to be set.
    pub(super) fn credentials(&self, space: &Space, call: &Call<'_>) -> Result<Credentials, Error> {
        if let Some((id, secret, token)) = call.credentials.key() {
            let token = token.map(str::to_owned);
            return Ok(Credentials::new(id, secret, token, None, PROVIDER));
        }
        let missing = |why: &str| Error::NotTaken {
            why: format!(
                "{}: the record has no awsAccessKeyId and awsSecretAccessKey, and {why}",
                call.place()
            ),
            answered: None,
        };
        let node = self.node.as_ref().ok_or_else(|| {
            missing("this node has no credentials (aws.access_key_id, or AWS_ACCESS_KEY_ID)")
        })?;
        let is_allowed = |spaces: &Vec<String>| spaces.iter().any(|one| one == space.as_str());
        match self.spaces.as_ref().is_none_or(is_allowed) {
            true => Ok(node.clone()),
            false => Err(missing(&format!(
                "space {space} may not use this node's credentials (aws.spaces)"
            ))),
        }
    }
}
