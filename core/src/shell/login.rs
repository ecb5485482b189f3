//! What a login on a host means: whose shell reads the command, with which environment.

use crate::plan::scrub;

/// Shell of users who have none.
const SHELL_DEFAULT: &str = "/bin/sh";
/// `PATH` of an environment that has none.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user as `/etc/passwd` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name; none when the file does not know the number, as in containers with arbitrary users.
    pub name: Option<String>,
    /// Its home.
    pub home: String,
    /// Its shell.
    pub shell: String,
}

/// The user with this number. `home` is what the environment says; without an entry it is believed, else the file is.
pub fn account(passwd: &str, uid: u32, home: Option<&str>) -> Account {
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let known = entry.into_iter().find(|fields| fields.len() >= 7 && fields[2].parse() == Ok(uid));
    let or = |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
    match known {
        Some(fields) => Account {
            name: Some(fields[0].to_owned()),
            home: or(fields[5], "/"),
            shell: or(fields[6].trim(), SHELL_DEFAULT),
        },
        None => Account { name: None, home: or(home.unwrap_or_default(), "/"), shell: SHELL_DEFAULT.to_owned() },
    }
}

impl Account {
    /// Program and arguments: a shell that reads the command, or an interactive one.
    pub fn argv(&self, command: Option<&[u8]>) -> Vec<Vec<u8>> {
        let shell = self.shell.as_bytes().to_vec();
        match command {
            Some(command) => vec![shell, b"-c".to_vec(), command.to_vec()],
            None => vec![shell, b"-l".to_vec()],
        }
    }

    /// Whether a client that names this user means us. A number that no name is known for may be anybody.
    pub fn is(&self, user: &str) -> bool {
        self.name.as_deref().is_none_or(|name| name == user)
    }

    /// The environment: the agent's own, which is the container's, without what belongs to a launcher, and the login's.
    /// ssh servers give less; programs that are found by `LD_LIBRARY_PATH` of an image are found this way.
    pub fn environment<'a>(
        &self,
        own: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        term: Option<&str>,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let set: Vec<(&str, Option<&str>)> = vec![
            ("HOME", Some(&self.home)),
            ("SHELL", Some(&self.shell)),
            ("USER", self.name.as_deref()),
            ("LOGNAME", self.name.as_deref()),
            ("TERM", term),
        ];
        let replaced = |name: &[u8]| set.iter().any(|(n, v)| n.as_bytes() == name && (v.is_some() || *n == "TERM"));
        let kept = own.filter(|(name, _)| {
            !replaced(name) && !std::str::from_utf8(name).is_ok_and(|name| scrub::scrubbed(name).is_some())
        });
        let mut env: Vec<_> = kept.map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
        env.extend(set.iter().filter_map(|(n, v)| Some((n.as_bytes().to_vec(), v.as_ref()?.as_bytes().to_vec()))));
        if !env.iter().any(|(name, _)| name == b"PATH") {
            env.push((b"PATH".to_vec(), PATH_DEFAULT.as_bytes().to_vec()));
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nmpiuser:x:1000:1000::/home/mpiuser:\nbroken:x\n";

    #[test]
    fn users_are_found_by_number() {
        let root = account(PASSWD, 0, Some("/elsewhere"));
        assert_eq!(
            (root.name.as_deref(), root.home.as_str(), root.shell.as_str()),
            (Some("root"), "/root", "/bin/bash")
        );
        let mpi = account(PASSWD, 1000, None);
        assert_eq!((mpi.home.as_str(), mpi.shell.as_str()), ("/home/mpiuser", "/bin/sh"));
        let nobody = account(PASSWD, 4711, Some("/data"));
        assert_eq!((nobody.name.clone(), nobody.home.as_str(), nobody.shell.as_str()), (None, "/data", "/bin/sh"));
        assert!(root.is("root") && !root.is("mpiuser") && nobody.is("anybody"));
    }

    #[test]
    fn a_shell_reads_the_command_as_it_is() {
        let root = account(PASSWD, 0, None);
        assert_eq!(root.argv(Some(b"  \"a\" \xff")), [&b"/bin/bash"[..], b"-c", b"  \"a\" \xff"]);
        assert_eq!(root.argv(None), [&b"/bin/bash"[..], b"-l"]);
    }

    #[test]
    fn the_environment_is_the_containers_without_a_launchers() {
        let own: [(&[u8], &[u8]); 7] = [
            (b"PATH", b"/opt/bin"),
            (b"LD_LIBRARY_PATH", b"/opt/lib"),
            (b"HOME", b"/"),
            (b"TERM", b"dumb"),
            (b"PMI_RANK", b"3"),
            (b"MUSTER_OPT_PORT", b"9"),
            (b"\xff", b"odd"),
        ];
        let env = account(PASSWD, 0, None).environment(own.into_iter(), None);
        let get = |name: &[u8]| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_slice());
        assert_eq!(
            (get(b"PATH"), get(b"HOME"), get(b"USER")),
            (Some(&b"/opt/bin"[..]), Some(&b"/root"[..]), Some(&b"root"[..]))
        );
        assert_eq!((get(b"LD_LIBRARY_PATH"), get(b"\xff")), (Some(&b"/opt/lib"[..]), Some(&b"odd"[..])));
        assert_eq!((get(b"TERM"), get(b"PMI_RANK"), get(b"MUSTER_OPT_PORT")), (None, None, None));
        let bare = account(PASSWD, 4711, None).environment(std::iter::empty(), Some("xterm"));
        assert_eq!(bare.iter().find(|(n, _)| n == b"TERM").map(|(_, v)| v.as_slice()), Some(&b"xterm"[..]));
        assert!(bare.iter().any(|(n, _)| n == b"PATH") && !bare.iter().any(|(n, _)| n == b"USER"));
    }
}
