//! A small way to run a program through the spawner and read what it wrote.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use muster_sys::children::Owner;
use muster_sys::limits::ResourceLimit;
use muster_sys::pipe::pipe;
use muster_sys::reap::{Reaped, reap};
use muster_sys::spawn::{SpawnError, SpawnOrder, Spawned, Spawner};

/// What to run; everything else is as little as possible.
#[derive(Default)]
pub struct Run<'a> {
    pub argv: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub cwd: Option<&'a Path>,
    pub extra: Option<(BorrowedFd<'a>, i32)>,
    pub cpus: Option<&'a [u32]>,
    pub limits: &'a [ResourceLimit],
    pub umask: Option<u32>,
}

/// What came of it.
pub struct Ran {
    pub output: String,
    pub reaped: Reaped,
}

impl<'a> Run<'a> {
    pub fn new(argv: &[&str]) -> Self {
        let path = (OsString::from("PATH"), OsString::from("/usr/bin:/bin"));
        Self { argv: argv.iter().map(OsString::from).collect(), env: vec![path], ..Self::default() }
    }

    pub fn sh(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// Starts it with its output going to `out`.
    pub fn start(&self, spawner: &mut Spawner, out: BorrowedFd<'_>) -> Result<Spawned, SpawnError> {
        let null = File::open("/dev/null").unwrap();
        spawner.spawn(&SpawnOrder {
            argv: &self.argv,
            env: &self.env,
            cwd: self.cwd,
            stdin: null.as_fd(),
            stdout: out,
            stderr: out,
            extra: self.extra,
            cpus: self.cpus,
            limits: self.limits,
            umask: self.umask,
        })
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Ran, SpawnError> {
        let mut spawner = Spawner::new(Owner::new()).unwrap();
        let pipe = pipe().unwrap();
        let spawned = self.start(&mut spawner, pipe.write.as_fd())?;
        drop(pipe.write);
        let mut output = String::new();
        File::from(pipe.read).read_to_string(&mut output).unwrap();
        Ok(Ran { output, reaped: reap(spawned.pid).unwrap() })
    }
}
