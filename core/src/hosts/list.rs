//! The host list of a job: unique hosts, and the order in which they were named.

use std::collections::HashMap;

use muster_protocol::HostIndex;
use muster_protocol::limits::{HOSTS_MAX, RANKS_PER_HOST_MAX};
use serde::Serialize;

use super::Origin;

/// One host, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostSpec {
    /// The name the user knows it by: a host name or an IP address without brackets.
    pub name: String,
    /// Where to reach it when that is not its name: an embedded agent of this machine, or a host that joined by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Ranks it takes before it counts as oversubscribed.
    pub slots: u32,
    /// Ranks it takes even when oversubscription is asked for; none given: no such cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_slots: Option<u32>,
    /// Port of its agent when it differs from the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where it was named first.
    pub origin: Origin,
}

impl HostSpec {
    /// What to dial or to tell other ranks: the address if there is one, else the name.
    pub fn reachable_as(&self) -> &str {
        self.address.as_deref().unwrap_or(&self.name)
    }
}

/// What is wrong with a host in the company of the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListProblem {
    /// More slots than the host's own cap.
    #[error("host {host:?} has {slots} slots but max_slots={max_slots}; lower the slots or raise max_slots")]
    OverMax {
        /// The host.
        host: String,
        /// Its slots, summed over all mentions.
        slots: u32,
        /// Its cap.
        max_slots: u32,
    },
    /// Repeated mentions add up to more than a host can have.
    #[error("host {host:?} adds up to {slots} slots; a host has at most {RANKS_PER_HOST_MAX}")]
    TooManySlots {
        /// The host.
        host: String,
        /// Its slots, summed over all mentions.
        slots: u32,
    },
    /// Too many hosts.
    #[error("more than {HOSTS_MAX} hosts in one job")]
    TooManyHosts,
}

/// The hosts of a job in the order of their first mention, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HostList {
    hosts: Vec<HostSpec>,
    mentions: Vec<HostIndex>,
    /// Things worth telling the user that are no errors, such as a hostfile key without effect.
    pub notes: Vec<String>,
    #[serde(skip)]
    index: HashMap<(String, Option<u16>), u32>,
}

impl HostList {
    /// A list without hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mention of a host. A host that is there already (same name and port) gets the slots added; the smallest
    /// `max_slots` that was given holds.
    pub fn add(&mut self, host: HostSpec) -> Result<HostIndex, ListProblem> {
        let key = (host.name.to_ascii_lowercase(), host.port);
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None => {
                let at = self.hosts.len() as u32;
                if at >= HOSTS_MAX {
                    return Err(ListProblem::TooManyHosts);
                }
                self.index.insert(key, at);
                self.hosts.push(HostSpec { slots: 0, ..host.clone() });
                at
            }
        };
        let known = &mut self.hosts[at as usize];
        known.slots = known.slots.saturating_add(host.slots);
        known.max_slots = [known.max_slots, host.max_slots].into_iter().flatten().min();
        if known.slots > RANKS_PER_HOST_MAX {
            return Err(ListProblem::TooManySlots { host: host.name, slots: known.slots });
        }
        if let Some(max_slots) = known.max_slots
            && known.slots > max_slots
        {
            return Err(ListProblem::OverMax { host: host.name, slots: known.slots, max_slots });
        }
        self.mentions.push(HostIndex(at));
        Ok(HostIndex(at))
    }

    /// The hosts, each once.
    pub fn hosts(&self) -> &[HostSpec] {
        &self.hosts
    }

    /// Every mention in order, repeated ones too: what `seq` placement follows.
    pub fn mentions(&self) -> &[HostIndex] {
        &self.mentions
    }

    /// The host with this index.
    pub fn get(&self, host: HostIndex) -> Option<&HostSpec> {
        self.hosts.get(host.0 as usize)
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// All slots together.
    pub fn slots(&self) -> u64 {
        self.hosts.iter().map(|h| u64::from(h.slots)).sum()
    }
}
