//! What a function wrote, read from every node.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use protocol::{FunctionId, Space};

/// What functions wrote, on every node; cheap to clone.
#[derive(Debug, Clone)]
pub struct ClusterOutput {}

impl ClusterOutput {
    /// One JSON object a line, from all nodes that answer; with `follow` it goes on until dropped.
    pub async fn read(&self, space: &Space, id: &FunctionId, follow: bool) -> BoxStream<'static, std::io::Result<Bytes>> {
        let _ = (space, id, follow);
        todo!()
    }
}
