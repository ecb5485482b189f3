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
    fn a_line_over_the_limit_goes_in_pieces() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let (out, rest) = feed(&[&long, "y\n"], None);
        assert_eq!((out.len(), rest), (LINE_BYTES_MAX + 3, String::new()));
    }
}
