//! Who may call. With auth a credential, and what its user or key may do to the space that the call is about; without, the Host of a
//! request. In both cases its Origin.
//!
//! Without auth the node trusts whoever can open a loopback connection. A web page can do that too, through the browser of
//! someone who sits there: by a plain cross-origin request, which its Origin gives away, or after rebinding a name of its own
//! to 127.0.0.1, which its Host gives away.

use std::net::SocketAddr;

use accounts::{Accounts, Caller, Scope, Verdict};
use config::settings::{AuthMode, AuthSettings, Secret};
use http::{HeaderMap, HeaderValue, Request, header};
use protocol::function::Provider;
use protocol::{Failure, Function, Space};
use subtle::ConstantTimeEq;

use crate::edge::Listener;
use crate::error::Error;
use crate::events;

mod host;
mod need;
mod signed;
mod sigv4;

use host::{check_host, own_origins};
pub(crate) use need::Need;
pub(crate) use signed::Known;

/// Who may call a node.
#[derive(Debug, Default)]
pub struct Access {
    /// The administrator's token, if there is one.
    pub admin_token: Option<Secret>,
    /// Users and their keys.
    pub accounts: Option<Accounts>,
}

/// The rules of one node.
pub(crate) struct Guard {
    mode: AuthMode,
    access: Access,
    /// The node's own origins and the listed ones, in lower case.
    origins: Vec<String>,
}

impl Guard {
    /// Makes the rules; with auth required and neither token nor accounts, nobody is let in. `own` is what web pages of the node are
    /// served by.
    pub(crate) fn new(
        settings: &AuthSettings,
        access: Access,
        own: [(&'static str, SocketAddr); 2],
    ) -> Self {
        let own = own
            .into_iter()
            .flat_map(|(scheme, address)| own_origins(scheme, address));
        let listed = settings
            .origins
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase());
        Self {
            mode: settings.mode,
            access,
            origins: own.chain(listed).collect(),
        }
    }

    /// Checks the Origin of a request and returns it when there is one. The events API has CORS rules of its own.
    ///
    /// # Errors
    /// When the request comes from a page of another origin than the node's own and the listed ones.
    pub(crate) fn origin<'a>(
        &self,
        listener: Listener,
        headers: &'a HeaderMap,
    ) -> Result<Option<&'a HeaderValue>, Error> {
        if listener == Listener::Events {
            return Ok(None);
        }
        let mut values = headers.get_all(header::ORIGIN).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let origin = value.to_str().unwrap_or("");
        let is_known = self
            .origins
            .iter()
            .any(|known| known.eq_ignore_ascii_case(origin));
        if is_known && values.next().is_none() {
            Ok(Some(value))
        } else {
            Err(Error::origin(origin))
        }
    }

    /// Finds out who makes a request, and whether it may, before any handler sees it. What only the body tells, the handler of the
    /// body checks: the space of a call.
    ///
    /// # Errors
    /// When a credential is missing, not good, or not enough; without auth, when the Host is no loopback name.
    pub(crate) async fn admit<B>(
        &self,
        listener: Listener,
        request: &mut Request<B>,
    ) -> Result<Option<Caller>, Error> {
        // The inner listener has rules of its own, and nobody is let in there by these.
        if listener == Listener::Inner {
            return Err(Error::unknown_instance());
        }
        let is_off = self.mode == AuthMode::Off;
        if is_off && listener == Listener::Events {
            return Ok(None);
        }
        if is_off {
            check_host(request.uri(), request.headers())?;
        }
        let need = match listener {
            Listener::Events => self.need_of_event(request.headers_mut())?,
            _ => Need::of(listener, request.method(), request.uri().path()),
        };
        // Whose functions these are, the token tells, with auth and without.
        let is_needed = !is_off || matches!(need, Need::Account(_) | Need::Session);
        if need == Need::Nothing || !is_needed {
            return Ok(is_off.then(Caller::operator));
        }
        let caller = self.caller(request.headers()).await?;
        check(&need, &caller)?;
        Ok(Some(caller))
    }

    /// What an event needs. One that names no space is for the default one; without auth it is for all.
    fn need_of_event(&self, fields: &mut HeaderMap) -> Result<Need, Error> {
        let named = fields.get(events::SPACE).filter(|name| !name.is_empty());
        let space = match named {
            Some(name) => {
                let name = String::from_utf8_lossy(name.as_bytes());
                let space = name.parse::<Space>();
                space.map_err(|error| Error::invalid(format!("Space header: {error}")))?
            }
            None => {
                let space = Space::default_space();
                fields.insert(events::SPACE, HeaderValue::from_static(DEFAULT_SPACE));
                space
            }
        };
        let accounts = self.access.accounts.as_ref();
        Ok(
            match accounts.is_some_and(|accounts| accounts.events_are_open(&space)) {
                true => Need::Nothing,
                false => Need::Space(space, Scope::Emit),
            },
        )
    }

    /// Whose the credential of a request is.
    async fn caller(&self, fields: &HeaderMap) -> Result<Caller, Error> {
        let credential = token(fields).ok_or_else(Error::unauthorized)?;
        if let Some(token) = &self.access.admin_token
            && bool::from(credential.ct_eq(token.expose().as_bytes()))
        {
            return Ok(Caller::operator());
        }
        let Some(accounts) = &self.access.accounts else {
            return Err(Error::unauthorized());
        };
        let denied = match accounts.verify(credential) {
            Verdict::Known(caller) => return Ok(caller),
            // In a box, so that the path of what is known carries nothing of it.
            Verdict::Unknown => match Box::pin(accounts.ask(credential)).await {
                Ok(caller) => return Ok(caller),
                Err(denied) => denied,
            },
            Verdict::Denied(denied) => denied,
        };
        Err(Failure::from(denied).into())
    }

    /// Whether callers need a token. The `Authorization` header is the node's then, and is handed on to no function.
    pub(crate) fn requires_token(&self) -> bool {
        self.mode == AuthMode::Required
    }

    /// The accounts of the cluster.
    ///
    /// # Errors
    /// Where there are none.
    pub(crate) fn accounts(&self) -> Result<&Accounts, Error> {
        self.access
            .accounts
            .as_ref()
            .ok_or_else(Error::unauthorized)
    }

    /// Who an instance of this node is, for handlers that ask: with auth it may call functions and emit events of its own space.
    pub(crate) fn instance(&self, own: &Space) -> Caller {
        match self.mode {
            AuthMode::Required => Caller::instance(own.clone()),
            AuthMode::Off => Caller::operator(),
        }
    }
}

/// The space of what names none.
const DEFAULT_SPACE: &str = "default";

/// Whether the caller may do what the request needs.
fn check(need: &Need, caller: &Caller) -> Result<(), Error> {
    match need {
        Need::Nothing | Need::Credential => Ok(()),
        Need::Admin if caller.is_admin() => Ok(()),
        Need::Admin => Err(Error::admin_needed()),
        Need::Space(space, scope) => may(caller, space, *scope),
        Need::Any(scope) if caller.has(*scope) => Ok(()),
        Need::Any(scope) => Err(Error::scope_needed(*scope)),
        Need::Account(_) | Need::Session if caller.user_id().is_none() => Err(Error::no_account()),
        Need::Session if caller.is_key() => Err(Error::no_account()),
        Need::Session => Ok(()),
        Need::Account(scope) if caller.has(*scope) => Ok(()),
        Need::Account(scope) => Err(Error::scope_needed(*scope)),
    }
}

/// Whether a caller may do something to a space.
///
/// # Errors
/// When it may not, naming both.
pub(crate) fn may(caller: &Caller, space: &Space, scope: Scope) -> Result<(), Error> {
    match caller.may(space, scope) {
        true => Ok(()),
        false => Err(Error::not_allowed(space, scope)),
    }
}

/// Whether a caller may register a function. A process runs as the node's own user, so it is for admins.
///
/// # Errors
/// When it may not.
pub(crate) fn may_register(caller: &Caller, function: &Function) -> Result<(), Error> {
    match &function.provider {
        Provider::Process(_) if !caller.is_admin() => Err(Error::process_needs_admin()),
        _ => Ok(()),
    }
}

/// The bearer token of a request.
pub(crate) fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?;
    bearer(value.as_bytes())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_scheme_is_read_without_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"bEARER   abc "), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer"), None);
    }
}
