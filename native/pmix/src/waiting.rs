//! Calls of the library that end by a callback.

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use muster_protocol::limits::PMIX_CALL_TIMEOUT_MS;

use crate::abi::{OpDone, Status, status};

/// Where a call of the library tells its end.
#[derive(Debug, Default)]
struct Ended {
    status: Mutex<Option<Status>>,
    told: Condvar,
}

extern "C" fn ended(status: Status, mark: *mut c_void) {
    // SAFETY: the mark is the pointer of `wait`, which has let go of one reference for this one call.
    let end = unsafe { Arc::from_raw(mark.cast::<Ended>()) };
    *end.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    end.told.notify_all();
}

/// A call of the library has not ended in time. What it was given must stay: it may end later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

/// Makes a call that ends by a callback, and waits for that as long as such a call may take. Not to be used in the library's own
/// thread.
///
/// # Errors
/// When that was not long enough.
pub fn wait(call: impl FnOnce(OpDone, *mut c_void) -> Status) -> Result<Status, Late> {
    wait_for(Duration::from_millis(PMIX_CALL_TIMEOUT_MS), call)
}

fn wait_for(patience: Duration, call: impl FnOnce(OpDone, *mut c_void) -> Status) -> Result<Status, Late> {
    let end = Arc::new(Ended::default());
    let mark = Arc::into_raw(Arc::clone(&end));
    let rc = call(ended, mark.cast_mut().cast());
    if rc != status::SUCCESS {
        // SAFETY: with any other answer there is no callback, so that its reference is left to us.
        drop(unsafe { Arc::from_raw(mark) });
        return Ok(rc);
    }
    let known = end.status.lock().unwrap_or_else(PoisonError::into_inner);
    let known = end.told.wait_timeout_while(known, patience, |known| known.is_none());
    let (known, _) = known.unwrap_or_else(PoisonError::into_inner);
    known.ok_or(Late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_waited_for_in_another_thread_and_a_refusal_is_not() {
        let rc = wait(|done, mark| {
            let mark = mark.expose_provenance();
            // SAFETY: the callback of `wait` with its mark, once.
            std::thread::spawn(move || unsafe { done(-18, std::ptr::with_exposed_provenance_mut(mark)) });
            status::SUCCESS
        });
        assert_eq!(rc, Ok(-18));
        assert_eq!(wait(|_, _| status::BAD_PARAM), Ok(status::BAD_PARAM));
        assert_eq!(wait(|_, _| status::OPERATION_SUCCEEDED), Ok(status::OPERATION_SUCCEEDED));
    }

    #[test]
    fn a_call_that_does_not_end_is_late_and_may_end_afterwards() {
        let mut kept = None;
        let rc = wait_for(Duration::ZERO, |done, mark| {
            kept = Some((done, mark));
            status::SUCCESS
        });
        assert_eq!(rc, Err(Late));
        let (done, mark) = kept.expect("the call was made");
        // SAFETY: the callback of `wait_for` with its mark, once.
        unsafe { done(0, mark) };
    }
}
