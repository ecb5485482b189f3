//! Host names of pods, taken apart.

/// How the name of an MPIJob's pod ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Launcher,
    Worker(u32),
}

/// The longest label of a name.
const LABEL_BYTES: usize = 63;

/// Whether this can be a label of a host name, as Kubernetes has them.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= LABEL_BYTES
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The host's own label of a name with or without a domain.
pub(super) fn first(hostname: &str) -> Option<&str> {
    hostname.split('.').next().filter(|label| is_label(label))
}

/// The label behind it: the pod's subdomain, where the name has one.
pub(super) fn second(hostname: &str) -> Option<&str> {
    hostname.split('.').nth(1).filter(|label| is_label(label))
}

/// An index as control planes write it: no sign, no leading zero.
pub(super) fn index(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// `<stem>-<index>`.
pub(super) fn indexed(label: &str) -> Option<(&str, u32)> {
    let (stem, number) = label.rsplit_once('-')?;
    Some((stem, index(number)?)).filter(|_| is_label(stem))
}

/// `<job>-launcher` or `<job>-worker-<i>`; a job may have such an ending in its own name.
pub(super) fn mpi_job(label: &str) -> Option<(&str, Ending)> {
    let found = match label.strip_suffix("-launcher") {
        Some(job) => (job, Ending::Launcher),
        None => {
            let (stem, number) = indexed(label)?;
            (stem.strip_suffix("-worker")?, Ending::Worker(number))
        }
    };
    Some(found).filter(|(job, _)| is_label(job))
}
