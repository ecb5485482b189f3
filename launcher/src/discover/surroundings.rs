//! What the launcher finds around itself, gathered once so that everything behind it can be tested.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use muster_core::surroundings::Traces;

/// Environment, file system root and size of the machine.
#[derive(Debug, Clone)]
pub struct Surroundings {
    env: BTreeMap<String, String>,
    root: PathBuf,
    cores: u32,
}

impl Surroundings {
    /// The real ones of this process. Variables that are not UTF-8 are left out: no option can be one of them.
    pub fn of_this_process() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Self::new(std::env::vars_os(), Path::new("/"), cores)
    }

    /// Made up ones.
    pub fn new(env: impl IntoIterator<Item = (OsString, OsString)>, root: &Path, cores: u32) -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self { env: env.into_iter().filter_map(text).collect(), root: root.to_owned(), cores: cores.max(1) }
    }

    /// A variable of the launcher's environment; an empty one counts as missing where options are concerned.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    /// All variables of the launcher's environment.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What tells which control plane has started this process.
    pub fn traces(&self, hostname: &str) -> Traces {
        let variables = self.vars().map(|(name, value)| (name.to_owned(), value.to_owned()));
        muster_worker_agent::traces::look(&self.root, hostname, variables)
    }

    /// Cores that this process may use.
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// A fixed path of the machine, such as an operator's mount, under the root.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The user's home, as the environment has it.
    pub(crate) fn home(&self) -> Option<&str> {
        self.var("HOME").filter(|home| !home.is_empty())
    }
}
