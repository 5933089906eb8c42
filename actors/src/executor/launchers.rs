//! The pooled providers of this node, by the type of function they run.

use std::sync::Arc;

use protocol::Function;
use protocol::function::Provider;
use providers::Launch;

/// The type of a pooled function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Instances are containers.
    Container,
    /// Instances are process groups.
    Process,
}

impl Kind {
    /// The kind of a function; remote ones have no instances and count as processes nowhere.
    pub(crate) fn of(function: &Function) -> Self {
        match function.provider {
            Provider::Container(_) => Self::Container,
            _ => Self::Process,
        }
    }
}

/// The pooled providers of this node; a type without one can not run here. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Launchers {
    /// Runs `container` functions.
    pub container: Option<Arc<dyn Launch>>,
    /// Runs `process` functions.
    pub process: Option<Arc<dyn Launch>>,
}

impl Launchers {
    /// The provider of a kind.
    pub fn get(&self, kind: Kind) -> Option<&Arc<dyn Launch>> {
        match kind {
            Kind::Container => self.container.as_ref(),
            Kind::Process => self.process.as_ref(),
        }
    }

    /// Whether functions of a kind can run here now.
    pub fn can_run(&self, kind: Kind) -> bool {
        self.get(kind).is_some_and(|launch| launch.is_available())
    }

    /// The providers there are.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Arc<dyn Launch>)> {
        [Kind::Container, Kind::Process]
            .into_iter()
            .filter_map(|kind| Some((kind, self.get(kind)?)))
    }
}
