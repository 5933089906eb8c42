//! What this node does for its peers.

use async_trait::async_trait;
use bytes::Bytes;
use cluster::PeerHandler;
use futures_util::stream::BoxStream;
use protocol::invocation::Body;
use protocol::peer::{InvokeHead, ReplyHead};
use protocol::{FunctionId, Space};

use crate::images::Images;
use crate::invoker::Invoker;
use crate::output::ClusterOutput;

/// Answers peers.
#[derive(Debug)]
pub struct Serving {
    invoker: Invoker,
    images: Images,
    output: ClusterOutput,
}

impl Serving {
    pub(crate) fn new(invoker: Invoker, images: Images, output: ClusterOutput) -> Self {
        Self {
            invoker,
            images,
            output,
        }
    }
}

#[async_trait]
impl PeerHandler for Serving {
    async fn invoke(&self, head: InvokeHead, payload: Bytes) -> (ReplyHead, Body) {
        self.invoker.serve(head, payload).await
    }

    async fn resolve_image(&self, image: &str) -> Option<String> {
        self.images.resolve_here(image).await
    }

    async fn logs(
        &self,
        space: &Space,
        function_id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<Bytes>> {
        self.output.read_here(space, function_id, follow)
    }
}
