//! Which ranks run where, as libpmix reads it.
//!
//! Plain lists: names with commas between them, and lists of ranks with semicolons. How a release wants to have them is
//! [`crate::library::Library::written`]'s business.

use std::fmt::Write as _;

use muster_protocol::pmix::Namespace;

/// The two maps of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    /// Names of the nodes that have ranks.
    pub nodes: String,
    /// Ranks of each of them.
    pub procs: String,
    /// How many nodes.
    pub count: u32,
    /// Position among them of the node that asks, if it has ranks.
    pub here: Option<u32>,
}

/// Why there are no maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    /// A run names a node that is not in the list.
    #[error("namespace {namespace} has ranks on node {node}, but only {nodes} nodes")]
    NoSuchNode {
        /// The namespace.
        namespace: String,
        /// The node.
        node: u32,
        /// How many there are.
        nodes: usize,
    },
    /// The runs do not add up.
    #[error("namespace {namespace} has {size} ranks, but {placed} of them are placed")]
    Unplaced {
        /// The namespace.
        namespace: String,
        /// Its size.
        size: u32,
        /// Ranks in its runs.
        placed: u64,
    },
}

impl Maps {
    /// Writes them. Nodes without ranks are left out: the library counts only the others.
    ///
    /// # Errors
    /// When the namespace's numbers do not fit together.
    pub fn of(namespace: &Namespace) -> Result<Self, BadPlan> {
        let placed: u64 = namespace.runs.iter().map(|run| u64::from(run.ranks)).sum();
        if placed != u64::from(namespace.size) {
            return Err(BadPlan::Unplaced { namespace: namespace.name.clone(), size: namespace.size, placed });
        }
        let mut ranks = vec![String::new(); namespace.nodes.len()];
        let mut next = 0;
        for run in &namespace.runs {
            let no_such_node = || BadPlan::NoSuchNode {
                namespace: namespace.name.clone(),
                node: run.node,
                nodes: namespace.nodes.len(),
            };
            let of_node = ranks.get_mut(run.node as usize).ok_or_else(no_such_node)?;
            for rank in next..next + run.ranks {
                let comma = if of_node.is_empty() { "" } else { "," };
                write!(of_node, "{comma}{rank}").expect("writing into memory cannot fail");
            }
            next += run.ranks;
        }
        let used: Vec<usize> = (0..ranks.len()).filter(|node| !ranks[*node].is_empty()).collect();
        let names: Vec<&str> = used.iter().map(|node| namespace.nodes[*node].as_str()).collect();
        let lists: Vec<&str> = used.iter().map(|node| ranks[*node].as_str()).collect();
        Ok(Self {
            nodes: names.join(","),
            procs: lists.join(";"),
            count: used.len() as u32,
            here: used.iter().position(|node| *node == namespace.node as usize).map(|position| position as u32),
        })
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::pmix::Run;

    use super::*;

    fn namespace(nodes: &[&str], runs: &[(u32, u32)], node: u32) -> Namespace {
        Namespace {
            name: "job.0".into(),
            size: runs.iter().map(|run| run.1).sum(),
            universe: 8,
            nodes: nodes.iter().map(ToString::to_string).collect(),
            runs: runs.iter().map(|(node, ranks)| Run { node: *node, ranks: *ranks }).collect(),
            node,
            apps: vec![],
            local: vec![],
            parent: None,
            first_node_rank: 0,
            folder: "job.0".into(),
        }
    }

    #[test]
    fn blocks_and_rounds() {
        let blocks = Maps::of(&namespace(&["a", "b"], &[(0, 2), (1, 2)], 1)).unwrap();
        assert_eq!((blocks.nodes.as_str(), blocks.procs.as_str()), ("a,b", "0,1;2,3"));
        assert_eq!((blocks.count, blocks.here), (2, Some(1)));
        let rounds = Maps::of(&namespace(&["a", "b"], &[(0, 1), (1, 1), (0, 1)], 0)).unwrap();
        assert_eq!(rounds.procs, "0,2;1");
    }

    #[test]
    fn nodes_without_ranks_are_left_out() {
        let maps = Maps::of(&namespace(&["a", "b", "c"], &[(0, 1), (2, 1)], 2)).unwrap();
        assert_eq!((maps.nodes.as_str(), maps.procs.as_str()), ("a,c", "0;1"));
        assert_eq!((maps.count, maps.here), (2, Some(1)));
        assert_eq!(Maps::of(&namespace(&["a", "b"], &[(0, 1)], 1)).unwrap().here, None);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let error = Maps::of(&namespace(&["a"], &[(1, 1)], 0)).unwrap_err();
        assert_eq!(error.to_string(), "namespace job.0 has ranks on node 1, but only 1 nodes");
        let mut short = namespace(&["a"], &[(0, 1)], 0);
        short.size = 2;
        let error = Maps::of(&short).unwrap_err();
        assert_eq!(error.to_string(), "namespace job.0 has 2 ranks, but 1 of them are placed");
    }
}
