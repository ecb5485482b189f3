//! Every option, once: the parser, the environment forms, the configuration file and `--help` read this table.

/// How every environment form begins.
pub(super) const ENV_PREFIX: &str = "MUSTER_OPT_";

/// Which option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Id {
    Np,
    Ppn,
    Placement,
    Oversubscribe,
    Wdir,
    Umask,
    Rlimit,
    Bootstrap,
    PmixLib,
    OnFailure,
    MaxRestarts,
    ConfigFile,
    Hosts,
    Hostfile,
    Local,
    Radix,
    Job,
    KeyFile,
    Port,
    Listen,
    ConnectTimeout,
    Export,
    Genv,
    GenvList,
    GenvAll,
    GenvNone,
    Env,
    EnvList,
    EnvAll,
    EnvNone,
    UnsetEnv,
    Label,
    OutputDir,
    Stdin,
    Events,
    TerminationMessage,
    TrainerStatus,
    Log,
    Verbose,
    Timeout,
    Grace,
    Config,
    Json,
    Help,
    Version,
}

/// What follows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing (or `=true`, `=false`).
    Switch,
    /// One value.
    Value(&'static str),
    /// `NAME VALUE` or `NAME=VALUE`.
    Pair,
    /// A number that may be left out.
    Number(&'static str),
}

/// One option.
#[derive(Debug)]
pub(super) struct Opt {
    pub(super) id: Id,
    /// Names without dashes; the first gives the environment form and the configuration key. One letter goes with one dash,
    /// more letters with one or two.
    pub(super) names: &'static [&'static str],
    pub(super) takes: Takes,
    /// Whether it has an environment form and a configuration key.
    pub(super) everywhere: bool,
    pub(super) help: &'static str,
}

impl Opt {
    /// The first name.
    pub(super) fn key(&self) -> &'static str {
        self.names[0]
    }

    /// The environment form.
    pub(super) fn env_name(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key().to_ascii_uppercase().replace('-', "_"))
    }
}

const fn opt(id: Id, names: &'static [&'static str], takes: Takes, help: &'static str) -> Opt {
    Opt { id, names, takes, everywhere: true, help }
}

const fn typed_only(id: Id, names: &'static [&'static str], takes: Takes, help: &'static str) -> Opt {
    Opt { id, names, takes, everywhere: false, help }
}

use Takes::{Number, Pair, Switch, Value};

/// All options by section, in the order of `--help`.
pub(super) const SECTIONS: &[(&str, &[Opt])] = &[
    ("Programs and ranks", RANKS),
    ("Hosts", HOSTS),
    ("Reaching the agents", AGENTS),
    ("Environment of the ranks", ENVIRONMENT),
    ("Input and output", OUTPUT),
    ("Time", TIME),
    ("Other", OTHER),
];

const RANKS: &[Opt] = &[
    opt(
        Id::Np,
        &["np", "n"],
        Value("N"),
        "Ranks of this program. Default: all slots (of several programs, one may go without).",
    ),
    opt(Id::Ppn, &["ppn", "perhost"], Value("K"), "Ranks per host, in place of the hosts' own slots."),
    opt(
        Id::Placement,
        &["placement"],
        Value("ORDER"),
        "block fills one host, then the next; cyclic gives one rank to each host in turn; seq gives one rank to each line of \
         the host file. Default: block. For muster exec: strict makes it an error when the command leaves a host unused.",
    ),
    opt(
        Id::Oversubscribe,
        &["oversubscribe"],
        Switch,
        "Allow more ranks than slots (never more than a host's max_slots). Default: refuse.",
    ),
    opt(
        Id::Wdir,
        &["wdir", "wd"],
        Value("DIR"),
        "Working directory of this program's ranks. Default: the agent's own.",
    ),
    opt(
        Id::Rlimit,
        &["rlimit"],
        Value("LIMITS"),
        "Resource limits of the ranks, as in nofile=65536,core=0,memlock=unlimited; NAME=SOFT:HARD sets two. Names: as, core, \
         cpu, data, fsize, memlock, nofile, nproc, stack. Bytes, seconds or numbers as in setrlimit(2). Default: the agent's own.",
    ),
    opt(Id::Umask, &["umask"], Value("MASK"), "File mode mask of the ranks, octal. Default: the agent's own."),
    opt(
        Id::Bootstrap,
        &["bootstrap"],
        Value("HOW"),
        "How this program's ranks find each other: pmi serves PMI-1 and PMI-2 (MPICH, Intel MPI, MVAPICH) and pmix PMIx (Open MPI 4 \
         and 5), and both insist that it is used; auto takes what the program links, as far as it is on this machine, else what the \
         other programs have, else pmi without insisting; none sets the MUSTER_ variables only. Programs of different bootstraps \
         form worlds of their own. Default: auto.",
    ),
    opt(
        Id::PmixLib,
        &["pmix-lib"],
        Value("FILE"),
        "With PMIx: the library (libpmix.so.2, 3.1 or newer) that all hosts use. Default: the one beside the agent, else the one that \
         the loader finds.",
    ),
    opt(
        Id::OnFailure,
        &["on-failure"],
        Value("WHAT"),
        "When a rank or a host fails: end ends the job; continue tells the others, by PMIx, and counts on them to go on (Open MPI 5 with \
         ULFM, or programs without a bootstrap): the job ends with the survivors' status. Default: end.",
    ),
    opt(
        Id::MaxRestarts,
        &["max-restarts"],
        Value("R"),
        "Restarts after a failure. muster run knows 0 only in this release; muster exec starts its command again. Default: 0.",
    ),
    typed_only(
        Id::ConfigFile,
        &["configfile"],
        Value("FILE"),
        "Read the rest of the command line from FILE: one program on each line (a line end stands for ':'), a backslash at \
         the end continues a line, # starts a comment.",
    ),
];

const HOSTS: &[Opt] = &[
    opt(
        Id::Hosts,
        &["hosts", "H", "host", "hostlist", "machine", "machines", "machinelist"],
        Value("LIST"),
        "Hosts as NAME[:SLOTS][@PORT],… with IPv6 addresses in brackets. A host without SLOTS has 1, a repeated host adds up.",
    ),
    opt(
        Id::Hostfile,
        &["hostfile", "f", "machinefile"],
        Value("FILE"),
        "Hosts from a file, one on each line: NAME, NAME:SLOTS or NAME slots=N max_slots=N port=P; # starts a comment. \
         Default: /etc/mpi/hostfile when it exists, else this machine.",
    ),
    opt(
        Id::Local,
        &["local"],
        Number("K"),
        "Run on this machine, with K embedded agents that share its cores. Default of K: 1.",
    ),
    opt(Id::Radix, &["radix"], Value("K"), "Children of one node of the tree of agents, 2 to 1024. Default: 32."),
];

const AGENTS: &[Opt] = &[
    opt(
        Id::KeyFile,
        &["key-file"],
        Value("FILE"),
        "Secret that launcher and agents share (any file). Default: id_rsa in ~/.ssh, /root/.ssh or /home/mpiuser/.ssh.",
    ),
    opt(Id::Job, &["job"], Value("NAME"), "Name of the job; agents started for another one refuse. Default: default."),
    opt(Id::Port, &["port"], Value("P"), "Port of the agents. Default: Port of the ssh configuration, else 2222."),
    opt(
        Id::Listen,
        &["listen"],
        Value("ADDR"),
        "Also let agents join at IP:PORT or :PORT. Default: the launcher only dials.",
    ),
    opt(
        Id::ConnectTimeout,
        &["connect-timeout"],
        Value("T"),
        "Time until every host must have been reached; names and ports are tried again until then. Default: 5m. \
         For muster hosts, on the command line only: time for a host to answer in, by default 5s.",
    ),
];

const ENVIRONMENT: &[Opt] = &[
    opt(
        Id::Export,
        &["export", "x"],
        Value("VAR[=VALUE]"),
        "Set VAR for all ranks, or take the launcher's value along. In MUSTER_OPT_EXPORT: a list with commas. Without this, \
         ranks have the environment of their agent, not that of the launcher.",
    ),
    opt(Id::UnsetEnv, &["unset-env"], Value("VAR"), "Take VAR out of the agent's environment for all ranks."),
    typed_only(Id::Genv, &["genv"], Pair, "Set a variable for all ranks."),
    typed_only(
        Id::GenvList,
        &["genvlist"],
        Value("A,B,…"),
        "Take these variables of the launcher along for all ranks.",
    ),
    typed_only(
        Id::GenvAll,
        &["genvall"],
        Switch,
        "Take all variables of the launcher along, but those that belong to one machine (PATH, LD_LIBRARY_PATH, HOME, \
         HOSTNAME, NVIDIA_*, KUBERNETES_*, …) and those of an outer launcher.",
    ),
    typed_only(Id::GenvNone, &["genvnone"], Switch, "Take no variable of the launcher along (this is the default)."),
    typed_only(Id::Env, &["env"], Pair, "Set a variable for this program's ranks."),
    typed_only(Id::EnvList, &["envlist"], Value("A,B,…"), "Take these variables along for this program's ranks."),
    typed_only(Id::EnvAll, &["envall"], Switch, "As -genvall, for this program's ranks."),
    typed_only(Id::EnvNone, &["envnone"], Switch, "Undo -genvall for this program's ranks."),
];

const OUTPUT: &[Opt] = &[
    opt(Id::Label, &["label", "l", "prepend-rank"], Switch, "Start every line of output with [rank]."),
    opt(
        Id::OutputDir,
        &["output-dir"],
        Value("DIR"),
        "Also write one file for every rank and stream into DIR; files of an earlier run are emptied.",
    ),
    opt(
        Id::Stdin,
        &["stdin"],
        Value("WHO"),
        "Who reads standard input: a rank (of the first world), all or none. Default: 0.",
    ),
    opt(Id::Events, &["events"], Value("FILE"), "Write what happens to FILE, one JSON object on each line."),
    opt(
        Id::TerminationMessage,
        &["termination-message"],
        Value("FILE"),
        "When the job fails, write to FILE why, as one JSON object of 4096 bytes at most. Default: /dev/termination-log, where a \
         container has it and nobody has written to it.",
    ),
    opt(
        Id::TrainerStatus,
        &["trainer-status"],
        Switch,
        "Tell Kubeflow Trainer how the job goes, when its variables KUBEFLOW_TRAINER_SERVER_* are set. Default: true; \
         --trainer-status=false for programs that do so themselves.",
    ),
    opt(
        Id::Log,
        &["log"],
        Value("LEVEL"),
        "Messages of Muster itself: error, warn, info, debug or trace. Default: warn.",
    ),
    typed_only(Id::Verbose, &["verbose", "v"], Switch, "As --log info; twice: --log debug."),
];

const TIME: &[Opt] = &[
    opt(
        Id::Timeout,
        &["timeout"],
        Value("T"),
        "End the job after this time and say which rank was missing where. Default: none.",
    ),
    opt(
        Id::Grace,
        &["grace"],
        Value("T"),
        "Time between the polite signal and SIGKILL; after MPI_Abort 200ms at most. Default: 5s.",
    ),
];

const OTHER: &[Opt] = &[
    typed_only(
        Id::Config,
        &["config"],
        Value("FILE"),
        "TOML file with options under their long names, such as timeout = \"10m\". MUSTER_OPT_CONFIG names one, too.",
    ),
    typed_only(Id::Json, &["json"], Switch, "Print the plan as JSON (muster plan only)."),
    typed_only(Id::Help, &["help", "h"], Switch, "Print this."),
    typed_only(Id::Version, &["version", "V", "info"], Switch, "Print the release."),
];

/// Options that people know from elsewhere and that are not here, with what to do about it.
const KNOWN_ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["bind-to", "binding", "map-by", "membind", "cpu-bind"],
        "binding ranks to hardware is not in this release; leave it out",
    ),
    (
        &["launcher", "bootstrap-exec", "launcher-exec", "rmk", "enable-x", "disable-x"],
        "agents start the ranks, there is no launcher to choose; leave it out",
    ),
    (
        &["mca", "gmca", "pmixmca", "prtemca"],
        "parameters of Open MPI's mpirun have no meaning here; set the variable with -x",
    ),
    (&["rankmap"], "write the hosts in rank order into a host file and use --placement seq"),
    (&["iface"], "choose the interface by the MPI's own variable, such as -x FI_TCP_IFACE=eth0"),
    (&["orphan-hold", "spares", "hosts-min", "hosts-max"], "recovery is not in this release; leave it out"),
];

/// All options.
pub(super) fn all() -> impl Iterator<Item = &'static Opt> {
    SECTIONS.iter().flat_map(|(_, opts)| opts.iter())
}

/// The option with this name, as typed with its dashes.
pub(super) fn by_flag(flag: &str) -> Option<&'static Opt> {
    let (name, dashes) = match flag.strip_prefix("--") {
        Some(name) => (name, 2),
        None => (flag.strip_prefix('-')?, 1),
    };
    all().find(|o| o.names.contains(&name)).filter(|_| name.len() > 1 || dashes == 1)
}

/// The option with this configuration key; `_` stands for `-`, too.
pub(super) fn by_key(key: &str) -> Option<&'static Opt> {
    let key = key.replace('_', "-");
    all().find(|o| o.everywhere && o.key() == key)
}

/// The option with this id.
pub(super) fn by_id(id: Id) -> &'static Opt {
    all().find(|o| o.id == id).expect("every id stands in the table, as a test checks")
}

/// What to do about an option that people know from elsewhere.
pub(super) fn elsewhere(flag: &str) -> Option<&'static str> {
    let name = flag.trim_start_matches('-');
    KNOWN_ELSEWHERE.iter().find(|(names, _)| names.contains(&name)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_option_is_described() {
        let mut seen = HashSet::new();
        for option in all() {
            for name in option.names {
                assert!(seen.insert(*name), "{name} is there twice");
            }
            assert!(option.help.ends_with('.'), "{:?}", option.id);
            assert!(std::ptr::eq(by_id(option.id), option), "{:?} has two entries", option.id);
            assert!(option.key().len() > 1, "the first name gives the environment form and must say something");
        }
        for (names, _) in KNOWN_ELSEWHERE {
            assert!(names.iter().all(|name| !seen.contains(name)));
        }
    }

    #[test]
    fn long_names_go_with_one_dash_and_short_ones_only_with_one() {
        assert_eq!(by_flag("-hostfile").map(|o| o.id), Some(Id::Hostfile));
        assert_eq!(by_flag("--hostfile").map(|o| o.id), Some(Id::Hostfile));
        assert_eq!(by_flag("-f").map(|o| o.id), Some(Id::Hostfile));
        assert!(by_flag("--f").is_none());
        assert!(by_flag("f").is_none());
        assert_eq!(by_id(Id::KeyFile).env_name(), "MUSTER_OPT_KEY_FILE");
        assert_eq!(by_key("connect_timeout").map(|o| o.id), Some(Id::ConnectTimeout));
    }
}
