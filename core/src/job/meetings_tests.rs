//! Meetings, against a table of who lives where.

use std::cell::Cell;

use muster_protocol::ProcId;
use proptest::prelude::*;

use super::*;

/// Of each rank of one group: its host while it lives.
type Ranks = Vec<Option<HostIndex>>;

fn missing(ranks: &Ranks) -> impl Fn(Part, Rank, &HostSet) -> Option<Rank> {
    |part, from, came| {
        let meant = |rank: &u32| part.rank.is_none_or(|only| only.0 == *rank);
        let awaited = |rank: &u32| ranks[*rank as usize].is_some_and(|host| !came.contains(host));
        (from.0..ranks.len() as u32).filter(meant).find(awaited).map(Rank)
    }
}

fn key(name: &str, ranks: &[u32]) -> Key {
    let part = |rank: &u32| Part { group: Group(0), rank: Some(Rank(*rank)) };
    (Purpose::Construct, name.to_owned(), ranks.iter().map(part).collect())
}

fn caller(proc: u32) -> Caller {
    Caller { proc: ProcId(proc), token: u64::from(proc) }
}

fn from(host: u32, data: &'static str, context: bool) -> Coming {
    Coming { host: HostIndex(host), caller: caller(host), data: Bytes::from(data), context }
}

fn on(hosts: &[u32]) -> Ranks {
    hosts.iter().map(|host| Some(HostIndex(*host))).collect()
}

#[test]
fn a_meeting_is_over_when_every_host_with_a_living_participant_has_come_and_then_it_begins_anew() {
    let (mut meetings, mut ranks) = (Meetings::default(), on(&[0, 1]));
    let g = || key("g", &[0, 1]);
    assert_eq!(meetings.come(g(), from(1, "b", false), missing(&ranks)), None);
    assert_eq!(meetings.come(key("other", &[0, 1]), from(0, "", false), missing(&ranks)), None);
    // Heard twice, since its host has a new parent.
    assert_eq!(meetings.come(g(), from(1, "b", false), missing(&ranks)), None);
    let complete = meetings.come(g(), from(0, "a", true), missing(&ranks)).unwrap();
    let callers = vec![caller(1), caller(0)];
    let context = Some(FIRST_CONTEXT + 1);
    assert_eq!(complete, Complete { key: Arc::new(g()), callers, data: Some(Bytes::from("ba")), context });
    let again = meetings.come(g(), from(1, "", true), missing(&ranks));
    assert_eq!(again, None, "the same again is another meeting");
    assert!(meetings.name(Group(0)) && !meetings.name(Group(1)));
    // The one that is missing dies.
    ranks[0] = None;
    let complete = meetings.ended(Group(0), Rank(0), missing(&ranks));
    assert_eq!((complete.len(), complete[0].context), (1, Some(FIRST_CONTEXT + 2)), "{complete:?}");
    // The other meeting waits for the one on host 1.
    ranks[1] = None;
    assert_eq!(meetings.ended(Group(0), Rank(1), missing(&ranks)).len(), 1);
    assert!(!meetings.name(Group(0)) && meetings.numbers.is_empty() && meetings.open.is_empty());
    assert!(meetings.awaited.is_empty());
}

#[test]
fn more_than_an_answer_takes_is_no_answer() {
    let (mut meetings, ranks) = (Meetings::default(), on(&[0, 1]));
    let half = Bytes::from(vec![0; CONTROL_PAYLOAD_BYTES_MAX as usize / 2]);
    let come = |host| Coming { host: HostIndex(host), caller: caller(host), data: half.clone(), context: false };
    assert_eq!(meetings.come(key("g", &[0, 1]), come(0), missing(&ranks)), None);
    let complete = meetings.come(key("g", &[0, 1]), come(1), missing(&ranks)).unwrap();
    assert_eq!((complete.callers.len(), &complete.data), (2, &None));
}

#[test]
fn the_end_of_a_rank_concerns_only_the_meetings_that_wait_for_it() {
    let (mut meetings, mut ranks) = (Meetings::default(), on(&[0, 1, 2, 3]));
    for number in 0..1_000 {
        let name = number.to_string();
        assert_eq!(meetings.come(key(&name, &[0, 1, 2]), from(0, "", false), missing(&ranks)), None);
    }
    let looks = Cell::new(0);
    let counted = |ranks: &Ranks, meetings: &mut Meetings, rank| {
        let missing = missing(ranks);
        let complete = meetings.ended(Group(0), Rank(rank), |part, from, came| {
            looks.set(looks.get() + 1);
            missing(part, from, came)
        });
        (complete.len(), looks.take())
    };
    // All of them wait for rank 1, so neither of the others is news.
    for rank in [3, 2] {
        ranks[rank as usize] = None;
        assert_eq!(counted(&ranks, &mut meetings, rank), (0, 0));
    }
    ranks[1] = None;
    assert_eq!(counted(&ranks, &mut meetings, 1), (1_000, 2_000));
}

proptest! {
    /// Every meeting ends at the moment at which nobody is missing, whatever comes and dies in whichever order.
    #[test]
    fn a_meeting_ends_as_soon_as_a_look_at_everybody_would_say_so(
        places in proptest::collection::vec(0u32..4, 1..8),
        names in proptest::collection::vec(proptest::collection::vec(0usize..8, 1..5), 1..4),
        events in proptest::collection::vec((any::<bool>(), 0usize..8, 0u32..4), 0..60)) {
        let mut ranks = on(&places);
        let mut meetings = Meetings::default();
        let keys: Vec<Key> = names.iter().enumerate().map(|(number, parts)| {
            let mut parts: Vec<u32> = parts.iter().map(|rank| (*rank % places.len()) as u32).collect();
            parts.sort_unstable();
            parts.dedup();
            let mut key = key(&number.to_string(), &parts);
            if number == 0 {
                key.2 = vec![Part { group: Group(0), rank: None }];
            }
            key
        }).collect();
        // Who has come to each, as long as it is open.
        let mut came: BTreeMap<&str, HostSet> = BTreeMap::new();
        let needs = |ranks: &Ranks, key: &Key, came: &HostSet| {
            let part = |part: &Part| missing(ranks)(*part, Rank(0), came).is_some();
            key.2.iter().any(part)
        };
        for (dies, which, host) in events {
            let ended = if dies {
                let rank = which % ranks.len();
                ranks[rank] = None;
                meetings.ended(Group(0), Rank(rank as u32), missing(&ranks))
            } else {
                let key = &keys[which % keys.len()];
                came.entry(&key.1).or_default().insert(HostIndex(host));
                meetings.come(key.clone(), from(host, "", false), missing(&ranks)).into_iter().collect()
            };
            for complete in ended {
                let hosts = came.remove(complete.key.1.as_str());
                prop_assert!(hosts.is_some_and(|hosts| !needs(&ranks, &complete.key, &hosts)));
            }
            for (name, hosts) in &came {
                let key = keys.iter().find(|key| key.1 == **name).unwrap();
                prop_assert!(needs(&ranks, key, hosts), "{name} is still open");
            }
            prop_assert_eq!(meetings.open.len(), came.len());
            prop_assert_eq!(meetings.awaited.values().map(BTreeSet::len).sum::<usize>(), came.len());
        }
    }
}
