//! A terminal such as people sit at: a command runs on one end, a test types and reads at the other.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::pty::openpty;

use crate::muster::eventually;

/// A terminal and what was printed on it.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    line: Arc<OwnedFd>,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Makes one of this size.
    ///
    /// # Errors
    /// When the system has none to give.
    pub fn open(rows: u16, columns: u16) -> Result<Self> {
        let pty = openpty(None, None).context("cannot make a terminal")?;
        let mut screen = File::from(pty.master.try_clone()?);
        let printed = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Arc::clone(&printed);
        // It ends when nobody has the other end any more.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut buffer) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            }
        });
        let terminal = Self { keyboard: File::from(pty.master), line: Arc::new(pty.slave), printed };
        terminal.resize(rows, columns)?;
        Ok(terminal)
    }

    pub(crate) fn line(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.line)
    }

    /// Types keys; a line ends with `\n`.
    ///
    /// # Errors
    /// When nobody takes them.
    pub fn press(&self, keys: &str) -> Result<()> {
        (&self.keyboard).write_all(keys.as_bytes()).context("cannot type")
    }

    /// Changes its size; the kernel tells the foreground processes by `SIGWINCH`.
    ///
    /// # Errors
    /// When `stty` fails.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.stty(&["rows", &rows.to_string(), "columns", &columns.to_string()]).map(drop)
    }

    /// All of its modes, as one word.
    ///
    /// # Errors
    /// When `stty` fails.
    pub fn modes(&self) -> Result<String> {
        self.stty(&["-g"])
    }

    fn stty(&self, words: &[&str]) -> Result<String> {
        let line = Stdio::from(self.line.try_clone()?);
        let output = Command::new("stty").args(words).stdin(line).output().context("cannot start stty")?;
        ensure!(output.status.success(), "stty {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What was printed so far, the echo of what was typed included.
    pub fn printed(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// Waits until this has been printed.
    ///
    /// # Errors
    /// When that takes too long, with what was printed instead.
    pub fn wait_for(&self, wanted: &str) -> Result<()> {
        eventually(|| self.printed(), |text| text.contains(wanted)).map(drop).with_context(|| format!("no {wanted:?}"))
    }
}
