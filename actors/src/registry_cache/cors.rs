//! The CORS configurations this node knows, by space, method and path.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use config::Revision;
use protocol::subscription::Method;
use protocol::{CorsRecord, PathTree, Space};

/// The CORS configurations this node knows, as of a revision of the store.
#[derive(Debug, Clone, Default)]
pub struct CorsIndex {
    /// The store's revision it was built from.
    pub revision: Revision,
    spaces: BTreeMap<Space, Arc<OfSpace>>,
}

/// A CORS configuration as the registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredCors {
    /// The record.
    pub cors: Arc<CorsRecord>,
    /// The revision of its last change.
    pub revision: Revision,
}

#[derive(Debug, Default)]
struct OfSpace {
    /// By id.
    all: Vec<Arc<RegisteredCors>>,
    paths: HashMap<Method, PathTree<Arc<RegisteredCors>>>,
}

impl CorsIndex {
    /// Whether there are none in any space.
    pub fn is_empty(&self) -> bool {
        self.spaces.is_empty()
    }

    /// The configuration for requests to a method and path; without a space that of the first space, by name, that has one.
    pub fn find<'a>(
        &'a self,
        space: Option<&Space>,
        method: &str,
        escaped_path: &'a str,
    ) -> Option<&'a Arc<CorsRecord>> {
        let method = Method::from_name(method)?;
        let mut spaces = self
            .spaces
            .iter()
            .filter(|(name, _)| space.is_none_or(|space| space == *name));
        spaces.find_map(|(_, of_space)| {
            let tree = of_space.paths.get(&method)?;
            tree.resolve(escaped_path)
                .map(|(registered, _)| &registered.cors)
        })
    }

    /// The configurations of a space, by id.
    pub fn of_space(&self, space: &str) -> impl Iterator<Item = &Arc<RegisteredCors>> {
        let of_space = space
            .parse()
            .ok()
            .and_then(|space: Space| self.spaces.get(&space));
        of_space.into_iter().flat_map(|of_space| &of_space.all)
    }

    /// The spaces that have some.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = &Space> {
        self.spaces.keys()
    }

    /// Puts the configurations of a space, by id, in the place of those before.
    pub fn set(&mut self, space: Space, all: Vec<Arc<RegisteredCors>>) {
        if all.is_empty() {
            self.spaces.remove(&space);
            return;
        }
        let mut paths: HashMap<Method, PathTree<_>> = HashMap::new();
        for registered in &all {
            let (id, cors) = (&registered.cors.cors_id, &registered.cors);
            let tree = paths.entry(cors.method).or_default();
            // The store lets no conflict in.
            if let Err(error) = tree.add(&cors.path, Arc::clone(registered)) {
                tracing::error!(%space, %id, %error, "a CORS configuration in the store is not asked");
            }
        }
        self.spaces.insert(space, Arc::new(OfSpace { all, paths }));
    }
}
