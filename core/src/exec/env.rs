//! What a command gets in its environment so that its remote shell is ours, with the reason for each variable.

use std::fmt::Write as _;

use serde::Serialize;

use crate::hosts::HostList;

/// Remote shells that Open MPI has at a time unless it is told otherwise.
const SHELLS_AT_ONCE: usize = 128;

/// What is known where the command runs.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The hosts.
    pub hosts: &'a HostList,
    /// Our remote shell's path; the same on every host, since daemons start further daemons by it.
    pub shell: &'a str,
    /// A folder with the remote shell under the names `ssh` and `rsh`.
    pub shell_folder: &'a str,
    /// The socket at which the remote shell finds this launcher.
    pub desk: &'a str,
    /// Host file as Open MPI reads it.
    pub openmpi_hostfile: &'a str,
    /// Host file as hydra reads it.
    pub hydra_hostfile: &'a str,
    /// The interface that leads to the hosts, when every host has one of this name, as pods have.
    pub interface: Option<&'a str>,
    /// A host file of an operator that names hosts which are not to be used any more.
    pub outdated_hostfile: Option<&'a str>,
    /// One of the hosts is the machine that the command runs on.
    pub one_is_here: bool,
    /// How remote shells that dial by themselves reach the agents: file of the job key, port, job.
    pub agents: [(&'static str, &'a str); 3],
}

/// Other names for the same setting: where one of them is set, ours would only be in its way.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("OMPI_MCA_plm_rsh_agent", &["OMPI_MCA_orte_rsh_agent", "OMPI_MCA_pls_rsh_agent"]),
    ("PRTE_MCA_plm_ssh_agent", &["PRTE_MCA_prte_ssh_agent"]),
    ("HYDRA_LAUNCHER", &["HYDRA_BOOTSTRAP"]),
    ("HYDRA_LAUNCHER_EXEC", &["HYDRA_BOOTSTRAP_EXEC"]),
];

/// A variable of the command's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Why it is set.
    pub reason: &'static str,
    /// The user or an operator has set it before, and that value stays.
    pub kept: bool,
}

/// The host list as Open MPI reads it.
pub fn openmpi_hostfile(hosts: &HostList) -> String {
    lines(hosts, |name, slots| format!("{name} slots={slots}"))
}

/// The host list as hydra and Intel's hydra read it.
pub fn hydra_hostfile(hosts: &HostList) -> String {
    lines(hosts, |name, slots| format!("{name}:{slots}"))
}

fn lines(hosts: &HostList, line: impl Fn(&str, u32) -> String) -> String {
    hosts.hosts().iter().fold(String::new(), |mut text, host| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line(&host.name, host.slots));
        text
    })
}

/// All variables, in the order in which a plan shows them. `own` looks a variable up in the launcher's environment: what is
/// there already is kept, `PATH` excepted, which is made longer.
pub fn variables<'a>(site: &Site<'_>, own: impl Fn(&str) -> Option<&'a str>) -> Vec<Variable> {
    let mut out = Vec::new();
    let mut set = |name: &'static str, value: &str, reason: &'static str| {
        let synonyms = SYNONYMS.iter().find(|(ours, _)| *ours == name).map_or(&[][..], |(_, others)| *others);
        if let Some((other, value)) = synonyms.iter().find_map(|other| Some((*other, own(other)?))) {
            return out.push(Variable { name: other, value: value.to_owned(), reason, kept: true });
        }
        let before = own(name).filter(|value| Some(*value) != site.outdated_hostfile);
        let value = before.unwrap_or(value).to_owned();
        out.push(Variable { name, value, reason, kept: before.is_some() });
    };
    open_mpi(site, &mut set);
    hydra(site, &mut set);
    set("MUSTER_HOSTFILE", site.openmpi_hostfile, "for scripts: the hosts, one on each line");
    let list: Vec<String> = site.hosts.hosts().iter().map(|h| format!("{}:{}", h.name, h.slots)).collect();
    set("MUSTER_HOSTS", &list.join(","), "for scripts and horovodrun -H: the hosts with their slots");
    let fixed = |name, value: String, reason| Variable { name, value, reason, kept: false };
    out.push(fixed(
        "MUSTER_DESK",
        site.desk.to_owned(),
        "where the remote shell finds this launcher and the connections that it holds",
    ));
    for (name, value) in site.agents {
        out.push(fixed(
            name,
            value.to_owned(),
            "for remote shells that dial an agent by themselves, as those with a terminal do",
        ));
    }
    let path = own("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
    out.push(fixed(
        "PATH",
        format!("{}:{path}", site.shell_folder),
        "ssh and rsh by their bare names are the remote shell, too",
    ));
    out
}

fn open_mpi(site: &Site<'_>, set: &mut impl FnMut(&'static str, &str, &'static str)) {
    set("OMPI_MCA_plm_rsh_agent", site.shell, "Open MPI 4: the remote shell");
    set("OMPI_MCA_orte_default_hostfile", site.openmpi_hostfile, "Open MPI 4: the hosts");
    set("PRTE_MCA_plm_ssh_agent", site.shell, "Open MPI 5: the remote shell; it reads no OMPI_MCA_ name for it");
    set(
        "PRTE_MCA_prte_default_hostfile",
        site.openmpi_hostfile,
        "Open MPI 5: the hosts; without this it runs everything on one node and says nothing",
    );
    let count = site.hosts.len();
    if count > SHELLS_AT_ONCE {
        let reason =
            "remote shells stay as long as their daemons, and it waits for the first ones before it starts more";
        set("OMPI_MCA_plm_rsh_num_concurrent", &count.to_string(), reason);
        set("PRTE_MCA_plm_ssh_num_concurrent", &count.to_string(), reason);
    }
    if site.hosts.hosts().iter().any(|host| host.name.contains('.') && !is_address(&host.name)) {
        let reason = "host names have dots, and cut at the first one DNS may not know them";
        set("OMPI_MCA_orte_keep_fqdn_hostnames", "true", reason);
        if site.one_is_here {
            let reason = "one of the hosts is this machine, which Open MPI 5 does not recognise by a whole name";
            set("PRTE_MCA_prte_keep_fqdn_hostnames", "false", reason);
        } else {
            set("PRTE_MCA_prte_keep_fqdn_hostnames", "true", reason);
        }
    }
}

fn is_address(name: &str) -> bool {
    name.parse::<std::net::IpAddr>().is_ok()
}

fn hydra(site: &Site<'_>, set: &mut impl FnMut(&'static str, &str, &'static str)) {
    // As rsh, not as ssh: with that it waits after eight starts on one host.
    set(
        "HYDRA_LAUNCHER",
        "rsh",
        "MPICH: starts its proxies by a remote shell, without the pauses that it makes for ssh",
    );
    set("HYDRA_LAUNCHER_EXEC", site.shell, "MPICH: the remote shell");
    set("HYDRA_HOST_FILE", site.hydra_hostfile, "MPICH: the hosts");
    set("I_MPI_HYDRA_BOOTSTRAP", "rsh", "Intel MPI: starts its proxies by a remote shell");
    set("I_MPI_HYDRA_BOOTSTRAP_EXEC", site.shell, "Intel MPI: the remote shell");
    set("I_MPI_HYDRA_HOST_FILE", site.hydra_hostfile, "Intel MPI: the hosts");
    if let Some(slots) = common_slots(site.hosts) {
        set(
            "I_MPI_PERHOST",
            &slots.to_string(),
            "Intel MPI: the slots of each host; in a host file it does not read them",
        );
    }
    if let Some(interface) = site.interface {
        let reason = "in a pod the launcher's own name seldom resolves elsewhere: its address is told instead";
        set("HYDRA_IFACE", interface, reason);
        set("I_MPI_HYDRA_IFACE", interface, reason);
    }
}

/// The slots of every host, where all have the same number.
fn common_slots(hosts: &HostList) -> Option<u32> {
    let mut slots = hosts.hosts().iter().map(|host| host.slots);
    let first = slots.next()?;
    slots.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::{Origin, parse_hosts_flag};

    fn told(list: &str, interface: Option<&str>, own: &[(&str, &str)]) -> Vec<Variable> {
        told_again(list, interface, own, None)
    }

    fn told_again(
        list: &str,
        interface: Option<&str>,
        own: &[(&str, &str)],
        outdated_hostfile: Option<&str>,
    ) -> Vec<Variable> {
        let hosts = parse_hosts_flag(list, &Origin::flag("-H")).unwrap();
        let site = Site {
            hosts: &hosts,
            shell: "/opt/muster-rsh",
            shell_folder: "/run/m/bin",
            desk: "/run/m/desk",
            openmpi_hostfile: "/run/m/hosts",
            hydra_hostfile: "/run/m/hosts.hydra",
            interface,
            outdated_hostfile,
            one_is_here: list.starts_with("here"),
            agents: [("MUSTER_SHELL_KEY_FILE", "/k"), ("MUSTER_SHELL_PORT", "2222"), ("MUSTER_SHELL_JOB", "j")],
        };
        variables(&site, |name| own.iter().find(|(n, _)| *n == name).map(|(_, v)| *v))
    }

    fn short(variables: &[Variable]) -> String {
        variables.iter().map(|v| format!("{}{}={}\n", if v.kept { "(kept) " } else { "" }, v.name, v.value)).collect()
    }

    #[test]
    fn the_table_of_variables() {
        insta::assert_snapshot!(short(&told("a:2,b", None, &[("PATH", "/bin")])), @r"
        OMPI_MCA_plm_rsh_agent=/opt/muster-rsh
        OMPI_MCA_orte_default_hostfile=/run/m/hosts
        PRTE_MCA_plm_ssh_agent=/opt/muster-rsh
        PRTE_MCA_prte_default_hostfile=/run/m/hosts
        HYDRA_LAUNCHER=rsh
        HYDRA_LAUNCHER_EXEC=/opt/muster-rsh
        HYDRA_HOST_FILE=/run/m/hosts.hydra
        I_MPI_HYDRA_BOOTSTRAP=rsh
        I_MPI_HYDRA_BOOTSTRAP_EXEC=/opt/muster-rsh
        I_MPI_HYDRA_HOST_FILE=/run/m/hosts.hydra
        MUSTER_HOSTFILE=/run/m/hosts
        MUSTER_HOSTS=a:2,b:1
        MUSTER_DESK=/run/m/desk
        MUSTER_SHELL_KEY_FILE=/k
        MUSTER_SHELL_PORT=2222
        MUSTER_SHELL_JOB=j
        PATH=/run/m/bin:/bin
        ");
    }

    #[test]
    fn what_is_set_already_is_kept_and_names_are_kept_whole() {
        let own = [
            ("OMPI_MCA_orte_default_hostfile", "/etc/mpi/hostfile"),
            ("HYDRA_LAUNCHER", "ssh"),
            ("OMPI_MCA_orte_keep_fqdn_hostnames", "true"),
        ];
        let all = told("j-worker-0.j.ns.svc:2", Some("eth0"), &own);
        let kept: Vec<_> = all.iter().filter(|v| v.kept).map(|v| (v.name, v.value.as_str())).collect();
        assert_eq!(
            kept,
            [
                ("OMPI_MCA_orte_default_hostfile", "/etc/mpi/hostfile"),
                ("OMPI_MCA_orte_keep_fqdn_hostnames", "true"),
                ("HYDRA_LAUNCHER", "ssh")
            ]
        );
        let value = |name: &str| all.iter().find(|v| v.name == name).map(|v| v.value.as_str());
        assert_eq!(value("PRTE_MCA_prte_keep_fqdn_hostnames"), Some("true"));
        assert_eq!((value("HYDRA_IFACE"), value("I_MPI_HYDRA_IFACE")), (Some("eth0"), Some("eth0")));
        // Under another name as well, which ours would go before.
        let other = told("a", None, &[("HYDRA_BOOTSTRAP", "slurm"), ("PRTE_MCA_prte_ssh_agent", "/bin/ssh")]);
        assert!(!other.iter().any(|v| ["HYDRA_LAUNCHER", "PRTE_MCA_plm_ssh_agent"].contains(&v.name)));
        let kept: Vec<_> = other.iter().filter(|v| v.kept).map(|v| v.name).collect();
        assert_eq!(kept, ["PRTE_MCA_prte_ssh_agent", "HYDRA_BOOTSTRAP"]);
        let with_us = told("here.job,w.job", None, &[]);
        let fqdn = with_us.iter().find(|v| v.name == "PRTE_MCA_prte_keep_fqdn_hostnames");
        assert_eq!(fqdn.map(|v| v.value.as_str()), Some("false"));
        let perhost =
            |all: &[Variable]| all.iter().find(|v| v.name == "I_MPI_PERHOST").map(|v| (v.value.clone(), v.kept));
        assert_eq!(perhost(&told("a:3,b:3", None, &[])), Some(("3".to_owned(), false)));
        assert_eq!(perhost(&told("a:3,b:3", None, &[("I_MPI_PERHOST", "1")])), Some(("1".to_owned(), true)));
        assert_eq!(perhost(&told("a:3,b:2", None, &[])), None, "one number says nothing of both");
        // Except where it names hosts that are gone.
        let again = told_again("b", None, &own, Some("/etc/mpi/hostfile"));
        let hostfile = again.iter().find(|v| v.name == "OMPI_MCA_orte_default_hostfile");
        assert_eq!(hostfile.map(|v| (v.value.as_str(), v.kept)), Some(("/run/m/hosts", false)));
        let addresses = told("10.0.0.1,[fd00::1]", None, &[]);
        assert!(!addresses.iter().any(|v| v.name.contains("fqdn")), "an address has dots and is not cut");
    }

    #[test]
    fn many_hosts_are_started_at_once() {
        let name = "OMPI_MCA_plm_rsh_num_concurrent";
        let value = |hosts: usize| {
            let list: Vec<String> = (0..hosts).map(|i| format!("h{i}")).collect();
            told(&list.join(","), None, &[]).into_iter().find(|v| v.name == name).map(|v| v.value)
        };
        assert_eq!((value(128), value(129)), (None, Some("129".to_owned())));
    }

    #[test]
    fn host_files_are_in_each_readers_form() {
        let hosts = parse_hosts_flag("a:2,b", &Origin::flag("-H")).unwrap();
        assert_eq!(openmpi_hostfile(&hosts), "a slots=2\nb slots=1\n");
        assert_eq!(hydra_hostfile(&hosts), "a:2\nb:1\n");
    }
}
