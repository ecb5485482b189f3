//! Networks that Open MPI shall not use, as its parameters say it.
//!
//! It refuses to work where it is told both what to use and what not, whoever says which. So a command that might tell it something
//! itself, a script for instance, hears nothing of this.

use super::{Family, Network, Variable};

/// What Open MPI leaves out by itself; our list replaces it.
const DEFAULT: &str = "127.0.0.1/8,sppp,";
/// What is set for ranks and for daemons, and why.
const FOR_RANKS: (&str, &str) = (
    "OMPI_MCA_btl_tcp_if_exclude",
    "Open MPI: networks in which hosts have the same address; ranks that use them reach themselves, and wait",
);
const FOR_DAEMONS: [(&str, &str); 2] = [
    ("OMPI_MCA_oob_tcp_if_exclude", "Open MPI 4: the same for its daemons, where all hosts have such a network"),
    ("PRTE_MCA_prte_if_exclude", "Open MPI 5: the same for its daemons, where all hosts have such a network"),
];
/// How parameters of the ranks' connections end, wherever they are said.
const OF_RANKS: [&str; 2] = ["btl_tcp_if_include", "btl_tcp_if_exclude"];
/// The same of the daemons' connections, older names included.
const OF_DAEMONS: [&str; 6] = [
    "oob_tcp_if_include",
    "oob_tcp_if_exclude",
    "oob_tcp_include",
    "oob_tcp_exclude",
    "prte_if_include",
    "prte_if_exclude",
];
/// Parameters that name other files of parameters, older names included.
const OTHER_FILES: [&str; 4] =
    ["mca_base_param_files", "mca_param_files", "mca_base_envar_file_prefix", "mca_base_param_file_prefix"];
/// Options that do, or name a file of options.
const OPTIONS_OF_FILES: [&str; 3] = ["am", "tune", "app"];
/// What is in all names of parameters about interfaces.
const OF_INTERFACES: [&str; 4] = ["_if_include", "_if_exclude", "oob_tcp_include", "oob_tcp_exclude"];

/// Networks to leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadEnds {
    /// For ranks.
    pub of_ranks: Vec<Network>,
    /// For daemons, which complain of a network that their host does not have, and find another way by themselves.
    pub of_daemons: Vec<Network>,
}

/// The variables for a command of this family. `said` are the names of all variables that it gets and of all parameters in files that
/// it reads.
pub fn excludes(dead_ends: &DeadEnds, family: &Family, argv: &[String], said: &[String]) -> Vec<Variable> {
    let mut out = Vec::new();
    let mut set = |name, networks: &[Network], first: &str, reason| {
        if !networks.is_empty() {
            out.push(Variable { name, value: format!("{first}{}", list(networks)), reason, kept: false });
        }
    };
    let (of_ranks, of_daemons) = free(family, argv, said);
    if of_ranks {
        set(FOR_RANKS.0, &dead_ends.of_ranks, DEFAULT, FOR_RANKS.1);
    }
    if of_daemons {
        for (name, reason) in FOR_DAEMONS {
            set(name, &dead_ends.of_daemons, "", reason);
        }
    }
    out
}

/// Which of these variables a command would get if there were such networks, and why.
pub fn possible_excludes(family: &Family, argv: &[String], said: &[String]) -> Vec<(&'static str, &'static str)> {
    let (of_ranks, of_daemons) = free(family, argv, said);
    let of_ranks = of_ranks.then_some(FOR_RANKS);
    of_ranks.into_iter().chain(FOR_DAEMONS.into_iter().filter(|_| of_daemons)).collect()
}

/// Whether a variable with this name says something of interfaces to Open MPI, or may do.
pub fn speaks_of_interfaces(variable: &str) -> bool {
    [&OF_RANKS[..], &OF_DAEMONS, &OTHER_FILES].iter().any(|names| is_one_of(variable, names))
}

/// Names of variables have a prefix, those in files have none.
fn is_one_of(name: &str, parameters: &[&str]) -> bool {
    parameters.iter().any(|end| name.ends_with(end))
}

/// Whether nobody has said anything of the ranks' interfaces, and of the daemons', as far as can be known.
fn free(family: &Family, argv: &[String], said: &[String]) -> (bool, bool) {
    let says = |names: &[&str]| said.iter().any(|name| is_one_of(name, names));
    let known = matches!(family, Family::OpenMpi { .. });
    let none = known && !argv.iter().any(|word| may_choose(word)) && !says(&OTHER_FILES);
    (none && !says(&OF_RANKS), none && !says(&OF_DAEMONS))
}

/// Whether a word of the command line may say something of interfaces.
fn may_choose(word: &str) -> bool {
    let option = word.trim_start_matches('-');
    OF_INTERFACES.iter().any(|part| word.contains(part))
        || option.len() < word.len() && OPTIONS_OF_FILES.contains(&option.split('=').next().unwrap_or_default())
}

fn list(networks: &[Network]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{dead_ends, is_of_all};
    use muster_protocol::hello::{HostAddress, HostNetwork};

    /// A bridge on both hosts, and another one on as many.
    fn found(second: u64) -> DeadEnds {
        let address = |ipv4: [u8; 4], prefix| HostAddress { ipv4: u32::from_be_bytes(ipv4), prefix };
        let host = |i: u8| {
            let mut addresses = vec![address([10, 0, 0, i], 24), address([172, 17, 0, 1], 16)];
            addresses.extend((u64::from(i) <= second).then(|| address([192, 168, 122, 1], 24)));
            Some(HostNetwork { namespace: u64::from(i), addresses })
        };
        let hosts = [host(1), host(2), host(3)];
        let of_ranks = dead_ends(&hosts, &[]);
        let of_daemons = of_ranks.iter().copied().filter(|network| is_of_all(*network, &hosts)).collect();
        DeadEnds { of_ranks, of_daemons }
    }

    fn told(found: &DeadEnds, family: &str, line: &str, said: &[&str]) -> String {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let said: Vec<String> = said.iter().map(|name| (*name).to_owned()).collect();
        let all = excludes(found, &Family::of("mpirun", Some(family)), &argv, &said);
        all.iter().map(|v| format!("{}={}\n", v.name, v.value)).collect()
    }

    const OPEN_MPI: &str = "mpirun (Open MPI) 5.0.11";
    const LINE: &str = "mpirun -n 4 prog";

    #[test]
    fn networks_that_connect_nobody_are_left_out() {
        insta::assert_snapshot!(told(&found(3), OPEN_MPI, LINE, &["PATH"]), @r"
        OMPI_MCA_btl_tcp_if_exclude=127.0.0.1/8,sppp,172.17.0.0/16,192.168.122.0/24
        OMPI_MCA_oob_tcp_if_exclude=172.17.0.0/16,192.168.122.0/24
        PRTE_MCA_prte_if_exclude=172.17.0.0/16,192.168.122.0/24
        ");
        // Daemons of the third host have no second bridge.
        insta::assert_snapshot!(told(&found(2), OPEN_MPI, LINE, &[]), @r"
        OMPI_MCA_btl_tcp_if_exclude=127.0.0.1/8,sppp,172.17.0.0/16,192.168.122.0/24
        OMPI_MCA_oob_tcp_if_exclude=172.17.0.0/16
        PRTE_MCA_prte_if_exclude=172.17.0.0/16
        ");
        assert_eq!(told(&DeadEnds::default(), OPEN_MPI, LINE, &[]), "", "the usual case");
    }

    #[test]
    fn who_says_something_of_interfaces_is_not_contradicted() {
        let all = told(&found(3), OPEN_MPI, LINE, &[]);
        let (ranks, daemons) = all.split_at(all.find("OMPI_MCA_oob").unwrap());
        for (said, want) in [
            ("OMPI_MCA_btl_tcp_if_include", daemons),
            ("btl_tcp_if_exclude", daemons),
            ("OMPI_MCA_oob_tcp_if_include", ranks),
            ("PRTE_MCA_prte_if_include", ranks),
            ("PRTE_MCA_oob_tcp_if_exclude", ranks),
            ("prte_if_exclude", ranks),
            ("OMPI_MCA_mca_base_param_files", ""),
            ("OMPI_MCA_mca_param_files", ""),
            ("OMPI_MCA_mca_base_param_file_prefix", ""),
            ("OMPI_MCA_btl_tcp_links", &all),
        ] {
            assert_eq!(told(&found(3), OPEN_MPI, LINE, &[said]), want, "{said}");
            assert_eq!(speaks_of_interfaces(said), want != all, "{said}");
        }
        for (family, line) in [
            (OPEN_MPI, "mpirun --mca btl_tcp_if_include eth0 prog"),
            (OPEN_MPI, "mpirun --mca oob_tcp_include eth0 prog"),
            (OPEN_MPI, "mpirun --app file"),
            (OPEN_MPI, "mpirun --prtemca prte_if_exclude=docker0 prog"),
            (OPEN_MPI, "mpirun --tune file prog"),
            (OPEN_MPI, "mpirun -am=file prog"),
            ("HYDRA build details:", "mpiexec prog"),
            ("", "sh script"),
        ] {
            assert_eq!(told(&found(3), family, line, &[]), "", "{line}");
        }
    }
}
