//! What has come together for one write: much by reference, little copied.

use std::io::{self, IoSlice, Write};
use std::time::Duration;

use bytes::Bytes;

/// Pause when a descriptor that somebody made non-blocking takes nothing.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Bytes in the order in which they are to be written.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pieces: Vec<Bytes>,
    pieces_bytes: usize,
    /// What comes after the pieces.
    pub(super) copied: Vec<u8>,
}

impl Pending {
    /// Appends bytes without copying them.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !self.copied.is_empty() {
            self.pieces_bytes += self.copied.len();
            self.pieces.push(std::mem::take(&mut self.copied).into());
        }
        self.pieces_bytes += bytes.len();
        self.pieces.push(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.pieces_bytes + self.copied.len()
    }

    /// The last byte.
    pub(super) fn last(&self) -> Option<u8> {
        self.copied.last().or_else(|| self.pieces.last()?.last()).copied()
    }

    /// Forgets everything but keeps its memory.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.pieces_bytes = 0;
        self.copied.clear();
    }

    /// Writes everything, also to a descriptor that somebody else made non-blocking.
    pub(super) fn write_to(&self, to: &mut impl Write) -> io::Result<()> {
        let pieces = self.pieces.iter().map(|piece| &**piece).chain([&*self.copied]);
        let mut slices: Vec<IoSlice<'_>> = pieces.filter(|p| !p.is_empty()).map(IoSlice::new).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match to.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl From<Vec<u8>> for Pending {
    fn from(copied: Vec<u8>) -> Self {
        Self { copied, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, and now and then none.
    struct Reluctant {
        taken: Vec<u8>,
        step: usize,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.step += 1;
            match self.step % 4 {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                1 => Err(io::ErrorKind::Interrupted.into()),
                n => {
                    let taken = bytes.len().min(n * 3);
                    self.taken.extend_from_slice(&bytes[..taken]);
                    Ok(taken)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_written_in_order_and_then_forgotten() {
        let mut pending = Pending::default();
        pending.push(Bytes::from_static(b"first, "));
        pending.copied.extend_from_slice(b"second, ");
        pending.push(Bytes::from_static(b"a third one that is longer, "));
        pending.push(Bytes::new());
        pending.copied.extend_from_slice(b"last");
        let wanted = b"first, second, a third one that is longer, last";
        assert_eq!(pending.len(), wanted.len());
        let mut to = Reluctant { taken: Vec::new(), step: 0 };
        pending.write_to(&mut to).unwrap();
        assert_eq!(to.taken, wanted);
        pending.clear();
        assert_eq!(pending.len(), 0);
        pending.write_to(&mut to).unwrap();
        assert_eq!(to.taken, wanted);
    }

    #[test]
    fn a_descriptor_that_takes_nothing_more_is_an_error() {
        let mut pending = Pending::default();
        pending.push(Bytes::from_static(b"abc"));
        let error = pending.write_to(&mut &mut [0u8; 2][..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
