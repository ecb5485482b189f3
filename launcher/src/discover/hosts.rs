//! The host list: named, in a file, an operator's, or this machine.

use std::path::Path;

use muster_core::hosts::site::OPERATOR_HOSTFILE;
use muster_core::hosts::{HostList, HostSpec, Origin, parse_hostfile, parse_hosts_flag};

use super::{DiscoverError, Surroundings};
use crate::cli::HostChoice;

/// Name of this machine's host when ranks are to reach each other.
const LOOPBACK_NAME: &str = "localhost";

/// The hosts of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The hosts.
    pub hosts: HostList,
    /// Whether they are embedded agents of this machine, which need neither key nor network.
    pub local: bool,
    /// What said so, for messages.
    pub origin: Origin,
}

/// Finds the hosts: what the user names, else the operator's host file, else this machine.
pub fn find_hosts(choice: &HostChoice, site: &Surroundings) -> Result<Found, DiscoverError> {
    match choice {
        HostChoice::List(list) => {
            let origin = list.origin.clone();
            Ok(Found { hosts: parse_hosts_flag(&list.value, &origin)?, local: false, origin })
        }
        HostChoice::File(file) => read(Path::new(&file.value), &file.value, file.origin.clone()),
        HostChoice::Local(agents) => Ok(local(agents.value, agents.origin.clone(), site)),
        HostChoice::Unsaid => {
            let mounted = site.path(OPERATOR_HOSTFILE);
            // What is there but cannot be read, or is a link to nowhere, is an error: running here only would be a surprise.
            match mounted.symlink_metadata() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(local(1, Origin::Default, site)),
                _ => read(&mounted, OPERATOR_HOSTFILE, Origin::Default),
            }
        }
    }
}

fn read(path: &Path, shown: &str, origin: Origin) -> Result<Found, DiscoverError> {
    let place = match &origin {
        Origin::Default => "no hosts given".to_owned(),
        origin => origin.to_string(),
    };
    let unreadable = |why: String| DiscoverError::HostfileUnreadable {
        place: place.clone(),
        file: shown.to_owned(),
        why: format!("cannot be read: {why}"),
    };
    let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))?;
    Ok(Found { hosts: parse_hostfile(shown, &text)?, local: false, origin })
}

/// Embedded agents that share the cores of this machine; each has at least one slot.
fn local(agents: u32, origin: Origin, site: &Surroundings) -> Found {
    let mut hosts = HostList::new();
    for i in 0..agents {
        let share = site.cores() / agents + u32::from(i < site.cores() % agents);
        let name = if agents == 1 { LOOPBACK_NAME.to_owned() } else { format!("local-{i}") };
        let host = HostSpec {
            name,
            address: Some(LOOPBACK_NAME.to_owned()),
            slots: share.clamp(1, muster_protocol::limits::RANKS_PER_HOST_MAX),
            max_slots: None,
            port: None,
            origin: origin.clone(),
        };
        hosts.add(host).expect("names differ and slots are in range");
    }
    Found { hosts, local: true, origin }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Sourced;

    fn site(root: &Path) -> Surroundings {
        Surroundings::new([], root, 5)
    }

    fn named(found: &Found) -> Vec<(String, u32)> {
        found.hosts.hosts().iter().map(|h| (h.name.clone(), h.slots)).collect()
    }

    fn list(value: &str) -> HostChoice {
        HostChoice::List(Sourced { value: value.to_owned(), origin: Origin::flag("-H") })
    }

    fn file(path: &Path) -> HostChoice {
        HostChoice::File(Sourced { value: path.to_str().unwrap().to_owned(), origin: Origin::flag("-f") })
    }

    #[test]
    fn without_a_word_the_operators_file_counts_and_else_this_machine() {
        let root = tempfile::tempdir().unwrap();
        let found = find_hosts(&HostChoice::Unsaid, &site(root.path())).unwrap();
        assert_eq!((named(&found), found.local), (vec![("localhost".to_owned(), 5)], true));
        std::fs::create_dir_all(root.path().join("etc/mpi")).unwrap();
        std::fs::write(
            root.path().join("etc/mpi/hostfile"),
            "j-worker-0.j.ns.svc slots=2\nj-worker-1.j.ns.svc slots=2\n",
        )
        .unwrap();
        let found = find_hosts(&HostChoice::Unsaid, &site(root.path())).unwrap();
        let want = vec![("j-worker-0.j.ns.svc".to_owned(), 2), ("j-worker-1.j.ns.svc".to_owned(), 2)];
        assert_eq!((named(&found), found.local), (want, false));
        assert_eq!(found.hosts.hosts()[1].origin, Origin::file("/etc/mpi/hostfile", 2));
        assert!(!find_hosts(&list("x"), &site(root.path())).unwrap().local, "what the user names goes first");
    }

    #[test]
    fn an_operators_file_that_cannot_be_read_is_no_reason_to_run_here() {
        let root = tempfile::tempdir().unwrap();
        let error = || find_hosts(&HostChoice::Unsaid, &site(root.path())).unwrap_err().to_string();
        let mpi = root.path().join("etc/mpi");
        std::fs::create_dir_all(mpi.parent().unwrap()).unwrap();
        // A folder that cannot be looked into; who tests as root is denied nothing, but a link to itself leads nobody anywhere.
        std::os::unix::fs::symlink("mpi", &mpi).unwrap();
        insta::assert_snapshot!(error(), @"no hosts given: host file /etc/mpi/hostfile: cannot be read: Too many levels of symbolic links (os error 40); name a readable file, or hosts with -H");
        std::fs::remove_file(&mpi).unwrap();
        std::fs::create_dir(&mpi).unwrap();
        std::os::unix::fs::symlink("..data/hostfile", mpi.join("hostfile")).unwrap();
        insta::assert_snapshot!(error(), @"no hosts given: host file /etc/mpi/hostfile: cannot be read: No such file or directory (os error 2); name a readable file, or hosts with -H");
    }

    #[test]
    fn local_agents_share_the_cores() {
        let choice = |k| HostChoice::Local(Sourced { value: k, origin: Origin::flag("--local") });
        let nowhere = site(Path::new("/nowhere"));
        let found = find_hosts(&choice(3), &nowhere).unwrap();
        assert_eq!(named(&found), [("local-0".into(), 2), ("local-1".into(), 2), ("local-2".into(), 1)]);
        assert!(found.hosts.hosts().iter().all(|h| h.reachable_as() == "localhost"));
        assert_eq!(find_hosts(&choice(8), &nowhere).unwrap().hosts.slots(), 8);
    }

    #[test]
    fn bad_hosts_are_told_with_their_place() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("hosts");
        let hide = |e: DiscoverError| e.to_string().replace(path.to_str().unwrap(), "hosts");
        let site = site(root.path());
        let gone = find_hosts(&file(&path), &site).unwrap_err();
        insta::assert_snapshot!(hide(gone), @"-f: host file hosts: cannot be read: No such file or directory (os error 2); name a readable file, or hosts with -H");
        std::fs::write(&path, b"a\nb \xff\n").unwrap();
        insta::assert_snapshot!(hide(find_hosts(&file(&path), &site).unwrap_err()), @"-f: host file hosts: cannot be read: it is not UTF-8 text; name a readable file, or hosts with -H");
        std::fs::write(&path, "a slots=2\nb slots=two\n").unwrap();
        insta::assert_snapshot!(hide(find_hosts(&file(&path), &site).unwrap_err()), @r#"hosts:2:3: slots of "b" are "two"; write a whole number from 1 to 4096"#);
        insta::assert_snapshot!(hide(find_hosts(&list("a,n[1-2]"), &site).unwrap_err()), @r#"-H: host 2 of the list: host ranges are not supported, found "n[1-2]"; list the hosts one by one, such as node1,node2"#);
    }
}
