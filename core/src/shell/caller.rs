//! Launchers that go on waiting for a host that is cut off, although their remote shell has told them that it is lost.

/// Daemons of hydra's family. Their launcher waits for their own connections to end, which nobody ends when a network is cut.
const DAEMONS: [&str; 2] = ["hydra_pmi_proxy", "hydra_bstrap_proxy"];
/// How processes that start them are called: the launcher, and daemons that start further ones.
const CALLERS: [&str; 3] = ["mpiexec", "mpirun", "hydra_"];

/// Whether the process of this name, which has a remote shell run this command, would wait for ever.
pub fn would_wait(command: &[u8], caller: &str) -> bool {
    let runs = |daemon: &str| command.windows(daemon.len()).any(|part| part == daemon.as_bytes());
    DAEMONS.into_iter().any(runs) && CALLERS.into_iter().any(|name| caller.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_launchers_of_hydras_family_would_wait() {
        let proxy: &[u8] = b"\"/usr/bin/hydra_pmi_proxy\" --control-port l:1 --proxy-id 0";
        let bootstrap: &[u8] = b"/opt/bin//hydra_bstrap_proxy --upstream-host l";
        for (command, caller, wanted) in [
            (proxy, "mpiexec.hydra", true),
            (proxy, "mpiexec", true),
            (proxy, "mpirun", true),
            (bootstrap, "hydra_bstrap_pr", true),
            // A shell, in which somebody has typed it.
            (proxy, "bash", false),
            (b"orted -mca ess env", "mpirun", false),
            (b"hydra", "mpiexec.hydra", false),
            (b"", "mpiexec.hydra", false),
        ] {
            assert_eq!(would_wait(command, caller), wanted, "{caller}: {}", String::from_utf8_lossy(command));
        }
    }
}
