//! Progress bars of several ranks on one terminal: a piece that ends in a carriage return is shown although its line is not
//! finished, and whoever writes next begins a line of its own, so that no line is of two ranks.

use std::sync::{Arc, Mutex, PoisonError};

use muster_protocol::{ProcId, Stream};

/// Whose unfinished piece one stream ends with.
#[derive(Debug, Default)]
pub(super) struct Bars {
    open: Option<ProcId>,
    terminal: Terminal,
}

/// What the two streams of one terminal know of each other: which one has left an unfinished piece there.
#[derive(Debug, Clone, Default)]
struct Terminal(Arc<Mutex<Option<Stream>>>);

impl Bars {
    /// Those of another stream that is written to the same terminal.
    pub(super) fn beside(other: &Self) -> Self {
        Self { open: None, terminal: other.terminal.clone() }
    }

    /// A rank has just given what stands in `out` from `at` on. It begins a line, unless it goes on with the rank's own piece.
    pub(super) fn given(&mut self, proc: ProcId, out: &mut Vec<u8>, at: usize) {
        if out.len() == at {
            return;
        }
        if self.open.is_some_and(|open| open != proc) {
            out.insert(at, b'\n');
        }
        self.open = (out.last() != Some(&b'\n')).then_some(proc);
    }

    /// What the stream has is about to be written; says whether a line end must come first, because of the other stream.
    pub(super) fn turn(&self, stream: Stream) -> bool {
        let mut left = self.terminal.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *left, self.open.map(|_| stream));
        before.is_some_and(|other| other != stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(bars: &mut Bars, given: &[(u32, &str)]) -> String {
        let mut out = Vec::new();
        for (proc, text) in given {
            let at = out.len();
            out.extend_from_slice(text.as_bytes());
            bars.given(ProcId(*proc), &mut out, at);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_rank_goes_on_with_its_own_piece_and_others_begin_a_line() {
        let mut bars = Bars::default();
        assert_eq!(show(&mut bars, &[(0, "1%\r"), (0, "2%\r"), (1, "hello\n")]), "1%\r2%\r\nhello\n");
        assert_eq!(show(&mut bars, &[(1, "1%\r"), (0, ""), (1, "2%\n"), (0, "3%\r")]), "1%\r2%\n3%\r");
    }

    #[test]
    fn two_streams_of_one_terminal_end_each_others_pieces() {
        let mut err = Bars::default();
        let mut out = Bars::beside(&err);
        show(&mut err, &[(0, "1%\r")]);
        assert!(!err.turn(Stream::Stderr), "nobody was there before");
        assert!(!err.turn(Stream::Stderr), "it goes on with its own");
        show(&mut out, &[(0, "line\n")]);
        assert!(out.turn(Stream::Stdout));
        assert!(!err.turn(Stream::Stderr) && out.turn(Stream::Stdout));
    }
}
