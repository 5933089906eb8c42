//! Where an invocation runs: one pure function of what this node knows.

use protocol::{InstanceKey, NodeId};

/// What this node knows of itself, for one instance key.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// Free slots.
    pub free_slots: u32,
    /// Instances up or starting.
    pub instances: u32,
    /// Whether one more invocation may wait here.
    pub may_wait: bool,
    /// Whether it could hold an instance.
    pub site: Site,
}

/// What this node knows of a peer, for one instance key.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// The peer.
    pub id: NodeId,
    /// Free slots it is thought to have.
    pub free_slots: u32,
    /// Instances it is thought to have.
    pub instances: u32,
    /// Calls from this node in flight there.
    pub in_flight: u32,
    /// Whether it could hold an instance.
    pub site: Site,
}

/// Whether a node could hold one more instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// It runs this type of function.
    pub can_run: bool,
    /// It has the image.
    pub has_image: bool,
    /// Memory and instance count leave room for one more.
    pub has_room: bool,
    /// Share of its memory that is promised, 0 to 1.
    pub load: f64,
    /// Its rendezvous rank for the key: the highest of a cluster is the key's home.
    pub rank: u64,
}

/// What does not change from node to node.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// It came from a peer, so it goes no further.
    pub is_forwarded: bool,
    /// It may start an instance or wait for one; a forwarded one that may not takes a free slot or is refused.
    pub may_start: bool,
    /// Instances the function may have in all.
    pub instances_max: u32,
    /// The load up to which the cluster counts as lightly loaded.
    pub pack_until: f64,
    /// Two random numbers, for the power of two choices.
    pub dice: (u32, u32),
}

/// Where an invocation goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A free slot here.
    Local,
    /// A free slot of that peer.
    Peer(NodeId),
    /// The queue here: a slot will come free or an instance up.
    Wait,
    /// A start here.
    Cold,
    /// A start, or the queue, of that peer.
    ColdAt(NodeId),
    /// Nowhere.
    Shed(Shed),
}

/// Why an invocation goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The function's own limit: all its instances are busy and enough wait already.
    FunctionBusy,
    /// No node has room for an instance.
    NoRoom,
    /// No node runs this type of function.
    NoSite,
}

/// Chooses where an invocation runs: a free slot here, else a free slot of a peer, else a start where it fits best, else the
/// queue, else nowhere.
pub fn pick(local: &Local, peers: &[Remote], question: &Question) -> Choice {
    if local.free_slots > 0 {
        return Choice::Local;
    }
    if question.is_forwarded {
        return pick_forwarded(local, question);
    }
    if let Some(peer) = two_choices(peers, question.dice) {
        return Choice::Peer(peer.id.clone());
    }
    let instances = peers
        .iter()
        .map(|peer| peer.instances)
        .fold(local.instances, u32::saturating_add);
    if instances < question.instances_max
        && let Some(choice) = pick_site(local, peers, question)
    {
        return choice;
    }
    pick_queue(local, peers, instances, question)
}

fn pick_forwarded(local: &Local, question: &Question) -> Choice {
    let fits =
        local.instances < question.instances_max && local.site.can_run && local.site.has_room;
    match (question.may_start, fits) {
        (true, true) if local.may_wait => Choice::Cold,
        (true, false) if local.may_wait && local.instances > 0 => Choice::Wait,
        (_, true) => Choice::Shed(Shed::FunctionBusy),
        (_, false) if local.instances > 0 => Choice::Shed(Shed::FunctionBusy),
        (_, false) if !local.site.can_run => Choice::Shed(Shed::NoSite),
        (_, false) => Choice::Shed(Shed::NoRoom),
    }
}

/// Of two peers with a free slot, drawn at random, the one with more of them, or with fewer calls under way.
fn two_choices(peers: &[Remote], (one, other): (u32, u32)) -> Option<&Remote> {
    let free: Vec<&Remote> = peers.iter().filter(|peer| peer.free_slots > 0).collect();
    let count = u32::try_from(free.len()).ok().filter(|count| *count > 0)?;
    let first = one % count;
    // The second draw is among the others, so that two peers are always compared where there are two.
    let second = if count > 1 {
        (first + 1 + other % (count - 1)) % count
    } else {
        first
    };
    let (first, second) = (free[first as usize], free[second as usize]);
    let better = |peer: &Remote| (peer.free_slots, std::cmp::Reverse(peer.in_flight));
    Some(if better(second) > better(first) {
        second
    } else {
        first
    })
}

/// The node for one more instance: the key's home while the cluster is lightly loaded, else the least loaded one. A node that
/// has the image goes before one that has to pull it.
fn pick_site(local: &Local, peers: &[Remote], question: &Question) -> Option<Choice> {
    let fits = |site: &Site| site.can_run && site.has_room;
    let here = fits(&local.site).then_some((&local.site, local.may_wait, Choice::Cold));
    let there = peers
        .iter()
        .filter(|peer| fits(&peer.site))
        .map(|peer| (&peer.site, true, Choice::ColdAt(peer.id.clone())));
    let sites: Vec<_> = here
        .into_iter()
        .filter(|(_, may_wait, _)| *may_wait)
        .chain(there)
        .collect();
    let has_image = sites.iter().any(|(site, ..)| site.has_image);
    let sites = sites
        .into_iter()
        .filter(|(site, ..)| site.has_image || !has_image);
    let is_light = |site: &Site| site.load < question.pack_until;
    sites
        .max_by(|(one, ..), (other, ..)| {
            let light = is_light(one).cmp(&is_light(other));
            let by_rank = one.rank.cmp(&other.rank);
            light.then_with(|| {
                if is_light(one) {
                    by_rank
                } else {
                    other.load.total_cmp(&one.load).then(by_rank)
                }
            })
        })
        .map(|(_, _, choice)| choice)
}

/// The queue of a node that has instances, or nowhere.
fn pick_queue(local: &Local, peers: &[Remote], instances: u32, question: &Question) -> Choice {
    if local.instances > 0 && local.may_wait {
        return Choice::Wait;
    }
    let busiest = peers
        .iter()
        .filter(|peer| peer.instances > 0)
        .max_by_key(|peer| (peer.instances, peer.site.rank));
    if let Some(peer) = busiest {
        return Choice::ColdAt(peer.id.clone());
    }
    let can_run = local.site.can_run || peers.iter().any(|peer| peer.site.can_run);
    Choice::Shed(
        match (
            instances >= question.instances_max || instances > 0,
            can_run,
        ) {
            (true, _) => Shed::FunctionBusy,
            (false, true) => Shed::NoRoom,
            (false, false) => Shed::NoSite,
        },
    )
}

/// The rendezvous rank of a node for a key: every node computes the same, and a node that leaves moves only its own keys.
pub fn rank(key: InstanceKey, node: &NodeId) -> u64 {
    let hash = InstanceKey::hash([key.as_bytes().as_slice(), node.as_str().as_bytes()]);
    let mut rank = [0; 8];
    rank.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_be_bytes(rank)
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;
