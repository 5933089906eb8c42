//! Puts the snapshots before `pick`.

use protocol::{Component, ErrorCode, Failure, Function};
use tokio::time::timeout_at;

use super::{Attempt, Invoker, refusal};
use crate::executor::{Kind, PoolKind};
use crate::registry_cache::Registered;
use crate::router::PeerRoute;
use crate::router::pick::{Choice, Local, Question, Remote, Shed, Site, pick, rank};

impl Invoker {
    /// Chooses where an invocation runs, leaving out the nodes that refused it.
    pub(super) fn choose(
        &self,
        registered: &Registered,
        pool: &PoolKind,
        attempt: &Attempt,
    ) -> Choice {
        let (local, peers, question) = self.view(registered, pool, attempt);
        pick(&local, &peers, &question)
    }

    /// Chooses as [`Self::choose`] does. A node that can not run the function itself, and has just started, may not have heard yet of
    /// the peers that can: then it waits for gossip to settle rather than turn its caller away.
    ///
    /// # Cancel safety
    /// Safe: nothing was done when the future is dropped.
    pub(super) async fn choose_among_all(
        &self,
        registered: &Registered,
        pool: &PoolKind,
        attempt: &Attempt,
    ) -> Choice {
        // What is left of the request's deadline then is the function's whole time limit, as with every other wait.
        let wait_max = attempt.begun + self.parts.start_timeout;
        let until = self.parts.joined_by.map(|moment| moment.min(wait_max));
        // A node that has been up for a while waits for nobody, so it does not listen for changes either.
        let Some(until) = until.filter(|until| attempt.begun < *until) else {
            return self.choose(registered, pool, attempt);
        };
        let mut changes = self.parts.routes.changes();
        loop {
            let choice = self.choose(registered, pool, attempt);
            if choice != Choice::Shed(Shed::NoSite)
                || !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(())))
            {
                return choice;
            }
        }
    }

    /// What `pick` is asked, and from what.
    pub(super) fn view(
        &self,
        registered: &Registered,
        pool: &PoolKind,
        attempt: &Attempt,
    ) -> (Local, Vec<Remote>, Question) {
        let routes = self.parts.routes.load();
        let is_asked = |route: &&std::sync::Arc<PeerRoute>| {
            route.is_usable() && !attempt.refused_by.contains(&route.peer.id)
        };
        let peers = match attempt.peer_refusals > self.parts.refusals_max {
            // Enough were asked: what is left is this node.
            true => Vec::new(),
            false => routes
                .peers
                .values()
                .filter(is_asked)
                .map(|route| {
                    let mut remote = remote(registered, route);
                    if attempt.without_slot.contains(&remote.id) {
                        remote.free_slots = 0;
                    }
                    remote
                })
                .collect(),
        };
        let question = Question {
            is_forwarded: false,
            may_start: true,
            instances_max: registered.function.scaling().max,
            pack_until: self.parts.pack_until,
            dice: rand::random(),
        };
        (
            self.local(registered, pool, attempt.is_refused_here),
            peers,
            question,
        )
    }

    pub(super) fn local(
        &self,
        registered: &Registered,
        pool: &PoolKind,
        is_refused_here: bool,
    ) -> Local {
        let function = &registered.function;
        let kind = Kind::of(function);
        let used = self.parts.budget.used();
        let waiting = match pool {
            PoolKind::Pool(pool) => pool.may_wait(),
            PoolKind::Runs(runs) => runs.may_wait(),
        };
        let has_image = function.image_digest().is_none_or(|digest| {
            let launch = self.parts.launchers.get(kind);
            launch.is_some_and(|launch| launch.images().iter().any(|image| image == digest))
        });
        Local {
            free_slots: if is_refused_here {
                0
            } else {
                pool.free_slots()
            },
            instances: pool.instances(),
            may_wait: waiting && !is_refused_here,
            site: Site {
                can_run: self.parts.launchers.can_run(kind) && !is_refused_here,
                has_image,
                // What idles can make room, so a start is refused only where everything is in use.
                has_room: self.parts.budget.could_fit(function.limits().memory_mb),
                load: ratio(used.memory_mb, self.parts.budget.memory_max_mb()),
                rank: rank(registered.key, &self.parts.node_id),
            },
        }
    }
}

fn remote(registered: &Registered, route: &PeerRoute) -> Remote {
    let function: &Function = &registered.function;
    let load = &route.state.load;
    let slots = route.slots(registered.key);
    Remote {
        id: route.peer.id.clone(),
        free_slots: slots.as_ref().map_or(0, |slots| slots.free()),
        instances: slots.as_ref().map_or(0, |slots| slots.instances()),
        in_flight: route.health.in_flight(),
        site: Site {
            can_run: route.can_run(function),
            has_image: route.has_image(function),
            has_room: load.memory_used_mb + u64::from(function.limits().memory_mb)
                <= load.memory_max_mb
                && load.instances < load.instances_max,
            load: ratio(load.memory_used_mb, load.memory_max_mb),
            rank: rank(registered.key, &route.peer.id),
        },
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a load is compared, not counted"
)]
fn ratio(used: u64, max: u64) -> f64 {
    if max == 0 {
        1.0
    } else {
        used as f64 / max as f64
    }
}

/// What the caller is told of an invocation that went nowhere.
pub(super) fn shed(why: Shed, registered: &Registered) -> Failure {
    let function = &registered.function;
    let (id, space) = (&function.function_id, &function.space);
    match why {
        Shed::FunctionBusy => {
            let max = function.scaling().max;
            let message = format!(
                "all instances of function {id} in space {space} are busy (scaling.max is {max}) and enough invocations wait"
            );
            refusal(ErrorCode::FunctionBusy, Component::Function, message).retry_after_ms(1000)
        }
        Shed::NoRoom => {
            let memory_mb = function.limits().memory_mb;
            let message = format!(
                "no node has room for an instance of function {id} in space {space} ({memory_mb} MiB)"
            );
            refusal(ErrorCode::Overloaded, Component::Provider, message).retry_after_ms(1000)
        }
        Shed::NoSite => {
            let message = match Kind::of(function) {
                Kind::Container => "no node that answers has a container engine",
                Kind::Process => {
                    "no node that answers may run functions of type process (--allow-process)"
                }
            };
            refusal(ErrorCode::EngineUnavailable, Component::Provider, message).retry_after_ms(1000)
        }
    }
}
