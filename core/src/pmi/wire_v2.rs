//! PMI-2: six characters of decimal length, then `key=value;` pairs, each ended by its semicolon.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{Fields, WireError, shown};

/// Characters of the length before every message.
pub(super) const LENGTH_BYTES: usize = 6;

/// The length; MPICH fills with blanks on the left, Slurm on the right.
pub(super) fn length(head: &[u8]) -> Option<usize> {
    let digits = head.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The fields of one message. A doubled semicolon in a value stands for one.
pub(super) fn fields(body: &Bytes) -> Result<Fields, WireError> {
    if !body.starts_with(b"cmd=") {
        return Err(WireError::NoCommand { start: shown(body) });
    }
    let mut fields = Fields::default();
    let mut at = 0;
    while at < body.len() {
        let key_len = body[at..].iter().position(|b| *b == b'=' || *b == b';').unwrap_or(body.len() - at);
        let key = body.slice(at..at + key_len);
        at += key_len;
        let value = if body.get(at) == Some(&b'=') {
            let (value, used) = value(body, at + 1);
            at += 1 + used;
            value
        } else {
            at += 1;
            Bytes::new()
        };
        let key = body.slice_ref(key.trim_ascii());
        if !key.is_empty() {
            fields.push(key, value)?;
        }
    }
    Ok(fields)
}

/// The value at `start` and how many bytes it takes with its terminator.
fn value(body: &Bytes, start: usize) -> (Bytes, usize) {
    let rest = &body[start..];
    let mut unescaped: Option<BytesMut> = None;
    let mut from = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at] != b';' {
            at += 1;
        } else if rest.get(at + 1) == Some(&b';') {
            let whole = unescaped.get_or_insert_with(BytesMut::new);
            whole.put_slice(&rest[from..=at]);
            at += 2;
            from = at;
        } else {
            break;
        }
    }
    let value = match unescaped {
        Some(mut whole) => {
            whole.put_slice(&rest[from..at]);
            whole.freeze()
        }
        None => body.slice(start..start + at),
    };
    (value, (at + 1).min(rest.len()))
}
