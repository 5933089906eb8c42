use std::time::Duration;

use protocol::InstanceKey;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::listen::PeerSockets;
use crate::test_counters;

const SECRET: &str = "a secret of this test, 32 bytes or more";
/// Long enough for a busy machine; what is waited for takes a fraction of it.
const BOUND: Duration = Duration::from_secs(10);

struct Node {
    identity: Identity,
    membership: Membership,
    keyring: watch::Sender<Keyring>,
    data_dir: TempDir,
    listens_at: SocketAddr,
}

struct Start<'a> {
    name: &'a str,
    seeds: Vec<SocketAddr>,
    secret: &'a str,
    cluster: &'a str,
    data_dir: TempDir,
    advertise: Option<SocketAddr>,
}

impl<'a> Start<'a> {
    fn new(name: &'a str, seeds: &[&Node]) -> Self {
        let seeds = seeds.iter().map(|node| node.address()).collect();
        let data_dir = tempfile::tempdir().unwrap();
        Self {
            name,
            seeds,
            secret: SECRET,
            cluster: "hearth",
            data_dir,
            advertise: None,
        }
    }

    async fn run(self) -> Node {
        let sockets = PeerSockets::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let identity = Identity::load(self.data_dir.path()).unwrap();
        // A seed that is this node itself is what the same list of seeds on every node gives.
        let seeds = self
            .seeds
            .iter()
            .chain([&sockets.address])
            .map(ToString::to_string)
            .collect();
        let settings = ClusterSettings {
            id: self.cluster.into(),
            seeds,
            ..ClusterSettings::default()
        };
        let keyring = watch::Sender::new(Keyring::with(&[self.secret]));
        let membership = Membership::start(Args {
            settings: &settings,
            identity: &identity,
            keyring: keyring.subscribe(),
            local: state(self.name),
            socket: sockets.gossip,
            advertise: self.advertise.unwrap_or(sockets.address),
            shutdown: CancellationToken::new(),
        })
        .await
        .unwrap();
        Node {
            identity,
            membership,
            keyring,
            data_dir: self.data_dir,
            listens_at: sockets.address,
        }
    }
}

impl Node {
    fn address(&self) -> SocketAddr {
        self.membership.advertised()
    }

    fn id(&self) -> &NodeId {
        self.identity.node_id()
    }

    /// Waits until this node sees the other one as described.
    async fn sees(
        &self,
        other: &NodeId,
        what: &str,
        test: impl Fn(&Member) -> bool,
    ) -> Arc<Member> {
        let mut members = self.membership.members();
        let seen = timeout(
            BOUND,
            members.wait_for(|members| members.get(other).is_some_and(|member| test(member))),
        )
        .await;
        match seen {
            Ok(members) => Arc::clone(&members.unwrap()[other]),
            Err(_) => panic!(
                "within {BOUND:?} no member is {what}: {:?}",
                self.membership.members().borrow()
            ),
        }
    }

    async fn sees_alive(&self, other: &Node) -> Arc<Member> {
        self.sees(other.id(), "alive", |member| member.is_alive)
            .await
    }

    /// Ends as by kill -9: peers are not told.
    async fn die(self) -> TempDir {
        self.membership.shutdown().await;
        self.data_dir
    }
}

fn state(name: &str) -> LocalState {
    LocalState {
        name: name.into(),
        version: "0.1.0".into(),
        protocol_version: 1,
        functions_address: ([127, 0, 0, 1], 3000).into(),
        config_address: ([127, 0, 0, 1], 4001).into(),
        is_draining: false,
        has_engine: false,
        allows_processes: true,
        secrets: Keyring::with(&[SECRET]).ids("hearth"),
        load: Load::default(),
        hints: vec![],
        images: vec![],
    }
}

async fn three() -> (Node, Node, Node) {
    let one = Start::new("n1", &[]).run().await;
    let two = Start::new("n2", &[&one]).run().await;
    let three = Start::new("n3", &[&one]).run().await;
    for (node, others) in [
        (&one, [&two, &three]),
        (&two, [&one, &three]),
        (&three, [&one, &two]),
    ] {
        for other in others {
            node.sees_alive(other).await;
        }
    }
    (one, two, three)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_see_each_other_and_never_themselves() {
    let (one, two, _three) = three().await;
    let member = one.sees_alive(&two).await;
    assert_eq!(member.state, state("n2"));
    assert_eq!(member.generation, two.identity.generation());
    assert_eq!(
        member.peer,
        Peer {
            id: two.id().clone(),
            name: "n2".into(),
            address: two.address(),
            fingerprint: two.identity.fingerprint()
        }
    );
    assert!(!one.membership.members().borrow().contains_key(one.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_deletions_are_seen() {
    let one = Start::new("n1", &[]).run().await;
    let two = Start::new("n2", &[&one]).run().await;
    one.sees_alive(&two).await;
    let hints: Vec<Hint> = (0_u8..3)
        .map(|n| Hint::new(InstanceKey::hash([[n].as_slice()]), 5, 1))
        .collect();
    let mut said = LocalState {
        hints: hints.clone(),
        images: vec!["sha256:a".into(), "sha256:b".into()],
        ..state("n2")
    };
    two.membership.publish(said.clone());
    let seen = one
        .sees(two.id(), "warm", |member| member.state.hints.len() == 3)
        .await;
    assert!(
        seen.state
            .hints
            .iter()
            .all(|hint| hints.contains(hint) && hint.free_slots == 4)
    );
    assert_eq!(seen.state.images, ["sha256:a", "sha256:b"]);
    said.hints.remove(1);
    said.images.remove(0);
    said.is_draining = true;
    // Said a thousand times on the way, as a busy node does: only the last matters.
    for in_flight in 0..1000 {
        said.load.in_flight = in_flight;
        two.membership.publish(said.clone());
    }
    let seen = one
        .sees(two.id(), "draining", |member| {
            member.state.is_draining && member.state.load.in_flight == 999
        })
        .await;
    assert_eq!(seen.state.images, ["sha256:b"]);
    assert_eq!(seen.state.hints.len(), 2);
    assert!(!seen.state.hints.contains(&hints[1]));
    // What was deleted can come back.
    said.images = vec!["sha256:a".into()];
    two.membership.publish(said);
    one.sees(two.id(), "holding the image again", |member| {
        member.state.images == ["sha256:a"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_hints_and_images_arrive() {
    let one = Start::new("n1", &[]).run().await;
    let two = Start::new("n2", &[&one]).run().await;
    let hints = (0_u32..1000)
        .map(|n| Hint::new(InstanceKey::hash([n.to_be_bytes().as_slice()]), n, n))
        .collect();
    let images = (0_u32..1000)
        .map(|n| format!("sha256:{}", hex::encode([n.to_be_bytes(); 8].concat())))
        .collect();
    two.membership.publish(LocalState {
        hints,
        images,
        ..state("n2")
    });
    let full =
        |member: &Member| member.state.hints.len() == 300 && member.state.images.len() == 300;
    let seen = one.sees(two.id(), "full", full).await;
    assert!(
        seen.state
            .images
            .contains(&format!("sha256:{}", "00".repeat(32))),
        "the first of the list are gossiped"
    );
    // A newcomer gets all of it too.
    let three = Start::new("n3", &[&one]).run().await;
    three.sees(two.id(), "full", full).await;
}

/// What an operator does to all nodes in three steps: the new secret opens, then seals, then is the only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_replaced_and_no_node_is_lost() {
    const NEW: &str = "the new secret of this test, also of 32 bytes";
    let one = Start::new("n1", &[]).run().await;
    let two = Start::new("n2", &[&one]).run().await;
    let three = Start::new("n3", &[&one]).run().await;
    let nodes = [&one, &two, &three];
    for (node, other) in [(&one, &two), (&two, &three), (&three, &one)] {
        node.sees_alive(other).await;
    }
    let mut seen: Vec<_> = nodes.iter().map(|node| node.membership.members()).collect();
    for texts in [&[SECRET, NEW][..], &[NEW, SECRET], &[NEW]] {
        let ids = Keyring::with(texts).ids("hearth");
        for node in nodes {
            node.keyring.send_replace(Keyring::with(texts));
            assert_eq!(node.membership.secrets(), ids);
            // One node after the other: those between have other secrets, and hear each other all the same.
            for other in nodes.iter().filter(|other| other.id() != node.id()) {
                let says = |member: &Member| member.state.secrets == ids;
                other.sees(node.id(), "with these secrets", says).await;
            }
        }
    }
    for members in &mut seen {
        let members = members.borrow();
        assert!(members.len() == 2 && members.values().all(|member| member.is_alive));
    }
    let late = Start {
        secret: NEW,
        ..Start::new("n4", &[&one])
    };
    let (late, stranger) = (late.run().await, Start::new("n5", &[&one]).run().await);
    three.sees_alive(&late).await;
    assert!(stranger.membership.members().borrow().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_secret_or_cluster_never_joins_and_is_counted() {
    test_counters::install();
    let one = Start::new("n1", &[]).run().await;
    let stranger = Start {
        secret: "another secret, also of 32 bytes or more",
        ..Start::new("n2", &[&one])
    }
    .run()
    .await;
    let foreigner = Start {
        cluster: "other",
        ..Start::new("n3", &[&one])
    }
    .run()
    .await;
    let friend = Start::new("n4", &[&one]).run().await;
    one.sees_alive(&friend).await;
    let dropped = || test_counters::value("hearth_gossip_dropped_total{reason=key}");
    let from = Instant::now();
    while dropped() < 10 {
        assert!(
            from.elapsed() < BOUND,
            "only {} datagrams were counted as dropped",
            dropped()
        );
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(one.membership.members().borrow().len(), 1);
    assert!(stranger.membership.members().borrow().is_empty());
    assert!(foreigner.membership.members().borrow().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_datagram_is_dropped_and_counted() {
    test_counters::install();
    let one = Start::new("n1", &[]).run().await;
    // Node two is reached through somebody who sends everything on, and everything twice.
    let middle = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let advertise = Some(middle.local_addr().unwrap());
    let two = Start {
        advertise,
        ..Start::new("n2", &[&one])
    }
    .run()
    .await;
    let two_real = two.listens_at;
    let one_real = one.address();
    let tasks = TaskTracker::new();
    tasks.spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok((bytes, from)) = middle.recv_from(&mut buffer).await {
            let to = if from == two_real { one_real } else { two_real };
            for _ in 0..2 {
                middle.send_to(&buffer[..bytes], to).await.unwrap();
            }
        }
    });
    one.sees_alive(&two).await;
    two.sees_alive(&one).await;
    let replayed = || test_counters::value("hearth_gossip_dropped_total{reason=replay}");
    let from = Instant::now();
    while replayed() < 10 {
        assert!(
            from.elapsed() < BOUND,
            "only {} datagrams were counted as replayed",
            replayed()
        );
        sleep(Duration::from_millis(20)).await;
    }
    assert!(one.sees_alive(&two).await.is_alive);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_replaces_the_former_incarnation() {
    let (one, two, three) = three().await;
    let (id, generation) = (two.id().clone(), two.identity.generation());
    let data_dir = two.die().await;
    let two = Start {
        data_dir,
        ..Start::new("n2-again", &[&one])
    }
    .run()
    .await;
    assert_eq!(*two.id(), id);
    for node in [&one, &three] {
        let member = node
            .sees(&id, "restarted", |member| {
                member.is_alive && member.generation > generation
            })
            .await;
        assert_eq!(member.state.name, "n2-again");
        assert_eq!(member.peer.address, two.address());
        assert_eq!(member.peer.fingerprint, two.identity.fingerprint());
        // The former incarnation stays out, also when its death is noticed later.
        assert_eq!(node.membership.members().borrow().len(), 2);
    }
}

/// The design asks for 1.5 s on a quiet machine; the bound here is for one that runs other tests besides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_is_seen_soon_in_a_cluster_that_is_seconds_old() {
    let (one, two, three) = three().await;
    let id = three.id().clone();
    three.die().await;
    let died = Instant::now();
    for node in [&one, &two] {
        let member = node.sees(&id, "dead", |member| !member.is_alive).await;
        assert_eq!(member.state.name, "n3", "what a dead node said is kept");
    }
    let noticed = died.elapsed();
    println!("a death was noticed by both others after {noticed:?}");
    assert!(
        noticed < Duration::from_secs(3),
        "a death was noticed after {noticed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_gossip_and_noise_are_dropped() {
    test_counters::install();
    let one = Start::new("n1", &[]).run().await;
    let noise = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for bytes in [0_usize, 1, 24, 25, 57, 58, 59, 1000, 60_000] {
        for fill in [0_u8, 1, 255] {
            noise
                .send_to(&vec![fill; bytes], one.address())
                .await
                .unwrap();
        }
    }
    let two = Start::new("n2", &[&one]).run().await;
    one.sees_alive(&two).await;
    for reason in ["short", "version", "key"] {
        assert!(
            test_counters::value(&format!("hearth_gossip_dropped_total{{reason={reason}}}")) > 0,
            "{reason}"
        );
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_not_advertised() {
    let data_dir = tempfile::tempdir().unwrap();
    let sockets = PeerSockets::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let started = Membership::start(Args {
        settings: &ClusterSettings::default(),
        identity: &Identity::load(data_dir.path()).unwrap(),
        keyring: watch::channel(Keyring::with(&[SECRET])).1,
        local: state("n1"),
        socket: sockets.gossip,
        advertise: ([0, 0, 0, 0], 7400).into(),
        shutdown: CancellationToken::new(),
    })
    .await;
    assert!(started.unwrap_err().to_string().contains("--advertise"));
    let resolved = resolve_advertise("127.0.0.1", 7400).await.unwrap();
    assert_eq!(resolved, ([127, 0, 0, 1], 7400).into());
    assert!(resolve_advertise("[::1]", 7400).await.unwrap().is_ipv6());
    let error = resolve_advertise("no-such-host.invalid", 7400)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no-such-host.invalid"));
}
