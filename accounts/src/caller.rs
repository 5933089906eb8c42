//! Who calls, and what they may.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::Space;
use serde::{Deserialize, Serialize};

use crate::records::user::{Role, UserId};

/// What a call does to a space.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Runs functions.
    Invoke,
    /// Emits events.
    Emit,
    /// Reads records.
    Read,
    /// Changes records.
    Write,
    /// All that admins may; a key has it only while its user is one.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Invoke,
        Self::Emit,
        Self::Read,
        Self::Write,
        Self::Admin,
    ];

    /// The scope's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Emit => "emit",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Who calls; cheap to clone. It is what was so when the credential was checked, so it is kept no longer than a request.
#[derive(Debug, Clone)]
pub struct Caller(Who);

#[derive(Debug, Clone)]
enum Who {
    Operator,
    Instance(Space),
    Account(Arc<Account>),
}

/// A caller with an account.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) user: UserId,
    pub(crate) email: String,
    pub(crate) own_space: Space,
    pub(crate) role: Role,
    /// The spaces it is a member of, besides its own.
    pub(crate) spaces: BTreeSet<Space>,
    pub(crate) credential: Credential,
}

/// What a caller showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A token of this session.
    Session(String),
    /// An API key, which may do no more than this.
    Key {
        scopes: BTreeSet<Scope>,
        spaces: Option<BTreeSet<Space>>,
    },
}

impl Caller {
    /// Whoever has the administrator's token, or calls a node without authentication: may do all, and has no account.
    pub fn operator() -> Self {
        Self(Who::Operator)
    }

    /// A running copy of a function, which may do to its own space what the listener of functions has.
    pub fn instance(space: Space) -> Self {
        Self(Who::Instance(space))
    }

    pub(crate) fn account(account: Account) -> Self {
        Self(Who::Account(Arc::new(account)))
    }

    /// Whether it may do something in a space.
    pub fn may(&self, space: &Space, scope: Scope) -> bool {
        if self.is_admin() {
            return true;
        }
        let is_of_space = match &self.0 {
            Who::Operator => true,
            Who::Instance(own) => own == space,
            Who::Account(account) => account.reaches(space),
        };
        scope != Scope::Admin && is_of_space && self.has(scope)
    }

    /// Whether it may do all.
    pub fn is_admin(&self) -> bool {
        match &self.0 {
            Who::Operator => true,
            Who::Instance(_) => false,
            Who::Account(account) => account.role == Role::Admin && account.has(Scope::Admin),
        }
    }

    /// Whether its credential allows something at all, whatever the space.
    pub fn has(&self, scope: Scope) -> bool {
        match &self.0 {
            Who::Operator => true,
            // Executions of its own calls are the records that it may change.
            Who::Instance(_) => scope != Scope::Admin,
            Who::Account(account) => account.has(scope),
        }
    }

    /// Whether it showed an API key, which can do nothing to accounts, sessions and keys.
    pub fn is_key(&self) -> bool {
        matches!(&self.0, Who::Account(account) if matches!(account.credential, Credential::Key { .. }))
    }

    /// Its user; the operator has none.
    pub fn user_id(&self) -> Option<&UserId> {
        self.of_account(|account| &account.user)
    }

    /// The email of its user.
    pub fn email(&self) -> Option<&str> {
        self.of_account(|account| account.email.as_str())
    }

    /// The space that is its user's alone.
    pub fn own_space(&self) -> Option<&Space> {
        self.of_account(|account| &account.own_space)
    }

    /// The space of what names none: the only one of its key, else its user's own; of whoever has no account the default one.
    pub fn home_space(&self) -> Space {
        match &self.0 {
            Who::Operator => Space::default_space(),
            Who::Instance(space) => space.clone(),
            Who::Account(account) => match &account.credential {
                Credential::Key {
                    spaces: Some(spaces),
                    ..
                } if spaces.len() == 1 => {
                    let only = spaces.first().cloned();
                    only.unwrap_or_else(|| account.own_space.clone())
                }
                Credential::Key { .. } | Credential::Session(_) => account.own_space.clone(),
            },
        }
    }

    /// The spaces it is a member of, its own among them; admins are in every space without being listed.
    pub fn spaces(&self) -> impl Iterator<Item = &Space> {
        let account = self.of_account(|account| account);
        account.into_iter().flat_map(|account| {
            let all = std::iter::once(&account.own_space).chain(&account.spaces);
            all.filter(|space| account.reaches(space))
        })
    }

    /// The session of its token.
    pub(crate) fn session(&self) -> Option<&str> {
        match &self.0 {
            Who::Account(account) => match &account.credential {
                Credential::Session(id) => Some(id),
                Credential::Key { .. } => None,
            },
            Who::Operator | Who::Instance(_) => None,
        }
    }

    fn of_account<'a, T>(&'a self, part: impl FnOnce(&'a Account) -> T) -> Option<T> {
        match &self.0 {
            Who::Operator | Who::Instance(_) => None,
            Who::Account(account) => Some(part(account)),
        }
    }
}

impl Account {
    fn has(&self, scope: Scope) -> bool {
        match &self.credential {
            Credential::Session(_) => true,
            Credential::Key { scopes, .. } => scopes.contains(&scope),
        }
    }

    /// Whether user and credential both are of the space. An admin's are of all, a key's restriction aside.
    fn reaches(&self, space: &Space) -> bool {
        let is_member =
            self.role == Role::Admin || self.own_space == *space || self.spaces.contains(space);
        let is_allowed = match &self.credential {
            Credential::Key {
                spaces: Some(spaces),
                ..
            } => spaces.contains(space),
            _ => true,
        };
        is_member && is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, credential: Credential) -> Caller {
        let user = UserId::random();
        Caller::account(Account {
            own_space: user.own_space(),
            user,
            email: "a@b.example".to_owned(),
            role,
            spaces: BTreeSet::from([space("team")]),
            credential,
        })
    }

    fn space(name: &str) -> Space {
        name.parse().unwrap()
    }

    fn session() -> Credential {
        Credential::Session("s".to_owned())
    }

    fn key(scopes: &[Scope], spaces: Option<&[&str]>) -> Credential {
        Credential::Key {
            scopes: scopes.iter().copied().collect(),
            spaces: spaces.map(|names| names.iter().map(|name| space(name)).collect()),
        }
    }

    fn check(caller: &Caller, name: &str, scope: Scope, expected: bool) {
        assert_eq!(
            caller.may(&space(name), scope),
            expected,
            "{caller:?} {name} {scope:?}"
        );
    }

    #[test]
    fn a_member_may_all_in_its_spaces_and_nothing_elsewhere() {
        let member = caller(Role::Member, session());
        let own = member.own_space().unwrap().to_string();
        for scope in [Scope::Invoke, Scope::Emit, Scope::Read, Scope::Write] {
            check(&member, "team", scope, true);
            check(&member, &own, scope, true);
            check(&member, "default", scope, false);
        }
        check(&member, "team", Scope::Admin, false);
        assert!(!member.is_admin());
        assert_eq!(member.spaces().count(), 2);
    }

    #[test]
    fn admins_and_the_operator_may_all() {
        for all in [Caller::operator(), caller(Role::Admin, session())] {
            check(&all, "default", Scope::Write, true);
            assert!(all.is_admin());
        }
    }

    #[test]
    fn a_key_may_what_it_names_and_its_user_may() {
        let invoker = caller(Role::Member, key(&[Scope::Invoke], None));
        check(&invoker, "team", Scope::Invoke, true);
        check(&invoker, "team", Scope::Read, false);
        check(&invoker, "default", Scope::Invoke, false);
        let elsewhere = caller(Role::Member, key(&[Scope::Invoke], Some(&["default"])));
        check(&elsewhere, "default", Scope::Invoke, false);
        check(&elsewhere, "team", Scope::Invoke, false);
        assert_eq!(elsewhere.spaces().count(), 0);
        let of_admin = caller(Role::Admin, key(&[Scope::Invoke], Some(&["default"])));
        check(&of_admin, "default", Scope::Invoke, true);
        check(&of_admin, "team", Scope::Invoke, false);
        assert!(!of_admin.is_admin());
        assert!(caller(Role::Admin, key(&[Scope::Admin], None)).is_admin());
        assert!(!caller(Role::Member, key(&[Scope::Admin], None)).is_admin());
    }
}
