//! What a request needs, by listener, method and path: one table, before any handler, so that no route is forgotten.

use accounts::Scope;
use http::Method;
use protocol::Space;

use crate::aws;
use crate::edge::Listener;
use crate::invoke;

/// What a caller has to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// Any credential that is good; the handler shows no more than the caller may see.
    Credential,
    /// A credential that allows this; in which space, the body tells.
    Any(Scope),
    /// To be a member of this space, with a credential that allows this.
    Space(Space, Scope),
    /// An account of one's own, also without auth, with a credential that allows this.
    Account(Scope),
    /// The token of a session, also without auth: keys do nothing to accounts.
    Session,
    /// The role admin.
    Admin,
}

impl Need {
    /// What a request to this listener needs. What is in no line below, admins may.
    pub(crate) fn of(listener: Listener, method: &Method, path: &str) -> Self {
        let path = match path.len() {
            0 | 1 => path,
            _ => path.strip_suffix('/').unwrap_or(path),
        };
        match listener {
            Listener::Functions => of_functions_api(method, path),
            Listener::Config => of_config_api(method, path),
            // Both have rules of their own.
            Listener::Events | Listener::Inner => Self::Admin,
        }
    }
}

fn of_functions_api(method: &Method, path: &str) -> Need {
    match path {
        "/docs" | "/openapi.json" => Need::Nothing,
        "/" => Need::Credential,
        invoke::PATH => Need::Any(Scope::Invoke),
        _ if path.starts_with("/docs/") => Need::Nothing,
        _ if aws::is_path(path) => of_aws(method, path),
        _ => match (path.strip_prefix("/api/v1"), of_space(method, path)) {
            (Some(rest), _) => of_api(method, rest),
            (None, Some(need)) => need,
            // There is nothing there to be had.
            (None, None) => Need::Credential,
        },
    }
}

/// What AWS's clients do; in which space, the key tells.
fn of_aws(method: &Method, path: &str) -> Need {
    let is_call =
        path.ends_with("/invocations") || path.ends_with("/response-streaming-invocations");
    match is_call && *method == Method::POST {
        true => Need::Any(Scope::Invoke),
        false => Need::Any(scope(method)),
    }
}

/// What stands under `/api/v1`.
fn of_api(method: &Method, path: &str) -> Need {
    let is_run = path.starts_with("/functions/") && *method == Method::POST;
    match path {
        "/users" | "/users/login" | "/users/refresh" | "/admin/init" if *method == Method::POST => {
            Need::Nothing
        }
        "/users/me" if is_read(method) => Need::Account(Scope::Read),
        _ if is_under(path, "/users") || is_under(path, "/keys") => Need::Session,
        _ if is_run => Need::Account(Scope::Invoke),
        _ => Need::Account(scope(method)),
    }
}

fn of_config_api(method: &Method, path: &str) -> Need {
    match path {
        // Balancers ask these without a credential.
        "/v1/status" | "/v1/ready" => Need::Nothing,
        "/docs" | "/openapi.json" => Need::Nothing,
        _ if path.starts_with("/docs/") => Need::Nothing,
        "/v1/spaces" => Need::Credential,
        // Those of the time before spaces.
        _ if is_under(path, "/v1/functions") || is_under(path, "/v1/subscriptions") => {
            Need::Space(Space::default_space(), scope(method))
        }
        _ => of_space(method, path).unwrap_or(Need::Admin),
    }
}

/// What a path of a space needs. What is set for the space itself, such as limits, its members only read.
fn of_space(method: &Method, path: &str) -> Option<Need> {
    let rest = path.strip_prefix("/v1/spaces/")?;
    let (space, below) = match rest.split_once('/') {
        Some((space, below)) => (space, Some(below)),
        None => (rest, None),
    };
    // The name as it stands: one with escapes is nobody's, since a router reads it decoded.
    let Ok(space) = space.parse::<Space>() else {
        return Some(Need::Admin);
    };
    let is_of_members = below.is_some_and(|below| !is_under(below, "members"));
    Some(match is_read(method) || is_of_members {
        true => Need::Space(space, scope(method)),
        false => Need::Admin,
    })
}

fn scope(method: &Method) -> Scope {
    match is_read(method) {
        true => Scope::Read,
        false => Scope::Write,
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a path is `root` or below it.
fn is_under(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str, scope: Scope) -> Need {
        Need::Space(name.parse().unwrap(), scope)
    }

    fn check(listener: Listener, line: &str, expected: Need) {
        let (method, path) = line.split_once(' ').unwrap();
        let need = Need::of(listener, &method.parse().unwrap(), path);
        assert_eq!(need, expected, "{listener:?} {line}");
    }

    #[test]
    fn the_functions_api() {
        let of = |line: &str, expected| check(Listener::Functions, line, expected);
        of("GET /", Need::Credential);
        of("POST /invoke", Need::Any(Scope::Invoke));
        of("GET /docs", Need::Nothing);
        of("GET /docs/app.js", Need::Nothing);
        of("GET /docsx", Need::Credential);
        of("GET /openapi.json", Need::Nothing);
        of("POST /api/v1/users", Need::Nothing);
        of("POST /api/v1/users/login", Need::Nothing);
        of("POST /api/v1/users/refresh", Need::Nothing);
        of("POST /api/v1/admin/init", Need::Nothing);
        of("GET /api/v1/users", Need::Session);
        of("GET /api/v1/users/me", Need::Account(Scope::Read));
        of("DELETE /api/v1/users/me", Need::Session);
        of("POST /api/v1/users/me/password", Need::Session);
        of("POST /api/v1/users/logout", Need::Session);
        of("GET /api/v1/keys", Need::Session);
        of("DELETE /api/v1/keys/7", Need::Session);
        of("POST /api/v1/functions", Need::Account(Scope::Write));
        of("GET /api/v1/functions/me", Need::Account(Scope::Read));
        of(
            "GET /api/v1/functions/f/executions",
            Need::Account(Scope::Read),
        );
        of("POST /api/v1/functions/f", Need::Account(Scope::Invoke));
        of(
            "POST /api/v1/functions/execute/f",
            Need::Account(Scope::Invoke),
        );
        of("DELETE /api/v1/functions/f", Need::Account(Scope::Write));
        of("GET /api/v1", Need::Account(Scope::Read));
        of("GET /v1/spaces/team/executions", space("team", Scope::Read));
        of(
            "DELETE /v1/spaces/team/executions/7",
            space("team", Scope::Write),
        );
        of("GET /nothing", Need::Credential);
    }

    #[test]
    fn the_paths_of_aws() {
        let of = |line: &str, expected| check(Listener::Functions, line, expected);
        let call = Need::Any(Scope::Invoke);
        of("POST /2015-03-31/functions/f/invocations", call.clone());
        of(
            "POST /2021-11-15/functions/f/response-streaming-invocations",
            call,
        );
        of("GET /2015-03-31/functions", Need::Any(Scope::Read));
        of("GET /2015-03-31/functions/", Need::Any(Scope::Read));
        of("POST /2015-03-31/functions", Need::Any(Scope::Write));
        of("DELETE /2015-03-31/functions/f", Need::Any(Scope::Write));
        of(
            "PUT /2017-10-31/functions/f/concurrency",
            Need::Any(Scope::Write),
        );
        of("GET /2015-03-3x/functions", Need::Credential);
    }

    #[test]
    fn the_config_api() {
        let of = |line: &str, expected| check(Listener::Config, line, expected);
        for open in [
            "/v1/status",
            "/v1/ready",
            "/v1/ready/",
            "/docs",
            "/docs/a",
            "/openapi.json",
        ] {
            of(&format!("GET {open}"), Need::Nothing);
        }
        for admins in [
            "/metrics",
            "/debug/actors",
            "/v1/cluster",
            "/v1/dead-letters",
            "/v1/users",
            "/",
            "/x",
        ] {
            of(&format!("GET {admins}"), Need::Admin);
        }
        of("GET /v1/spaces", Need::Credential);
        of("GET /v1/spaces/", Need::Credential);
        of("GET /v1/spaces/team", space("team", Scope::Read));
        of("PUT /v1/spaces/team", Need::Admin);
        of("DELETE /v1/spaces/team/", Need::Admin);
        of("GET /v1/spaces/team/members", space("team", Scope::Read));
        of("PUT /v1/spaces/team/members/7", Need::Admin);
        of("GET /v1/spaces/team/functions", space("team", Scope::Read));
        of("HEAD /v1/spaces/team/functions", space("team", Scope::Read));
        of(
            "POST /v1/spaces/team/functions/",
            space("team", Scope::Write),
        );
        of("GET /v1/spaces/team/secrets", space("team", Scope::Read));
        of("PUT /v1/spaces/team/secrets/a", space("team", Scope::Write));
        of(
            "DELETE /v1/spaces/team/secrets/a",
            space("team", Scope::Write),
        );
        of("DELETE /v1/functions/f", space("default", Scope::Write));
        of("GET /v1/subscriptions", space("default", Scope::Read));
        of("GET /v1/functionsx", Need::Admin);
    }

    /// A router reads `%74eam` as `team`; who is a member of neither is let into neither.
    #[test]
    fn a_space_with_escapes_is_for_admins() {
        for path in [
            "/v1/spaces/%74eam/functions",
            "/v1/spaces/a%2Fb/x",
            "/v1/spaces//x",
            "/v1/spaces/../x",
        ] {
            let need = Need::of(Listener::Config, &Method::GET, path);
            let is_closed = matches!(&need, Need::Admin) || need == space("..", Scope::Read);
            assert!(is_closed, "{path} {need:?}");
        }
    }
}
