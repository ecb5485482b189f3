//! Beginnings and ends of the server itself.

mod rig;

use std::path::Path;
use std::process::Command;

use muster_protocol::pmix::{FromPmix, ToPmix};
use rig::places::{ours, wheel_library};
use rig::{Mpi, Rig, SERVER};

fn failure(rig: &mut Rig) -> String {
    match rig.next() {
        (_, Some(FromPmix::Failed { why })) => why,
        (_, other) => panic!("the server says {other:?}"),
    }
}

#[test]
fn a_library_that_does_not_serve_is_passed_over_and_the_next_is_taken() {
    let mut rig = Rig::start(1, &["/nowhere/libpmix.so.2", "libc.so.6", &ours()], Mpi::Four);
    let ready = rig.ready();
    assert_eq!(ready[0].1, ours());
    assert!(ready[0].0.starts_with("4.2."), "{ready:?}");
}

#[test]
fn without_a_library_that_serves_the_reason_for_each_is_told() {
    let mut rig = Rig::start(1, &["/nowhere/libpmix.so.2", "libc.so.6"], Mpi::Four);
    let why = failure(&mut rig);
    assert!(why.starts_with("no PMIx library serves: /nowhere/libpmix.so.2 cannot be loaded: "), "{why}");
    assert!(why.ends_with("; libc.so.6 is no PMIx library with a server: it has no PMIx_Get_version"), "{why}");
    assert_eq!(rig.close(0).code(), Some(1));
}

#[test]
fn an_old_library_is_refused_by_its_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = folder.path().join("libpmix.so.2");
    let source = r#"const char *PMIx_Get_version(void) { return "PMIx 2.2.5 (something)"; }"#;
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-xc", "-o"])
        .arg(&old)
        .arg("-")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut cc| {
            std::io::Write::write_all(cc.stdin.as_mut().expect("a pipe"), source.as_bytes())?;
            cc.wait()
        });
    assert!(made.is_ok_and(|status| status.success()), "cc does not work; scripts/setup.sh installs it");
    let old = old.to_string_lossy().into_owned();
    let why = failure(&mut Rig::start(1, &[&old], Mpi::Four));
    assert_eq!(why, format!("no PMIx library serves: {old} is PMIx 2.2.5; 3.1 or later is needed"));
}

#[test]
fn everything_of_the_shipped_library_comes_from_its_folder() {
    let mut rig = Rig::start(1, &[&ours()], Mpi::Four);
    rig.ready();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", rig.pid(0))).expect("its maps");
    let folder = Path::new(&ours()).parent().expect("a folder").to_owned();
    let files: Vec<&Path> = maps.lines().filter_map(|line| line.split_whitespace().nth(5).map(Path::new)).collect();
    for name in [
        "libpmix.so.2",
        "libhwloc.so.15",
        "libevent_core-2.1.so.7",
        "libevent_pthreads-2.1.so.7",
        "libmunge.so.2",
        "libudev.so.1",
        "libz.so.1",
        "pmix/pmix_mca_pcompress_zlib.so",
    ] {
        assert!(files.contains(&folder.join(name).as_path()), "{name} is not loaded: {files:?}");
    }
    // Nothing else either, but the program and the C library with its loader.
    let own = Path::new(SERVER);
    let plain = ["ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0"];
    let foreign = |file: &&&Path| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        file.is_absolute() && !file.starts_with(&folder) && **file != own && !plain.contains(&&*name)
    };
    assert_eq!(files.iter().find(foreign), None, "{files:?}");
}

#[test]
fn the_shipped_library_serves_where_nothing_of_it_is_installed() {
    // SAFETY: takes nothing, and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        assert!(std::env::var_os("CI").is_none(), "needs root, to hide what is installed");
        // A notice that cannot be written changes nothing for the test.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: hiding what is installed needs root\n");
        return;
    }
    let hide = r#"cd /usr/lib/x86_64-linux-gnu || exit
        [ ! -d pmix2 ] || mount -t tmpfs none pmix2 || exit
        for l in libhwloc.so.15 libevent_core-2.1.so.7 libevent_pthreads-2.1.so.7 libmunge.so.2 libudev.so.1 libz.so.1; do
            [ ! -e $l ] || mount --bind /dev/null "$(readlink -f $l)" || exit
        done
        exec "$0""#;
    let mut rig = Rig::start_by(1, &[&ours()], Mpi::Four, || {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", hide, SERVER]);
        command
    });
    assert_eq!(rig.ready()[0].1, ours());
    let namespace = rig.namespace("bare", 2);
    rig.launch(&namespace, &Mpi::Four.program("init_allreduce"), &[]);
    let ends = rig.finish();
    assert!(ends.values().all(|end| end.status.success()), "{ends:?}");
    assert_eq!(rig.told.finalised.len(), 2);
}

#[test]
fn ranks_get_what_they_need_and_nothing_of_the_servers_environment() {
    let mut rig = Rig::start(1, &[&ours()], Mpi::Four);
    rig.ready();
    let namespace = rig.namespace("env", 2);
    rig.launch(&namespace, Path::new("/usr/bin/env"), &[]);
    let ends = rig.finish();
    for rank in 0..2 {
        let output = &ends[&("env".to_owned(), rank)].output;
        let known: Vec<&str> = output.lines().filter_map(|line| line.split_once('=').map(|pair| pair.0)).collect();
        for name in ["PMIX_NAMESPACE", "PMIX_RANK", "PMIX_SERVER_URI41", "PMIX_GDS_MODULE", "PMIX_SECURITY_MODE"] {
            assert!(known.contains(&name), "{name} is missing in {output}");
        }
        assert!(
            output.contains(&format!("PMIX_RANK={rank}\n")) && output.contains("PMIX_GDS_MODULE=hash\n"),
            "{output}"
        );
        let foreign = |name: &&&str| {
            ["PMI_", "MUSTER_", "PMIX_MCA_", "PMIX_PKG", "CARGO", "LD_"].iter().any(|prefix| name.starts_with(prefix))
        };
        assert_eq!(known.iter().find(foreign), None, "{output}");
    }
}

/// Kills ranks that have connected, as they would end with their agent, closes the socket, and looks what is left.
fn nothing_is_left(library: &str, mpi: Mpi) {
    let mut rig = Rig::start(1, &[library], mpi);
    rig.ready();
    let namespace = rig.namespace("left", 2);
    rig.launch(&namespace, &mpi.program("init_pause"), &[]);
    while rig.told.connected.len() < 2 {
        let (server, message) = rig.next();
        rig.answer(server, message.expect("it runs"));
    }
    let folder = rig.servers[0].folder.path().to_owned();
    assert!(folder.join("left/session").is_dir());
    rig.kill_ranks();
    rig.finish();
    let status = rig.close(0);
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert_eq!(std::fs::read_dir(folder).expect("the folder itself stays").count(), 0);
}

#[test]
fn the_sockets_end_leaves_no_process_and_no_files() {
    nothing_is_left(&ours(), Mpi::Four);
    nothing_is_left(&wheel_library(), Mpi::Five);
}

#[test]
fn a_namespace_that_is_forgotten_leaves_no_folder() {
    let mut rig = Rig::start(1, &[&ours()], Mpi::Four);
    rig.ready();
    for round in ["one", "two"] {
        let namespace = rig.namespace("again", 1);
        rig.launch(&namespace, Path::new("/bin/echo"), &[round.to_owned()]);
        let ends = rig.finish();
        assert_eq!(ends[&("again".to_owned(), 0)].output, format!("{round}\n"));
        rig.say(0, &ToPmix::Deregister { namespace: "again".into() });
    }
    let folder = rig.servers[0].folder.path().join("again");
    rig.close(0);
    assert!(!folder.exists());
}

#[test]
fn signals_for_everybody_do_not_end_the_server() {
    let mut rig = Rig::start(1, &[&ours()], Mpi::Four);
    rig.ready();
    for signal in
        [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTSTP]
    {
        // SAFETY: a signal to a child of this process that it has not waited for.
        assert_eq!(unsafe { libc::kill(rig.pid(0).cast_signed(), signal) }, 0);
    }
    let namespace = rig.namespace("after", 1);
    rig.launch(&namespace, Path::new("/bin/true"), &[]);
    rig.finish();
    assert_eq!(rig.close(0).code(), Some(0));
}

#[test]
fn a_message_out_of_place_is_answered_with_the_reason() {
    let mut rig = Rig::start(1, &[&ours()], Mpi::Four);
    rig.ready();
    let folder = rig.servers[0].folder.path().to_string_lossy().into_owned();
    rig.say(0, &ToPmix::Done { token: 12, status: 0 });
    rig.say(0, &ToPmix::Start { libraries: vec![], folder, host: "again".into(), scratch: vec![] });
    assert_eq!(failure(&mut rig), "the agent's message makes no sense now: the server runs already");
}

#[test]
fn people_who_start_it_are_told_what_it_is() {
    let run = |arguments: &[&str]| {
        let output = Command::new(SERVER).args(arguments).env_remove("PMI_FD").output();
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = run(&[]);
    assert_eq!(code, Some(1));
    assert_eq!(
        text,
        "muster-pmix: muster-pmix is started by muster-agent, which names a socket in PMI_FD; it is not set (try --help)\n"
    );
    let (code, text) = run(&["--library", &ours()]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with(&format!("{} is PMIx 4.2.", ours())), "{text}");
    assert_eq!(run(&["--nonsense"]).0, Some(2));
    assert!(run(&["--version"]).1.starts_with(concat!("muster-pmix ", env!("CARGO_PKG_VERSION"), "\n")));
}
