//! Whatever has happened to a node, it is woken for what is still to come, never for what is over.

use muster_protocol::message::{Adopt, HostEntry, Joined, Obstacle, Stamp};
use muster_protocol::{Epoch, Generation, HostIndex, HostSet};
use proptest::prelude::*;

use super::{EdgeId, TreeNode};

const STAMP: Stamp = Stamp { epoch: Epoch(1), generation: Generation(0) };
const HOSTS: u32 = 12;

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Dialled(u32),
    Failed(u32),
    Joined(u32, u32),
    Closed(u32),
    Probed(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 0..HOSTS;
    prop_oneof![
        4 => prop_oneof![Just(0), 1..100u64, 100..400u64, 1_000..4_000u64].prop_map(Step::Wait),
        3 => host().prop_map(Step::Dialled),
        3 => host().prop_map(Step::Failed),
        1 => (host(), host()).prop_map(|(at, host)| Step::Joined(at, host)),
        1 => host().prop_map(Step::Closed),
        1 => (host(), any::<bool>()).prop_map(|(at, alive)| Step::Probed(at, alive)),
    ]
}

fn take(node: &mut TreeNode, step: &Step, now_ms: &mut u64) {
    // The edge to a host has the host's number.
    let edge = |host: &u32| EdgeId(u64::from(*host));
    match step {
        Step::Wait(ms) => *now_ms += ms,
        Step::Dialled(host) => node.dialled(HostIndex(*host), edge(host), *now_ms),
        Step::Failed(host) => node.dial_failed(HostIndex(*host), Obstacle::Refused, "refused".into(), *now_ms),
        Step::Joined(at, host) => {
            let hosts: HostSet = [HostIndex(*host)].into_iter().collect();
            node.from_child(edge(at), STAMP.frame(HostIndex(*at), &Joined { hosts }), *now_ms);
        }
        Step::Closed(host) => node.child_closed(edge(host), "closed".into(), *now_ms),
        Step::Probed(host, alive) => node.probed(edge(host), *alive, *now_ms),
    }
}

fn node(me: Option<HostIndex>, radix: u32) -> TreeNode {
    let mut node = TreeNode::new(me, STAMP);
    let hosts = (0..HOSTS).map(|i| HostEntry { index: HostIndex(i), name: format!("h{i}"), port: 1, address: None });
    node.adopt(Adopt { hosts: hosts.collect(), radix }, 0);
    node
}

#[test]
fn an_orphan_that_is_given_up_while_it_is_dialled_makes_room_at_once() {
    let mut node = node(None, 1);
    let mut now_ms = 0;
    for step in
        [Step::Wait(300), Step::Dialled(0), Step::Joined(0, 4), Step::Closed(0), Step::Wait(1_274), Step::Wait(3_726)]
    {
        take(&mut node, &step, &mut now_ms);
        node.tick(now_ms);
    }
    assert_eq!(now_ms, 5_300);
    assert!(node.next_due_ms().is_none_or(|at| at > now_ms), "{:?}", node.next_due_ms());
}

proptest! {
    #[test]
    fn after_a_tick_nothing_is_due_any_more(
        me in proptest::option::of(Just(HostIndex(99))),
        radix in 1..5u32,
        steps in proptest::collection::vec((step(), any::<bool>()), 1..60),
    ) {
        let mut node = node(me, radix);
        let mut now_ms = 0;
        for (step, tick) in &steps {
            take(&mut node, step, &mut now_ms);
            if *tick {
                node.tick(now_ms);
                let due = node.next_due_ms();
                prop_assert!(due.is_none_or(|at| at > now_ms), "due at {due:?}, now it is {now_ms}: {node:?}");
            }
            node.take_acts();
        }
    }
}
