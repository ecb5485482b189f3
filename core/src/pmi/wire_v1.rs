//! PMI-1: one line of `key=value` pairs, or `mcmd=` blocks of one pair a line.

use bytes::Bytes;
use muster_protocol::limits::{PMI_MESSAGE_BYTES_MAX, PMI_MESSAGE_FIELDS_MAX};

use super::wire::{Dialect, Fields, Message, WireError, shown};

/// A field that takes the rest of its line, and the fields that may still follow it because a client wrote them late.
struct RestOfLine {
    command: &'static str,
    key: &'static str,
    late: &'static [&'static str],
}

const REST_OF_LINE: [RestOfLine; 4] = [
    RestOfLine { command: "put", key: "value", late: &["kvsname", "key"] },
    RestOfLine { command: "publish_name", key: "port", late: &["service"] },
    RestOfLine { command: "abort", key: "message", late: &["exitcode", "exit_code"] },
    RestOfLine { command: "abort", key: "error_msg", late: &["exitcode", "exit_code"] },
];

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// The fields of one line. Any run of blanks separates them; `put`'s value and its like reach to the end of the line.
///
/// Escapes are passed on as they are, for a client that reads `\ ` as a blank gets back what it wrote, and one that does
/// not know escapes does too. They only keep an escaped blank from ending a value.
pub(super) fn fields(line: &Bytes) -> Result<Fields, WireError> {
    let mut fields = Fields::default();
    let mut at = 0;
    loop {
        at += line[at..].iter().take_while(|b| blank(**b)).count();
        if at >= line.len() {
            return Ok(fields);
        }
        let key_len = line[at..].iter().position(|b| *b == b'=' || blank(*b)).unwrap_or(line.len() - at);
        let key = line.slice(at..at + key_len);
        at += key_len;
        if line.get(at) != Some(&b'=') {
            fields.push(key, Bytes::new())?;
            continue;
        }
        at += 1;
        let rest = &line[at..];
        let len = match rest_of_line(&fields, &key) {
            Some(rule) => rest_len(rest, &fields, rule),
            None => word_len(rest),
        };
        let value = line.slice(at..at + len);
        at += len;
        let empty = value.iter().all(|b| blank(*b));
        fields.push(key, if empty { Bytes::new() } else { value })?;
    }
}

fn rest_of_line(fields: &Fields, key: &[u8]) -> Option<&'static RestOfLine> {
    let command = fields.pairs().first().map_or(&[][..], |(_, name)| name);
    REST_OF_LINE.iter().find(|r| r.command.as_bytes() == command && r.key.as_bytes() == key)
}

fn word_len(rest: &[u8]) -> usize {
    let mut escaped = false;
    for (i, byte) in rest.iter().enumerate() {
        if blank(*byte) && !escaped {
            return i;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    rest.len()
}

fn rest_len(rest: &[u8], fields: &Fields, rule: &RestOfLine) -> usize {
    let mut end = rest.len();
    for key in rule.late.iter().filter(|key| fields.get(key).is_none()) {
        let late = format!(" {key}=");
        if let Some(at) = rest[..end].windows(late.len()).position(|w| w == late.as_bytes()) {
            end = at;
        }
    }
    end
}

/// The name of the command whose `mcmd=` block this line begins.
pub(super) fn mcmd_name(line: &Bytes) -> Option<Bytes> {
    let text = line.trim_ascii();
    text.strip_prefix(b"mcmd=").map(|name| line.slice_ref(name))
}

/// Collects the blocks of one `mcmd` request.
#[derive(Debug)]
pub(super) struct SpawnBlocks {
    name: Bytes,
    done: Vec<Fields>,
    open: Option<Fields>,
    total: usize,
    bytes: usize,
    count: usize,
}

impl SpawnBlocks {
    pub(super) fn begin(name: Bytes) -> Result<Self, WireError> {
        let bytes = name.len();
        let mut blocks = Self { name, done: Vec::new(), open: None, total: 1, bytes, count: 0 };
        blocks.open_block()?;
        Ok(blocks)
    }

    fn open_block(&mut self) -> Result<(), WireError> {
        let mut fields = Fields::default();
        fields.push(Bytes::from_static(b"mcmd"), self.name.clone())?;
        self.count += 1;
        self.open = Some(fields);
        Ok(())
    }

    /// Takes one line; says whether the request is whole.
    pub(super) fn take(&mut self, line: Bytes) -> Result<bool, WireError> {
        self.bytes += line.len() + 1;
        if self.bytes > PMI_MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            return Ok(false);
        }
        let Some(open) = &mut self.open else {
            if mcmd_name(&line).as_ref() != Some(&self.name) {
                return Err(self.out_of_order(shown(&line)));
            }
            return self.open_block().map(|()| false);
        };
        if text == b"endcmd" {
            return self.close();
        }
        self.count += 1;
        if self.count > PMI_MESSAGE_FIELDS_MAX {
            return Err(WireError::TooManyFields);
        }
        let start = line.len() - line.trim_ascii_start().len();
        let pair = line.slice(start..);
        match pair.iter().position(|b| *b == b'=') {
            Some(at) => open.push(pair.slice(..at), pair.slice(at + 1..))?,
            None => open.push(pair, Bytes::new())?,
        }
        Ok(false)
    }

    fn close(&mut self) -> Result<bool, WireError> {
        let block = self.open.take().unwrap_or_default();
        let expected = self.done.len() + 1;
        if expected == 1 {
            self.total = block.number("totspawns").unwrap_or(1);
        }
        let so_far = block.number::<usize>("spawnssofar").unwrap_or(expected);
        let total = block.number::<usize>("totspawns").unwrap_or(self.total);
        if so_far != expected || total != self.total || expected > self.total {
            return Err(self.out_of_order(format!("{so_far} of {total}")));
        }
        self.done.push(block);
        Ok(expected == self.total)
    }

    fn out_of_order(&self, got: String) -> WireError {
        WireError::SpawnOrder { expected: self.done.len() + 1, total: self.total, got }
    }

    pub(super) fn finish(mut self) -> Message {
        let more = self.done.split_off(1.min(self.done.len()));
        Message { dialect: Dialect::V1, fields: self.done.pop().unwrap_or_default(), more }
    }
}
