//! Messages of PMI-1 and PMI-2 out of a stream of bytes.
//!
//! Both dialects share one stream: a PMI-2 client begins with a PMI-1 line and goes on with framed messages, so every message
//! is recognised by its own beginning.

use bytes::{Buf, Bytes, BytesMut};
use muster_protocol::limits::{PMI_MESSAGE_BYTES_MAX, PMI_MESSAGE_FIELDS_MAX};

use super::wire_v1::{self, SpawnBlocks};
use super::wire_v2;

/// Bytes that are needed to tell the dialects apart.
const DETECT_BYTES: usize = 6;

/// Which of the two protocols a message was written in; the reply is written in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Lines of `key=value` pairs.
    V1,
    /// Six digits of length, then `key=value;` pairs.
    V2,
}

/// Why the stream cannot be read on. There is no way to find the next message after one of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Neither a PMI-1 line nor a PMI-2 length.
    #[error("not a PMI message: it begins with {start:?}")]
    Start {
        /// The first bytes.
        start: String,
    },
    /// A message over the limit.
    #[error("PMI message over the limit of {PMI_MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// More fields than a message may have.
    #[error("PMI message over the limit of {PMI_MESSAGE_FIELDS_MAX} fields")]
    TooManyFields,
    /// A framed message that does not begin with its command.
    #[error("PMI-2 message does not begin with cmd=: {start:?}")]
    NoCommand {
        /// The first bytes.
        start: String,
    },
    /// The blocks of a spawn request do not follow each other.
    #[error("spawn request: expected block {expected} of {total}, got {got}")]
    SpawnOrder {
        /// Which one should have come.
        expected: usize,
        /// How many there are.
        total: usize,
        /// What came.
        got: String,
    },
}

/// Bytes of a rank as text for a message to people.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(cut))
}

/// The pairs of one message in order, the command first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields {
    pairs: Vec<(Bytes, Bytes)>,
}

impl Fields {
    /// The first value of a key; a key without a value has an empty one.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The first value of a key as a number.
    pub fn number<N: std::str::FromStr>(&self, key: &str) -> Option<N> {
        std::str::from_utf8(self.get(key)?).ok()?.trim().parse().ok()
    }

    /// All pairs in order.
    pub fn pairs(&self) -> &[(Bytes, Bytes)] {
        &self.pairs
    }

    pub(super) fn push(&mut self, key: Bytes, value: Bytes) -> Result<(), WireError> {
        if self.pairs.len() >= PMI_MESSAGE_FIELDS_MAX {
            return Err(WireError::TooManyFields);
        }
        self.pairs.push((key, value));
        Ok(())
    }
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How it was written.
    pub dialect: Dialect,
    /// Its fields; of an `mcmd` with several blocks, those of the first.
    pub fields: Fields,
    /// The further blocks of an `mcmd`.
    pub more: Vec<Fields>,
}

impl Message {
    /// The command's name.
    pub fn command(&self) -> &[u8] {
        self.fields.pairs().first().map_or(&[], |(_, name)| name)
    }
}

/// Cuts a stream of bytes into messages, however it is chunked.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// So many bytes of the buffer hold no line end.
    scanned: usize,
    spawn: Option<SpawnBlocks>,
    failed: Option<WireError>,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes in. Call [`Decoder::next_message`] until it has no more before giving it the next read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole message, if there is one. After an error every call gives that error again.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
            self.spawn = None;
        })
    }

    fn advance(&mut self) -> Result<Option<Message>, WireError> {
        loop {
            if self.spawn.is_none() {
                while matches!(self.buffer.first(), Some(b'\n' | b'\r')) {
                    self.buffer.advance(1);
                    self.scanned = 0;
                }
                match self.dialect()? {
                    None => return Ok(None),
                    Some(Dialect::V2) => return self.frame(),
                    Some(Dialect::V1) => {}
                }
            }
            let Some(line) = self.line()? else { return Ok(None) };
            if let Some(message) = self.take_line(line)? {
                return Ok(Some(message));
            }
        }
    }

    fn dialect(&self) -> Result<Option<Dialect>, WireError> {
        let Some(head) = self.buffer.get(..DETECT_BYTES) else {
            // A line that has ended cannot become a message any more, however short.
            let ended = self.buffer.contains(&b'\n');
            return if ended { Err(WireError::Start { start: shown(&self.buffer) }) } else { Ok(None) };
        };
        let blanks = head.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let word = &head[blanks..];
        let begins = |name: &[u8]| !word.is_empty() && name.starts_with(&word[..word.len().min(name.len())]);
        if begins(b"cmd=") || begins(b"mcmd=") {
            Ok(Some(Dialect::V1))
        } else if wire_v2::length(head).is_some() {
            Ok(Some(Dialect::V2))
        } else {
            Err(WireError::Start { start: shown(&self.buffer) })
        }
    }

    fn frame(&mut self) -> Result<Option<Message>, WireError> {
        let length = wire_v2::length(&self.buffer[..wire_v2::LENGTH_BYTES]).expect("the dialect was recognised by it");
        if length > PMI_MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        if self.buffer.len() < wire_v2::LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(wire_v2::LENGTH_BYTES);
        self.scanned = 0;
        let body = self.buffer.split_to(length).freeze();
        Ok(Some(Message { dialect: Dialect::V2, fields: wire_v2::fields(&body)?, more: Vec::new() }))
    }

    fn line(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(end) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') else {
            self.scanned = self.buffer.len();
            return if self.scanned > PMI_MESSAGE_BYTES_MAX { Err(WireError::TooLong) } else { Ok(None) };
        };
        let end = self.scanned + end;
        if end > PMI_MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        let line = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        self.scanned = 0;
        Ok(Some(line))
    }

    fn take_line(&mut self, line: Bytes) -> Result<Option<Message>, WireError> {
        if let Some(blocks) = &mut self.spawn {
            if !blocks.take(line)? {
                return Ok(None);
            }
            return Ok(self.spawn.take().map(SpawnBlocks::finish));
        }
        if let Some(name) = wire_v1::mcmd_name(&line) {
            self.spawn = Some(SpawnBlocks::begin(name)?);
            return Ok(None);
        }
        Ok(Some(Message { dialect: Dialect::V1, fields: wire_v1::fields(&line)?, more: Vec::new() }))
    }
}
