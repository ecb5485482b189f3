//! Whether a command has used its hosts: an MPI launcher that does not see the host list runs everything on one node and
//! ends with 0.

use crate::hosts::HostList;

use super::Family;

/// Hosts that are named in a message.
const NAMED: usize = 4;

/// What became of the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Something was started there.
    Started,
    /// It is the machine of the launcher itself, where no remote shell is needed.
    Here,
    /// Nothing was started there.
    Nothing,
}

/// The number of ranks that an MPI launcher's command line asks for, where it says so once.
pub fn wanted_ranks(argv: &[String]) -> Option<u32> {
    let mut words = argv.iter().skip(1);
    let mut wanted = None;
    while let Some(word) = words.next() {
        // Several programs: their sum is the launcher's business.
        if word == ":" {
            return None;
        }
        // What comes later may be an argument of the program.
        if wanted.is_none() && ["-n", "-np", "--n", "--np", "-c"].contains(&word.as_str()) {
            wanted = words.next().and_then(|n| n.parse().ok());
        }
    }
    wanted
}

/// What to tell about hosts on which nothing was started; nothing when there is none or the job had only one.
pub fn idle_note(hosts: &HostList, uses: &[Use], family: &Family, argv: &[String]) -> Option<String> {
    let idle: Vec<&str> =
        hosts.hosts().iter().zip(uses).filter(|(_, u)| **u == Use::Nothing).map(|(h, _)| h.name.as_str()).collect();
    if idle.is_empty() || hosts.len() < 2 {
        return None;
    }
    let more = idle.len().saturating_sub(NAMED);
    let mut names = idle.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if more > 0 {
        names = format!("{names} and {more} more");
    }
    let all = !uses.contains(&Use::Started);
    let what = if all {
        format!("the command has started nothing on any of its hosts ({names}): all of it ran on this machine")
    } else {
        format!("the command has started nothing on {names}")
    };
    let slots: u32 = hosts.hosts().iter().zip(uses).filter(|(_, u)| **u != Use::Nothing).map(|(h, _)| h.slots).sum();
    Some(format!("{what}; {}", reason(family, wanted_ranks(argv), slots, all)))
}

fn reason(family: &Family, wanted: Option<u32>, slots: u32, all: bool) -> String {
    match (wanted, family) {
        (Some(ranks), _) if ranks <= slots => {
            format!("its {ranks} ranks fit into the {slots} slots of the others")
        }
        (_, Family::OpenMpi { version }) if all => format!(
            "Open MPI {version} runs everything on one node when it sees no host list: does its command line, or a variable \
             that was set before, name another one? muster plan exec shows them"
        ),
        (_, Family::Unknown) => "it is no launcher that is known to use the host list or the remote shell".to_owned(),
        _ => "does its command line, or a variable that was set before, name other hosts? muster plan exec shows them"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::{Origin, parse_hosts_flag};

    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_number_of_ranks_is_read_where_it_is_said_once() {
        assert_eq!(wanted_ranks(&argv("mpirun -np 8 prog")), Some(8));
        assert_eq!(wanted_ranks(&argv("mpiexec --n 3 -x A prog")), Some(3));
        assert_eq!(wanted_ranks(&argv("mpirun -n 6 sh -c x -n 9")), Some(6));
        assert_eq!(wanted_ranks(&argv("mpirun prog")), None);
        assert_eq!(wanted_ranks(&argv("mpirun -n 1 a : -n 2 b")), None);
    }

    #[test]
    fn idle_hosts_are_told_with_the_reason() {
        let hosts = parse_hosts_flag("a:2,b:2,c:2,d:2,e:2,f:2", &Origin::flag("-H")).unwrap();
        let open = Family::OpenMpi { version: "5.0.11".into() };
        let told = |started: usize, family: &Family, line: &str| {
            let uses: Vec<Use> = (0..6).map(|i| if i < started { Use::Started } else { Use::Nothing }).collect();
            idle_note(&hosts, &uses, family, &argv(line))
        };
        assert_eq!(told(6, &open, "mpirun prog"), None);
        insta::assert_snapshot!(told(2, &open, "mpirun -n 4 prog").unwrap(), @"the command has started nothing on c, d, e, f; its 4 ranks fit into the 4 slots of the others");
        insta::assert_snapshot!(told(0, &open, "mpirun prog").unwrap(), @"the command has started nothing on any of its hosts (a, b, c, d and 2 more): all of it ran on this machine; Open MPI 5.0.11 runs everything on one node when it sees no host list: does its command line, or a variable that was set before, name another one? muster plan exec shows them");
        insta::assert_snapshot!(told(5, &Family::Unknown, "script").unwrap(), @"the command has started nothing on f; it is no launcher that is known to use the host list or the remote shell");
        let one = parse_hosts_flag("a", &Origin::flag("-H")).unwrap();
        assert_eq!(idle_note(&one, &[Use::Nothing], &open, &[]), None, "a job of one host runs on one host");
        // The launcher's own machine counts as used.
        let uses = [Use::Here, Use::Nothing, Use::Nothing, Use::Nothing, Use::Nothing, Use::Nothing];
        let told = idle_note(&hosts, &uses, &open, &argv("mpirun -n 2 x")).unwrap();
        assert!(told.ends_with("its 2 ranks fit into the 2 slots of the others"), "{told}");
    }
}
