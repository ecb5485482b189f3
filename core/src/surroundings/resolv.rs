//! What the search list of its `resolv.conf` tells of a pod: its namespace, and whether it can belong to a job.

use super::name::is_label;

/// The search list that counts: the last one.
fn search(text: &str) -> Vec<&str> {
    let mut list = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("search" | "domain") => list = words.map(|name| name.trim_end_matches('.')).collect(),
            _ => continue,
        }
    }
    list
}

/// `<namespace>.svc…` or `<subdomain>.<namespace>.svc…`: the namespace, the subdomain, and what follows the namespace.
fn entry(name: &str) -> Option<(&str, Option<&str>, &str)> {
    let (front, back) = match name.split_once(".svc.") {
        Some((front, _)) => (front, &name[front.len() + 1..]),
        None => (name.strip_suffix(".svc")?, "svc"),
    };
    let (subdomain, namespace) = match front.split_once('.') {
        Some((subdomain, namespace)) => (Some(subdomain), namespace),
        None => (None, front),
    };
    let valid = is_label(namespace) && subdomain.is_none_or(is_label);
    valid.then_some((namespace, subdomain, back))
}

/// Whether a pod of this job may have such a list. Workers of an MPIJob search their job's domain, on their node's network as well;
/// launchers search no job's. A list without any pod's namespace is the node's own.
pub(super) fn may_be_of(text: &str, job: &str) -> bool {
    let list = search(text);
    let entries: Vec<_> = list.iter().filter_map(|name| entry(name)).collect();
    let mut jobs = entries.iter().filter_map(|(_, subdomain, _)| *subdomain).peekable();
    !entries.is_empty() && (jobs.peek().is_none() || jobs.any(|one| one == job))
}

/// The namespace. Kubelet writes `NS.svc.DOMAIN svc.DOMAIN DOMAIN`; after that, and alone with other policies, comes what a pod's
/// template asks for, such as the domain of a job. Lists that name several namespaces in no such order tell none.
pub(super) fn namespace<'a>(text: &'a str, job: Option<&str>) -> Option<&'a str> {
    let list = search(text);
    let entries: Vec<_> = list.iter().filter_map(|name| entry(name)).collect();
    let of_kubelet = list.windows(2).find_map(|pair| match entry(pair[0])? {
        (namespace, None, back) if back == pair[1] => Some(namespace),
        _ => None,
    });
    let of_job = || entries.iter().find(|(_, subdomain, _)| subdomain.is_some() && *subdomain == job).map(|e| e.0);
    let of_all = || entries.first().map(|e| e.0).filter(|first| entries.iter().all(|e| e.0 == *first));
    of_kubelet.or_else(of_job).or_else(of_all)
}
