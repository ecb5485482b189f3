//! Launchers and workers as operators arrange them: names, files, mounts, variables and users. Only `ssh` and `sshd` are
//! Muster's; nobody says a word about it.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Cluster, Cmd, Family, Output, PATIENCE, Proc, eventually, link_as, workspace};

/// A private key as operators make it: P-521, SEC1. Its bytes are the job key; it opens nothing else.
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nbm90IGEga2V5IG9mIGFueSBjdXJ2ZSwgb25seSB0aGUgZm9ybSBvZiBvbmU=\n\
                   -----END EC PRIVATE KEY-----\n";
/// The configuration that the operators' images have for users other than root.
const SSHD_CONFIG: &str = "PidFile HOME/sshd.pid\nHostKey HOME/.ssh/id_rsa\nStrictModes no\nPort 2222\n";

/// Makes the first interface with an address the one of the default route, as it is in pods, and says which.
const ROUTE: &str = "set -- $(ip -o -4 addr show scope global | head -n 1); ip route replace default dev $2; echo $2";
/// Domains that pods of a worker search.
const SEARCH: &str =
    "tenant.svc.cluster.local svc.cluster.local cluster.local pi.tenant.svc.cluster.local job.tenant.svc.cluster.local";

/// What mpi-operator v2 sets on the launcher of an Open MPI job with two slots for each worker.
pub const OPEN_MPI: [(&str, &str); 5] = [
    ("K_MPI_JOB_ROLE", "launcher"),
    ("OMPI_MCA_orte_keep_fqdn_hostnames", "true"),
    ("OMPI_MCA_orte_default_hostfile", "/etc/mpi/hostfile"),
    ("OMPI_MCA_plm_rsh_args", "-o ConnectionAttempts=10"),
    ("OMPI_MCA_orte_set_default_slots", "2"),
];

/// As whom a pod's processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// The image's: 1000, without a word about rights.
    OfImage,
    /// One that no image knows, in the group of the volumes, with no rights and nothing to write on but volumes.
    Nobody,
}

/// A job's pods: hosts of a cluster under an operator's names.
#[derive(Debug)]
pub struct Pods {
    /// The hosts.
    pub cluster: Cluster,
    /// The launcher's name.
    pub launcher: String,
    /// The workers' names.
    pub workers: Vec<String>,
    /// The launcher has ranks as well.
    launcher_works: bool,
    /// Workers find an address for the launcher's name.
    launcher_is_known: bool,
    /// Ranks on each pod.
    slots: usize,
    user: User,
}

impl Pods {
    /// As kubeflow's mpi-operator v2 names them: `<job>-worker-<i>.<job>.<namespace>.svc`.
    #[must_use]
    pub fn of_mpi_operator(cluster: Cluster) -> Self {
        let workers = (0..cluster.len()).map(|i| format!("pi-worker-{i}.pi.tenant.svc")).collect();
        Self::furnished(cluster, "pi-launcher.pi.tenant.svc", workers)
    }

    /// As Trainer v2 names them, the launcher being a node, too: short names without a namespace.
    #[must_use]
    pub fn of_trainer(cluster: Cluster) -> Self {
        let workers = (0..cluster.len()).map(|i| format!("job-node-0-{i}.job")).collect();
        Self { launcher_works: true, ..Self::furnished(cluster, "job-launcher-0-0.job", workers) }
    }

    fn furnished(cluster: Cluster, launcher: &str, workers: Vec<String>) -> Self {
        let (launcher_works, launcher_is_known, slots, user) = (false, true, 2, User::OfImage);
        let launcher = launcher.to_owned();
        let pods = Self { cluster, launcher, workers, launcher_works, launcher_is_known, slots, user };
        pods.furnish();
        pods
    }

    /// As Volcano names the pods of a job with a master and workers; its lists are in `/etc/volcano`.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn of_volcano(cluster: Cluster) -> Self {
        let workers: Vec<_> = (0..cluster.len()).map(|i| format!("sim-worker-{i}.sim")).collect();
        let pods = Self::furnished(cluster, "sim-master-0.sim", workers);
        let lists = pods.dir().join("etc/volcano");
        std::fs::create_dir_all(&lists).expect("folder");
        std::fs::write(lists.join("worker.host"), pods.workers.join("\n") + "\n").expect("write");
        std::fs::write(lists.join("master.host"), format!("{}\n", pods.launcher)).expect("write");
        pods
    }

    /// With `runLauncherAsWorker`, and one slot for each pod.
    #[must_use]
    pub fn with_a_launcher_that_works(self) -> Self {
        Self { launcher_works: true, slots: 1, ..self }
    }

    /// With a launcher whose name has no address record yet.
    #[must_use]
    pub fn with_a_launcher_that_nobody_finds(self) -> Self {
        Self { launcher_is_known: false, ..self }
    }

    /// As on clusters that allow little: a user without a name, in the group of the volumes, no rights, a root file system that
    /// cannot be written.
    #[must_use]
    pub fn with_nobodys_rights(self) -> Self {
        Self { user: User::Nobody, ..self }
    }

    /// The folder that all pods see.
    pub fn dir(&self) -> &Path {
        self.cluster.shared_dir()
    }

    /// The user's home with the mounted key, the image's programs, the names of all pods.
    fn furnish(&self) {
        let home = self.home();
        std::fs::create_dir_all(home.join(".ssh")).expect("folder");
        let write = |path: PathBuf, text: &str, mode: u32| {
            std::fs::write(&path, text).expect("write");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
        };
        // Through a link, as secrets are mounted, and readable by a group, which an ssh client would refuse.
        write(home.join(".ssh/ssh-privatekey"), KEY, 0o644);
        std::os::unix::fs::symlink("ssh-privatekey", home.join(".ssh/id_rsa")).expect("link");
        write(home.join(".sshd_config"), &SSHD_CONFIG.replace("HOME", &home.to_string_lossy()), 0o644);
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o777)).expect("mode");
        let agent = workspace::program("muster-agent").expect("built");
        link_as(&agent, &self.bin(), &["ssh", "rsh", "sshd", "kubexec.sh"]).expect("links");
        for (file, with_launcher) in [("pods", true), ("pods.workers", false)] {
            let mut names = String::new();
            for (pod, address) in self.pods().into_iter().filter(|(pod, _)| with_launcher || *pod != self.launcher) {
                let short = pod.split('.').next().unwrap_or_default();
                writeln!(names, "{address} {pod} {short}").expect("text");
            }
            write(self.dir().join(file), &names, 0o644);
        }
        // The kubelet's list and the entry that the operator adds; nobody answers there, since all names are in the file above.
        write(
            self.dir().join("resolv.conf"),
            &format!("nameserver 127.0.0.1\nsearch {SEARCH}\noptions ndots:5\n"),
            0o644,
        );
        std::fs::create_dir_all(self.dir().join("etc/mpi")).expect("folder");
    }

    fn pods(&self) -> Vec<(&str, String)> {
        let workers = self.workers.iter().enumerate();
        let workers = workers.map(|(i, name)| (name.as_str(), self.cluster.host(i).address().to_string()));
        workers.chain([(self.launcher.as_str(), self.cluster.launcher().address().to_string())]).collect()
    }

    /// The user's home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.dir().join("mpiuser")
    }

    /// Where the image has what stands in for ssh.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.dir().join("bin")
    }

    /// The operator's host file, one line for each pod with ranks.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_hostfile(&self, line: impl Fn(&str) -> String) {
        let first = self.launcher_works.then_some(&self.launcher);
        let text: String = first.into_iter().chain(&self.workers).map(|name| line(name) + "\n").collect();
        std::fs::write(self.dir().join("etc/mpi/hostfile"), text).expect("write");
    }

    /// The host file in the form that mpi-operator writes for this MPI.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_hostfile_for(&self, family: Family) {
        let slots = self.slots;
        self.write_hostfile(|name| {
            if family.is_open_mpi() { format!("{name} slots={slots}") } else { format!("{name}:{slots}") }
        });
    }

    /// Gives the launcher a default route, as every pod has one, and says over which interface.
    ///
    /// # Panics
    /// When it has no interface.
    pub fn route(&self) -> String {
        let route = self.cluster.launcher().run(Cmd::new("sh").args(["-c", ROUTE])).and_then(Output::ok);
        route.expect("a route").stdout_text().trim().to_owned()
    }

    /// A command in a pod: its host name, `/etc/hosts`, `/etc/mpi` and `/etc/volcano` are the pod's, its user is the image's.
    #[must_use]
    pub fn in_pod(&self, name: &str, script: &str) -> Cmd {
        let short = name.split('.').next().unwrap_or_default();
        let dir = self.dir().display();
        let names = if self.launcher_is_known || name == self.launcher { "pods" } else { "pods.workers" };
        // The mounted key is the group's, the root file system nobody's.
        let (lock, user) = match self.user {
            User::OfImage => (String::new(), "--reuid 1000 --regid 1000 --clear-groups"),
            User::Nobody => (
                format!(
                    "chown 0:2000 {home}/.ssh/ssh-privatekey; chmod 0640 {home}/.ssh/ssh-privatekey; mount -o remount,bind,ro /;",
                    home = self.home().display()
                ),
                "--reuid 1000660000 --regid 0 --groups 2000 --bounding-set -all --inh-caps -all --no-new-privs",
            ),
        };
        let pod = format!(
            "set -e; hostname {short}; mkdir -p /tmp/pod; cp -a /etc /tmp/pod/; cat {dir}/{names} >> /tmp/pod/etc/hosts; \
             rm -f /tmp/pod/etc/resolv.conf; cp {dir}/resolv.conf /tmp/pod/etc/; \
             cp -r {dir}/etc /tmp/pod/; mount --bind /tmp/pod/etc /etc; chmod 1777 /tmp /dev/shm; {lock} \
             exec setpriv {user} env HOME={home} USER=mpiuser \
             PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin sh -c '{script}'",
            home = self.home().display(),
            bin = self.bin().display(),
        );
        Cmd::new("unshare").args(["--uts", "--mount", "sh", "-c", &pod]).own_session().timeout(PATIENCE)
    }

    /// The workers, with the command of the operators' examples.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn start_workers(&self) -> Vec<Proc> {
        let sshd = format!("exec sshd -De -f {}/.sshd_config", self.home().display());
        (0..self.workers.len()).map(|i| self.start_worker(i, &sshd)).collect()
    }

    /// One worker, with this command.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_worker(&self, index: usize, command: &str) -> Proc {
        self.cluster.host(index).spawn(self.in_pod(&self.workers[index], command)).expect("spawn")
    }

    /// The launcher, with a command and what the operator sets.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_launcher(&self, script: &str, settings: &[(&str, &str)], family: Family) -> Proc {
        let cmd = settings.iter().fold(self.in_pod(&self.launcher, script), |cmd, (name, value)| cmd.env(name, value));
        self.cluster.launcher().spawn(family.environment(cmd)).expect("spawn")
    }

    /// Starts the launcher before the workers, and gives what it came to when both have done their work.
    ///
    /// # Panics
    /// When it does not end, or a worker does.
    #[must_use]
    pub fn run(&self, script: &str, settings: &[(&str, &str)], family: Family) -> Output {
        let job = self.start_launcher(script, settings, family);
        // So long ssh would not have waited for a name or a port.
        std::thread::sleep(Duration::from_millis(1_500));
        let workers = self.start_workers();
        let output = job.finish(PATIENCE).expect("it ends");
        for worker in &workers {
            assert!(worker.try_wait().expect("status").is_none(), "{}", worker.stderr_so_far());
        }
        output
    }

    /// What `init_allreduce` prints with ranks where the host file says.
    ///
    /// # Panics
    /// When it is something else.
    pub fn assert_all_ranks(&self, output: Output) {
        let output = output.ok().expect("it succeeds");
        let works = self.launcher_works.then_some(&self.launcher);
        let pods: Vec<&str> =
            works.into_iter().chain(&self.workers).map(|n| n.split('.').next().unwrap_or_default()).collect();
        let size = self.slots * pods.len();
        let text = output.stdout_text();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        let mut wanted: Vec<_> =
            (0..size).map(|rank| format!("rank {rank} of {size} on {}", pods[rank / self.slots])).collect();
        wanted.push(format!("allreduce of {size} ranks: ok"));
        wanted.sort();
        assert_eq!(lines, wanted, "{}", output.stderr_text());
    }

    /// Waits until a pod has no process but its agent, whatever that is called.
    ///
    /// # Panics
    /// With those that live on, when that takes too long.
    pub fn wait_until_idle(&self, index: usize, agent: Option<&Proc>) {
        let host = self.cluster.host(index);
        let agent = agent.map(Proc::pid);
        let others = || {
            let all = host.processes().unwrap_or_default().into_iter();
            all.filter(|process| Some(process.pid) != agent).collect::<Vec<_>>()
        };
        eventually(others, Vec::is_empty).expect("nothing is left");
    }

    /// The same for the launcher's.
    ///
    /// # Panics
    /// As above.
    pub fn wait_until_launcher_is_idle(&self) {
        let here = || self.cluster.launcher().processes().unwrap_or_default();
        eventually(here, Vec::is_empty).expect("nothing is left on the launcher's host");
    }
}

/// A program of ours that a launcher of this family starts on so many ranks.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn ranks(count: usize, program: &str, family: Family) -> String {
    let program = family.program(program).expect("built");
    format!("exec {} -n {count} {}", family.launcher().display(), program.display())
}

/// The same command under `muster exec` with these options.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn under_muster(options: &str, command: &str) -> String {
    let muster = workspace::program("muster").expect("built");
    command.replacen("exec ", &format!("exec {} exec {options} -- ", muster.display()), 1)
}
