use proptest::prelude::*;

use super::*;

fn site() -> impl Strategy<Value = Site> {
    (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0.0..1.0f64,
        any::<u64>(),
    )
        .prop_map(|(can_run, has_image, has_room, load, rank)| Site {
            can_run,
            has_image,
            has_room,
            load,
            rank,
        })
}

fn local() -> impl Strategy<Value = Local> {
    (0..3u32, 0..4u32, any::<bool>(), site()).prop_map(|(free_slots, instances, may_wait, site)| {
        Local {
            free_slots,
            instances,
            may_wait,
            site,
        }
    })
}

fn peers() -> impl Strategy<Value = Vec<Remote>> {
    let peer = (0..3u32, 0..4u32, 0..9u32, site());
    prop::collection::vec(peer, 0..6).prop_map(|peers| {
        let named = peers.into_iter().enumerate();
        named
            .map(|(index, (free_slots, instances, in_flight, site))| Remote {
                id: format!("peer-{index}").parse().unwrap(),
                free_slots,
                instances,
                in_flight,
                site,
            })
            .collect()
    })
}

fn question() -> impl Strategy<Value = Question> {
    (
        any::<bool>(),
        any::<bool>(),
        1..8u32,
        0.0..1.0f64,
        any::<(u32, u32)>(),
    )
        .prop_map(
            |(is_forwarded, may_start, instances_max, pack_until, dice)| Question {
                is_forwarded,
                may_start,
                instances_max,
                pack_until,
                dice,
            },
        )
}

fn instances(local: &Local, peers: &[Remote]) -> u32 {
    local.instances + peers.iter().map(|peer| peer.instances).sum::<u32>()
}

proptest! {
    #[test]
    fn a_free_slot_here_beats_everything(mut local in local(), peers in peers(), question in question()) {
        local.free_slots = local.free_slots.max(1);
        prop_assert_eq!(pick(&local, &peers, &question), Choice::Local);
    }

    #[test]
    fn a_free_slot_of_a_peer_beats_any_start(mut local in local(), peers in peers(), mut question in question()) {
        local.free_slots = 0;
        question.is_forwarded = false;
        let choice = pick(&local, &peers, &question);
        let free = |id: &NodeId| peers.iter().any(|peer| peer.id == *id && peer.free_slots > 0);
        if peers.iter().any(|peer| peer.free_slots > 0) {
            prop_assert!(matches!(&choice, Choice::Peer(id) if free(id)), "{:?}", choice);
        } else {
            prop_assert!(!matches!(choice, Choice::Peer(_)), "{:?}", choice);
        }
    }

    #[test]
    fn a_forwarded_invocation_goes_no_further(local in local(), peers in peers(), mut question in question()) {
        question.is_forwarded = true;
        let choice = pick(&local, &peers, &question);
        prop_assert!(!matches!(choice, Choice::Peer(_) | Choice::ColdAt(_)), "{:?}", choice);
        if !question.may_start && local.free_slots == 0 {
            prop_assert!(matches!(choice, Choice::Shed(_)), "{:?}", choice);
        }
    }

    #[test]
    fn a_start_fits_where_it_goes(mut local in local(), peers in peers(), mut question in question()) {
        local.free_slots = 0;
        question.is_forwarded = false;
        match pick(&local, &peers, &question) {
            Choice::Cold => {
                prop_assert!(local.site.can_run && local.site.has_room && local.may_wait);
                prop_assert!(instances(&local, &peers) < question.instances_max);
            }
            Choice::ColdAt(id) => {
                let peer = peers.iter().find(|peer| peer.id == id).unwrap();
                let starts = peer.site.can_run && peer.site.has_room && instances(&local, &peers) < question.instances_max;
                prop_assert!(starts || peer.instances > 0, "it starts there, or waits where instances are");
            }
            _ => {}
        }
    }

    #[test]
    fn nothing_is_shed_while_a_start_fits(mut local in local(), peers in peers(), mut question in question()) {
        local.free_slots = 0;
        question.is_forwarded = false;
        let fits = |site: &Site| site.can_run && site.has_room;
        let here = fits(&local.site) && local.may_wait;
        if (here || peers.iter().any(|peer| fits(&peer.site))) && instances(&local, &peers) < question.instances_max {
            let choice = pick(&local, &peers, &question);
            prop_assert!(!matches!(choice, Choice::Shed(_)), "{:?}", choice);
        }
    }

    #[test]
    fn an_image_at_hand_beats_a_pull(mut local in local(), mut peers in peers(), mut question in question()) {
        local.free_slots = 0;
        peers.iter_mut().for_each(|peer| peer.free_slots = 0);
        question.is_forwarded = false;
        question.instances_max = 1000;
        let fits = |site: &Site| site.can_run && site.has_room && site.has_image;
        if (fits(&local.site) && local.may_wait) || peers.iter().any(|peer| fits(&peer.site)) {
            let chosen = match pick(&local, &peers, &question) {
                Choice::Cold => local.site.clone(),
                Choice::ColdAt(id) => peers.iter().find(|peer| peer.id == id).unwrap().site.clone(),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(chosen.has_image);
        }
    }

    #[test]
    fn every_node_of_a_light_cluster_picks_the_same_home(sites in prop::collection::vec(any::<u64>(), 2..6)) {
        let site = |rank: u64| Site { can_run: true, has_image: true, has_room: true, load: 0.1, rank };
        let question = Question { is_forwarded: false, may_start: true, instances_max: 10, pack_until: 0.7, dice: (0, 0) };
        let name = |index: usize| -> NodeId { format!("node-{index}").parse().unwrap() };
        let homes: std::collections::HashSet<NodeId> = (0..sites.len()).map(|own| {
            let local = Local { free_slots: 0, instances: 0, may_wait: true, site: site(sites[own]) };
            let peers: Vec<Remote> = (0..sites.len()).filter(|other| *other != own).map(|other| Remote {
                id: name(other), free_slots: 0, instances: 0, in_flight: 0, site: site(sites[other]),
            }).collect();
            match pick(&local, &peers, &question) {
                Choice::Cold => name(own),
                Choice::ColdAt(id) => id,
                other => panic!("{other:?}"),
            }
        }).collect();
        let distinct: std::collections::HashSet<_> = sites.iter().collect();
        prop_assume!(distinct.len() == sites.len());
        prop_assert_eq!(homes.len(), 1);
    }
}
