//! Folders of the job, which are removed when the agent is gone, whatever the library does then.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use crate::process;

/// The folders. Agents that end in order remove them themselves.
#[derive(Debug, Default)]
pub struct Scratch(Mutex<Vec<String>>);

impl Scratch {
    /// These are the folders.
    pub fn set(&self, folders: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = folders;
    }

    /// Removes them with everything in them; one thread at a time.
    pub fn remove(&self) {
        let folders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for folder in &*folders {
            // Who is gone can be told nothing, and there is nobody else.
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    /// Waits in a thread of its own for the end of the agent. Then the process has this long to end, and the folders are removed: the
    /// main thread may be inside the library, or inside a file system that does not answer. It touches no environment.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn guard(self: &Arc<Self>, socket: OwnedFd, seconds: u32) -> std::io::Result<()> {
        let scratch = Arc::clone(self);
        let guard = move || {
            while !process::is_closed(socket.as_fd(), -1) {}
            process::die_after(seconds);
            scratch.remove();
        };
        std::thread::Builder::new().name("guard".to_owned()).spawn(guard).map(drop)
    }
}
