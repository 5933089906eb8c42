//! The instances of this node that may call it: what each is told of that in its environment, and whose a token is.
//!
//! A token is random, made for one instance, and valid for as long as that is up. It is kept in the instance's own environment and
//! nowhere else: here is only its digest, and an adopted container brings it along.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::function::{TOKEN_VARIABLE, URL_VARIABLE};
use protocol::{Function, FunctionId, Space};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{SetOnce, mpsc};

/// How long a call waits until the address of its instance is known, which the engine tells right after the start.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections the kernel keeps for a listener that is not accepting for a moment.
const BACKLOG: u32 = 1024;

/// The instances that may call their node. Clones share everything.
#[derive(Clone)]
pub struct Callers(Arc<Shared>);

struct Shared {
    /// Where processes call; containers do on the same port of their network's gateway.
    local: SocketAddr,
    /// Takes the listeners at gateways to whoever serves them.
    listeners: mpsc::Sender<TcpListener>,
    /// Whether there is a listener, by address.
    is_heard: Mutex<HashMap<IpAddr, bool>>,
    /// By the digest of the token, so that the time of a comparison tells nothing of a token.
    instances: Mutex<HashMap<TokenDigest, Arc<Instance>>>,
}

type TokenDigest = [u8; 32];

/// An instance that may call its node.
#[derive(Debug)]
pub struct Instance {
    /// The space of its function.
    pub space: Space,
    /// Its function.
    pub function_id: FunctionId,
    address: SetOnce<IpAddr>,
}

/// What one instance is told, and its right to call: that ends when this is dropped.
pub(crate) struct Badge {
    callers: Callers,
    url: String,
    token: String,
    instance: Arc<Instance>,
}

impl Callers {
    /// Without any instance yet. Processes call at `local`, and listeners for containers are sent to `listeners` when there is a
    /// network of theirs.
    pub fn new(local: SocketAddr, listeners: mpsc::Sender<TcpListener>) -> Self {
        Self(Arc::new(Shared {
            local,
            listeners,
            is_heard: Mutex::new(HashMap::from([(local.ip(), true)])),
            instances: Mutex::default(),
        }))
    }

    /// The port at which instances call, whatever the address.
    #[cfg(feature = "docker")]
    pub(crate) fn port(&self) -> u16 {
        self.0.local.port()
    }

    /// The instance that a token was made for, while it is up.
    pub fn find(&self, token: &[u8]) -> Option<Arc<Instance>> {
        self.instances().get(&digest(token)).cloned()
    }

    /// Makes the token of a new process.
    #[cfg(feature = "process")]
    pub(crate) fn admit_process(&self, function: &Function) -> Badge {
        let badge = self.admit(function, self.url(self.0.local.ip()), new_token());
        badge.is_at(self.0.local.ip());
        badge
    }

    /// Makes the token of a new container; none where it could not be heard.
    #[cfg(feature = "docker")]
    pub(crate) fn admit_container(&self, function: &Function, gateway: IpAddr) -> Option<Badge> {
        let url = self.hear_at(gateway)?;
        Some(self.admit(function, url, new_token()))
    }

    /// Admits a container again that an earlier incarnation of the node started.
    #[cfg(feature = "docker")]
    pub(crate) fn readmit(&self, function: &Function, url: &str, token: &str) -> Badge {
        self.admit(function, url.to_owned(), token.to_owned())
    }

    /// The URL for containers on a network with this gateway. The listener there is made when it is first asked for; none where
    /// that is not possible, which is told once.
    #[cfg(feature = "docker")]
    pub(crate) fn hear_at(&self, gateway: IpAddr) -> Option<String> {
        let mut is_heard = self
            .0
            .is_heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let address = SocketAddr::new(gateway, self.0.local.port());
        let is_heard = *is_heard.entry(gateway).or_insert_with(|| {
            let listening = listen(address).and_then(|listener| {
                let sent = self.0.listeners.try_send(listener);
                sent.map_err(|_| io::Error::other("too many listeners at once"))
            });
            if let Err(error) = &listening {
                tracing::warn!(
                    %address, %error,
                    "functions in containers can not call this node: nothing can listen at their network's gateway"
                );
            }
            listening.is_ok()
        });
        is_heard.then(|| self.url(gateway))
    }

    /// Forgets where nothing could listen, so that it is tried again.
    #[cfg(feature = "docker")]
    pub(crate) fn forget_failures(&self) {
        let is_heard = self.0.is_heard.lock();
        is_heard
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, is_heard| *is_heard);
    }

    fn url(&self, host: IpAddr) -> String {
        format!("http://{}", SocketAddr::new(host, self.0.local.port()))
    }

    fn admit(&self, function: &Function, url: String, token: String) -> Badge {
        let instance = Arc::new(Instance {
            space: function.space.clone(),
            function_id: function.function_id.clone(),
            address: SetOnce::new(),
        });
        let key = digest(token.as_bytes());
        self.instances().insert(key, Arc::clone(&instance));
        Badge {
            callers: self.clone(),
            url,
            token,
            instance,
        }
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<TokenDigest, Arc<Instance>>> {
        self.0
            .instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance {
    /// Whether the instance is at this address. Waits until that is known, a few seconds at most.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn is_at(&self, address: IpAddr) -> bool {
        let known = tokio::time::timeout(ADDRESS_TIMEOUT, self.address.wait()).await;
        known.is_ok_and(|known| *known == address)
    }
}

impl Badge {
    /// Notes where the instance calls from; the first address counts.
    pub(crate) fn is_at(&self, address: IpAddr) {
        let _ = self.instance.address.set(address);
    }

    /// The variables of the instance's environment.
    pub(crate) fn variables(&self) -> [(&str, &str); 2] {
        [(URL_VARIABLE, &self.url), (TOKEN_VARIABLE, &self.token)]
    }
}

impl Drop for Badge {
    fn drop(&mut self) {
        let key = digest(self.token.as_bytes());
        let mut instances = self.callers.instances();
        // One that was readmitted meanwhile has another badge for the same token.
        if instances
            .get(&key)
            .is_some_and(|known| Arc::ptr_eq(known, &self.instance))
        {
            instances.remove(&key);
        }
    }
}

impl fmt::Debug for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Badge")
            .field("url", &self.url)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers")
            .field("local", &self.0.local)
            .finish_non_exhaustive()
    }
}

/// 256 random bits, as text.
fn new_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

fn digest(token: &[u8]) -> TokenDigest {
    Sha256::digest(token).into()
}

#[cfg(feature = "docker")]
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted node must not wait until the kernel forgets the connections of its predecessor.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2));

    fn callers(port: u16) -> (Callers, mpsc::Receiver<TcpListener>) {
        let (sender, receiver) = mpsc::channel(1);
        (Callers::new(SocketAddr::new(LOCAL, port), sender), receiver)
    }

    fn function(space: &str, id: &str) -> Function {
        let record = serde_json::json!({
            "space": space, "functionId": id, "type": "process", "provider": {"command": ["true"]},
        });
        serde_json::from_value(record).unwrap()
    }

    fn token(badge: &Badge) -> String {
        badge.variables()[1].1.to_owned()
    }

    #[tokio::test]
    async fn a_token_names_one_instance_for_as_long_as_it_is_up() {
        let (callers, _) = callers(1);
        let one = callers.admit_process(&function("first", "f"));
        let two = callers.admit_process(&function("second", "f"));
        assert_ne!(token(&one), token(&two));
        assert_eq!(token(&one).len(), 64);
        let found = callers.find(token(&one).as_bytes()).unwrap();
        assert_eq!(
            (found.space.as_str(), found.function_id.as_str()),
            ("first", "f")
        );
        assert!(found.is_at(LOCAL).await && !found.is_at(OTHER).await);
        for stranger in ["", "x", &token(&one)[..63], &format!("{} ", token(&one))] {
            assert!(callers.find(stranger.as_bytes()).is_none(), "{stranger:?}");
        }
        let gone = token(&one);
        drop(one);
        assert!(callers.find(gone.as_bytes()).is_none());
        assert!(callers.find(token(&two).as_bytes()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_is_only_at_its_own_address_once_that_is_known() {
        let (callers, _) = callers(1);
        let badge = callers.readmit(&function("default", "f"), "http://gateway", "t");
        let found = callers.find(b"t").unwrap();
        assert!(!found.is_at(OTHER).await, "nobody said where it is");
        let (is_there, ()) = tokio::join!(found.is_at(OTHER), async { badge.is_at(OTHER) });
        assert!(is_there, "a call that came first waits for the address");
        badge.is_at(LOCAL);
        assert!(!found.is_at(LOCAL).await, "an instance does not move");
    }

    #[test]
    fn an_instance_that_is_readmitted_keeps_its_token() {
        let (callers, _) = callers(1);
        let before = callers.readmit(&function("default", "f"), "http://gateway", "t");
        let after = callers.readmit(&function("default", "f"), "http://gateway", "t");
        drop(before);
        assert!(callers.find(b"t").is_some());
        drop(after);
        assert!(callers.find(b"t").is_none());
    }

    #[test]
    fn nothing_shows_a_token() {
        let (callers, _) = callers(1);
        let badge = callers.admit_process(&function("default", "f"));
        let shown = format!(
            "{badge:?} {callers:?} {:?}",
            callers.find(token(&badge).as_bytes())
        );
        assert!(!shown.contains(&token(&badge)), "{shown}");
    }

    #[tokio::test]
    async fn a_gateway_is_listened_at_once_and_one_that_is_elsewhere_is_not() {
        // A port that is free at both addresses: loopback has many addresses.
        let gateway = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
        let free = listen(SocketAddr::new(gateway, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (callers, mut listeners) = callers(port);
        let url = format!("http://127.0.0.9:{port}");
        assert_eq!(callers.hear_at(gateway), Some(url.clone()));
        assert_eq!(callers.hear_at(gateway), Some(url));
        let listener = listeners.try_recv().unwrap();
        assert_eq!(
            listener.local_addr().unwrap(),
            SocketAddr::new(gateway, port)
        );
        assert!(listeners.try_recv().is_err(), "once");
        // An address of the documentation's network is no machine's.
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(callers.hear_at(elsewhere), None);
        assert!(
            callers
                .admit_container(&function("default", "f"), elsewhere)
                .is_none()
        );
    }
}
