//! What a function wrote, read from every node.

use std::sync::Arc;

use bytes::Bytes;
use cluster::PeerClient;
use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use protocol::{FunctionId, Space};
use providers::Outputs;

use crate::router::RouteTable;
use crate::snapshot::Reader;

/// What functions wrote, on every node; cheap to clone.
#[derive(Debug, Clone)]
pub struct ClusterOutput {
    outputs: Outputs,
    routes: Reader<RouteTable>,
    client: Arc<dyn PeerClient>,
}

impl ClusterOutput {
    /// Makes the reader of a node.
    pub fn new(outputs: Outputs, routes: Reader<RouteTable>, client: Arc<dyn PeerClient>) -> Self {
        Self {
            outputs,
            routes,
            client,
        }
    }

    /// This node's share.
    pub fn read_here(
        &self,
        space: &Space,
        id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<Bytes>> {
        self.outputs.read(space, id, follow)
    }

    /// One JSON object a line, from all nodes that answer; with `follow` it goes on until dropped.
    pub async fn read(
        &self,
        space: &Space,
        id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<Bytes>> {
        let mut shares = SelectAll::new();
        shares.push(self.read_here(space, id, follow));
        let routes = self.routes.get();
        // All are asked at once, lest one that is slow holds up the others.
        let asked =
            routes
                .peers
                .values()
                .filter(|route| route.is_usable())
                .map(|route| async move {
                    (
                        route,
                        self.client.logs(&route.peer, space, id, follow).await,
                    )
                });
        for (route, share) in futures_util::future::join_all(asked).await {
            match share {
                // A peer that is lost while it is followed ends its share, not the whole.
                Ok(share) => shares.push(
                    lines(share)
                        .take_while(|line| std::future::ready(line.is_ok()))
                        .boxed(),
                ),
                Err(error) => {
                    tracing::info!(peer = %route.peer.name, %error, "a peer's share of the output is missing");
                }
            }
        }
        shares.boxed()
    }
}

/// Cuts a stream of bytes at line ends, so that shares of several nodes mix by whole lines.
fn lines(
    share: BoxStream<'static, std::io::Result<Bytes>>,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    let state = (share, Vec::new());
    futures_util::stream::unfold(state, |(mut share, mut rest): (_, Vec<u8>)| async move {
        loop {
            match share.next().await {
                Some(Ok(chunk)) => {
                    rest.extend_from_slice(&chunk);
                    if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
                        let left = rest.split_off(end + 1);
                        return Some((Ok(Bytes::from(rest)), (share, left)));
                    }
                }
                Some(Err(error)) => return Some((Err(error), (share, rest))),
                None if rest.is_empty() => return None,
                None => return Some((Ok(Bytes::from(std::mem::take(&mut rest))), (share, rest))),
            }
        }
    })
    .boxed()
}
