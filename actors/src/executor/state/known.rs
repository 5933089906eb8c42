//! Which functions there were when the registry was last heard: what is gone is forgotten, so that a function that is registered
//! anew does not begin with what another one left.

use std::collections::HashMap;

use protocol::{FunctionId, InstanceKey, Space};

use super::Action;
use crate::registry_cache::{Registered, Registry};

/// The functions of the last registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    functions: HashMap<(Space, FunctionId), (InstanceKey, &'static str)>,
}

impl Known {
    /// Takes over what an earlier incarnation knew: at least the functions that have pools. A version is not what its function is now.
    pub(super) fn new<'a>(of: impl Iterator<Item = &'a Registered>) -> Self {
        let of = of.filter(|registered| registered.function.version.is_none());
        Self {
            functions: of.map(entry).collect(),
        }
    }

    pub(super) fn contains(&self, space: &Space, id: &FunctionId) -> bool {
        self.functions.contains_key(&(space.clone(), id.clone()))
    }

    /// Tells which functions are gone: deleted, or replaced by what shares nothing with them but the id, such as another type or a
    /// webhook elsewhere.
    pub(super) fn on_registry(&mut self, registry: &Registry) -> Vec<Action> {
        let before = std::mem::take(&mut self.functions);
        self.functions = registry
            .iter()
            .map(|registered| entry(registered))
            .collect();
        let is_gone = |(name, (key, type_name)): &(_, (InstanceKey, &'static str))| {
            let same_type = (self.functions.get(name)).filter(|(_, newest)| newest == type_name);
            same_type.is_none_or(|(newest, _)| *type_name == HTTP && newest != key)
        };
        let gone = before.into_iter().filter(is_gone);
        gone.map(|((space, id), _)| Action::Forget { space, id })
            .collect()
    }
}

/// The type of webhooks: what is known of one is known of its URL.
const HTTP: &str = "http";

fn entry(registered: &Registered) -> ((Space, FunctionId), (InstanceKey, &'static str)) {
    let function = &registered.function;
    let name = (function.space.clone(), function.function_id.clone());
    (name, (registered.key, function.type_name()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{registered, registry};

    fn webhook(url: &str) -> Value {
        json!({"type": "http", "provider": {"url": url}})
    }

    /// What is forgotten when one record replaces another, or nothing does.
    fn forgotten(old: &Value, new: Option<&Value>) -> usize {
        let mut known = Known::default();
        assert!(
            known
                .on_registry(&registry(&[&registered("f", old)]))
                .is_empty()
        );
        let new = new.map(|new| registered("f", new));
        let actions = known.on_registry(&registry(&new.iter().collect::<Vec<_>>()));
        assert!(
            actions
                .iter()
                .all(|action| matches!(action, Action::Forget { id, .. } if id.as_str() == "f"))
        );
        actions.len()
    }

    #[test]
    fn what_is_deleted_or_another_thing_now_is_forgotten_and_what_changed_is_not() {
        let process = json!({});
        assert_eq!(forgotten(&process, None), 1);
        assert_eq!(forgotten(&process, Some(&webhook("http://a"))), 1);
        assert_eq!(forgotten(&webhook("http://a"), Some(&process)), 1);
        assert_eq!(
            forgotten(&webhook("http://a"), Some(&webhook("http://b"))),
            1
        );
        let larger = json!({"limits": {"memoryMb": 7}});
        assert_eq!(forgotten(&process, Some(&larger)), 0);
        let slower =
            json!({"type": "http", "provider": {"url": "http://a"}, "limits": {"timeoutMs": 7}});
        assert_eq!(forgotten(&webhook("http://a"), Some(&slower)), 0);
    }

    #[test]
    fn the_next_incarnation_knows_what_has_a_pool() {
        let known = registered("f", &json!({}));
        let mut known = Known::new([&*known].into_iter());
        assert_eq!(known.on_registry(&registry(&[])).len(), 1);
    }
}
