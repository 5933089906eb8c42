//! What calls functions that run elsewhere: webhooks, and functions, streams and queues of other clouds.

use std::sync::Arc;

use actors::Remotes;
use config::settings::AuthMode;
use providers::aws::Aws;
use providers::http::Webhook;
use providers::openwhisk::OpenWhisk;
use providers::{AnswerLimits, Remote, azure, gcloud};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Backends, cluster_error};
use crate::node::StartError;

impl Backends<'_> {
    pub(super) fn remotes(
        &self,
        limits: AnswerLimits,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Remotes, StartError> {
        let settings = self.settings;
        let guard = || self.outbound.clone();
        let webhook = Webhook::new(&settings.http, limits, guard()).map_err(cluster_error)?;
        let of_aws = (&settings.http, &settings.cloud, &settings.aws);
        // Without auth, who may call may do everything anyway.
        let is_open = settings.auth.mode == AuthMode::Off;
        let aws = Aws::new(of_aws, is_open, limits, guard()).map_err(cluster_error)?;
        let of_others = (&settings.http, &settings.cloud);
        let gcloud = gcloud::functions(of_others, limits, guard()).map_err(cluster_error)?;
        let azure = azure::functions(of_others, limits, guard()).map_err(cluster_error)?;
        let openwhisk = OpenWhisk::new(of_others, limits, guard()).map_err(cluster_error)?;
        Ok(Remotes {
            http: remote(webhook.sweeping(tracker, stop.clone())),
            aws: remote(aws),
            gcloud: remote(gcloud),
            azure: remote(azure),
            openwhisk: remote(openwhisk),
        })
    }
}

fn remote(remote: impl Remote) -> Option<Arc<dyn Remote>> {
    Some(Arc::new(remote))
}
