//! What ranks ask beyond their start: more ranks, names, what others have put, groups, and who has died.

mod rig;

use std::collections::HashMap;

use rig::places::{ours, wheel_library};
use rig::{Mpi, RankEnd, Rig};

/// Clients and libraries that have to get on: each client with the shipped library, and Open MPI 5 with its own.
fn pairs() -> [(Mpi, String); 3] {
    [(Mpi::Four, ours()), (Mpi::Five, ours()), (Mpi::Five, wheel_library())]
}

fn start(nodes: usize, library: &str, mpi: Mpi) -> Rig {
    let mut rig = Rig::start(nodes, &[library], mpi).env("OMPI_MCA_btl", "tcp,self");
    rig.ready();
    rig
}

/// Runs two ranks of a program on each node; all must end well.
fn run(rig: &mut Rig, mpi: Mpi, program: &str, arguments: &[String]) -> HashMap<(String, u32), RankEnd> {
    let namespace = rig.namespace(program, 2);
    rig.launch(&namespace, &mpi.program(program), arguments);
    let ends = rig.finish();
    for (rank, end) in &ends {
        assert!(end.status.success(), "{mpi:?} {rank:?}: {end:?} of {ends:?}, told {:?}", rig.told);
    }
    ends
}

fn said(ends: &HashMap<(String, u32), RankEnd>, namespace: &str, rank: u32, words: &str) {
    let end = &ends[&(namespace.to_owned(), rank)];
    assert!(end.output.contains(words), "{namespace} {rank}: {end:?}");
}

#[test]
fn ranks_start_ranks_and_add_up_with_them() {
    for (mpi, library) in pairs() {
        for nodes in [1, 2] {
            let mut rig = start(nodes, &library, mpi);
            let child = mpi.program("spawn_child").to_string_lossy().into_owned();
            let ends = run(&mut rig, mpi, "spawn_parent", &[child]);
            said(&ends, "spawn_parent", 0, "spawned 2: ok");
            for rank in 0..2 {
                said(&ends, "spawned-1", rank, &format!("among {}", 2 * nodes + 2));
            }
            assert_eq!(rig.told.spawns, 1);
        }
    }
}

#[test]
fn names_are_published_found_and_taken_back() {
    for (mpi, library) in pairs() {
        let mut rig = start(2, &library, mpi);
        let ends = run(&mut rig, mpi, "namepub", &[]);
        said(&ends, "namepub", 0, "name publishing: ok");
    }
}

#[test]
fn what_a_rank_has_put_is_fetched_from_its_node_when_it_is_needed() {
    for (mpi, library) in pairs() {
        let (variable, value) = match mpi {
            Mpi::Five => ("OMPI_MCA_pmix_base_async_modex", "1"),
            _ => ("OMPI_MCA_pmix_base_collect_data", "0"),
        };
        let mut rig = start(2, &library, mpi).env(variable, value);
        let ends = run(&mut rig, mpi, "init_allreduce", &[]);
        said(&ends, "init_allreduce", 0, "allreduce of 4 ranks: ok");
        assert!(rig.told.modexes > 0, "{mpi:?}: {:?}", rig.told);
    }
}

#[test]
fn sessions_make_communicators_of_groups() {
    // PMIx 4 tells its clients less of a group than those of PMIx 5 wait for.
    for nodes in [1, 2] {
        let mut rig = start(nodes, &wheel_library(), Mpi::Five);
        let ends = run(&mut rig, Mpi::Five, "sessions_sum", &[]);
        said(&ends, "sessions_sum", 0, &format!("sessions of {} ranks: ok", 2 * nodes));
        assert!(rig.told.groups > 0, "{:?}", rig.told);
    }
}

#[test]
fn survivors_are_told_of_a_dead_rank_and_go_on_without_it() {
    for (nodes, library) in [(1, ours()), (2, ours()), (1, wheel_library()), (2, wheel_library())] {
        let mut rig = start(nodes, &library, Mpi::Five)
            .env("OMPI_MCA_mpi_ft_enable", "1")
            .env("OMPI_MCA_pml", "ob1")
            .env("OMPI_MCA_coll", "^han");
        rig.survivors_go_on = true;
        let namespace = rig.namespace("ulfm", 3);
        rig.launch(&namespace, &Mpi::Five.program("ulfm_shrink"), &[]);
        let ends = rig.finish();
        let survivors: Vec<&RankEnd> = ends.iter().filter(|(key, _)| key.1 != 1).map(|(_, end)| end).collect();
        let left = 3 * nodes - 1;
        assert_eq!(survivors.len(), left);
        for end in survivors {
            assert!(end.status.success() && end.output.contains(&format!("of {left}: ok")), "{end:?}");
        }
    }
}
