//! What only a library that fails, or one of a release that is not at hand, can show.

mod rig;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use muster_protocol::pmix::{FromPmix, LocalRank, Proc, ToPmix};
use rig::{Mpi, Rig, SERVER};

/// Makes a library that says this version.
fn fake(folder: &Path, version: &str) -> String {
    let library = folder.join("libpmix.so.2");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake.c");
    let mut cc = Command::new("cc");
    cc.args(["-D_GNU_SOURCE", "-shared", "-fPIC", "-o"]).arg(&library).arg(format!("-DVERSION=\"{version}\""));
    let made = cc.arg(source).status();
    assert!(made.is_ok_and(|status| status.success()), "cc does not work; scripts/setup.sh installs it");
    library.to_string_lossy().into_owned()
}

fn served(folder: &Path, version: &str) -> Rig {
    let log = folder.join("log");
    Rig::start_by(1, &[&fake(folder, version)], Mpi::Four, || {
        let mut command = Command::new(SERVER);
        command.env("FAKE_LOG", &log);
        command
    })
}

#[test]
fn every_release_gets_maps_as_it_reads_them() {
    for (version, nodes, procs) in [
        ("3.1.5", "pmix[node-0,other]", "pmix[0,1;2]"),
        ("3.2.5", "node-0,other", "0,1;2"),
        ("4.2.2", "raw:node-0,other", "raw:0,1;2"),
        ("5.0.11", "raw:node-0,other", "raw:0,1;2"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut rig = served(folder.path(), version);
        rig.ready();
        let mut namespace = rig.namespace("maps", 2);
        namespace.nodes.push("other".into());
        namespace.runs.push(muster_protocol::pmix::Run { node: 1, ranks: 1 });
        namespace.size = 3;
        rig.say(0, &ToPmix::Register { namespace, uid: 0, gid: 0 });
        let (_, told) = rig.next();
        assert!(matches!(told, Some(FromPmix::Registered { .. })), "{told:?}");
        let log = std::fs::read_to_string(folder.path().join("log")).expect("a log");
        assert_eq!(log, format!("pmix.nmap={nodes}\npmix.pmap={procs}\n"), "{version}");
    }
}

#[test]
fn a_namespace_that_the_library_refuses_leaves_nothing_and_the_next_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = served(folder.path(), "4.2.2");
    rig.ready();
    // SAFETY: takes nothing, and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    for name in ["bad", "good"] {
        let mut namespace = rig.namespace(name, 1);
        namespace.local.push(LocalRank { rank: 0, app: 0, cpus: vec![] });
        rig.say(0, &ToPmix::Register { namespace, uid, gid });
    }
    match rig.next().1 {
        Some(FromPmix::NotRegistered { namespace, why }) => {
            assert_eq!(namespace, "bad");
            assert!(why.starts_with("registering namespace bad fails: ") && why.ends_with("says FAKE (-1)"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    let told = rig.next().1;
    assert!(matches!(&told, Some(FromPmix::Registered { namespace, .. }) if namespace == "good"), "{told:?}");
    let folder = rig.servers[0].folder.path();
    assert_eq!([folder.join("bad").exists(), folder.join("good/session").exists()], [false, true]);
}

#[test]
fn what_a_rank_has_said_is_told_before_the_end_of_its_words_however_late_the_library_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = fake(folder.path(), "5.0.11");
    let address = folder.path().join("rank");
    let listener = std::os::unix::net::UnixListener::bind(&address).expect("an address");
    let late = || {
        let mut command = Command::new(SERVER);
        command.env("FAKE_RANK", &address);
        command
    };
    let mut rig = Rig::start_by(1, &[&library], Mpi::Five, late);
    rig.ready();
    let mut rank = listener.accept().expect("the library").0;
    rank.write_all(b"last words").expect("written");
    drop(rank);
    let proc = Proc { namespace: "late".into(), rank: 0 };
    rig.say(0, &ToPmix::Ended { proc: proc.clone() });
    match rig.next().1 {
        Some(FromPmix::Log { text, .. }) => assert_eq!(text.as_slice(), b"last words"),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.next().1, Some(FromPmix::Drained { proc }));
}

#[test]
fn a_library_that_hangs_does_not_keep_the_process_nor_the_jobs_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let scratch = folder.path().join("scratch");
    std::fs::create_dir_all(scratch.join("inside")).expect("made");
    let library = fake(folder.path(), "4.2.2");
    let scratch_name = scratch.to_string_lossy().into_owned();
    let hanging = || {
        let mut command = Command::new(SERVER);
        command.env("FAKE_HANGS", "1");
        command
    };
    let mut rig = Rig::start_with(1, &[&library], Mpi::Four, hanging, &[scratch_name]);
    let status = rig.close(0);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGALRM));
    assert!(!scratch.exists());
}
