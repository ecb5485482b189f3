//! The job key: named, or the private key that operators mount on both sides.

use std::path::PathBuf;

use muster_core::hosts::site::key_file_candidates;
use muster_core::hosts::{HostList, Origin};
use muster_transport::identity::JobKey;

use super::{DiscoverError, Surroundings};
use crate::cli::Sourced;

/// A job key and where it was found.
#[derive(Debug)]
pub struct FoundKey {
    /// The key.
    pub key: JobKey,
    /// Its file.
    pub path: PathBuf,
    /// What named the file.
    pub origin: Origin,
}

/// Finds the key: the one that is named, else the first mounted one that is there. Any mode bits will do.
pub fn find_key(
    named: Option<&Sourced<String>>,
    hosts: &HostList,
    site: &Surroundings,
) -> Result<FoundKey, DiscoverError> {
    if let Some(file) = named {
        return read(PathBuf::from(&file.value), file.origin.clone());
    }
    let candidates = key_file_candidates(site.home());
    match candidates.iter().map(|file| site.path(file)).find(|path| path.exists()) {
        Some(path) => read(path, Origin::Default),
        None => Err(DiscoverError::NoKey { hosts: in_short(hosts), looked: candidates.join(", ") }),
    }
}

fn read(path: PathBuf, origin: Origin) -> Result<FoundKey, DiscoverError> {
    match JobKey::read(&path) {
        Ok(key) => Ok(FoundKey { key, path, origin }),
        Err(source) => {
            let place = match origin {
                Origin::Default => "no --key-file given".to_owned(),
                origin => origin.to_string(),
            };
            Err(DiscoverError::Key { place, source })
        }
    }
}

fn in_short(hosts: &HostList) -> String {
    match hosts.hosts() {
        [] => "the agents".to_owned(),
        [one] => one.name.clone(),
        [first, rest @ ..] => format!("{} and {} more", first.name, rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use muster_core::hosts::parse_hosts_flag;

    use super::*;

    fn hosts() -> HostList {
        parse_hosts_flag("w-0,w-1,w-2", &Origin::flag("-H")).unwrap()
    }

    fn site(root: &Path) -> Surroundings {
        Surroundings::new([("HOME".into(), "/home/me".into())], root, 1)
    }

    fn put(root: &Path, file: &str, bytes: &[u8]) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_named_key_goes_first_then_the_home_then_the_mounts() {
        let root = tempfile::tempdir().unwrap();
        let found = || find_key(None, &hosts(), &site(root.path())).unwrap().path;
        for file in ["home/mpiuser/.ssh/id_rsa", "root/.ssh/id_rsa", "home/me/.ssh/id_rsa"] {
            put(root.path(), file, b"sixteen bytes or more, \xff\x00 too");
            assert_eq!(found(), root.path().join(file));
        }
        put(root.path(), "k", b"0123456789abcdef");
        let file = root.path().join("k").to_str().unwrap().to_owned();
        let named = Sourced { value: file, origin: Origin::env("MUSTER_OPT_KEY_FILE") };
        let found = find_key(Some(&named), &hosts(), &site(root.path())).unwrap();
        assert_eq!((found.path, &found.origin), (root.path().join("k"), &named.origin));
    }

    #[test]
    fn c3_a_key_behind_a_link_is_read_as_operators_mount_it() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "root/.ssh/..data/ssh-privatekey", b"0123456789abcdef");
        std::os::unix::fs::symlink("..data/ssh-privatekey", root.path().join("root/.ssh/id_rsa")).unwrap();
        assert_eq!(find_key(None, &hosts(), &site(root.path())).unwrap().origin, Origin::Default);
        // Whatever its mode and its form, it is only bytes: P-521 in SEC1, RSA in PKCS1, OpenSSH's own.
        for (mode, form) in [(0o400, "EC"), (0o600, "RSA"), (0o640, "OPENSSH"), (0o644, "EC")] {
            let path = root.path().join("root/.ssh/..data/ssh-privatekey");
            std::fs::remove_file(&path).unwrap();
            let text = format!("-----BEGIN {form} PRIVATE KEY-----\nbm8ga2V5\n-----END {form} PRIVATE KEY-----\n");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            assert!(find_key(None, &hosts(), &site(root.path())).is_ok(), "{form} with mode {mode:o}");
        }
    }

    #[test]
    fn missing_and_unusable_keys_are_told_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let message = |named: Option<&Sourced<String>>| {
            let text = find_key(named, &hosts(), &site(root.path())).unwrap_err().to_string();
            text.replace(root.path().to_str().unwrap(), "")
        };
        insta::assert_snapshot!(message(None), @"no job key to reach w-0 and 2 more with: looked at /home/me/.ssh/id_rsa, /root/.ssh/id_rsa, /home/mpiuser/.ssh/id_rsa; name the secret that the agents have with --key-file, or make one with muster key new");
        let named = |file: &str| Sourced {
            value: root.path().join(file).to_str().unwrap().to_owned(),
            origin: Origin::flag("--key-file"),
        };
        insta::assert_snapshot!(message(Some(&named("none"))), @"--key-file: job key /none cannot be read: No such file or directory (os error 2)");
        put(root.path(), "empty", b"");
        insta::assert_snapshot!(message(Some(&named("empty"))), @"--key-file: job key /empty is empty; `muster key new` makes one");
        std::fs::create_dir_all(root.path().join("root/.ssh/id_rsa")).unwrap();
        insta::assert_snapshot!(message(None), @"no --key-file given: job key /root/.ssh/id_rsa cannot be read: Is a directory (os error 21)");
    }
}
