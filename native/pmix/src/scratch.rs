//! Folders of the job, which are removed when the agent is gone, whatever the library does then.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use crate::process;

/// The folders. Agents that end in order remove them themselves.
#[derive(Debug, Default)]
pub struct Scratch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    folders: Vec<String>,
    /// The agent is gone: whatever is named is removed.
    gone: bool,
}

impl State {
    fn remove(&self) {
        for folder in &self.folders {
            // Who is gone can be told nothing, and there is nobody else.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Scratch {
    /// These are the folders. An agent may be gone before its first message is read.
    pub fn set(&self, folders: Vec<String>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.folders = folders;
        if state.gone {
            state.remove();
        }
    }

    /// The agent is gone: removes them with everything in them, one thread at a time.
    pub fn remove(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.gone = true;
        state.remove();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_with_the_agent_whichever_is_known_first() {
        for gone_first in [false, true] {
            let top = tempfile::tempdir().expect("a folder");
            let folder = top.path().join("scratch");
            std::fs::create_dir_all(folder.join("inside")).expect("made");
            let scratch = Scratch::default();
            if gone_first {
                scratch.remove();
            }
            scratch.set(vec![folder.to_string_lossy().into_owned()]);
            assert_eq!(folder.exists(), !gone_first);
            scratch.remove();
            assert!(!folder.exists());
        }
    }
}
