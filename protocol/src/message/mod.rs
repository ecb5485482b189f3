//! Payloads of control frames.
//!
//! Field numbers are explicit and never reused; a release skips fields it does not know. `docs/protocol.md` has the table.

mod call;
mod down;
mod shell;
mod up;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use thiserror::Error;

pub use self::call::*;
pub use self::down::*;
pub use self::shell::*;
pub use self::up::*;
use crate::frame::{EVERY_HOST, Frame, Kind};
use crate::hello::cbor;
use crate::ids::{Epoch, Generation, HostIndex};

/// A payload and the kind of frame it travels in.
pub trait Message: Encode<()> + for<'b> Decode<'b, ()> {
    /// The kind.
    const KIND: Kind;

    /// Bytes of its payload.
    fn payload_bytes(&self) -> usize {
        cbor(self).len()
    }

    /// Reads the payload of a frame of this kind.
    fn read(frame: &Frame) -> Result<Self, BadPayload> {
        minicbor::decode(&frame.payload).map_err(|e| BadPayload { kind: Self::KIND, why: e.to_string() })
    }
}

/// A payload that is not what its frame says it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind:?} frame with a bad payload: {why}")]
pub struct BadPayload {
    /// The frame's kind.
    pub kind: Kind,
    /// The decoder's complaint.
    pub why: String,
}

macro_rules! messages {
    ($($name:ident),* $(,)?) => { $( impl Message for $name { const KIND: Kind = Kind::$name; } )* };
}

messages!(
    Heartbeat,
    Alive,
    Adopt,
    Spec,
    Share,
    Signal,
    Kill,
    Resync,
    CallAnswer,
    Query,
    End,
    Release,
    Fetch,
    Dead,
    Forget,
    Joined,
    Missing,
    Started,
    Exits,
    Call,
    Abort,
    Lost,
    Report,
    Ended,
    WantBulk,
    Initialised,
    Wanted,
    Fetched,
    Say,
    OutputAck,
    InputAck,
    ShellStart,
    ShellTell,
    ShellPing,
    ShellExit,
);

/// Makes frames of one sender: its job incarnation, generation and own host index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Launcher incarnation.
    pub epoch: Epoch,
    /// Rank generation.
    pub generation: Generation,
}

impl Stamp {
    /// A frame for one host, or from one host.
    pub fn frame<M: Message>(self, host: HostIndex, message: &M) -> Frame {
        Frame::new(M::KIND, host, self.epoch, self.generation, cbor(message))
    }

    /// A frame for every host below.
    pub fn to_all<M: Message>(self, message: &M) -> Frame {
        self.frame(EVERY_HOST, message)
    }

    /// A frame of raw bytes.
    pub fn raw(self, kind: Kind, host: HostIndex, payload: Bytes) -> Frame {
        Frame::new(kind, host, self.epoch, self.generation, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ProcId;

    #[test]
    fn messages_round_trip_through_frames() {
        let stamp = Stamp { epoch: Epoch(4), generation: Generation(2) };
        let exits = Exits {
            procs: vec![ProcExit {
                proc: ProcId(7),
                end: ProcEnd::Signaled { signal: 11, core: true, memory: None },
                phase: Phase::Initialised,
                maxrss_kib: 12,
                killed: false,
            }],
        };
        let frame = stamp.frame(HostIndex(3), &exits);
        assert_eq!((frame.header.kind, frame.header.host, frame.header.epoch), (Kind::Exits, HostIndex(3), Epoch(4)));
        assert_eq!(Exits::read(&frame), Ok(exits));
        assert!(Share::read(&frame).is_err());
    }

    #[test]
    fn a_rank_that_a_neighbouring_release_tells_of_has_ended_all_the_same() {
        let memory = Some(OutOfMemory { killed: 1, limit_bytes: None });
        let told = cbor(&ProcEnd::Signaled { signal: 9, core: false, memory });
        assert_eq!(minicbor::decode::<ProcEnd>(&told).unwrap(), ProcEnd::Signaled { signal: 9, core: false, memory });
        // Without the field for memory.
        let older = [0x82, 0x01, 0x82, 0x09, 0xf4];
        let end = ProcEnd::Signaled { signal: 9, core: false, memory: None };
        assert_eq!(minicbor::decode::<ProcEnd>(&older).unwrap(), end);
    }
}
