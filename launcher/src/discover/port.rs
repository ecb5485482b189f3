//! The agents' port: named, or the ssh configuration's, or the default.

use muster_core::hosts::Origin;
use muster_core::hosts::site::{PORT_DEFAULT, ssh_config_candidates, ssh_port};

use super::Surroundings;
use crate::cli::Sourced;

/// Finds the port. A configuration that cannot be read says nothing: ssh would pass over it, too.
pub fn find_port(named: Option<&Sourced<u16>>, site: &Surroundings) -> Sourced<u16> {
    if let Some(port) = named {
        return port.clone();
    }
    ssh_config_candidates(site.home())
        .into_iter()
        .find_map(|shown| {
            let text = std::fs::read(site.path(&shown)).ok()?;
            let value = ssh_port(&String::from_utf8_lossy(&text))?;
            Some(Sourced { value, origin: Origin::file(shown, 0) })
        })
        .unwrap_or(Sourced { value: PORT_DEFAULT, origin: Origin::Default })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_then_the_users_then_the_machines_then_the_default() {
        let root = tempfile::tempdir().unwrap();
        let site = Surroundings::new([("HOME".into(), "/home/me".into())], root.path(), 1);
        assert_eq!(find_port(None, &site), Sourced { value: 2222, origin: Origin::Default });
        std::fs::create_dir_all(root.path().join("etc/ssh")).unwrap();
        std::fs::write(root.path().join("etc/ssh/ssh_config"), "Host *\n    Port 2200\n").unwrap();
        assert_eq!(find_port(None, &site), Sourced { value: 2200, origin: Origin::file("/etc/ssh/ssh_config", 0) });
        std::fs::create_dir_all(root.path().join("home/me/.ssh")).unwrap();
        std::fs::write(root.path().join("home/me/.ssh/config"), "Host a\n Port 1\nHost *\n Port 2201\n").unwrap();
        assert_eq!(find_port(None, &site).value, 2201);
        let named = Sourced { value: 7, origin: Origin::flag("--port") };
        assert_eq!(find_port(Some(&named), &site), named);
    }
}
