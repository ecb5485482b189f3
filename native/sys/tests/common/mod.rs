//! A small way to start a program through the spawner.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use muster_sys::limits::ResourceLimit;
use muster_sys::spawn::{SpawnError, SpawnOrder, Spawned, Spawner};

/// What to run; everything else is as little as possible.
#[derive(Default)]
pub(crate) struct Run<'a> {
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: Option<&'a Path>,
    pub(crate) extra: Option<(BorrowedFd<'a>, i32)>,
    pub(crate) cpus: Option<&'a [u32]>,
    pub(crate) limits: &'a [ResourceLimit],
    pub(crate) umask: Option<u32>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(argv: &[&str]) -> Self {
        let path = (OsString::from("PATH"), OsString::from("/usr/bin:/bin"));
        Self { argv: argv.iter().map(OsString::from).collect(), env: vec![path], ..Self::default() }
    }

    pub(crate) fn sh(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// Starts it with its output going to `out`.
    pub(crate) fn start(&self, spawner: &mut Spawner, out: BorrowedFd<'_>) -> Result<Spawned, SpawnError> {
        let null = File::open("/dev/null").unwrap();
        let env: Vec<_> = self.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())).collect();
        spawner.spawn(&SpawnOrder {
            argv: &self.argv,
            env: &env,
            cwd: self.cwd,
            stdin: null.as_fd(),
            stdout: out,
            stderr: out,
            extra: self.extra,
            cpus: self.cpus,
            limits: self.limits,
            umask: self.umask,
            terminal: false,
        })
    }
}
