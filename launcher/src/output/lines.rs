//! Bytes of one stream to whole lines.

use memchr::{memchr, memrchr};
use muster_protocol::limits::LINE_BYTES_MAX;

/// What has been read of a stream's last, unfinished line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Gives whole lines to `out`, each with `label` before it, and keeps the rest. A line over the limit goes in pieces.
    pub(super) fn feed(&mut self, bytes: &[u8], label: Option<&[u8]>, out: &mut Vec<u8>) {
        let whole = memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        let (whole, rest) = bytes.split_at(whole);
        if !whole.is_empty() {
            let first = memchr(b'\n', whole).map_or(whole.len(), |at| at + 1);
            if !self.partial.is_empty() {
                out.extend_from_slice(label.unwrap_or_default());
                out.append(&mut self.partial);
                out.extend_from_slice(&whole[..first]);
                copy(&whole[first..], label, out);
            } else {
                copy(whole, label, out);
            }
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > LINE_BYTES_MAX {
            self.flush(label, out);
        }
    }

    /// Gives of the unfinished line what a carriage return ends, for a terminal: there it will be written over. Each piece has the
    /// label, which would be written over as well.
    pub(super) fn release(&mut self, label: Option<&[u8]>, out: &mut Vec<u8>) {
        let Some(last) = memrchr(b'\r', &self.partial) else { return };
        for piece in self.partial[..=last].split_inclusive(|byte| *byte == b'\r') {
            out.extend_from_slice(label.unwrap_or_default());
            out.extend_from_slice(piece);
        }
        self.partial.drain(..=last);
    }

    /// Gives what there is, for the end of the stream. A label makes it a line, so that the next label begins one.
    pub(super) fn flush(&mut self, label: Option<&[u8]>, out: &mut Vec<u8>) {
        if self.partial.is_empty() {
            return;
        }
        out.extend_from_slice(label.unwrap_or_default());
        out.append(&mut self.partial);
        if label.is_some() {
            out.push(b'\n');
        }
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }
}

fn copy(mut lines: &[u8], label: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(label) = label else {
        out.extend_from_slice(lines);
        return;
    };
    while !lines.is_empty() {
        let end = memchr(b'\n', lines).map_or(lines.len(), |at| at + 1);
        out.extend_from_slice(label);
        out.extend_from_slice(&lines[..end]);
        lines = &lines[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(pieces: &[&str], label: Option<&[u8]>) -> (String, String) {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece.as_bytes(), label, &mut out);
        }
        let whole = String::from_utf8(out.clone()).unwrap();
        out.clear();
        lines.flush(label, &mut out);
        assert!(lines.is_empty());
        (whole, String::from_utf8(out).unwrap())
    }

    #[test]
    fn lines_are_given_whole_and_the_rest_is_kept() {
        let kept = ("a\nbc\nd\n".to_owned(), "e".to_owned());
        assert_eq!(feed(&["a\nb", "c\nd", "\ne"], None), kept);
        let labelled = ("[0] a\n[0] bc\n[0] d\n".to_owned(), "[0] e\n".to_owned());
        assert_eq!(feed(&["a\nb", "c\nd", "\ne"], Some(b"[0] ")), labelled);
        assert_eq!(feed(&["\n\n"], Some(b"[1] ")), ("[1] \n[1] \n".to_owned(), String::new()));
    }

    #[test]
    fn what_a_carriage_return_ends_is_released_piece_by_piece() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in ["a\n1%\r2", "5%", "\r3%", "\n4%"] {
            lines.feed(piece.as_bytes(), Some(b"[0] "), &mut out);
            lines.release(Some(b"[0] "), &mut out);
        }
        assert_eq!(String::from_utf8(out).unwrap(), "[0] a\n[0] 1%\r[0] 25%\r[0] 3%\n");
        assert_eq!(lines.partial, b"4%");
    }

    #[test]
    fn a_line_over_the_limit_goes_in_pieces() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let (out, rest) = feed(&[&long, "y\n"], None);
        assert_eq!((out.len(), rest), (LINE_BYTES_MAX + 3, String::new()));
    }
}
