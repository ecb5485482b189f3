//! `PMI_process_mapping`: which ranks share a node, in the one form that every client reads.
//!
//! Only triples `(first node, nodes, ranks per node)` from node 0: the `[…]xN` form is unknown to clients before MPICH 4.1.
//! A layout that repeats could be written once, since MPICH starts a vector over from its first block of node 0 until every
//! rank has a node. Intel MPI reads past the end of such a vector and crashes, so it is used only where spelling out is too long.

use std::collections::HashMap;
use std::fmt::Write;

use muster_protocol::limits::PMI_VALUE_BYTES_MAX;

/// MPICH before 4.1 takes 1024 for key-value space name, key, value and 30 more bytes together, and leaves this for the value.
const OLD_CLIENT_BYTES_MAX: usize = 674;

/// The mapping of the ranks' nodes, `nodes[rank]`. Nodes are renumbered by first appearance.
///
/// `None` when there is no rank, or when no form fits into a PMI value: then the key must be absent, not empty.
pub fn process_mapping(nodes: &[u32]) -> Option<String> {
    let nodes = renumbered(nodes);
    let whole = render(&nodes);
    if whole.as_ref().is_some_and(|text| text.len() < OLD_CLIENT_BYTES_MAX) {
        return whole;
    }
    let period = period(&nodes);
    let wrapped = if period < nodes.len() { render(&nodes[..period]) } else { None };
    match (whole, wrapped) {
        (Some(whole), Some(wrapped)) if wrapped.len() < whole.len() => Some(wrapped),
        (whole, wrapped) => whole.or(wrapped),
    }
}

fn renumbered(nodes: &[u32]) -> Vec<u32> {
    let mut seen = HashMap::new();
    nodes
        .iter()
        .map(|node| {
            let next = seen.len() as u32;
            *seen.entry(*node).or_insert(next)
        })
        .collect()
}

/// The smallest `p` with `nodes[i] == nodes[i % p]` for all `i`, by the lengths of proper borders.
fn period(nodes: &[u32]) -> usize {
    let mut border = vec![0usize; nodes.len()];
    for i in 1..nodes.len() {
        let mut b = border[i - 1];
        while b > 0 && nodes[i] != nodes[b] {
            b = border[b - 1];
        }
        border[i] = if nodes[i] == nodes[b] { b + 1 } else { 0 };
    }
    nodes.len() - border.last().copied().unwrap_or(0)
}

struct Block {
    first: u32,
    nodes: u32,
    ranks: u32,
}

fn blocks(nodes: &[u32]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for run in nodes.chunk_by(|a, b| a == b) {
        let (node, ranks) = (run[0], run.len() as u32);
        match blocks.last_mut() {
            Some(last) if last.ranks == ranks && last.first + last.nodes == node => last.nodes += 1,
            _ => blocks.push(Block { first: node, nodes: 1, ranks }),
        }
    }
    blocks
}

fn render(nodes: &[u32]) -> Option<String> {
    if nodes.is_empty() {
        return None;
    }
    let mut text = String::from("(vector");
    for Block { first, nodes, ranks } in blocks(nodes) {
        write!(text, ",({first},{nodes},{ranks})").expect("writing to a string does not fail");
        // One byte stays free for the bracket and one for the terminator in the client's buffer.
        if text.len() + 2 > PMI_VALUE_BYTES_MAX {
            return None;
        }
    }
    text.push(')');
    Some(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a mapping as MPICH before 4.1 does: triples only, starting over from the first block of node 0.
    pub(crate) fn expand(mapping: &str, size: usize) -> Vec<u32> {
        let body = mapping.strip_prefix("(vector,").and_then(|m| m.strip_suffix(")")).expect("a vector");
        let blocks: Vec<[u32; 3]> = body
            .trim_start_matches('(')
            .trim_end_matches(')')
            .split("),(")
            .map(|t| {
                let mut numbers = t.split(',').map(|n| n.parse().expect("a number"));
                let block = std::array::from_fn(|_| numbers.next().expect("three numbers"));
                assert!(numbers.next().is_none());
                block
            })
            .collect();
        let first = blocks.iter().position(|b| b[0] == 0).expect("a block of node 0");
        let turns = blocks.iter().chain(blocks[first..].iter().cycle());
        turns
            .flat_map(|[node, count, ranks]| (0..*count).flat_map(move |n| (0..*ranks).map(move |_| node + n)))
            .take(size)
            .collect()
    }

    #[test]
    fn block_cyclic_and_ragged_layouts() {
        let cases: [(&[u32], &str); 9] = [
            (&[0], "(vector,(0,1,1))"),
            (&[0, 0, 1, 1], "(vector,(0,2,2))"),
            (&[7, 7, 3, 3], "(vector,(0,2,2))"),
            (&[0, 1, 0, 1], "(vector,(0,2,1),(0,2,1))"),
            (&[0, 1, 0, 1, 0, 1], "(vector,(0,2,1),(0,2,1),(0,2,1))"),
            (&[0, 0, 1], "(vector,(0,1,2),(1,1,1))"),
            (&[0, 0, 1, 1, 2], "(vector,(0,2,2),(2,1,1))"),
            (&[0, 1, 0], "(vector,(0,2,1),(0,1,1))"),
            (&[0, 0, 1, 1, 0, 0, 1, 1], "(vector,(0,2,2),(0,2,2))"),
        ];
        for (nodes, expected) in cases {
            assert_eq!(process_mapping(nodes).as_deref(), Some(expected), "{nodes:?}");
        }
        assert_eq!(process_mapping(&[]), None);
    }

    #[test]
    fn a_cyclic_layout_that_is_too_long_is_written_once() {
        let nodes: Vec<u32> = (0..128 * 500).map(|r| r % 500).collect();
        assert_eq!(process_mapping(&nodes).as_deref(), Some("(vector,(0,500,1))"));
        let cut = &nodes[..nodes.len() - 3];
        assert_eq!(expand(&process_mapping(cut).expect("the short form fits"), cut.len()), cut);
    }

    #[test]
    fn what_does_not_fit_is_absent() {
        // Node i has i + 1 ranks: as many triples as nodes, and no period.
        let nodes: Vec<u32> = (0..200u32).flat_map(|n| (0..=n).map(move |_| n)).collect();
        assert_eq!(process_mapping(&nodes), None);
    }

    proptest! {
        #[test]
        fn expanding_gives_the_layout_back(
            pattern in proptest::collection::vec(0u32..6, 1..24),
            turns in 1usize..9,
            cut in 0usize..24,
        ) {
            let mut nodes: Vec<u32> = pattern.iter().copied().cycle().take(pattern.len() * turns).collect();
            nodes.truncate(nodes.len().saturating_sub(cut).max(1));
            if let Some(mapping) = process_mapping(&nodes) {
                prop_assert!(mapping.len() < PMI_VALUE_BYTES_MAX);
                prop_assert_eq!(expand(&mapping, nodes.len()), renumbered(&nodes));
            } else {
                prop_assert!(nodes.len() > 100);
            }
        }
    }
}
