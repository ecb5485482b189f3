//! Real ranks of both Open MPIs under real servers.

mod rig;

use muster_protocol::pmix::Run;
use rig::places::{oldest_library, ours, system_library, wheel_library};
use rig::{Mpi, Rig};

/// Two ranks on each of so many nodes add up and end well.
fn allreduce(nodes: usize, library: &str, mpi: Mpi) -> Rig {
    let mut rig = Rig::start(nodes, &[library], mpi).env("OMPI_MCA_btl", "tcp,self");
    rig.ready();
    let namespace = rig.namespace("allreduce", 2);
    rig.launch(&namespace, &mpi.program("init_allreduce"), &[]);
    let ends = rig.finish();
    let size = namespace.size;
    for rank in 0..size {
        let end = &ends[&("allreduce".to_owned(), rank)];
        assert!(end.status.success(), "rank {rank}: {end:?}");
        assert!(end.output.contains(&format!("rank {rank} of {size} on ")), "rank {rank}: {end:?}");
        // Nothing but its own words: the library is quiet with every client.
        let lines = if rank == 0 { 2 } else { 1 };
        assert_eq!(end.output.lines().count(), lines, "rank {rank}: {end:?}");
    }
    assert_eq!(rig.told.connected.len(), size as usize);
    assert_eq!(rig.told.finalised.len(), size as usize);
    // One node's fences end within the library.
    assert_eq!(rig.told.fences == 0, nodes == 1, "{} fences", rig.told.fences);
    rig
}

/// Every client under one library.
fn every_client(library: &str) {
    for mpi in [Mpi::Four, Mpi::FourWheel, Mpi::Five] {
        allreduce(1, library, mpi);
    }
}

#[test]
fn five_hundred_nodes_are_registered_with_every_library() {
    for library in [ours(), wheel_library(), oldest_library()] {
        let mut rig = Rig::start(1, &[&library], Mpi::Four);
        rig.ready();
        let nodes = 500;
        let mut namespace = rig.namespace("large", 1);
        namespace.nodes.extend((1..nodes).map(|node| format!("worker-with-a-long-name-{node}.of.some.domain")));
        namespace.runs.extend((1..nodes).map(|node| Run { node, ranks: 4 }));
        namespace.size = 1 + (nodes - 1) * 4;
        namespace.apps = vec![namespace.size];
        let program = std::path::Path::new("/usr/bin/env");
        rig.launch_here(&namespace, program, &[]);
        let ends = rig.finish();
        let end = &ends[&("large".to_owned(), 0)];
        assert!(end.output.contains("PMIX_NAMESPACE=large\n"), "{end:?}");
    }
}

#[test]
fn every_open_mpi_with_our_library() {
    every_client(&ours());
}

#[test]
fn every_open_mpi_with_library_5() {
    every_client(&wheel_library());
}

#[test]
fn every_open_mpi_with_the_oldest_library() {
    every_client(&oldest_library());
}

#[test]
fn open_mpi_4_with_the_systems_library() {
    allreduce(1, system_library(), Mpi::Four);
}

#[test]
fn open_mpi_4_over_two_nodes() {
    allreduce(2, &ours(), Mpi::Four);
}

#[test]
fn open_mpi_5_over_two_nodes() {
    allreduce(2, &ours(), Mpi::Five);
}

/// Aborts, and what was then said by the ranks themselves and by way of the server.
fn abort(mpi: Mpi) -> (String, String) {
    let mut rig = Rig::start(1, &[&ours()], mpi);
    rig.ready();
    let namespace = rig.namespace("abort", 2);
    rig.launch(&namespace, &mpi.program("abort7"), &["1".to_owned()]);
    let ends = rig.finish();
    let [(proc, status, _)] = rig.told.aborts.as_slice() else { panic!("{:?} {ends:?}", rig.told) };
    assert_eq!((proc.namespace.as_str(), proc.rank, *status), ("abort", 1, 7));
    (ends.values().map(|end| end.output.as_str()).collect(), rig.told.log.clone())
}

const BANNER: &str = "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD";

#[test]
fn open_mpi_4_aborts_with_its_status() {
    // It writes its banner itself.
    let (said, logged) = abort(Mpi::Four);
    assert!(said.contains(BANNER) && logged.is_empty(), "{said:?} {logged:?}");
}

#[test]
fn open_mpi_5_aborts_with_its_status_and_its_words_are_logged() {
    let (said, logged) = abort(Mpi::Five);
    assert!(logged.contains(BANNER) && said.is_empty(), "{said:?} {logged:?}");
}
