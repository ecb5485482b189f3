//! Variables that must not travel: those of an outer launcher, and those that belong to one machine.

/// One rule about variable names.
struct Rule {
    /// How the name starts, or the whole name when `exact`.
    name: &'static str,
    exact: bool,
    reason: &'static str,
}

const fn starts(name: &'static str, reason: &'static str) -> Rule {
    Rule { name, exact: false, reason }
}

const fn is(name: &'static str, reason: &'static str) -> Rule {
    Rule { name, exact: true, reason }
}

/// Taken out of the agent's own environment before anything is set.
const SCRUBBED: &[Rule] = &[
    starts("PMI_", "names the process manager of an outer launcher"),
    starts("PMI2_", "names the process manager of an outer launcher"),
    starts("PMIX_", "makes MPICH refuse PMI, and names an outer PMIx server"),
    starts("PRTE_", "names an outer PRRTE"),
    starts("OMPI_", "describes an outer Open MPI job; tuning (OMPI_MCA_* of other frameworks) is kept"),
    starts("SLURM_", "makes libraries believe that srun started them"),
    starts("SLURMD_", "makes libraries believe that srun started them"),
    starts("HYDRA_", "configures an outer mpiexec"),
    starts("HYDI_", "names an outer mpiexec"),
    starts("MUSTER_", "describes an outer job or holds options of a launcher or an agent"),
    is("MPI_LOCALRANKID", "local rank of an outer launcher"),
    is("MPI_LOCALNRANKS", "local size of an outer launcher"),
];

/// Frameworks of Open MPI that say how a job is launched; parameters of all others are the user's tuning.
const OMPI_LAUNCH_FRAMEWORKS: &[&str] = &[
    "orte",
    "ess",
    "plm",
    "pmix",
    "ras",
    "rmaps",
    "oob",
    "routed",
    "grpcomm",
    "state",
    "errmgr",
    "iof",
    "odls",
    "filem",
    "schizo",
    "prte",
    "initial",
    "rml",
    "regx",
    "rtc",
    "snapc",
    "sstore",
    "dfs",
    "propagate",
    "ppr",
    "mca",
    "opal",
];

/// Not taken along when the launcher's whole environment is forwarded; a variable that is named is always honoured.
const NEVER_FORWARDED: &[Rule] = &[
    is("PATH", "belongs to the launcher's image"),
    is("LD_LIBRARY_PATH", "belongs to the launcher's image"),
    is("LD_PRELOAD", "belongs to the launcher's image"),
    is("HOME", "belongs to the launcher's user"),
    is("USER", "belongs to the launcher's user"),
    is("LOGNAME", "belongs to the launcher's user"),
    is("SHELL", "belongs to the launcher's user"),
    is("MAIL", "belongs to the launcher's user"),
    is("HOSTNAME", "names the launcher's machine"),
    is("PWD", "belongs to the launcher's working directory"),
    is("OLDPWD", "belongs to the launcher's working directory"),
    is("SHLVL", "belongs to the launcher's shell"),
    is("_", "belongs to the launcher's shell"),
    is("TMPDIR", "belongs to the launcher's machine"),
    starts("XDG_", "belongs to the launcher's session"),
    starts("SSH_", "belongs to the launcher's session"),
    starts("NVIDIA_", "says which GPUs the launcher's container has"),
    is("CUDA_VISIBLE_DEVICES", "says which GPUs the launcher's container has"),
    starts("KUBERNETES_", "belongs to the launcher's pod"),
    starts("K_MPI_", "belongs to the launcher's pod"),
];

fn matching(rules: &'static [Rule], name: &str) -> Option<&'static str> {
    rules
        .iter()
        .find(|rule| if rule.exact { name == rule.name } else { name.starts_with(rule.name) })
        .map(|rule| rule.reason)
}

/// Why a variable of the agent's own environment is kept from ranks; none: it is passed on.
pub fn scrubbed(name: &str) -> Option<&'static str> {
    if let Some(parameter) = name.strip_prefix("OMPI_MCA_") {
        let framework = parameter.split('_').next().unwrap_or(parameter);
        if !OMPI_LAUNCH_FRAMEWORKS.contains(&framework) {
            return None;
        }
    }
    matching(SCRUBBED, name)
}

/// Why a variable of the launcher is not taken along when all are forwarded; none: it is.
pub fn never_forwarded(name: &str) -> Option<&'static str> {
    matching(NEVER_FORWARDED, name).or_else(|| scrubbed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scrubbed_and_what_is_kept() {
        for name in [
            "PMI_RANK",
            "PMI_FD",
            "PMIX_NAMESPACE",
            "PRTE_LAUNCHED",
            "OMPI_COMM_WORLD_RANK",
            "OMPI_UNIVERSE_SIZE",
            "OMPI_MCA_orte_hnp_uri",
            "OMPI_MCA_ess",
            "OMPI_MCA_pmix_base_verbose",
            "SLURM_JOB_ID",
            "HYDRA_LAUNCHER_EXEC",
            "HYDI_CONTROL_FD",
            "MUSTER_OPT_NP",
            "MUSTER_RANK",
            "MPI_LOCALRANKID",
        ] {
            assert!(scrubbed(name).is_some(), "{name}");
        }
        for name in
            ["PATH", "HOME", "NCCL_DEBUG", "OMPI_MCA_btl", "OMPI_MCA_btl_tcp_if_include", "MPIR_CVAR_X", "PMIHOST"]
        {
            assert_eq!(scrubbed(name), None, "{name}");
        }
    }

    #[test]
    fn what_stays_with_the_launcher() {
        for name in
            ["PATH", "LD_LIBRARY_PATH", "HOME", "HOSTNAME", "NVIDIA_VISIBLE_DEVICES", "KUBERNETES_PORT", "PMI_FD"]
        {
            assert!(never_forwarded(name).is_some(), "{name}");
        }
        for name in ["NCCL_DEBUG", "PATHS", "OMP_NUM_THREADS", "HOMER"] {
            assert_eq!(never_forwarded(name), None, "{name}");
        }
    }
}
