//! The job key as operators mount it: one Secret, which launcher and agents find in different places, forms and modes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use muster_cluster::{Cmd, Here, Output, Proc, workspace};

/// How a Secret gets into a container.
#[derive(Clone, Copy)]
enum Mount {
    /// As a volume: links to a link to a folder that is named after the moment it was written.
    Volume,
    /// One file of it, by itself.
    SubPath,
}

/// A home with the key in it.
fn home(dir: &Path, mount: Mount, mode: u32, key: &str) -> PathBuf {
    let ssh = dir.join(".ssh");
    fs::create_dir_all(&ssh).expect("folder");
    match mount {
        Mount::Volume => turn(dir, "..2026_11_30_10_00_00.1", mode, key),
        Mount::SubPath => write(&ssh.join("id_rsa"), mode, key),
    }
    dir.to_owned()
}

/// What a volume does when its Secret changes: a new folder, and a link that is renamed over the old one.
fn turn(home: &Path, folder: &str, mode: u32, key: &str) {
    let ssh = home.join(".ssh");
    fs::create_dir(ssh.join(folder)).expect("folder");
    write(&ssh.join(folder).join("id_rsa"), mode, key);
    symlink(folder, ssh.join("..data_tmp")).expect("link");
    fs::rename(ssh.join("..data_tmp"), ssh.join("..data")).expect("rename");
    if !ssh.join("id_rsa").exists() {
        symlink("..data/id_rsa", ssh.join("id_rsa")).expect("link");
    }
}

fn write(path: &Path, mode: u32, key: &str) {
    fs::write(path, key).expect("write");
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mode");
}

/// A real private key of this kind in the form of a PEM file, as operators make them.
fn key(here: &Here, name: &str, kind: &[&str]) -> String {
    let path = here.dir().join(name);
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-m", "PEM", "-N", "", "-t"]).args(kind).arg("-f").arg(&path);
    assert!(keygen.status().expect("ssh-keygen; scripts/setup.sh installs it").success());
    fs::read_to_string(path).expect("a key")
}

fn agent(here: &Here, home: &Path) -> Proc {
    let (address, port) = (here.address(0).to_string(), here.port().to_string());
    let agent = here.cmd(workspace::program("muster-agent").expect("built")).env("HOME", home);
    here.start(agent.args(["--listen", &address, "--port", &port]), 0).expect("it answers")
}

/// A rank on the agent's host; nobody names a key. Who has another one tries for a second: an agent may get its Secret late.
fn launch(here: &Here, home: &Path, limit: &str) -> Output {
    let host = format!("{}@{}", here.address(0), here.port());
    let run: Cmd = here.muster(&["run", "-n", "1", "-H", &host]).expect("built").env("HOME", home);
    here.run(run.args(["--connect-timeout", limit, "echo", "ran"])).expect("it ends")
}

#[test]
fn c3_both_sides_find_the_same_key_whatever_its_form_mode_and_mount() {
    let here = Here::new().expect("a folder");
    let forms = [
        ("EC PRIVATE KEY", key(&here, "p521", &["ecdsa", "-b", "521"])),
        ("RSA PRIVATE KEY", key(&here, "rsa", &["rsa", "-b", "2048"])),
    ];
    let other = key(&here, "other", &["ecdsa", "-b", "521"]);
    for (at, (form, key)) in forms.iter().enumerate() {
        assert!(key.starts_with(&format!("-----BEGIN {form}-----\n")), "{key}");
        // Each mode on each side, and never the same on both.
        for (launcher_mode, agent_mode) in [(0o400, 0o600), (0o600, 0o640), (0o640, 0o644), (0o644, 0o400)] {
            let dir = here.dir().join(format!("{at}-{launcher_mode:o}"));
            let (mut mounts, case) =
                ([Mount::Volume, Mount::SubPath], format!("{form} {launcher_mode:o} {agent_mode:o}"));
            if launcher_mode & 0o040 != 0 {
                mounts.reverse();
            }
            let launcher = home(&dir.join("launcher"), mounts[0], launcher_mode, key);
            let _agent = agent(&here, &home(&dir.join("agent"), mounts[1], agent_mode, key));
            assert_eq!(launch(&here, &launcher, "60s").ok().expect(&case).stdout_text(), "ran\n");
            // The other key, mounted in just the same way.
            let stranger = home(&dir.join("stranger"), mounts[0], launcher_mode, &other);
            let refused = launch(&here, &stranger, "1s");
            assert_eq!(refused.status.code(), Some(77), "{case}: {}", refused.stderr_text());
        }
    }
}

#[test]
fn c3_a_secret_that_is_renewed_is_what_the_next_launcher_and_the_next_agent_read() {
    let here = Here::new().expect("a folder");
    let (old, new) = (key(&here, "old", &["ecdsa", "-b", "521"]), key(&here, "new", &["ecdsa", "-b", "521"]));
    let launcher = home(&here.dir().join("launcher"), Mount::Volume, 0o400, &old);
    let worker = home(&here.dir().join("worker"), Mount::Volume, 0o640, &old);
    let before = agent(&here, &worker);
    launch(&here, &launcher, "60s").ok().expect("the same key");
    for home in [&launcher, &worker] {
        turn(home, "..2026_11_30_11_00_00.2", 0o400, &new);
    }
    assert_eq!(launch(&here, &launcher, "1s").status.code(), Some(77), "the agent has the key that it began with");
    drop(before);
    let _after = agent(&here, &worker);
    launch(&here, &launcher, "60s").ok().expect("the same key again");
}
