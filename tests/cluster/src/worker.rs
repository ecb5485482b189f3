//! A thread that lives in namespaces of its own and runs closures there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

type Job = Box<dyn FnOnce() + Send>;

/// Ends its thread, and so gives its namespaces back, when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread; `enter` is the first thing it runs, and its result is handed back.
    pub(crate) fn start<T: Send + 'static>(
        name: &str,
        enter: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<(Self, T)> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, entered) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                let result = enter();
                let go_on = result.is_ok();
                if ready.send(result).is_ok() && go_on {
                    queue.into_iter().for_each(|job| job());
                }
            })
            .with_context(|| format!("{name}: cannot start a thread"))?;
        let value = entered.recv().map_err(|_| anyhow!("{name}: its thread panicked"))??;
        Ok((Self { name: name.to_owned(), jobs: Some(jobs), thread: Some(thread) }, value))
    }

    /// Runs a closure on the thread; one at a time.
    pub(crate) fn call<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (answer, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            // The caller learns of a panic by the dropped sender; the thread goes on.
            let _ = catch_unwind(AssertUnwindSafe(|| answer.send(f())));
        });
        let jobs = self.jobs.as_ref().ok_or_else(|| anyhow!("{}: is shutting down", self.name))?;
        jobs.send(job).map_err(|_| anyhow!("{}: its thread is gone", self.name))?;
        result.recv().map_err(|_| anyhow!("{}: what was called there panicked", self.name))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported to the caller of the closure.
            let _ = thread.join();
        }
    }
}
