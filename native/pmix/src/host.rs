//! Where upcalls leave what they have to say, since they must neither wait nor answer by themselves.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use muster_protocol::limits::PMIX_QUEUE_MESSAGES_MAX;
use muster_protocol::pmix::FromPmix;

use crate::abi::{InfoDone, LookupDone, ModexDone, OpDone, SpawnDone, Status, status};
use crate::operations::Operations;

/// What the library wants to have back with the end of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub *mut c_void);

// SAFETY: it is never followed, only handed back to the library, which allows that from any thread.
unsafe impl Send for Mark {}

/// Whom to call when an operation has ended.
#[derive(Debug, Clone, Copy)]
pub enum Waiting {
    /// One without a result.
    Op(OpDone, Mark),
    /// A fence or a direct modex.
    Modex(ModexDone, Mark),
    /// A look-up.
    Lookup(LookupDone, Mark),
    /// A spawn.
    Spawn(SpawnDone, Mark),
    /// A group operation.
    Info(InfoDone, Mark),
}

/// What the writer does next.
#[derive(Debug)]
pub enum Out {
    /// Say this to the agent.
    Say(FromPmix),
    /// End an operation that could not be taken. Not possible where that was found out, in the library's own thread.
    Refuse(Waiting),
    /// Write nothing more.
    End,
}

/// The one of this process: upcalls are told nothing by which they could find another.
static HOST: OnceLock<Host> = OnceLock::new();

/// The way from the library to the agent.
#[derive(Debug)]
pub struct Host {
    outbox: Sender<Out>,
    /// Messages in it. A channel that is bounded by itself would take the memory of a full one from the beginning.
    queued: AtomicUsize,
    operations: Mutex<Operations<Waiting>>,
    /// Whether the library is still there to be answered.
    serving: Mutex<bool>,
}

impl Host {
    /// Makes the one of this process, with what the writer reads from; only the first time.
    pub fn install() -> Option<(&'static Self, Receiver<Out>)> {
        let (outbox, inbox) = channel();
        let operations = Mutex::new(Operations::new());
        HOST.set(Self { outbox, queued: AtomicUsize::new(0), operations, serving: Mutex::new(true) }).ok()?;
        Some((HOST.get()?, inbox))
    }

    /// The one of this process, once there is one.
    pub fn get() -> Option<&'static Self> {
        HOST.get()
    }

    /// Keeps an operation and tells the agent of it. What is returned is the upcall's answer.
    pub fn ask(&self, waiting: Waiting, message: impl FnOnce(u64) -> FromPmix) -> Status {
        let Ok(token) = self.operations().keep(waiting) else { return status::OUT_OF_RESOURCE };
        if self.send(Out::Say(message(token))) {
            return status::SUCCESS;
        }
        self.operations().take(token);
        status::OUT_OF_RESOURCE
    }

    /// As [`Self::ask`], for upcalls that cannot say no: an operation that is not taken ends all the same, a little later.
    pub fn ask_surely(&self, waiting: Waiting, message: impl FnOnce(u64) -> FromPmix) {
        if self.ask(waiting, message) != status::SUCCESS {
            self.put(Out::Refuse(waiting));
        }
    }

    /// Tells the agent something.
    pub fn tell(&self, message: FromPmix) {
        self.put(Out::Say(message));
    }

    /// Lets the writer end when everything is written.
    pub fn close(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        // A writer that has ended needs no word.
        let _ = self.outbox.send(Out::End);
    }

    /// The writer has taken one.
    pub fn taken(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// The operation with this number.
    pub fn take(&self, token: u64) -> Option<Waiting> {
        self.operations().take(token)
    }

    /// Answers the library from another thread than the one that ends it; not once that has begun.
    pub fn answer_library(&self, answer: impl FnOnce()) {
        let runs = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if *runs {
            answer();
        }
    }

    /// From here on nothing is answered: the library is about to end.
    pub fn leave_library(&self) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    fn put(&self, out: Out) {
        if !self.send(out) {
            // What cannot be kept cannot be lost either: a rank that has failed would go unnoticed. The agent sees this process
            // end.
            crate::process::die("the agent has not read for so long that too much waits for it");
        }
    }

    /// Whether there was room.
    fn send(&self, out: Out) -> bool {
        if self.queued.fetch_add(1, Ordering::Relaxed) >= PMIX_QUEUE_MESSAGES_MAX {
            self.taken();
            return false;
        }
        // Without a writer there is no agent any more, and this process is about to end.
        let _ = self.outbox.send(out);
        true
    }

    fn operations(&self) -> std::sync::MutexGuard<'_, Operations<Waiting>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
