use proptest::prelude::*;

use super::*;
use crate::hosts::{Origin, parse_hostfile, parse_hosts_flag};

fn hosts(text: &str) -> HostList {
    parse_hosts_flag(text, &Origin::flag("-H")).unwrap()
}

fn request(counts: &[Option<u32>], placement: Placement) -> Request<'_> {
    Request { counts, placement, ppn: None, oversubscribe: false, used: &[] }
}

fn order(list: &HostList, request: &Request<'_>) -> Vec<u32> {
    place(list, request).unwrap().iter().map(|p| p.host.0).collect()
}

fn message(list: &HostList, request: &Request<'_>) -> String {
    place(list, request).unwrap_err().to_string()
}

#[test]
fn block_fills_cyclic_deals_seq_follows_the_lines() {
    let list = hosts("a:2,b:3,c");
    assert_eq!(order(&list, &request(&[None], Placement::Block)), [0, 0, 1, 1, 1, 2]);
    assert_eq!(order(&list, &request(&[None], Placement::Cyclic)), [0, 1, 2, 0, 1, 1]);
    assert_eq!(order(&hosts("b,a,b:4"), &request(&[None], Placement::Seq)), [0, 1, 0]);
    assert_eq!(order(&list, &request(&[Some(3)], Placement::Block)), [0, 0, 1]);
    assert_eq!(order(&list, &Request { ppn: Some(1), ..request(&[None], Placement::Block) }), [0, 1, 2]);
    assert_eq!(order(&list, &Request { ppn: Some(2), ..request(&[None], Placement::Block) }), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn programs_follow_each_other_and_one_takes_the_rest() {
    let placed = place(&hosts("a:2,b:2"), &request(&[Some(1), None], Placement::Block)).unwrap();
    let short: Vec<_> = placed.iter().map(|p| (p.host.0, p.local_rank, p.app)).collect();
    assert_eq!(short, [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)]);
}

#[test]
fn oversubscription_wraps_in_blocks_up_to_the_cap() {
    let list = hosts("a:2,b:1");
    let over = |n| Request { oversubscribe: true, ..request(n, Placement::Block) };
    assert_eq!(order(&list, &over(&[Some(7)])), [0, 0, 1, 0, 0, 1, 0]);
    let cyclic = Request { oversubscribe: true, ..request(&[Some(5)], Placement::Cyclic) };
    assert_eq!(order(&list, &cyclic), [0, 1, 0, 0, 1]);
    let seq = Request { oversubscribe: true, ..request(&[Some(5)], Placement::Seq) };
    assert_eq!(order(&list, &seq), [0, 1, 0, 1, 0]);
    let capped = parse_hostfile("f", "a slots=1 max_slots=2\nb max_slots=3\n").unwrap();
    assert_eq!(order(&capped, &over(&[Some(5)])), [0, 1, 0, 1, 1]);
    insta::assert_snapshot!(message(&capped, &over(&[Some(6)])), @"6 ranks do not fit: --oversubscribe never passes a host's max_slots, and that leaves room for 5; use fewer ranks or raise max_slots");
}

#[test]
fn spawned_ranks_take_free_slots_first() {
    let list = hosts("a:2,b:2");
    let spawn = Request { used: &[2, 1], oversubscribe: true, ..request(&[Some(3)], Placement::Block) };
    assert_eq!(order(&list, &spawn), [1, 0, 0]);
    let full = Request { used: &[2, 2], oversubscribe: true, ..request(&[Some(1)], Placement::Block) };
    assert_eq!(order(&list, &full), [0]);
}

#[test]
fn refusals_name_the_numbers_and_the_way_out() {
    let list = hosts("a:2,b:2");
    insta::assert_snapshot!(message(&list, &request(&[Some(5)], Placement::Block)), @"5 ranks do not fit into 4 slots on 2 hosts; use fewer ranks, more hosts or slots, or allow more ranks than slots with --oversubscribe");
    insta::assert_snapshot!(message(&hosts("a"), &request(&[Some(2)], Placement::Seq)), @"2 ranks do not fit into 1 line of the host list on 1 host; use fewer ranks, more hosts or slots, or allow more ranks than slots with --oversubscribe");
    insta::assert_snapshot!(message(&list, &request(&[None, Some(1), None], Placement::Block)), @"programs 1 and 3 both lack -n; only one program of a job can take the slots that are left");
    insta::assert_snapshot!(message(&list, &request(&[Some(4), None], Placement::Block)), @"program 2 has no -n and the other programs use all 4 slots; give it -n, or more hosts or slots");
    insta::assert_snapshot!(message(&list, &request(&[Some(0)], Placement::Block)), @"program 1 asks for 0 ranks; -n must be at least 1");
    insta::assert_snapshot!(message(&list, &Request { ppn: Some(1), ..request(&[None], Placement::Seq) }), @"--ppn has no meaning with --placement seq, which puts one rank on each line of the host file; leave one of them out");
    insta::assert_snapshot!(message(&HostList::new(), &request(&[None], Placement::Block)), @"no hosts to place ranks on");
    insta::assert_snapshot!(message(&list, &request(&[], Placement::Block)), @"no program to run");
    insta::assert_snapshot!(message(&list, &Request { ppn: Some(0), ..request(&[None], Placement::Block) }), @"--ppn is 0; it must be from 1 to 4096");
    let over = Request { oversubscribe: true, ..request(&[Some(9_000)], Placement::Block) };
    insta::assert_snapshot!(message(&list, &over), @r#"host "a" would get more than 4096 ranks; use more hosts"#);
    let capped = parse_hostfile("f", "a slots=1 max_slots=2\n").unwrap();
    insta::assert_snapshot!(message(&capped, &Request { ppn: Some(3), ..request(&[None], Placement::Block) }), @r#"--ppn 3 is more than max_slots=2 of host "a" (f:1); lower --ppn or raise max_slots"#);
    let huge = request(&[Some(u32::MAX), Some(u32::MAX)], Placement::Block);
    insta::assert_snapshot!(message(&list, &huge), @"8589934590 ranks are more than the 4194304 that one job can have");
}

fn any_hosts() -> impl Strategy<Value = HostList> {
    proptest::collection::vec((0u32..12, 1u32..6, proptest::option::of(0u32..4)), 1..12).prop_filter_map(
        "a repeated host may pass its own cap",
        |entries| {
            let text: String = entries
                .iter()
                .map(|(name, slots, more)| match more {
                    Some(more) => format!("h{name} slots={slots} max_slots={}\n", slots + more),
                    None => format!("h{name} slots={slots}\n"),
                })
                .collect();
            parse_hostfile("f", &text).ok()
        },
    )
}

fn any_placement() -> impl Strategy<Value = Placement> {
    prop_oneof![Just(Placement::Block), Just(Placement::Cyclic), Just(Placement::Seq)]
}

proptest! {
    #[test]
    fn a_placement_keeps_its_promises(
        list in any_hosts(),
        placement in any_placement(),
        counts in proptest::collection::vec(1u32..20, 1..4),
        oversubscribe: bool,
    ) {
        let asked: Vec<Option<u32>> = counts.iter().copied().map(Some).collect();
        let request = Request { oversubscribe, ..request(&asked, placement) };
        let Ok(placed) = place(&list, &request) else {
            let ranks = u64::from(counts.iter().sum::<u32>());
            let caps: Option<u64> = list.hosts().iter().map(|h| h.max_slots.map(u64::from)).sum();
            let room = if placement == Placement::Seq { list.mentions().len() as u64 } else { list.slots() };
            let rightly = if oversubscribe { caps.is_some_and(|c| ranks > c) } else { ranks > room };
            prop_assert!(rightly);
            return Ok(());
        };
        prop_assert_eq!(placed.len() as u32, counts.iter().sum::<u32>());
        for (app, n) in counts.iter().enumerate() {
            prop_assert_eq!(placed.iter().filter(|p| p.app == app as u32).count() as u32, *n);
        }
        prop_assert!(placed.windows(2).all(|w| w[0].app <= w[1].app));
        for (i, host) in list.hosts().iter().enumerate() {
            let mine: Vec<_> = placed.iter().filter(|p| p.host.0 == i as u32).collect();
            prop_assert!(mine.iter().enumerate().all(|(k, p)| p.local_rank == k as u32));
            prop_assert!(oversubscribe || mine.len() as u32 <= host.slots);
            prop_assert!(host.max_slots.is_none_or(|max| mine.len() as u32 <= max));
        }
        if placement == Placement::Block && !oversubscribe {
            prop_assert!(placed.windows(2).all(|w| w[0].host <= w[1].host), "each host's ranks are contiguous");
        }
        prop_assert_eq!(&place(&list, &request).unwrap(), &placed);
        // A shorter job is a prefix of the longer one: ranks do not move when one more is asked for.
        if asked.len() == 1 && counts[0] > 1 {
            let fewer = [Some(counts[0] - 1)];
            let shorter = place(&list, &Request { counts: &fewer, ..request }).unwrap();
            prop_assert_eq!(&shorter[..], &placed[..placed.len() - 1]);
        }
    }

    #[test]
    fn without_a_number_all_slots_are_filled(list in any_hosts(), cyclic: bool) {
        let placement = if cyclic { Placement::Cyclic } else { Placement::Block };
        let placed = place(&list, &request(&[None], placement)).unwrap();
        for (i, host) in list.hosts().iter().enumerate() {
            prop_assert_eq!(placed.iter().filter(|p| p.host.0 == i as u32).count() as u32, host.slots);
        }
    }
}
