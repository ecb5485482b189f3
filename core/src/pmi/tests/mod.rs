//! The server against recorded clients and against hostile ones.

mod hostile;
mod lifecycle;
mod transcripts;
mod wire;

use bytes::Bytes;
use muster_protocol::{Group, Rank};

use super::*;

pub(super) const KVSNAME: &str = "m0";
pub(super) const MAPPING: &str = "(vector,(0,2,2))";

/// Ranks 0..`local` of a group of `size`.
pub(super) fn server(local: u32, size: u32) -> Server {
    Server::new(setup(local, size)).unwrap()
}

pub(super) fn setup(local: u32, size: u32) -> GroupSetup {
    GroupSetup {
        group: Group(0),
        size,
        local: (0..local).map(|r| LocalRank { rank: Rank(r), appnum: 0 }).collect(),
        kvsname: KVSNAME.into(),
        mapping: Some(MAPPING.into()),
        universe_size: None,
        preput: Vec::new(),
        spawner: None,
    }
}

/// A server, with this host alone in the job: fences and questions are answered as the root would.
pub(super) struct Alone {
    pub(super) server: Server,
    names: NameTable,
    /// Everything that was not a reply.
    pub(super) actions: Vec<Action>,
    pub(super) said: Vec<Vec<u8>>,
    pub(super) spawned: Vec<SpawnRequest>,
}

impl Alone {
    pub(super) fn new(server: Server, ranks: usize) -> Self {
        let said = vec![Vec::new(); ranks];
        Self { server, names: NameTable::new(), actions: Vec::new(), said, spawned: Vec::new() }
    }

    pub(super) fn input(&mut self, local: usize, bytes: &[u8]) {
        let mut out = Vec::new();
        self.server.input(local, bytes, &mut out);
        self.run(out);
    }

    pub(super) fn run(&mut self, mut todo: Vec<Action>) {
        while !todo.is_empty() {
            let mut more = Vec::new();
            for action in todo {
                match action {
                    Action::Send { local, bytes } => self.said[local].extend_from_slice(&bytes),
                    Action::Fence { seq, blob } => self.server.fence_done(seq, &[blob], &mut more).unwrap(),
                    Action::Upcall { token, call, .. } => {
                        let answer = self.root(call);
                        self.server.answer(token, answer, &mut more);
                    }
                    other => self.actions.push(other),
                }
            }
            todo = more;
        }
    }

    fn root(&mut self, call: Upcall) -> Answer {
        match call {
            Upcall::Publish { name, port } => {
                Answer::Published(self.names.publish(name, port).map_err(|e| e.to_string()))
            }
            Upcall::Lookup { name } => Answer::Found(self.names.lookup(&name)),
            Upcall::Unpublish { name } => Answer::Unpublished(self.names.unpublish(&name)),
            Upcall::Spawn(request) => {
                self.spawned.push(request);
                Answer::Spawned { kvsname: "m1".into(), errcodes: vec![] }
            }
        }
    }

    /// What was said to a rank since the last time.
    pub(super) fn heard(&mut self, local: usize) -> String {
        String::from_utf8(std::mem::take(&mut self.said[local])).unwrap()
    }

    /// Says something and gives what comes back at once.
    pub(super) fn ask(&mut self, local: usize, line: &str) -> String {
        self.input(local, line.as_bytes());
        self.heard(local)
    }
}

/// A PMI-2 message with its length as MPICH writes it.
pub(super) fn framed(body: &str) -> String {
    format!("{:>6}{body}", body.len())
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
