//! The ranks of one process group on one host, and what they have asked for.

use std::collections::HashMap;

use bytes::Bytes;
use muster_protocol::limits::{PMI_THRID_BYTES_MAX, PMI_VALUE_BYTES_MAX, PMI_WAITING_REQUESTS_MAX};
use muster_protocol::{Group, Rank};

use super::action::{Action, PmiError};
use super::answers::Asked;
use super::reply::Reply;
use super::setup::{GroupSetup, SetupError, check};
use super::wire::{Decoder, Dialect, Message, shown};
use crate::kvs::{Kvs, KvsError};

/// How far a rank has come with PMI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It has not said init; it may be no MPI program at all.
    Untouched,
    /// It has said init and not finalize.
    Initialised,
    /// It has said finalize and may end as it likes.
    Finalised,
}

/// Who has arrived at the fence that is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceReport {
    /// Number of the fence, from 0.
    pub seq: u64,
    /// Local ranks that wait in it.
    pub arrived: Vec<Rank>,
    /// Living local ranks that have not entered it. Empty: this host waits for others.
    pub missing: Vec<Rank>,
}

/// Why the result of a fence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FenceDoneError {
    /// This host has not contributed to it.
    #[error("group {group}: result of fence {seq}, but this host has not entered it")]
    NotEntered {
        /// The process group.
        group: Group,
        /// The fence.
        seq: u64,
    },
    /// Its key-values are damaged or too many.
    #[error("group {group}: result of fence {seq} cannot be taken in")]
    Kvs {
        /// The process group.
        group: Group,
        /// The fence.
        seq: u64,
        /// Why.
        source: KvsError,
    },
}

/// Who waits for a reply, and how it must be written.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) local: usize,
    pub(super) dialect: Dialect,
    pub(super) thrid: Option<Bytes>,
    /// Mark of a PMI 1.2 barrier, which the reply must repeat.
    pub(super) tag: Option<i64>,
}

impl Asker {
    /// A reply in the asker's dialect, under the name that its dialect has for it.
    pub(super) fn reply(&self, v1: &str, v2: &str, rc: i32) -> Reply {
        let name = if self.dialect == Dialect::V1 { v1 } else { v2 };
        Reply::new(self.dialect, name, self.thrid.as_deref(), rc)
    }
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) rank: Rank,
    pub(super) appnum: u32,
    pub(super) phase: Phase,
    decoder: Decoder,
    /// Nothing more is read from it: it finalised, aborted, broke the protocol or is gone.
    deaf: bool,
    /// It takes part in fences.
    living: bool,
    fence: Option<Asker>,
    pub(super) waiting: usize,
}

/// The PMI service for one process group on one host.
#[derive(Debug)]
pub struct Server {
    pub(super) setup: GroupSetup,
    pub(super) members: Vec<Member>,
    pub(super) kvs: Kvs,
    pub(super) node_attrs: Kvs,
    /// Threads that wait for a node attribute.
    pub(super) parked: Vec<(Asker, Bytes)>,
    pub(super) calls: HashMap<u64, (Asker, Asked)>,
    pub(super) next_token: u64,
    seq: u64,
    in_flight: bool,
}

impl Server {
    /// A server for ranks that have not spoken yet.
    pub fn new(mut setup: GroupSetup) -> Result<Self, SetupError> {
        check(&setup)?;
        let group = setup.group;
        let mut kvs = Kvs::new();
        for (key, value) in std::mem::take(&mut setup.preput) {
            // A reserved key is the manager's own, and an empty value could never be given back.
            if !key.starts_with(b"PMI_") && !value.is_empty() {
                kvs.put_local(&key, &value).map_err(|source| SetupError::Preput { group, source })?;
            }
        }
        let members = setup.local.iter().map(|local| Member {
            rank: local.rank,
            appnum: local.appnum,
            phase: Phase::Untouched,
            decoder: Decoder::new(),
            deaf: false,
            living: true,
            fence: None,
            waiting: 0,
        });
        Ok(Self {
            members: members.collect(),
            setup,
            kvs,
            node_attrs: Kvs::new(),
            parked: Vec::new(),
            calls: HashMap::new(),
            next_token: 0,
            seq: 0,
            in_flight: false,
        })
    }

    /// The process group.
    pub fn group(&self) -> Group {
        self.setup.group
    }

    /// How far a local rank has come.
    pub fn phase(&self, local: usize) -> Phase {
        self.members[local].phase
    }

    /// Whether any rank of this host has said init.
    pub fn any_initialised(&self) -> bool {
        self.members.iter().any(|m| m.phase != Phase::Untouched)
    }

    /// Who has arrived at the current fence, if anybody has.
    pub fn waiting(&self) -> Option<FenceReport> {
        let arrived = |m: &&Member| m.fence.is_some();
        if !self.members.iter().any(|m| arrived(&m)) {
            return None;
        }
        let ranks = |members: Vec<&Member>| members.iter().map(|m| m.rank).collect();
        Some(FenceReport {
            seq: self.seq,
            arrived: ranks(self.members.iter().filter(arrived).collect()),
            missing: ranks(self.members.iter().filter(|m| m.living && m.fence.is_none()).collect()),
        })
    }

    /// Takes in what a local rank has written. Read from it again only when its replies are written: a client waits for
    /// each, so one that does not is asking for memory.
    pub fn input(&mut self, local: usize, bytes: &[u8], out: &mut Vec<Action>) {
        if self.members[local].deaf {
            return;
        }
        self.members[local].decoder.push(bytes);
        while !self.members[local].deaf {
            let result = match self.members[local].decoder.next_message() {
                Ok(None) => return,
                Ok(Some(message)) => self.message(local, &message, out),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = result {
                out.push(Action::Broken { rank: self.members[local].rank, error });
                self.silence(local, out);
            }
        }
    }

    /// The rank's end of the socket is closed, by all who held it.
    pub fn closed(&mut self, local: usize, out: &mut Vec<Action>) {
        // Before init it is no loss yet: a program may close descriptors that it does not know. Its exit will tell.
        if self.members[local].phase == Phase::Initialised {
            self.leave(local, out);
        }
    }

    /// The rank's process has ended.
    pub fn exited(&mut self, local: usize, out: &mut Vec<Action>) {
        self.leave(local, out);
    }

    /// A fence is over: its key-values are readable and its ranks go on. A result that was taken in before is ignored.
    pub fn fence_done(&mut self, seq: u64, blobs: &[Bytes], out: &mut Vec<Action>) -> Result<(), FenceDoneError> {
        let group = self.setup.group;
        if seq < self.seq {
            return Ok(());
        }
        if seq > self.seq || !self.in_flight {
            return Err(FenceDoneError::NotEntered { group, seq });
        }
        self.kvs.load(blobs).map_err(|source| FenceDoneError::Kvs { group, seq, source })?;
        self.in_flight = false;
        self.seq += 1;
        for member in &mut self.members {
            if let Some(asker) = member.fence.take() {
                let mut reply = asker.reply("barrier_out", "kvs-fence-response", 0);
                if let Some(tag) = asker.tag {
                    reply = reply.number("tag", tag);
                }
                out.push(Action::Send { local: asker.local, bytes: reply.finish() });
            }
        }
        Ok(())
    }

    fn message(&mut self, local: usize, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        let command = message.command();
        let thrid = message.fields.get("thrid").filter(|_| message.dialect == Dialect::V2).cloned();
        if let Some(thrid) = thrid.as_ref().filter(|t| t.len() > PMI_THRID_BYTES_MAX) {
            return Err(PmiError::BadField {
                command: shown(command),
                field: "thrid",
                value: shown(thrid),
                expected: format!("at most {PMI_THRID_BYTES_MAX} bytes"),
            });
        }
        if self.members[local].phase == Phase::Untouched && command != b"init" {
            return Err(PmiError::BeforeInit { command: shown(command) });
        }
        let asker = Asker { local, dialect: message.dialect, thrid, tag: None };
        match message.dialect {
            Dialect::V1 => self.v1(asker, message, out),
            Dialect::V2 => self.v2(asker, message, out),
        }
    }

    /// The first word of a rank.
    pub(super) fn initialise(&mut self, local: usize, out: &mut Vec<Action>) {
        let first = !self.any_initialised();
        let member = &mut self.members[local];
        if member.phase == Phase::Untouched {
            member.phase = Phase::Initialised;
        }
        if first {
            out.push(Action::FirstInit { rank: member.rank });
        }
    }

    pub(super) fn enter_fence(&mut self, asker: Asker, out: &mut Vec<Action>) -> Result<(), PmiError> {
        let member = &mut self.members[asker.local];
        if member.fence.is_some() {
            return Err(PmiError::FenceTwice);
        }
        member.fence = Some(asker);
        self.complete_fence(out);
        Ok(())
    }

    pub(super) fn count_request(&mut self, local: usize) -> Result<(), PmiError> {
        let member = &mut self.members[local];
        if member.waiting >= PMI_WAITING_REQUESTS_MAX {
            return Err(PmiError::TooManyRequests { limit: PMI_WAITING_REQUESTS_MAX });
        }
        member.waiting += 1;
        Ok(())
    }

    pub(super) fn finalise(&mut self, asker: &Asker, out: &mut Vec<Action>) {
        let local = asker.local;
        let bytes = asker.reply("finalize_ack", "finalize-response", 0).finish();
        out.push(Action::Send { local, bytes });
        out.push(Action::Close { local });
        self.members[local].phase = Phase::Finalised;
        self.silence(local, out);
    }

    pub(super) fn abort(&mut self, local: usize, exitcode: i32, message: &[u8], out: &mut Vec<Action>) {
        let message = String::from_utf8_lossy(&message[..message.len().min(PMI_VALUE_BYTES_MAX)]).into_owned();
        out.push(Action::Abort { rank: self.members[local].rank, exitcode, message });
        self.silence(local, out);
    }

    fn leave(&mut self, local: usize, out: &mut Vec<Action>) {
        let member = &self.members[local];
        if member.living {
            out.push(Action::Left { rank: member.rank, phase: member.phase });
            self.silence(local, out);
        }
    }

    /// The rank says nothing more and takes part in nothing.
    fn silence(&mut self, local: usize, out: &mut Vec<Action>) {
        let member = &mut self.members[local];
        (member.deaf, member.living, member.waiting) = (true, false, 0);
        member.fence = None;
        member.decoder = Decoder::new();
        self.parked.retain(|(asker, _)| asker.local != local);
        self.calls.retain(|_, (asker, _)| asker.local != local);
        self.complete_fence(out);
    }

    fn complete_fence(&mut self, out: &mut Vec<Action>) {
        let entered = self.members.iter().any(|m| m.fence.is_some());
        if !self.in_flight && entered && self.members.iter().all(|m| m.fence.is_some() || !m.living) {
            self.in_flight = true;
            out.push(Action::Fence { seq: self.seq, blob: self.kvs.take_pending() });
        }
    }
}
