//! A TCP link, such as that between a node and its store, that a test can cut, or leave open and silent.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the link does with traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Cut,
}

/// A TCP proxy on loopback.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    cancel: CancellationToken,
}

impl Link {
    /// Starts a link to `target` at a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub async fn to(target: String) -> Self {
        Self::between((Ipv4Addr::LOCALHOST, 0).into(), target).await
    }

    /// Starts a link from an address to `target`.
    ///
    /// # Panics
    /// When the address is taken.
    pub(crate) async fn between(address: SocketAddr, target: String) -> Self {
        let listener = TcpListener::bind(address).await.expect("bind on loopback");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (state, seen) = watch::channel(State::Open);
        let cancel = CancellationToken::new();
        let tracker = TaskTracker::new();
        let stop = cancel.clone();
        tracker.clone().spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((client, _)) = accepted else { continue };
                tracker.spawn(carry(client, target.clone(), seen.clone(), stop.clone()));
            }
        });
        Self {
            address,
            state,
            cancel,
        }
    }

    /// The link's own URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes all connections; new ones are closed at once.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets new connections through again.
    pub fn heal(&self) {
        self.state.send_replace(State::Open);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn carry(
    mut client: TcpStream,
    target: String,
    mut state: watch::Receiver<State>,
    stop: CancellationToken,
) {
    if *state.borrow() == State::Cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
    }
}
