//! The folder of one command: host files, the desk, and the remote shell under the names of others.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;
use muster_core::exec::{Site, Variable, hydra_hostfile, openmpi_hostfile, variables};
use muster_core::hosts::HostList;
use muster_core::hosts::site::OPERATOR_HOSTFILE;

use muster_worker_agent::shell::rsh;

use super::find::is_here;
use super::params::{OPEN_MPI, RUNTIME, of_user};
use crate::discover::Surroundings;
use crate::run::local::make_own_dir;

/// Names under which programs look for a remote shell.
const NAMES: [&str; 3] = ["ssh", "rsh", "muster-rsh"];
/// Set in every pod, and nowhere else.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";
/// How the runtime's parameters begin, and how they were called before it: it understands these, too.
const OLD_NAMES: [(&str, &str); 2] = [("prte_", "orte_"), ("plm_ssh_", "plm_rsh_")];
/// Where the kernel lists its routes.
const ROUTES: &str = "/proc/net/route";

/// How agents are reached.
#[derive(Debug, Clone)]
pub(super) struct Agents {
    /// Our remote shell.
    pub(super) shell: PathBuf,
    /// The job key's file.
    pub(super) key_file: PathBuf,
    /// Their port.
    pub(super) port: u16,
    /// The job that they serve.
    pub(super) job: String,
}

/// Where things are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    agents: Agents,
    folder: PathBuf,
}

impl Places {
    /// As they would be in this folder.
    pub(super) fn new(agents: Agents, folder: &Path) -> Self {
        Self { agents, folder: folder.to_owned() }
    }

    fn names(&self) -> PathBuf {
        self.folder.join("bin")
    }

    fn openmpi_hostfile(&self) -> PathBuf {
        self.folder.join("hostfile")
    }

    fn hydra_hostfile(&self) -> PathBuf {
        self.folder.join("hostfile.hydra")
    }

    pub(super) fn desk(&self) -> PathBuf {
        self.folder.join("desk")
    }

    /// What the command gets in its environment; when it is started again, whatever an operator's host file says is outdated.
    pub(super) fn variables(&self, hosts: &HostList, again: bool, site: &Surroundings) -> Vec<Variable> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let interface = site.var(IN_A_POD).and_then(|_| {
            let routes = std::fs::read_to_string(site.path(ROUTES)).ok()?;
            default_interface(&routes).map(str::to_owned)
        });
        let own_name = muster_sys::proc::hostname();
        let told = Site {
            hosts,
            shell: &self.agents.shell.to_string_lossy(),
            shell_folder: &text(self.names()),
            desk: &text(self.desk()),
            openmpi_hostfile: &text(self.openmpi_hostfile()),
            hydra_hostfile: &text(self.hydra_hostfile()),
            interface: interface.as_deref(),
            one_is_here: hosts.hosts().iter().any(|host| is_here(&host.name, &own_name)),
            agents: [
                (rsh::KEY_FILE, &self.agents.key_file.to_string_lossy()),
                (rsh::PORT, &self.agents.port.to_string()),
                (rsh::JOB, &self.agents.job),
            ],
            outdated_hostfile: again.then_some(OPERATOR_HOSTFILE),
        };
        let (open_mpi, runtime) = (of_user(site, OPEN_MPI), of_user(site, RUNTIME));
        let in_files = |name: &str| match (name.strip_prefix("OMPI_MCA_"), name.strip_prefix("PRTE_MCA_")) {
            (Some(name), _) => open_mpi.get(name),
            (_, Some(name)) => {
                let old = || {
                    OLD_NAMES.iter().find_map(|(new, old)| open_mpi.get(&format!("{old}{}", name.strip_prefix(new)?)))
                };
                runtime.get(name).or_else(|| open_mpi.get(name)).or_else(old)
            }
            _ => None,
        };
        variables(&told, |name| site.var(name).or_else(|| in_files(name)))
    }
}

/// The interface of the default route, which in a pod is the one that leads to other pods.
fn default_interface(routes: &str) -> Option<&str> {
    let mut rows = routes.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.find(|row| row.get(1) == Some(&"00000000")).map(|row| row[0])
}

/// The folder, which goes with this.
#[derive(Debug)]
pub(super) struct Workplace {
    pub(super) places: Places,
}

impl Workplace {
    /// Makes it.
    pub(super) fn make(agents: Agents) -> anyhow::Result<Self> {
        let folder = make_own_dir(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))?;
        let workplace = Self { places: Places::new(agents, &folder) };
        let names = workplace.places.names();
        std::fs::create_dir(&names).with_context(|| format!("cannot make the folder {}", names.display()))?;
        for name in NAMES {
            let link = names.join(name);
            symlink(&workplace.places.agents.shell, &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
        Ok(workplace)
    }

    /// Writes the hosts down, in each reader's form.
    pub(super) fn write_hosts(&self, hosts: &HostList) -> anyhow::Result<()> {
        let files = [
            (self.places.openmpi_hostfile(), openmpi_hostfile(hosts)),
            (self.places.hydra_hostfile(), hydra_hostfile(hosts)),
        ];
        for (path, text) in files {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed is a few hundred bytes in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.places.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_the_default_route() {
        let routes =
            "Iface\tDestination\tGateway\tFlags\neth1\t0001A8C0\t00000000\t0001\neth0\t00000000\t0101A8C0\t0003\n";
        assert_eq!(default_interface(routes), Some("eth0"));
        assert_eq!(default_interface("Iface\tDestination\n"), None);
    }

    #[test]
    fn what_a_file_in_the_users_home_sets_is_kept() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("home/.openmpi/mca-params.conf", "orte_default_hostfile = /mine"),
            ("home/.prte/mca-params.conf", "# nothing\nprte_default_hostfile=/mine/too\n"),
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let kept = |env: &[(&str, &str)]| -> Vec<String> {
            let env = env.iter().map(|(name, value)| (name.into(), value.into()));
            let agents = Agents { shell: "/s".into(), key_file: "/k".into(), port: 1, job: "j".into() };
            let hosts = HostList::default();
            let all =
                Places::new(agents, Path::new("/f")).variables(&hosts, false, &Surroundings::new(env, root.path(), 1));
            all.iter().filter(|v| v.kept).map(|v| format!("{}={}", v.name, v.value)).collect()
        };
        assert_eq!(kept(&[]), Vec::<String>::new());
        let (mine, too) = ("OMPI_MCA_orte_default_hostfile=/mine", "PRTE_MCA_prte_default_hostfile=/mine/too");
        assert_eq!(kept(&[("HOME", "/home")]), [mine, too]);
        let other = ("OMPI_MCA_orte_default_hostfile", "/other");
        assert_eq!(kept(&[("HOME", "/home"), other]), ["OMPI_MCA_orte_default_hostfile=/other", too]);
        // The runtime of Open MPI 5 reads Open MPI's file as well, and its old names.
        std::fs::remove_file(root.path().join("home/.prte/mca-params.conf")).unwrap();
        assert_eq!(kept(&[("HOME", "/home")]), [mine, "PRTE_MCA_prte_default_hostfile=/mine"]);
    }

    #[test]
    fn a_workplace_has_everything_and_leaves_nothing() {
        let workplace =
            Workplace::make(Agents { shell: "/bin/true".into(), key_file: "/k".into(), port: 1, job: "j".into() })
                .unwrap();
        let folder = workplace.places.folder.clone();
        for name in NAMES {
            assert_eq!(std::fs::read_link(folder.join("bin").join(name)).unwrap(), Path::new("/bin/true"));
        }
        drop(workplace);
        assert!(!folder.exists());
    }
}
