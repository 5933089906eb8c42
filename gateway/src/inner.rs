//! The inner listener: functions call their own node, and each sees the functions and events APIs under one URL.
//!
//! Only instances of this node are let in, each with the token that it was given and from its own address. Host and Origin do
//! not matter: no browser gets here, and what a name points to decides nothing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use protocol::{InvocationId, Space};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::auth;
use crate::body::{self, AnswerBody};
use crate::edge::{BindError, Listener, listen};
use crate::error::{Error, Shape};
use crate::surface::Surface;
use crate::{events, invoke};

mod port;

/// Listeners that may wait to be served.
const WAITING_MAX: usize = 8;

/// Knows the instances of this node.
#[async_trait]
pub trait Callers: Send + Sync + fmt::Debug + 'static {
    /// The space of the instance that a token was made for and that is at this address.
    ///
    /// # Errors
    /// When there is none.
    async fn space_of(&self, token: &[u8], from: IpAddr) -> Result<Space, Stranger>;
}

/// A caller that is no instance of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// Nobody who is up has this token.
    UnknownToken,
    /// The token is that of an instance at another address.
    OtherAddress,
}

/// The inner listener, bound on loopback, and the way for further ones to be served.
#[derive(Debug)]
pub struct InnerListener {
    pub(crate) local: TcpListener,
    pub(crate) more: mpsc::Receiver<TcpListener>,
    sender: mpsc::Sender<TcpListener>,
    address: std::net::SocketAddr,
}

impl InnerListener {
    /// Binds it on 127.0.0.1, at `port` or, where that is 0, at one that follows from the node's id, so that it is the same after
    /// a restart.
    ///
    /// # Errors
    /// When the port can not be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(port: u16, node_id: &protocol::NodeId) -> Result<Self, BindError> {
        let (sender, more) = mpsc::channel(WAITING_MAX);
        let bind = |port| {
            listen(
                Listener::Inner,
                (std::net::Ipv4Addr::LOCALHOST, port).into(),
            )
        };
        let (local, address) = match port {
            0 => port::bind_first_of(port::of_node(node_id), bind),
            port => bind(port),
        }?;
        Ok(Self {
            local,
            more,
            sender,
            address,
        })
    }

    /// Where processes reach it.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Takes listeners at other addresses, which are served as the one on loopback is.
    pub fn more(&self) -> mpsc::Sender<TcpListener> {
        self.sender.clone()
    }
}

/// The API that a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    Functions,
    Events,
}

impl Api {
    /// `POST /invoke` that is no event, executions, and `/api/v1/` with all below it, are the functions API's; everything else is the
    /// events API's.
    fn of(method: &Method, path: &str, fields: &HeaderMap) -> Self {
        let is_invoke =
            path == invoke::PATH && method == Method::POST && !events::is_named(method, fields);
        let is_execution = space_of_executions(path).is_some();
        match is_invoke || is_execution || path.starts_with("/api/v1/") {
            true => Self::Functions,
            false => Self::Events,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::Functions => Shape::Functions,
            Self::Events => Shape::EventGateway,
        }
    }
}

/// Answers a request of whoever connected from this address.
pub(crate) async fn answer(
    surface: &Surface,
    callers: &dyn Callers,
    id: &InvocationId,
    mut request: Request<Incoming>,
    from: IpAddr,
) -> Response<AnswerBody> {
    let shared = &surface.shared;
    let api = Api::of(request.method(), request.uri().path(), request.headers());
    let named = space_of_executions(request.uri().path()).map(str::to_owned);
    let checked = match space_of(callers, request.headers(), from).await {
        Ok(own)
            if shared.guard.requires_token()
                && named.as_ref().is_some_and(|named| named != own.as_str()) =>
        {
            Err(Error::other_space(&named.unwrap_or_default(), &own))
        }
        Ok(own) if api == Api::Events => {
            let is_confined = shared.guard.requires_token();
            enter(request.headers_mut(), &own, is_confined).map(|()| own)
        }
        checked => checked,
    };
    let own = match checked {
        Ok(own) => own,
        Err(error) => {
            let (parts, mut body) = request.into_parts();
            body::discard(&parts.headers, &mut body).await;
            return error.answer(api.shape(), id, shared.node.name());
        }
    };
    match api {
        Api::Events => events::answer(shared, id, request, true).await,
        Api::Functions if request.uri().path() == invoke::PATH => {
            invoke::answer(shared, id, request, invoke::By::Function(own)).await
        }
        Api::Functions => {
            request.extensions_mut().insert(shared.guard.instance(&own));
            surface.route(id, request, from).await
        }
    }
}

/// The space of a path that is about executions.
fn space_of_executions(path: &str) -> Option<&str> {
    let (space, rest) = path.strip_prefix("/v1/spaces/")?.split_once('/')?;
    let is_of_them = rest == "executions" || rest.starts_with("executions/");
    is_of_them.then_some(space)
}

async fn space_of(callers: &dyn Callers, fields: &HeaderMap, from: IpAddr) -> Result<Space, Error> {
    let Some(token) = auth::token(fields) else {
        return Err(Error::unknown_instance());
    };
    let found = callers.space_of(token, from).await;
    found.map_err(|stranger| match stranger {
        Stranger::UnknownToken => Error::unknown_instance(),
        Stranger::OtherAddress => Error::instance_elsewhere(),
    })
}

/// Makes a request of an instance one that the events API takes: in the space of the instance unless it names another, and
/// without the token, which is nobody else's to see.
fn enter(fields: &mut HeaderMap, own: &Space, is_confined: bool) -> Result<(), Error> {
    fields.remove(header::AUTHORIZATION);
    let named = fields.get(events::SPACE).filter(|name| !name.is_empty());
    match named {
        Some(name) if is_confined && name.as_bytes() != own.as_str().as_bytes() => {
            let name = String::from_utf8_lossy(name.as_bytes());
            Err(Error::other_space(&name, own))
        }
        Some(_) => Ok(()),
        None => {
            let own = HeaderValue::from_str(own.as_str())
                .expect("a space has only letters, digits, '.', '-' and '_'");
            fields.insert(events::SPACE, own);
            Ok(())
        }
    }
}

/// What serves the inner listener.
pub(crate) struct Inner {
    pub(crate) listener: InnerListener,
    pub(crate) surface: Arc<Surface>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| {
            let name = header::HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        pairs.collect()
    }

    fn check(method: Method, path: &str, given: &[(&'static str, &str)], expected: Api) {
        let api = Api::of(&method, path, &fields(given));
        assert_eq!(api, expected, "{method} {path} {given:?}");
    }

    #[test]
    fn which_api_a_request_is_for() {
        check(Method::POST, "/invoke", &[], Api::Functions);
        let json = ("content-type", "application/json");
        check(Method::POST, "/invoke", &[json], Api::Functions);
        check(Method::GET, "/api/v1/executions/7", &[], Api::Functions);
        let executions = "/v1/spaces/default/executions";
        check(Method::GET, executions, &[], Api::Functions);
        let one = "/v1/spaces/default/executions/7";
        check(Method::DELETE, one, &[], Api::Functions);
        for event in [
            ("event", "user.created"),
            ("event", "invoke"),
            ("ce-type", "user.created"),
            ("content-type", "application/cloudevents+json"),
            ("content-type", "application/cloudevents+xml"),
        ] {
            check(Method::POST, "/invoke", &[event], Api::Events);
        }
        check(Method::POST, "/invoke", &[("event", "")], Api::Functions);
        for (method, path) in [
            (Method::GET, "/invoke"),
            (Method::POST, "/invoke/"),
            (Method::POST, "/"),
            (Method::GET, "/api/v1"),
            (Method::GET, "/api/v2/x"),
            (Method::GET, "/v1/status"),
            (Method::GET, "/v1/spaces/default/functions"),
            (Method::GET, "/v1/spaces/default/executionsx"),
            (Method::GET, "/v1/spaces/executions"),
            (Method::OPTIONS, "*"),
        ] {
            check(method, path, &[], Api::Events);
        }
    }

    #[test]
    fn an_event_is_for_the_space_of_its_instance_unless_it_says_otherwise() {
        let own: Space = "own".parse().unwrap();
        let entered = |given: &[(&'static str, &str)], is_confined| {
            let mut fields = fields(given);
            enter(&mut fields, &own, is_confined).map(|()| {
                assert!(!fields.contains_key("authorization"));
                fields["space"].to_str().unwrap().to_owned()
            })
        };
        let token = ("authorization", "Bearer t");
        assert_eq!(entered(&[token], false).unwrap(), "own");
        assert_eq!(entered(&[token, ("space", "")], true).unwrap(), "own");
        assert_eq!(
            entered(&[token, ("space", "other")], false).unwrap(),
            "other"
        );
        assert_eq!(entered(&[token, ("space", "own")], true).unwrap(), "own");
        let refused = entered(&[token, ("space", "other")], true).unwrap_err();
        assert!(
            format!("{refused:?}").contains("space other"),
            "{refused:?}"
        );
    }
}
