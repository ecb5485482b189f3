//! Questions that go to the root, and the replies made of its answers.

use bytes::Bytes;
use muster_protocol::limits::RANKS_PER_HOST_MAX;

use super::action::{Action, Answer, PmiError, Upcall};
use super::reply::can_carry;
use super::server::{Asker, Server};
use super::wire::Dialect;

/// What a rank waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Publish,
    Lookup,
    Unpublish,
    Spawn,
}

impl Server {
    pub(super) fn upcall(&mut self, asker: Asker, call: Upcall, out: &mut Vec<Action>) -> Result<(), PmiError> {
        self.count_request(asker.local)?;
        let asked = match call {
            Upcall::Publish { .. } => Asked::Publish,
            Upcall::Lookup { .. } => Asked::Lookup,
            Upcall::Unpublish { .. } => Asked::Unpublish,
            Upcall::Spawn(_) => Asked::Spawn,
        };
        let token = self.next_token;
        self.next_token += 1;
        out.push(Action::Upcall { token, rank: self.members[asker.local].rank, call });
        self.calls.insert(token, (asker, asked));
        Ok(())
    }

    /// The root's answer to an upcall. Ignored if the rank is gone.
    pub fn answer(&mut self, token: u64, answer: Answer, out: &mut Vec<Action>) {
        let Some((asker, asked)) = self.calls.remove(&token) else { return };
        self.members[asker.local].waiting -= 1;
        let bytes = match asked {
            Asked::Publish => {
                let reply = match answer {
                    Answer::Published(Ok(())) => asker.reply("publish_result", "name-publish-response", 0),
                    Answer::Published(Err(why)) => {
                        asker.reply("publish_result", "name-publish-response", 1).reason(&why)
                    }
                    _ => asker.reply("publish_result", "name-publish-response", 1),
                };
                reply.finish()
            }
            Asked::Lookup => match answer {
                Answer::Found(port) => found(&asker, port),
                _ => found(&asker, None),
            },
            Asked::Unpublish => {
                let rc = i32::from(answer != Answer::Unpublished(true));
                asker.reply("unpublish_result", "name-unpublish-response", rc).finish()
            }
            Asked::Spawn => spawned(&asker, answer),
        };
        out.push(Action::Send { local: asker.local, bytes });
    }
}

/// The reply to a lookup.
pub(super) fn found(asker: &Asker, port: Option<Bytes>) -> Bytes {
    let Some(port) = port.filter(|port| can_carry(asker.dialect, port)) else {
        let reply = asker.reply("lookup_result", "name-lookup-response", 1);
        return if asker.dialect == Dialect::V2 { reply.text("found", "FALSE").finish() } else { reply.finish() };
    };
    let mut reply = asker.reply("lookup_result", "name-lookup-response", 0);
    if asker.dialect == Dialect::V2 {
        // MPICH reads port, Slurm's library reads value.
        reply = reply.text("found", "TRUE").bytes("value", &port);
    }
    reply.bytes("port", &port).finish()
}

fn spawned(asker: &Asker, answer: Answer) -> Bytes {
    match answer {
        Answer::Spawned { kvsname, errcodes } => {
            let mut reply = asker.reply("spawn_result", "spawn-response", 0).text("jobid", &kvsname);
            // Clients take a missing list for zeros, and old ones have no room for a long line.
            if errcodes.iter().any(|code| *code != 0) && errcodes.len() <= RANKS_PER_HOST_MAX as usize {
                let codes: Vec<String> = errcodes.iter().map(i32::to_string).collect();
                reply = reply.text("errcodes", &codes.join(","));
            }
            reply.finish()
        }
        Answer::SpawnFailed { reason } => asker.reply("spawn_result", "spawn-response", 1).reason(&reason).finish(),
        _ => asker.reply("spawn_result", "spawn-response", 1).finish(),
    }
}
