use super::*;
use crate::fixtures::{member, members, node_id, registered};

fn key() -> InstanceKey {
    InstanceKey::hash([b"key".as_slice()])
}

fn table(of: impl IntoIterator<Item = Member>) -> RouteTable {
    next(&RouteTable::default(), of)
}

fn next(before: &RouteTable, of: impl IntoIterator<Item = Member>) -> RouteTable {
    before.next(&members(of), 2, Instant::now())
}

fn slots(table: &RouteTable) -> (u32, u32) {
    let slots = table.peers[&node_id("n2")].slots(key());
    slots.map_or((0, 0), |slots| (slots.free(), slots.instances()))
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_replies_outweighs_gossip_for_a_while() {
    let first = table([member("n2", &[(key(), 3, 3)])]);
    first.peers[&node_id("n2")].note_reply(key(), 1, 4);
    assert_eq!(slots(&first), (1, 4));
    // Gossip that was under way says what was so before.
    let second = next(&first, [member("n2", &[(key(), 2, 3)])]);
    assert_eq!(slots(&second), (1, 4));
    tokio::time::advance(REPLY_OUTWEIGHS * 2).await;
    assert_eq!(slots(&second), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_was_sent_to_counts_as_taken_for_a_while() {
    let table = table([member("n2", &[(key(), 1, 1)])]);
    let peer = &table.peers[&node_id("n2")];
    peer.note_sent(key());
    peer.note_sent(key());
    assert_eq!(slots(&table), (0, 1));
    // No reply came, and gossip, which never changed, is right again.
    tokio::time::advance(REPLY_OUTWEIGHS * 2).await;
    assert_eq!(slots(&table), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reply_tells_of_a_key_before_gossip_does() {
    let first = table([member("n2", &[])]);
    first.peers[&node_id("n2")].note_reply(key(), 0, 0);
    assert!(first.peers[&node_id("n2")].slots(key()).is_none());
    first.peers[&node_id("n2")].note_reply(key(), 1, 1);
    let second = next(&first, [member("n2", &[])]);
    assert_eq!((slots(&second), second.instances(key())), ((1, 1), 1));
    tokio::time::advance(REPLY_OUTWEIGHS * 2).await;
    assert_eq!((slots(&second), second.instances(key())), ((0, 0), 0));
    assert!(
        next(&second, [member("n2", &[])]).peers[&node_id("n2")]
            .slots(key())
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refused_is_left_alone_and_tried_again() {
    let first = table([member("n2", &[])]);
    let health = Arc::clone(&first.peers[&node_id("n2")].health);
    health.note_refused();
    let second = next(&first, [member("n2", &[])]);
    assert!(
        !second.peers[&node_id("n2")].is_usable() && health.is_suspect(),
        "a new table changes nothing"
    );
    tokio::time::advance(REFUSED_PAUSE).await;
    assert!(second.peers[&node_id("n2")].is_usable());
    health.note_refused();
    health.note_answered();
    assert!(second.peers[&node_id("n2")].is_usable() && !health.is_suspect());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_misses_two_probes_is_silent_until_it_answers() {
    let table = table([member("n2", &[])]);
    let peer = &table.peers[&node_id("n2")];
    peer.health.note_missed();
    assert!(peer.is_usable() && peer.health.is_suspect());
    peer.health.note_missed();
    assert!(!peer.is_usable());
    peer.health.note_answered();
    assert!(peer.is_usable());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_begins_anew_and_a_dead_one_is_gone() {
    let first = table([member("n2", &[(key(), 1, 1)])]);
    first.peers[&node_id("n2")].health.note_refused();
    first.peers[&node_id("n2")].note_reply(key(), 0, 1);
    let restarted = Member {
        generation: Generation(2),
        ..member("n2", &[(key(), 1, 1)])
    };
    let second = next(&first, [restarted]);
    assert!(second.peers[&node_id("n2")].is_usable());
    assert_eq!(slots(&second), (1, 1));
    let dead = Member {
        is_alive: false,
        ..member("n2", &[])
    };
    assert!(next(&second, [dead]).peers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn exactly_one_node_is_the_home() {
    let names = ["n1", "n2", "n3", "n4"];
    for function in ["a", "b", "c", "d", "e", "f"] {
        let of = registered(function, &serde_json::json!({}));
        let is_home = |own: &&str| {
            let peers = names
                .iter()
                .filter(|name| *name != own)
                .map(|name| member(name, &[]));
            table(peers).is_home(&node_id(own), true, &of)
        };
        assert_eq!(names.iter().filter(|own| is_home(own)).count(), 1);
        let peers = table(names[1..].iter().map(|name| member(name, &[])));
        assert!(
            !peers.is_home(&node_id("n1"), false, &of),
            "it can not run here"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_happened_to_a_peer_is_told_once() {
    let of = |name: &str, generation, is_draining| {
        let member = member(name, &[]);
        Member {
            generation: Generation(generation),
            state: LocalState {
                is_draining,
                ..member.state.clone()
            },
            ..member
        }
    };
    let first = table([of("n2", 1, false), of("n3", 1, true), of("n4", 1, false)]);
    let second = next(&first, [of("n4", 2, false), of("n5", 1, false)]);
    let names = |table: &RouteTable, before: &RouteTable| -> Vec<(String, Change)> {
        let changes = table.changes(before).into_iter();
        changes
            .map(|(route, change)| (route.peer.name.clone(), change))
            .collect()
    };
    let told = names(&second, &first);
    let expected = [
        ("n2", Change::Lost),
        ("n3", Change::Left),
        ("n4", Change::Restarted),
        ("n5", Change::Joined),
    ];
    assert_eq!(
        told,
        expected.map(|(name, change)| (name.to_owned(), change))
    );
    let third = next(&second, [of("n4", 2, true), of("n5", 1, false)]);
    assert!(names(&third, &second).is_empty());
}
