//! Which host is meant, and which are left.

use muster_core::hosts::{HostList, HostSpec};

/// Whether a host is the machine that the command runs on, on which no remote shell is needed and often no agent is.
pub(crate) fn is_here(name: &str, own: &str) -> bool {
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    name == own || name == "localhost" || (name.parse::<std::net::IpAddr>().is_err() && first(name) == first(own))
}

/// The host that a remote shell means: by its whole name, or by its first part where that says which.
pub(super) fn find_host(hosts: &HostList, asked: &str) -> Option<usize> {
    let all = hosts.hosts();
    let exact = all.iter().position(|host| host.name == asked || host.reachable_as() == asked);
    exact.or_else(|| {
        let mut short = all.iter().enumerate().filter(|(_, host)| host.name.split('.').next() == Some(asked));
        let found = short.next().map(|(at, _)| at);
        found.filter(|_| short.next().is_none())
    })
}

/// Some of the hosts.
pub(super) fn subset(hosts: &HostList, chosen: &[usize]) -> HostList {
    let mut list = HostList::new();
    for at in chosen {
        let host: HostSpec = hosts.hosts()[*at].clone();
        // What was a list before is one without some of its hosts.
        let _ = list.add(host);
    }
    list
}

#[cfg(test)]
mod tests {
    use muster_core::hosts::{Origin, parse_hosts_flag};

    use super::*;

    fn hosts(list: &str) -> HostList {
        parse_hosts_flag(list, &Origin::flag("-H")).unwrap()
    }

    #[test]
    fn hosts_are_found_by_what_launchers_call_them() {
        let list = hosts("j-worker-0.j.ns.svc,j-worker-1.j.ns.svc,10.0.0.7,a.x,a.y");
        for (asked, want) in [
            ("j-worker-1.j.ns.svc", Some(1)),
            ("j-worker-1", Some(1)),
            ("10.0.0.7", Some(2)),
            ("a.y", Some(4)),
            ("a", None),
            ("other", None),
        ] {
            assert_eq!(find_host(&list, asked), want, "{asked}");
        }
        assert!(is_here("j-launcher.j.ns.svc", "j-launcher") && is_here("localhost", "x") && is_here("x", "x"));
        assert!(!is_here("j-worker-0.j.ns.svc", "j-launcher") && !is_here("10.0.0.1", "10"));
    }

    #[test]
    fn some_hosts_of_a_list_keep_their_slots() {
        let some = subset(&hosts("a:2,b:3,c:4"), &[0, 2]);
        let short: Vec<_> = some.hosts().iter().map(|h| (h.name.as_str(), h.slots)).collect();
        assert_eq!(short, [("a", 2), ("c", 4)]);
    }
}
