//! The path tree of `http` subscriptions: which paths may stand beside each other, and which one a request matches.
//!
//! A path is the segments between its slashes, compared byte for byte; an empty segment and a trailing slash count. A segment that
//! begins with `:` is a parameter and takes exactly one segment, one that begins with `*` is a wildcard and takes the rest.
//! At each level stand either static segments, or one parameter, or one wildcard.

use std::collections::HashMap;

#[cfg(test)]
mod tests;

/// Paths and what each leads to.
#[derive(Debug, Clone)]
pub struct PathTree<T> {
    /// The nodes by index, the root first. They are not boxed in each other: a path may have thousands of segments.
    nodes: Vec<Node<T>>,
    /// Nodes that hold nothing and may be used again.
    free: Vec<usize>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Node<T> {
    value: Option<T>,
    children: Children,
}

/// What follows a node, as indices.
#[derive(Debug, Clone)]
enum Children {
    None,
    Static(Siblings),
    /// The name, without its colon.
    Parameter(Box<str>, usize),
    /// The name, without its asterisk.
    Wildcard(Box<str>, usize),
}

/// Static segments of one level. Most levels have one only, and that needs no table.
#[derive(Debug, Clone)]
enum Siblings {
    One(Box<str>, usize),
    Many(HashMap<Box<str>, usize>),
}

impl Siblings {
    fn get(&self, segment: &str) -> Option<usize> {
        match self {
            Self::One(known, child) => (**known == *segment).then_some(*child),
            Self::Many(children) => children.get(segment).copied(),
        }
    }

    fn insert(&mut self, segment: &str, child: usize) {
        match self {
            Self::One(known, other) => {
                let known = (std::mem::take(known), *other);
                *self = Self::Many(HashMap::from([known, (segment.into(), child)]));
            }
            Self::Many(children) => {
                children.insert(segment.into(), child);
            }
        }
    }

    /// Whether none is left after the removal of one that is there.
    fn remove(&mut self, segment: &str) -> bool {
        match self {
            Self::One(..) => true,
            Self::Many(children) => {
                children.remove(segment);
                children.is_empty()
            }
        }
    }
}

/// Why a path can not be added, in Event Gateway's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathConflict {
    /// Something follows a wildcard.
    #[error("wildcard must be the last parameter")]
    WildcardNotLast,
    /// There is a wildcard already, or there are other segments where the wildcard would be.
    #[error("wildcard with different name (\"{name}\") already defined: for route: {route}")]
    Wildcard {
        /// The name of the parameter or wildcard that is there; empty when static segments are.
        name: String,
        /// The path that was to be added.
        route: String,
    },
    /// There is a parameter of another name, or the segment is none.
    #[error("parameter with different name (\"{name}\") already defined: for route: {route}")]
    Parameter {
        /// The name of the parameter that is there.
        name: String,
        /// The path that was to be added.
        route: String,
    },
    /// There are static segments where the parameter would be.
    #[error("static route already defined for route: {route}")]
    Static {
        /// The path that was to be added.
        route: String,
    },
    /// The path is there already.
    #[error("route {route} conflicts with existing route")]
    Exists {
        /// The path that was to be added.
        route: String,
    },
}

/// The parameters of a matched path, as they stand in the request's path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Params<'a> {
    /// Names and values, in the order of the path; no name twice.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.0.iter().copied()
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Whether the path has no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn set(&mut self, name: &'a str, value: &'a str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            // A name that comes twice has its last value.
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }
}

/// One segment of a path that is to be added.
enum Segment<'a> {
    Static(&'a str),
    Parameter(&'a str),
    Wildcard(&'a str),
}

impl<'a> Segment<'a> {
    fn read(text: &'a str) -> Self {
        if let Some(name) = text.strip_prefix(':') {
            Self::Parameter(name)
        } else if let Some(name) = text.strip_prefix('*') {
            Self::Wildcard(name)
        } else {
            Self::Static(text)
        }
    }
}

/// The segments of a path; none for `/`, which is the root's own.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let rest = path.strip_prefix('/').unwrap_or(path);
    (path != "/").then(|| rest.split('/')).into_iter().flatten()
}

impl<T> Default for PathTree<T> {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            value: None,
            children: Children::None,
        }
    }
}

impl<T> PathTree<T> {
    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no paths.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a path. When it can not be added nothing changes.
    ///
    /// # Errors
    /// [`PathConflict`] with the first rule that it breaks, from its first segment on.
    pub fn add(&mut self, path: &str, value: T) -> Result<(), PathConflict> {
        self.check(path)?;
        let mut at = 0;
        for segment in segments(path) {
            at = match self.child(at, segment) {
                Some(child) => child,
                None => self.grow(at, segment),
            };
        }
        self.nodes[at].value = Some(value);
        self.len += 1;
        Ok(())
    }

    /// Whether a path can be added.
    ///
    /// # Errors
    /// As [`PathTree::add`].
    pub fn check(&self, path: &str) -> Result<(), PathConflict> {
        let route = || path.to_owned();
        let mut at = Some(0);
        let mut is_below_wildcard = false;
        for text in segments(path) {
            if is_below_wildcard {
                return Err(PathConflict::WildcardNotLast);
            }
            let segment = Segment::read(text);
            is_below_wildcard = matches!(segment, Segment::Wildcard(_));
            let Some(node) = at.map(|at| &self.nodes[at]) else {
                continue;
            };
            let wildcard = |name: &str| PathConflict::Wildcard {
                name: name.to_owned(),
                route: route(),
            };
            at = match (&node.children, segment) {
                (Children::None, _) => None,
                (Children::Wildcard(name, _), _) => return Err(wildcard(name)),
                (Children::Parameter(name, _), Segment::Wildcard(_)) => return Err(wildcard(name)),
                (Children::Static(_), Segment::Wildcard(_)) => return Err(wildcard("")),
                (Children::Parameter(known, child), Segment::Parameter(name))
                    if **known == *name =>
                {
                    Some(*child)
                }
                (Children::Parameter(name, _), _) => {
                    let (name, route) = (name.to_string(), route());
                    return Err(PathConflict::Parameter { name, route });
                }
                (Children::Static(_), Segment::Parameter(_)) => {
                    return Err(PathConflict::Static { route: route() });
                }
                (Children::Static(children), Segment::Static(text)) => children.get(text),
            };
        }
        match at {
            Some(at) if self.nodes[at].value.is_some() => {
                Err(PathConflict::Exists { route: route() })
            }
            _ => Ok(()),
        }
    }

    /// Removes a path and returns what it led to; paths below it stay.
    pub fn remove(&mut self, path: &str) -> Option<T> {
        let mut trail = Vec::new();
        let mut at = 0;
        for segment in segments(path) {
            trail.push((at, segment));
            at = self.child(at, segment)?;
        }
        let value = self.nodes[at].value.take()?;
        self.len -= 1;
        for (parent, segment) in trail.into_iter().rev() {
            let node = &self.nodes[at];
            if node.value.is_some() || !matches!(node.children, Children::None) {
                break;
            }
            self.free.push(at);
            self.prune(parent, segment);
            at = parent;
        }
        Some(value)
    }

    /// Finds what the path of a request leads to. The path is taken as it was sent, with its escapes, and so are the parameters.
    pub fn resolve<'a>(&'a self, path: &'a str) -> Option<(&'a T, Params<'a>)> {
        let mut params = Params::default();
        let mut node = self.nodes.first()?;
        let mut rest = match path.strip_prefix('/')? {
            "" => return Some((node.value.as_ref()?, params)),
            rest => Some(rest),
        };
        while let Some(text) = rest {
            let (segment, after) = match text.split_once('/') {
                Some((segment, after)) => (segment, Some(after)),
                None => (text, None),
            };
            let child = match &node.children {
                Children::None => return None,
                Children::Static(children) => children.get(segment)?,
                Children::Parameter(name, child) => {
                    params.set(name, segment);
                    *child
                }
                Children::Wildcard(name, child) => {
                    params.set(name, text);
                    return Some((self.nodes[*child].value.as_ref()?, params));
                }
            };
            node = &self.nodes[child];
            rest = after;
        }
        Some((node.value.as_ref()?, params))
    }

    /// The node that a segment of an added path leads to.
    fn child(&self, at: usize, segment: &str) -> Option<usize> {
        match (&self.nodes[at].children, Segment::read(segment)) {
            (Children::Static(children), Segment::Static(text)) => children.get(text),
            (Children::Parameter(known, child), Segment::Parameter(name))
            | (Children::Wildcard(known, child), Segment::Wildcard(name))
                if **known == *name =>
            {
                Some(*child)
            }
            _ => None,
        }
    }

    /// Makes the node of a segment; the rules were checked.
    fn grow(&mut self, at: usize, segment: &str) -> usize {
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        });
        let children = &mut self.nodes[at].children;
        match Segment::read(segment) {
            Segment::Parameter(name) => *children = Children::Parameter(name.into(), child),
            Segment::Wildcard(name) => *children = Children::Wildcard(name.into(), child),
            Segment::Static(text) => match children {
                Children::Static(siblings) => siblings.insert(text, child),
                _ => *children = Children::Static(Siblings::One(text.into(), child)),
            },
        }
        child
    }

    fn prune(&mut self, parent: usize, segment: &str) {
        let children = &mut self.nodes[parent].children;
        let is_last = match children {
            Children::Static(siblings) => siblings.remove(segment),
            _ => true,
        };
        if is_last {
            *children = Children::None;
        }
    }
}
