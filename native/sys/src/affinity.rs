//! Which cores a thread may run on.

use std::io;

/// Highest core number that can be asked for, exclusive; the kernel's own configurations stop below it.
pub const CORES_MAX: u32 = 8_192;

const WORD_BITS: u32 = u64::BITS;
const WORDS: usize = (CORES_MAX / WORD_BITS) as usize;

/// A set of cores in the form that the kernel reads.
#[derive(Clone, PartialEq, Eq)]
pub struct CoreMask {
    words: Box<[u64; WORDS]>,
}

impl CoreMask {
    /// The mask of these cores; none when one is out of range or the list is empty.
    pub fn new(cores: &[u32]) -> Option<Self> {
        let mut words = Box::new([0u64; WORDS]);
        for &core in cores {
            if core >= CORES_MAX {
                return None;
            }
            words[(core / WORD_BITS) as usize] |= 1 << (core % WORD_BITS);
        }
        (!cores.is_empty()).then_some(Self { words })
    }

    /// The cores in ascending order.
    pub fn cores(&self) -> Vec<u32> {
        (0..CORES_MAX).filter(|c| self.words[(c / WORD_BITS) as usize] & (1 << (c % WORD_BITS)) != 0).collect()
    }

    /// Applies the mask to the calling thread. Async-signal-safe.
    pub(crate) fn apply(&self) -> io::Result<()> {
        // SAFETY: the kernel reads `size_of_val(words)` bytes, which the box holds; pid 0 is the calling thread.
        let rc = unsafe { libc::sched_setaffinity(0, size_of_val(&*self.words), self.words.as_ptr().cast()) };
        if rc != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The cores that the calling thread may run on, ascending.
pub fn get() -> io::Result<Vec<u32>> {
    let mut words = Box::new([0u64; WORDS]);
    // SAFETY: the kernel writes at most `size_of_val(words)` bytes into the box; pid 0 is the calling thread.
    let rc = unsafe { libc::sched_getaffinity(0, size_of_val(&*words), words.as_mut_ptr().cast()) };
    if rc != 0 { Err(io::Error::last_os_error()) } else { Ok(CoreMask { words }.cores()) }
}

/// Binds the calling thread to these cores.
pub fn set(cores: &[u32]) -> io::Result<()> {
    CoreMask::new(cores).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?.apply()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_hold_what_they_were_given() {
        assert_eq!(CoreMask::new(&[5, 64, 0, 8_191]).unwrap().cores(), [0, 5, 64, 8_191]);
        assert!(CoreMask::new(&[8_192]).is_none());
        assert!(CoreMask::new(&[]).is_none());
    }

    #[test]
    fn a_thread_can_be_bound() {
        std::thread::spawn(|| {
            let first = get().unwrap()[0];
            set(&[first]).unwrap();
            assert_eq!(get().unwrap(), [first]);
        })
        .join()
        .unwrap();
    }
}
