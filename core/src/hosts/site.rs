//! What the operators' images and mounts say without being asked: where the job key lies and which port ssh would use.
//!
//! Launcher and agent must come to the same answer, so the rules stand here and each side only reads the files.

/// Port of the agents when nothing says otherwise.
pub const PORT_DEFAULT: u16 = 2222;
/// Host file that the operators mount into the launcher.
pub const OPERATOR_HOSTFILE: &str = "/etc/mpi/hostfile";

/// Where operators mount the private key that launcher and workers share, in the order to look.
///
/// `/tmp` is not among them although some images copy a key there: on a shared machine anybody could plant one.
pub fn key_file_candidates(home: Option<&str>) -> Vec<String> {
    under_home(home, &["/root", "/home/mpiuser"], ".ssh/id_rsa")
}

/// Client configurations whose `Port` the launcher follows, in the order to look.
pub fn ssh_config_candidates(home: Option<&str>) -> Vec<String> {
    let mut files = under_home(home, &[], ".ssh/config");
    files.push("/etc/ssh/ssh_config".to_owned());
    files
}

/// Server configurations whose `Port` the agent follows, in the order to look.
pub fn sshd_config_candidates(home: Option<&str>) -> Vec<String> {
    let mut files = under_home(home, &["/home/mpiuser"], ".sshd_config");
    files.push("/etc/ssh/sshd_config".to_owned());
    files
}

fn under_home(home: Option<&str>, others: &[&str], file: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for dir in home.into_iter().filter(|h| h.starts_with('/')).chain(others.iter().copied()) {
        let path = format!("{}/{file}", dir.trim_end_matches('/'));
        if !out.contains(&path) {
            out.push(path);
        }
    }
    out
}

/// The `Port` that an ssh client or server configuration sets for every host: the first one outside `Match` blocks and
/// outside `Host` blocks for particular hosts. A port that is no port is passed over, as ssh itself would not start with it.
pub fn ssh_port(config: &str) -> Option<u16> {
    let mut for_all = true;
    for line in config.lines() {
        let line = line.trim();
        let Some(end) = line.find(|c: char| c.is_whitespace() || c == '=') else { continue };
        let (key, value) = line.split_at(end);
        let value = value.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim().trim_matches('"');
        match key.to_ascii_lowercase().as_str() {
            "host" => for_all = value == "*",
            "match" => for_all = value.eq_ignore_ascii_case("all"),
            "port" if for_all => match value.parse() {
                Ok(port) if port != 0 => return Some(port),
                _ => {}
            },
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_all_hosts_is_found() {
        for (config, want) in [
            ("", None),
            ("#   Port 22\n", None),
            ("Port 2222\n", Some(2222)),
            (
                "PidFile /home/mpiuser/sshd.pid\nHostKey /home/mpiuser/.ssh/id_rsa\nStrictModes no\nPort 2222\n",
                Some(2222),
            ),
            ("Host *\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n    port=2200\r\n", Some(2200)),
            ("Host special\n  Port 1\nHost *\n  Port 2\n", Some(2)),
            ("Match user bob\n  Port 1\n", None),
            ("Port none\nPort 0\nPort 7\n", Some(7)),
        ] {
            assert_eq!(ssh_port(config), want, "{config}");
        }
    }

    #[test]
    fn a_home_comes_first_and_only_once() {
        assert_eq!(key_file_candidates(Some("/root/")), ["/root/.ssh/id_rsa", "/home/mpiuser/.ssh/id_rsa"]);
        assert_eq!(
            key_file_candidates(Some("/home/u")),
            ["/home/u/.ssh/id_rsa", "/root/.ssh/id_rsa", "/home/mpiuser/.ssh/id_rsa"]
        );
        assert_eq!(key_file_candidates(None).len(), 2);
        assert_eq!(key_file_candidates(Some("relative")).len(), 2);
    }
}
