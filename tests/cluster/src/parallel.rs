//! Doing the same for many hosts, several at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// How many are done at once; the work is mostly waiting for the kernel.
const AT_ONCE: usize = 8;

/// Calls `f` for 0..count on a few threads, and returns the results in order or the first error.
pub(crate) fn in_parallel<T: Send>(count: usize, f: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<Result<T>>>>());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(count) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let result = f(index);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|result| result.context("a helper thread died")?).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn parallel_results_keep_their_order_and_errors_come_out() {
        let squares = in_parallel(50, |i| Ok(i * i)).expect("no error");
        assert_eq!(squares, (0..50).map(|i| i * i).collect::<Vec<_>>());
        let error = in_parallel(5, |i| if i == 3 { bail!("third") } else { Ok(i) });
        assert_eq!(error.expect_err("one failed").to_string(), "third");
    }
}
