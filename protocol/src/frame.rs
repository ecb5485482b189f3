//! Frames: a fixed header that inner agents read to forward, and a payload that they need not look at.
//!
//! ```text
//!  0        4    5     6       8         12     16      24           28      32    40
//!  | length | kind|class| flags | channel | host | epoch | generation | magic | seq |  payload …
//! ```
//! All numbers are big endian. `length` counts payload bytes only.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::ids::{Epoch, Generation, Group, HostIndex, ProcId, Stream};
use crate::limits::{
    BULK_PAYLOAD_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, FENCE_CHUNK_BYTES_MAX, HELLO_PAYLOAD_BYTES_MAX,
};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 40;
/// Marks a header, so that a stream that lost its place is noticed at once.
pub const MAGIC: u32 = 0x4d53_5431;
/// The `host` of a frame that every host below shall see.
pub const EVERY_HOST: HostIndex = HostIndex(u32::MAX);

/// What a frame competes with: a stalled reader of one class never delays another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Commands, reports, heartbeats.
    Control,
    /// Key-values of fences, in chunks, on the control connection.
    Fence,
    /// Standard streams, on a connection of their own.
    Bulk,
}

macro_rules! kinds {
    ($( $(#[$doc:meta])* $name:ident = $code:literal, $class:ident; )*) => {
        /// What a frame is. The number is the wire's, the class follows from the kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $( $(#[$doc])* $name, )* }

        impl Kind {
            /// Every kind, for documents and tests.
            pub const ALL: &[Kind] = &[$( Kind::$name, )*];

            /// The kind with this number.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $( $code => Some(Self::$name), )* _ => None }
            }

            /// The number on the wire.
            pub fn code(self) -> u8 {
                match self { $( Self::$name => $code, )* }
            }

            /// The class this kind travels in.
            pub fn class(self) -> Class {
                match self { $( Self::$name => Class::$class, )* }
            }
        }
    };
}

kinds! {
    /// First frame of the dialling side.
    Hello = 1, Control;
    /// First frame of the accepting side: welcome or refusal.
    HelloReply = 2, Control;
    /// Heartbeat of the root, relayed to every host.
    Heartbeat = 3, Control;
    /// Answer to a heartbeat, from a child to its parent.
    Alive = 4, Control;
    /// To a child: connect these hosts below you.
    Adopt = 10, Control;
    /// What all ranks of a process group have in common.
    Spec = 11, Control;
    /// What one host shall start of a process group.
    Share = 12, Control;
    /// Send a signal to ranks.
    Signal = 13, Control;
    /// End ranks: politely, then hard.
    Kill = 14, Control;
    /// Tell what you know again, your parent is new.
    Resync = 15, Control;
    /// Answer to a call of a rank's PMI client.
    CallAnswer = 16, Control;
    /// Tell which ranks have not arrived at the current fence.
    Query = 17, Control;
    /// The job is over: leave nothing behind and confirm.
    End = 18, Control;
    /// Your host is another launcher's first: forget this job, of which nothing has been started there.
    Release = 19, Control;
    /// Merged key-values of a completed fence.
    FenceDown = 20, Fence;
    /// Tell what a rank of yours has put.
    Fetch = 21, Control;
    /// Ranks have died and the job goes on.
    Dead = 22, Control;
    /// Forget process groups that are over.
    Forget = 23, Control;
    /// Hosts that are connected below the sender.
    Joined = 30, Control;
    /// A host that cannot be connected yet, and why.
    Missing = 31, Control;
    /// Ranks that run.
    Started = 32, Control;
    /// Ranks that ended.
    Exits = 33, Control;
    /// Key-values that hosts contribute to a fence.
    FenceUp = 34, Fence;
    /// A call of a rank's PMI client that the root answers.
    Call = 35, Control;
    /// A rank asked for the end of the job, or broke the rules of its bootstrap.
    Abort = 36, Control;
    /// A host that was connected is lost.
    Lost = 37, Control;
    /// Answer to a query.
    Report = 38, Control;
    /// Hosts on which nothing of the job is left.
    Ended = 39, Control;
    /// Please open a bulk connection to me.
    WantBulk = 40, Control;
    /// First rank of a group on this host that spoke to its bootstrap.
    Initialised = 41, Control;
    /// A launcher that goes first wants this host, on which nothing has been started yet.
    Wanted = 42, Control;
    /// What a rank has put, for the root that asked.
    Fetched = 43, Control;
    /// Words of a rank's library for people.
    Say = 44, Control;
    /// Bytes that a rank wrote.
    Output = 50, Bulk;
    /// Bytes that the launcher has written out.
    OutputAck = 51, Bulk;
    /// Bytes for a rank's standard input.
    Input = 52, Bulk;
    /// Bytes that a rank has been given.
    InputAck = 53, Bulk;
    /// Run a command as a remote shell does.
    ShellStart = 60, Control;
    /// A signal or a size for the command of a remote shell.
    ShellTell = 61, Control;
    /// A sign of life of either side of a remote shell.
    ShellPing = 62, Control;
    /// The command of a remote shell has ended.
    ShellExit = 63, Control;
}

/// Set on every piece of a chunked payload but the last.
pub const FLAG_MORE: u16 = 1;
/// Set on the last bytes of a stream.
pub const FLAG_END: u16 = 2;
/// Set on an acknowledgement of standard input by a host that has a new way up: send again from there.
pub const FLAG_ANNOUNCE: u16 = 4;

/// Set on the first piece of a chunked payload, which may be the last one, too.
pub const FLAG_FIRST: u16 = 8;

/// Set on every piece of a fence whose payload is compressed: `u32` length of what it stands for, then an LZ4 block.
pub const FLAG_PACKED: u16 = 16;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The header does not begin a frame.
    #[error("not a frame: magic {0:#010x} instead of {MAGIC:#010x}")]
    Magic(u32),
    /// A kind from a newer release, or garbage.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// The class byte contradicts the kind.
    #[error("frame kind {kind:?} in class {class}")]
    Class {
        /// The frame's kind.
        kind: Kind,
        /// The class byte found.
        class: u8,
    },
    /// The payload is larger than its class allows.
    #[error("frame of kind {kind:?} announces {length} bytes, limit {limit}")]
    TooLong {
        /// The frame's kind.
        kind: Kind,
        /// Announced payload, in bytes.
        length: u32,
        /// The limit, in bytes.
        limit: u32,
    },
    /// The channel of a bulk frame names no stream.
    #[error("bulk frame for unknown stream {0}")]
    Stream(u32),
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes.
    pub length: u32,
    /// What the frame is.
    pub kind: Kind,
    /// `FLAG_*` bits.
    pub flags: u16,
    /// Bulk: process and stream. Fence: process group. Control: 0.
    pub channel: u32,
    /// Going up: the origin. Going down: the destination, or [`EVERY_HOST`].
    pub host: HostIndex,
    /// The launcher incarnation this belongs to.
    pub epoch: Epoch,
    /// The rank generation this belongs to.
    pub generation: Generation,
    /// Bulk: offset of the first byte in its stream. Fence: number of the fence. Control: per-origin count.
    pub seq: u64,
}

impl Header {
    /// Reads a header and checks it against the limits of its class.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        let magic = u32_at(28);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let kind = Kind::from_code(bytes[4]).ok_or(FrameError::Kind(bytes[4]))?;
        if bytes[5] != class_code(kind.class()) {
            return Err(FrameError::Class { kind, class: bytes[5] });
        }
        let (length, limit) = (u32_at(0), payload_bytes_max(kind));
        if length > limit {
            return Err(FrameError::TooLong { kind, length, limit });
        }
        Ok(Self {
            length,
            kind,
            flags: u16::from_be_bytes([bytes[6], bytes[7]]),
            channel: u32_at(8),
            host: HostIndex(u32_at(12)),
            epoch: Epoch(u64_at(16)),
            generation: Generation(u32_at(24)),
            seq: u64_at(32),
        })
    }

    /// The header as it goes over the wire.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&self.length.to_be_bytes());
        out[4] = self.kind.code();
        out[5] = class_code(self.kind.class());
        out[6..8].copy_from_slice(&self.flags.to_be_bytes());
        out[8..12].copy_from_slice(&self.channel.to_be_bytes());
        out[12..16].copy_from_slice(&self.host.0.to_be_bytes());
        out[16..24].copy_from_slice(&self.epoch.0.to_be_bytes());
        out[24..28].copy_from_slice(&self.generation.0.to_be_bytes());
        out[28..32].copy_from_slice(&MAGIC.to_be_bytes());
        out[32..40].copy_from_slice(&self.seq.to_be_bytes());
        out
    }

    /// The process and stream of a bulk frame.
    pub fn stream(&self) -> Result<(ProcId, Stream), FrameError> {
        let code = self.channel & 3;
        let stream = Stream::from_code(code).ok_or(FrameError::Stream(code))?;
        Ok((ProcId(self.channel >> 2), stream))
    }

    /// The process group of a fence frame.
    pub fn group(&self) -> Group {
        Group(self.channel)
    }
}

/// The channel of a bulk frame.
pub fn stream_channel(proc: ProcId, stream: Stream) -> u32 {
    proc.0 << 2 | stream.code()
}

/// Payload limit of a kind, in bytes.
pub fn payload_bytes_max(kind: Kind) -> u32 {
    match (kind, kind.class()) {
        (Kind::Hello | Kind::HelloReply, _) => HELLO_PAYLOAD_BYTES_MAX,
        (_, Class::Control) => CONTROL_PAYLOAD_BYTES_MAX,
        (_, Class::Fence) => FENCE_CHUNK_BYTES_MAX,
        (_, Class::Bulk) => BULK_PAYLOAD_BYTES_MAX,
    }
}

fn class_code(class: Class) -> u8 {
    match class {
        Class::Control => 0,
        Class::Fence => 1,
        Class::Bulk => 2,
    }
}

/// A header and its payload; cheap to clone, so that fanning out copies nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The fixed part.
    pub header: Header,
    /// `header.length` bytes.
    pub payload: Bytes,
}

impl Frame {
    /// A frame whose length follows from its payload.
    pub fn new(kind: Kind, host: HostIndex, epoch: Epoch, generation: Generation, payload: Bytes) -> Self {
        let length = payload.len() as u32;
        debug_assert!(length <= payload_bytes_max(kind), "{kind:?} of {length} bytes");
        Self { header: Header { length, kind, flags: 0, channel: 0, host, epoch, generation, seq: 0 }, payload }
    }

    /// The same frame with flags, channel and sequence set.
    pub fn with(mut self, flags: u16, channel: u32, seq: u64) -> Self {
        self.header.flags = flags;
        self.header.channel = channel;
        self.header.seq = seq;
        self
    }

    /// Appends header and payload.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.reserve(HEADER_BYTES + self.payload.len());
        out.put_slice(&self.header.encode());
        out.put_slice(&self.payload);
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_kinds_are_unique_and_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(*kind));
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(i in 0..Kind::ALL.len(), length in 0u32..16_000, flags: u16, channel: u32, host: u32, epoch: u64, generation: u32, seq: u64) {
            let kind = Kind::ALL[i];
            let header = Header { length, kind, flags, channel, host: HostIndex(host), epoch: Epoch(epoch), generation: Generation(generation), seq };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::array::uniform32(any::<u8>()), tail in proptest::array::uniform8(any::<u8>()), magic: bool) {
            let mut raw = [0; HEADER_BYTES];
            raw[..32].copy_from_slice(&bytes);
            raw[32..].copy_from_slice(&tail);
            if magic {
                raw[28..32].copy_from_slice(&MAGIC.to_be_bytes());
            }
            if let Ok(header) = Header::decode(&raw) {
                prop_assert!(header.length <= payload_bytes_max(header.kind));
                prop_assert_eq!(header.encode(), raw);
            }
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_by_name() {
        let mut header = Header {
            length: CONTROL_PAYLOAD_BYTES_MAX + 1,
            kind: Kind::Spec,
            flags: 0,
            channel: 0,
            host: EVERY_HOST,
            epoch: Epoch(1),
            generation: Generation(0),
            seq: 0,
        };
        let refused = Header::decode(&header.encode()).unwrap_err();
        assert_eq!(refused.to_string(), "frame of kind Spec announces 4194305 bytes, limit 4194304");
        header.length -= 1;
        assert!(Header::decode(&header.encode()).is_ok());
    }

    #[test]
    fn streams_have_channels() {
        let channel = stream_channel(ProcId(77), Stream::Stderr);
        let frame = Frame::new(Kind::Output, HostIndex(0), Epoch(0), Generation(0), Bytes::new()).with(0, channel, 0);
        assert_eq!(frame.header.stream(), Ok((ProcId(77), Stream::Stderr)));
        assert!(frame.with(0, 3, 0).header.stream().is_err());
    }
}
