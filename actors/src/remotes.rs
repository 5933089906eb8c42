//! A node's remote providers, by the type of function.

use std::sync::Arc;

use protocol::function::Provider;
use protocol::{FunctionId, Space};
use providers::Remote;

/// The remote providers of a node; none for types that it was built without.
#[derive(Debug, Clone, Default)]
pub struct Remotes {
    /// Calls functions of type `http`.
    pub http: Option<Arc<dyn Remote>>,
    /// Calls those of the AWS types.
    pub aws: Option<Arc<dyn Remote>>,
    /// Calls those of type `gcloudfunction`.
    pub gcloud: Option<Arc<dyn Remote>>,
    /// Calls those of type `azurefunction`.
    pub azure: Option<Arc<dyn Remote>>,
    /// Calls those of type `openwhisk`.
    pub openwhisk: Option<Arc<dyn Remote>>,
}

impl Remotes {
    /// The one that calls functions of this type.
    pub(crate) fn of(&self, provider: &Provider) -> Option<&dyn Remote> {
        let remote = match provider {
            Provider::Container(_) | Provider::Process(_) => &None,
            Provider::Http(_) => &self.http,
            Provider::AwsLambda(_)
            | Provider::AwsKinesis(_)
            | Provider::AwsFirehose(_)
            | Provider::AwsSqs(_) => &self.aws,
            Provider::GcloudFunction(_) => &self.gcloud,
            Provider::AzureFunction(_) => &self.azure,
            Provider::OpenWhisk(_) => &self.openwhisk,
        };
        remote.as_deref()
    }

    /// Forgets what any of them knows of a function that was deleted, or is another one now.
    pub(crate) fn forget(&self, space: &Space, function_id: &FunctionId) {
        let all = [
            &self.http,
            &self.aws,
            &self.gcloud,
            &self.azure,
            &self.openwhisk,
        ];
        for remote in all.into_iter().flatten() {
            remote.forget(space, function_id);
        }
    }
}
