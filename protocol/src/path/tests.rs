use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

fn tree(paths: &[&str]) -> PathTree<String> {
    let mut tree = PathTree::default();
    for path in paths {
        tree.add(path, (*path).to_owned()).unwrap();
    }
    tree
}

/// Section 5 of the reference, "Adding": what a path meets in a tree that has others.
fn refuses(paths: &[&str], path: &str, expected: &str) {
    let mut tree = tree(paths);
    let error = tree.add(path, String::new()).expect_err(path);
    assert_eq!(error.to_string(), expected, "{paths:?} and {path}");
    assert_eq!(tree.len(), paths.len());
}

/// Section 5 of the reference, "Matching".
fn matches(paths: &[&str], request: &str, expected: Option<(&str, &[(&str, &str)])>) {
    let tree = tree(paths);
    let found = tree
        .resolve(request)
        .map(|(path, params)| (path.as_str(), params.iter().collect::<Vec<_>>()));
    let expected = expected.map(|(path, params)| (path, params.to_vec()));
    assert_eq!(found, expected, "{paths:?} and {request}");
}

#[test]
fn conflicts_are_worded_as_event_gateway_words_them() {
    refuses(&[], "/*a/b", "wildcard must be the last parameter");
    refuses(&["/a"], "/a/*b/c", "wildcard must be the last parameter");
    let wildcard = |name: &str, route: &str| {
        format!("wildcard with different name (\"{name}\") already defined: for route: {route}")
    };
    refuses(&["/*a"], "/*b", &wildcard("a", "/*b"));
    refuses(&["/*a"], "/*a", &wildcard("a", "/*a"));
    refuses(&["/*a"], "/b", &wildcard("a", "/b"));
    refuses(&["/*a"], "/:b/c", &wildcard("a", "/:b/c"));
    refuses(&["/:a"], "/*b", &wildcard("a", "/*b"));
    refuses(&["/a"], "/*b", &wildcard("", "/*b"));
    refuses(&["/a"], "/*b/c", &wildcard("", "/*b/c"));
    let parameter = |name: &str, route: &str| {
        format!("parameter with different name (\"{name}\") already defined: for route: {route}")
    };
    refuses(&["/:a"], "/:b", &parameter("a", "/:b"));
    refuses(&["/:a/x"], "/b/y", &parameter("a", "/b/y"));
    refuses(&["/x/:a"], "/x/b", &parameter("a", "/x/b"));
    let is_static = |route: &str| format!("static route already defined for route: {route}");
    refuses(&["/a"], "/:b", &is_static("/:b"));
    refuses(&["/a/b/c"], "/a/:x/c", &is_static("/a/:x/c"));
    let exists = |route: &str| format!("route {route} conflicts with existing route");
    refuses(&["/"], "/", &exists("/"));
    refuses(&["/a/b"], "/a/b", &exists("/a/b"));
    refuses(&["/:a"], "/:a", &exists("/:a"));
    refuses(&["/a/"], "/a/", &exists("/a/"));
}

#[test]
fn these_paths_stand_beside_each_other() {
    tree(&["/:name", "/:name/:id"]);
    tree(&["/a", "/a/b", "/b", "/a/b/c"]);
    tree(&["/a", "/a/*rest"]);
    tree(&["/", "/a"]);
    tree(&["/", "/:a"]);
    tree(&["/", "/*a"]);
    tree(&["/a", "/a/"]);
    tree(&["/a", "/A", "/%61"]);
    tree(&["/a", "//", "//a"]);
    tree(&["/a/:id/x", "/b/:key"]);
}

#[test]
fn requests_match_by_the_rules() {
    matches(&["/"], "/", Some(("/", &[])));
    matches(&["/a"], "/", None);
    matches(&["/:a"], "/", None);
    matches(&["/*a"], "/", None);
    matches(&["/a"], "/a", Some(("/a", &[])));
    matches(&["/a"], "/a/", None);
    matches(&["/a/"], "/a", None);
    matches(&["/a"], "/A", None);
    matches(&["/a/b"], "/a", None);
    matches(
        &["/users/:id"],
        "/users/7",
        Some(("/users/:id", &[("id", "7")])),
    );
    matches(
        &["/users/:id"],
        "/users/",
        Some(("/users/:id", &[("id", "")])),
    );
    matches(&["/users/:id"], "/users", None);
    matches(&["/users/:id"], "/users/7/", None);
    matches(
        &["/users/:id"],
        "/users/a%2Fb",
        Some(("/users/:id", &[("id", "a%2Fb")])),
    );
    let rest = "/users/*p";
    matches(&[rest], "/users/a/b", Some((rest, &[("p", "a/b")])));
    matches(&[rest], "/users/a/", Some((rest, &[("p", "a/")])));
    matches(&[rest], "/users/", Some((rest, &[("p", "")])));
    matches(&[rest], "/users", None);
    matches(
        &["/:a/:b"],
        "/1/2",
        Some(("/:a/:b", &[("a", "1"), ("b", "2")])),
    );
    matches(&["/:a/:a"], "/1/2", Some(("/:a/:a", &[("a", "2")])));
    matches(&["/:a"], "/:a", Some(("/:a", &[("a", ":a")])));
    matches(&["/a"], "a", None);
    matches(&["/a"], "*", None);
    matches(&["/a"], "", None);
}

#[test]
fn a_removed_path_leaves_those_below_it_and_no_reservation() {
    let mut tree = tree(&["/:a", "/:a/b"]);
    assert_eq!(tree.remove("/:a").as_deref(), Some("/:a"));
    assert!(tree.resolve("/x").is_none());
    assert!(tree.resolve("/x/b").is_some());
    assert_eq!(tree.remove("/:a"), None, "it is gone already");
    assert_eq!(tree.remove("/:b"), None);
    assert_eq!(tree.remove("/:a/b").as_deref(), Some("/:a/b"));
    tree.add("/x/b", String::new()).unwrap();
    assert_eq!(tree.len(), 1);
}

#[test]
fn a_path_of_very_many_segments_is_added_and_dropped() {
    let path = "/a".repeat(100_000);
    let tree = tree(&[&path]);
    assert!(tree.resolve(&path).is_some());
}

/// A generous bound: the target, under a microsecond a look-up, is measured by the bench.
#[test]
fn ten_thousand_paths_are_built_and_resolved_quickly() {
    let paths: Vec<_> = (0..10_000)
        .map(|n| format!("/s{}/v{}/:id/items/{n}", n % 50, n % 200))
        .collect();
    let began = SystemTime::now();
    let mut tree = PathTree::default();
    for path in &paths {
        tree.add(path, ()).unwrap();
    }
    let built = began.elapsed().unwrap();
    let requests: Vec<_> = paths.iter().map(|path| path.replace(":id", "42")).collect();
    let began = SystemTime::now();
    assert!(
        requests
            .iter()
            .all(|request| tree.resolve(request).is_some())
    );
    let resolved = began.elapsed().unwrap();
    println!(
        "10,000 paths: built in {built:?}, a look-up takes {:?}",
        resolved / 10_000
    );
    assert!(built < Duration::from_secs(1) && resolved < Duration::from_secs(1));
}

/// The rules as plainly as they can be said: paths as lists of segments.
#[derive(Default)]
struct Model(BTreeMap<String, Vec<String>>);

impl Model {
    fn split(path: &str) -> Vec<String> {
        match path {
            "/" => Vec::new(),
            path => path[1..].split('/').map(str::to_owned).collect(),
        }
    }

    fn kind(segment: &str) -> char {
        let first = segment.chars().next();
        first.filter(|first| ":*".contains(*first)).unwrap_or('=')
    }

    /// Two paths may not stand together when they are equal, or when at the first level where they differ either is no static
    /// segment.
    fn admits(&self, path: &str) -> bool {
        let new = Self::split(path);
        let is_well_formed = new
            .iter()
            .rev()
            .skip(1)
            .all(|segment| Self::kind(segment) != '*');
        is_well_formed
            && self.0.values().all(|old| {
                if *old == new {
                    return false;
                }
                match old.iter().zip(&new).find(|(old, new)| old != new) {
                    Some((old, new)) => Self::kind(old) == '=' && Self::kind(new) == '=',
                    None => true,
                }
            })
    }

    fn resolve(&self, request: &str) -> Option<(&str, Vec<(String, String)>)> {
        let sent = Self::split(request);
        let mut found = self.0.iter().filter_map(|(path, segments)| {
            let mut params = BTreeMap::new();
            for (index, segment) in segments.iter().enumerate() {
                let value = sent.get(index)?;
                match Self::kind(segment) {
                    ':' => drop(params.insert(segment[1..].to_owned(), value.clone())),
                    '*' => {
                        params.insert(segment[1..].to_owned(), sent[index..].join("/"));
                        return Some((path.as_str(), params.into_iter().collect()));
                    }
                    _ if segment == value => {}
                    _ => return None,
                }
            }
            (segments.len() == sent.len()).then(|| (path.as_str(), params.into_iter().collect()))
        });
        let first = found.next();
        assert!(found.next().is_none(), "two paths match {request}");
        first
    }
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["", "a", "b", "c", ":x", ":y", "*x", "*y"]);
    prop::collection::vec(segment, 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn request() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["", "a", "b", "c", "d", "%2F", ":x"]);
    prop::collection::vec(segment, 0..5).prop_map(|segments| format!("/{}", segments.join("/")))
}

proptest! {
    /// Add, remove and resolve do what the model does.
    #[test]
    fn behaves_as_the_model(
        changes in prop::collection::vec((any::<bool>(), path()), 0..24),
        requests in prop::collection::vec(request(), 0..12),
    ) {
        let (mut tree, mut model) = (PathTree::default(), Model::default());
        for (is_added, path) in changes {
            if is_added {
                let is_admitted = model.admits(&path);
                prop_assert_eq!(tree.check(&path).is_ok(), is_admitted, "{}", &path);
                prop_assert_eq!(tree.add(&path, path.clone()).is_ok(), is_admitted, "{}", &path);
                if is_admitted {
                    model.0.insert(path.clone(), Model::split(&path));
                }
            } else {
                prop_assert_eq!(tree.remove(&path).is_some(), model.0.remove(&path).is_some(), "{}", &path);
            }
            prop_assert_eq!(tree.len(), model.0.len());
        }
        for request in requests {
            let found = tree.resolve(&request).map(|(path, params)| {
                let params: BTreeMap<_, _> = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                (path.as_str(), params.into_iter().collect::<Vec<_>>())
            });
            prop_assert_eq!(found, model.resolve(&request), "{}", &request);
        }
    }

    /// Paths that stand together are accepted, and match alike, in whatever order they come.
    #[test]
    fn the_order_of_adding_does_not_matter(
        paths in prop::collection::vec(path(), 0..12),
        requests in prop::collection::vec(request(), 0..12),
        seed in any::<u64>(),
    ) {
        let mut first = PathTree::default();
        let mut kept: Vec<_> = paths.into_iter().filter(|path| first.add(path, path.clone()).is_ok()).collect();
        kept.sort_by_key(|path| path.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())));
        let mut second = PathTree::default();
        for path in &kept {
            prop_assert!(second.add(path, path.clone()).is_ok(), "{} of {:?}", path, kept);
        }
        for request in &requests {
            prop_assert_eq!(first.resolve(request), second.resolve(request));
        }
    }
}
