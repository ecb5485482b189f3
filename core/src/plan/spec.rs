//! What the user asks for, as plain data: the command line's result and the planner's input.

use std::fmt;

use muster_protocol::limits::{FENCE_LEASE_MS, KILL_GRACE_MS, TREE_RADIX_DEFAULT};
use serde::Serialize;

/// Job id on both sides when nobody names one.
pub const DEFAULT_JOB: &str = "default";

/// One job, complete and with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobSpec {
    /// Name that launcher and agents must agree on.
    pub job: String,
    /// The programs, in rank order: the first one's ranks come first.
    pub apps: Vec<AppSpec>,
    /// How ranks go to hosts.
    pub placement: Placement,
    /// Ranks per host in place of the hosts' own slots.
    pub ppn: Option<u32>,
    /// Whether hosts may get more ranks than they have slots (never more than `max_slots`).
    pub oversubscribe: bool,
    /// What the failure of a rank or a host means for the others.
    pub on_failure: OnFailure,
    /// The only PMIx library that hosts may use.
    pub pmix_library: Option<String>,
    /// Who reads the launcher's standard input.
    pub stdin: StdinTarget,
    /// Where output goes and how it looks.
    pub output: OutputSpec,
    /// Time the whole job may take, in milliseconds; none: no limit.
    pub timeout_ms: Option<u64>,
    /// Time between the polite and the hard kill, in milliseconds.
    pub grace_ms: u64,
    /// Time until all hosts must have been reached, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time that ranks may live without hearing from the root, in milliseconds.
    pub lease_ms: u64,
    /// File mode mask of the ranks; none: the agent's own.
    pub umask: Option<u32>,
    /// Resource limits of the ranks; the others are the agent's own.
    pub rlimits: Vec<LimitSpec>,
    /// Children of one node of the tree.
    pub radix: u32,
}

/// A limit on a resource of every rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitSpec {
    /// Its name as in `limits.conf`.
    pub resource: String,
    /// What applies; the largest number: no limit.
    pub soft: u64,
    /// How far a rank may raise it; the largest number: no limit.
    pub hard: u64,
}

/// One program of a job and the ranks that run it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AppSpec {
    /// Program and arguments; the program is searched in the rank's `PATH` unless it has a slash.
    pub argv: Vec<String>,
    /// Number of ranks; none: all slots that are left, which one program of a job may ask for.
    pub n: Option<u32>,
    /// How its ranks find each other.
    pub bootstrap: Bootstrap,
    /// Working directory of the ranks; none: the agent's own.
    pub wdir: Option<String>,
    /// Variables set by the user for these ranks, later ones win. Only names are serialised: values may be secrets.
    #[serde(serialize_with = "names_only")]
    pub env: Vec<(String, String)>,
    /// Variables taken out of the worker's environment for these ranks, before `env` is set.
    pub env_unset: Vec<String>,
}

fn names_only<S: serde::Serializer>(env: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(env.iter().map(|(name, _)| name))
}

impl AppSpec {
    /// The program's name as typed, for messages.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

/// How ranks go to hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Fill the slots of one host, then of the next.
    #[default]
    Block,
    /// One rank to each host in turn.
    Cyclic,
    /// One rank to each line of the host file, in its order.
    Seq,
}

/// What the failure of a rank or a host means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The job ends.
    #[default]
    End,
    /// They are told and go on.
    Continue,
}

/// How ranks find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bootstrap {
    /// Whatever the program needs; when nothing tells, this offers PMI and accepts that nobody asks for it.
    #[default]
    Auto,
    /// PMI-1 and PMI-2, and a rank that never uses it is an error.
    Pmi,
    /// PMIx, and a rank that never uses it is an error.
    Pmix,
    /// Nothing but the `MUSTER_*` variables.
    None,
}

impl Bootstrap {
    /// Whether ranks get a PMI socket and its variables.
    pub fn serves_pmi(self) -> bool {
        matches!(self, Self::Auto | Self::Pmi)
    }
}

/// Who reads the launcher's standard input; all others read end of file at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StdinTarget {
    /// This rank.
    Rank(u32),
    /// Every rank gets a copy.
    All,
    /// Nobody.
    None,
}

impl StdinTarget {
    /// Whether this rank of the first world reads the launcher's standard input.
    pub fn includes(self, rank: u32) -> bool {
        match self {
            Self::Rank(one) => one == rank,
            Self::All => true,
            Self::None => false,
        }
    }
}

impl Default for StdinTarget {
    fn default() -> Self {
        Self::Rank(0)
    }
}

/// Where output goes and how it looks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct OutputSpec {
    /// Whether every line starts with `[rank] `.
    pub label: bool,
    /// Directory that gets one file for every rank and stream, besides the terminal; none: the terminal only.
    pub dir: Option<String>,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            job: DEFAULT_JOB.to_owned(),
            apps: Vec::new(),
            placement: Placement::default(),
            ppn: None,
            oversubscribe: false,
            on_failure: OnFailure::default(),
            pmix_library: None,
            stdin: StdinTarget::default(),
            output: OutputSpec::default(),
            timeout_ms: None,
            grace_ms: KILL_GRACE_MS,
            connect_timeout_ms: Self::CONNECT_TIMEOUT_MS,
            lease_ms: FENCE_LEASE_MS,
            umask: None,
            rlimits: Vec::new(),
            radix: TREE_RADIX_DEFAULT,
        }
    }
}

impl JobSpec {
    /// Default of `connect_timeout_ms`: long enough for a worker that still pulls its image.
    pub const CONNECT_TIMEOUT_MS: u64 = 300_000;
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Cyclic => "cyclic",
            Self::Seq => "seq",
        })
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Pmi => "pmi",
            Self::Pmix => "pmix",
            Self::None => "none",
        })
    }
}
