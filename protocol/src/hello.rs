//! The first frame each way on every connection.
//!
//! It comes after the transport has proven that the other side holds the job key, so a mismatch can be explained instead of
//! being met with silence.

use std::fmt;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::frame::{Frame, Kind};
use crate::ids::{Epoch, Generation, HostIndex};

/// Oldest protocol version this release speaks.
pub const VERSION_MIN: u32 = 1;
/// Newest protocol version this release speaks.
pub const VERSION_MAX: u32 = 1;
/// This release, for messages to people.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Who dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// The root of the tree.
    #[n(0)]
    Launcher,
    /// An agent, as the parent of the one it dials.
    #[n(1)]
    Parent,
    /// An agent that joins a listening launcher.
    #[n(2)]
    Joiner,
    /// A check whether the agent answers: readiness, or a probe after silence. Nothing follows the reply.
    #[n(3)]
    Probe,
    /// A remote shell: it brings a command of its own, beside any job.
    #[n(4)]
    Shell,
}

/// Which of an edge's two connections this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Lane {
    /// Control and fence.
    #[n(0)]
    Control,
    /// Standard streams.
    #[n(1)]
    Bulk,
}

/// What the dialling side says first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Oldest version the sender speaks.
    #[n(0)]
    pub version_min: u32,
    /// Newest version the sender speaks.
    #[n(1)]
    pub version_max: u32,
    /// The sender's release.
    #[n(2)]
    pub release: String,
    /// Who dials.
    #[n(3)]
    pub role: Role,
    /// Which connection of the edge.
    #[n(4)]
    pub lane: Lane,
    /// The job.
    #[n(5)]
    pub job: String,
    /// Launcher incarnation.
    #[n(6)]
    pub epoch: Epoch,
    /// The sender's host name.
    #[n(7)]
    pub from: String,
    /// One incarnation of the sending process: differs after a restart.
    #[n(8)]
    pub incarnation: u64,
    /// Index the dialled host has in this job; for a joiner its wish, or 0.
    #[n(9)]
    pub you: HostIndex,
    /// Name under which the dialled host stands in the host list; for a joiner its own name.
    #[n(10)]
    pub your_name: String,
    /// Rank generation.
    #[n(11)]
    pub generation: Generation,
}

/// What an agent reads of its host, as far as placement needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct HostFacts {
    /// The agent's own host name.
    #[n(0)]
    pub hostname: String,
    /// Cores the agent may use.
    #[n(1)]
    pub cores: u32,
    /// Memory the agent may use, in bytes; 0 when unknown.
    #[n(2)]
    pub memory_bytes: u64,
    /// Identifies one boot of one machine: hosts that share it can share memory.
    #[n(3)]
    pub boot_id: String,
    /// Commands that remote shells have begun here since the agent started; absent in releases before this field.
    #[n(4)]
    pub shells: Option<u64>,
    /// Where the host is on its networks, for who runs somebody else's launcher; absent when unknown, and in releases before this
    /// field.
    #[n(5)]
    pub network: Option<HostNetwork>,
}

/// A host's place on its networks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct HostNetwork {
    /// The same for hosts that share all their interfaces, as agents on one machine may: hosts that do are one.
    #[n(0)]
    pub namespace: u64,
    /// All IPv4 addresses of interfaces that are up, those of loopback interfaces excepted.
    #[n(1)]
    pub addresses: Vec<HostAddress>,
}

/// An address in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct HostAddress {
    /// An IPv4 address as a number, its first byte being the highest.
    #[n(0)]
    pub ipv4: u32,
    /// How many of its bits, from the highest on, are the network's.
    #[n(1)]
    pub prefix: u8,
}

/// The accepting side's welcome.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The version both will speak.
    #[n(0)]
    pub version: u32,
    /// The sender's release.
    #[n(1)]
    pub release: String,
    /// One incarnation of the accepting process.
    #[n(2)]
    pub incarnation: u64,
    /// What the host has.
    #[n(3)]
    pub facts: HostFacts,
}

/// Why a proven peer is not served.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The agent serves another job.
    #[n(0)]
    WrongJob {
        /// The job it serves.
        #[n(0)]
        theirs: String,
    },
    /// No version in common.
    #[n(1)]
    Version {
        /// Oldest the accepting side speaks.
        #[n(0)]
        min: u32,
        /// Newest it speaks.
        #[n(1)]
        max: u32,
        /// Its release.
        #[n(2)]
        release: String,
    },
    /// The agent has promised itself to a newer launcher.
    #[n(2)]
    StaleEpoch {
        /// The epoch it has promised.
        #[n(0)]
        promised: Epoch,
    },
    /// The agent is running another launcher's job at the moment.
    #[n(3)]
    Busy {
        /// That job.
        #[n(0)]
        job: String,
        /// The host of its launcher or parent.
        #[n(1)]
        launcher: String,
    },
    /// A bulk connection for an edge that does not exist.
    #[n(4)]
    NoEdge,
    /// The agent is going away.
    #[n(5)]
    Leaving,
    /// The agent has a living parent in this job's tree.
    #[n(6)]
    HasParent,
    /// The launcher that an agent wants to join does not have its host in the list.
    #[n(7)]
    NotInList {
        /// The name under which the agent came.
        #[n(0)]
        name: String,
    },
    /// The launcher that an agent wants to join has another agent under that name.
    #[n(8)]
    NameTaken {
        /// The name under which the agent came.
        #[n(0)]
        name: String,
        /// Who has it: host name and address.
        #[n(1)]
        holder: String,
        /// Who was refused: host name and address.
        #[n(2)]
        you: String,
    },
    /// Processes of an earlier job cannot be ended; the host takes no job before they are gone.
    #[n(9)]
    Quarantined {
        /// The job whose processes they are.
        #[n(0)]
        job: String,
        /// The processes: id, command, state.
        #[n(1)]
        survivors: String,
    },
    /// Whoever restarts the pods of its job does not let it take jobs yet.
    #[n(10)]
    Held {
        /// What it waits for.
        #[n(0)]
        why: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongJob { theirs } => write!(f, "its agent serves job \"{theirs}\""),
            Self::Version { min, max, release } => write!(
                f,
                "its agent (release {release}) speaks protocol {min} to {max}, this side (release {RELEASE}) {VERSION_MIN} to {VERSION_MAX}"
            ),
            Self::StaleEpoch { promised } => write!(f, "its agent obeys a newer launcher (epoch {promised})"),
            Self::Busy { job, launcher } => write!(f, "its agent is busy with job \"{job}\" of {launcher}"),
            Self::NoEdge => write!(f, "its agent knows no such connection"),
            Self::HasParent => write!(f, "its agent is connected to another parent of this job"),
            Self::NotInList { name } => write!(f, "host \"{name}\" is not in the launcher's host list"),
            Self::NameTaken { name, holder, you } => write!(
                f,
                "host \"{name}\" has been joined already by the agent on {holder}; the agent on {you} needs a --name of its own"
            ),
            Self::Held { why } => write!(f, "its agent {why}"),
            Self::Quarantined { job, survivors } => write!(
                f,
                "its host takes no job because processes of job \"{job}\" cannot be ended: {survivors}; restart the host if they do not go away"
            ),
            Self::Leaving => write!(f, "its agent is shutting down"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The accepting side's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum HelloReply {
    /// Served.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// Not served, and why.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

impl Hello {
    /// The version both sides speak, or the refusal to send.
    pub fn common_version(&self) -> Result<u32, Refusal> {
        let version = self.version_max.min(VERSION_MAX);
        if version < self.version_min.max(VERSION_MIN) {
            return Err(Refusal::Version { min: VERSION_MIN, max: VERSION_MAX, release: RELEASE.to_owned() });
        }
        Ok(version)
    }

    /// As the first frame of a connection.
    pub fn frame(&self) -> Frame {
        Frame::new(Kind::Hello, self.you, self.epoch, self.generation, cbor(self))
    }
}

impl HelloReply {
    /// As the first frame of the accepting side.
    pub fn frame(&self) -> Frame {
        Frame::new(Kind::HelloReply, HostIndex(0), Epoch(0), Generation(0), cbor(self))
    }
}

/// Encodes a value that cannot fail to encode.
pub(crate) fn cbor<T: Encode<()>>(value: &T) -> Bytes {
    Bytes::from(minicbor::to_vec(value).expect("encoding into memory cannot fail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(min: u32, max: u32) -> Hello {
        Hello {
            version_min: min,
            version_max: max,
            release: "9.9.9".into(),
            role: Role::Launcher,
            lane: Lane::Control,
            job: "a".into(),
            epoch: Epoch(1),
            from: "l".into(),
            incarnation: 7,
            you: HostIndex(3),
            your_name: "w-3".into(),
            generation: Generation(0),
        }
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(hello(VERSION_MIN, VERSION_MAX + 5).common_version(), Ok(VERSION_MAX));
        assert!(matches!(hello(VERSION_MAX + 1, VERSION_MAX + 1).common_version(), Err(Refusal::Version { .. })));
    }

    #[test]
    fn fields_of_a_newer_release_are_skipped() {
        #[derive(Encode)]
        struct Newer {
            #[n(0)]
            version: u32,
            #[n(1)]
            release: String,
            #[n(2)]
            incarnation: u64,
            #[n(3)]
            facts: HostFacts,
            #[n(9)]
            unheard_of: Vec<String>,
        }
        let newer = Newer {
            version: 1,
            release: "2".into(),
            incarnation: 5,
            facts: HostFacts::default(),
            unheard_of: vec!["x".into()],
        };
        let welcome: Welcome = minicbor::decode(&cbor(&newer)).unwrap();
        assert_eq!((welcome.version, welcome.incarnation), (1, 5));
    }

    #[test]
    fn refusals_explain_themselves() {
        let refusal = Refusal::WrongJob { theirs: "b".into() };
        let reply: HelloReply = minicbor::decode(&HelloReply::Refused(refusal).frame().payload).unwrap();
        let HelloReply::Refused(refusal) = reply else { panic!("a refusal") };
        assert_eq!(refusal.to_string(), "its agent serves job \"b\"");
    }
}
