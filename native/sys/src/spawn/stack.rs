//! The stack on which a new process runs until it executes its program.

use std::io;
use std::ptr::NonNull;

/// Enough for the child's few frames in a debug build and for the C library's own.
const STACK_BYTES: usize = 64 << 10;
/// At least one page on every architecture's largest page size.
const GUARD_BYTES: usize = 64 << 10;

/// A mapping with a guard below it; pages are only taken when touched.
#[derive(Debug)]
pub(super) struct Stack {
    base: NonNull<libc::c_void>,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Stack {}

impl Stack {
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let bytes = GUARD_BYTES + STACK_BYTES;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let this = Self { base };
        // SAFETY: the range is the upper part of the mapping above.
        let rc = unsafe {
            libc::mprotect(base.as_ptr().byte_add(GUARD_BYTES), STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE)
        };
        if rc != 0 { Err(io::Error::last_os_error()) } else { Ok(this) }
    }

    /// The address to start at: stacks grow down. Page alignment is more than any architecture wants.
    pub(super) fn top(&mut self) -> *mut libc::c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.as_ptr().byte_add(GUARD_BYTES + STACK_BYTES) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length and nothing points into it any more.
        unsafe { libc::munmap(self.base.as_ptr(), GUARD_BYTES + STACK_BYTES) };
    }
}
