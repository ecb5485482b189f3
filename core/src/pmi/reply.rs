//! Writing replies so that every client seen can read them.
//!
//! `rc` stands right behind the command; `value` and `port` are written last by whoever builds the reply, because some
//! PMI-1 clients read them to the end of the line.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::Dialect;
use super::wire_v2::LENGTH_BYTES;

/// Whether a value can stand in a reply of this dialect. An empty one is a parse error in MPICH since 4.1; a line end would
/// let one rank write lines into another rank's stream.
pub(super) fn can_carry(dialect: Dialect, value: &[u8]) -> bool {
    let forbidden: &[u8] = match dialect {
        Dialect::V1 => b"\n\0",
        Dialect::V2 => b"\0",
    };
    !value.is_empty() && !value.iter().any(|b| forbidden.contains(b))
}

/// One reply in the making.
#[derive(Debug)]
pub(super) struct Reply {
    dialect: Dialect,
    body: BytesMut,
}

impl Reply {
    /// A reply that begins with its command, the thread's mark if the request had one, and the result code.
    pub(super) fn new(dialect: Dialect, command: &str, thrid: Option<&[u8]>, rc: i32) -> Self {
        let mut body = BytesMut::with_capacity(128);
        if dialect == Dialect::V2 {
            body.put_bytes(b' ', LENGTH_BYTES);
        }
        let mut reply = Self { dialect, body };
        reply.write("cmd", command.as_bytes());
        if let Some(thrid) = thrid {
            reply.write("thrid", thrid);
        }
        reply.number("rc", i64::from(rc))
    }

    pub(super) fn number(self, key: &str, value: i64) -> Self {
        self.text(key, &value.to_string())
    }

    pub(super) fn text(self, key: &str, value: &str) -> Self {
        self.bytes(key, value.as_bytes())
    }

    /// Adds a field. What the dialect cannot carry is left out: a missing field is an error the client can name.
    pub(super) fn bytes(mut self, key: &str, value: &[u8]) -> Self {
        if can_carry(self.dialect, value) {
            self.write(key, value);
        }
        self
    }

    /// Adds a reason for people, in the field that the dialect has for it.
    pub(super) fn reason(self, reason: &str) -> Self {
        match self.dialect {
            // A blank would end the value in the client's parser.
            Dialect::V1 => self.text("msg", &reason.replace(|c: char| c.is_whitespace(), "_")),
            Dialect::V2 => self.text("errmsg", reason),
        }
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        if self.dialect == Dialect::V1 && !self.body.is_empty() {
            self.body.put_u8(b' ');
        }
        self.body.put_slice(key.as_bytes());
        self.body.put_u8(b'=');
        match self.dialect {
            Dialect::V1 => self.body.put_slice(value),
            Dialect::V2 => {
                for byte in value {
                    if *byte == b';' {
                        self.body.put_u8(b';');
                    }
                    self.body.put_u8(*byte);
                }
                self.body.put_u8(b';');
            }
        }
    }

    pub(super) fn finish(mut self) -> Bytes {
        match self.dialect {
            Dialect::V1 => self.body.put_u8(b'\n'),
            Dialect::V2 => {
                let length = format!("{:>1$}", self.body.len() - LENGTH_BYTES, LENGTH_BYTES);
                self.body[..LENGTH_BYTES].copy_from_slice(&length.as_bytes()[..LENGTH_BYTES]);
            }
        }
        self.body.freeze()
    }
}
