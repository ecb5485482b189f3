//! What PMIx clients need of each other and only the root can bring together: meetings, published values, direct modex.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use muster_protocol::event::Event;
use muster_protocol::message::{Answer, Ask, CallAnswer, Fetch, Fetched, Part, Phase, ProcExit, Purpose, Say};
use muster_protocol::{Group, HostIndex, HostSet, ProcId, Rank};

use super::board::{Board, Found};
use super::machine::Job;
use super::meetings::{Coming, Complete, Meetings, groups};
use super::pending::{Address, Caller, Pending};
use super::table::{Proc, Table};
use super::ties::Ties;
use crate::pmix::status;

/// Data of a rank that somebody elsewhere waits for.
#[derive(Debug)]
struct Wanted {
    /// The rank's host.
    host: HostIndex,
    group: Group,
    rank: Rank,
    caller: Caller,
}

/// What is going on between ranks of different hosts.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) pending: Pending,
    pub(super) meetings: Meetings,
    pub(super) ties: Ties,
    board: Board,
    fetches: BTreeMap<u64, Wanted>,
    tickets: u64,
}

impl Exchange {
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.board.due_ms()
    }
}

impl Job {
    /// Takes up a question, or answers it at once.
    pub(super) fn exchange(&mut self, host: HostIndex, group: Group, caller: Caller, ask: Ask) -> Option<Answer> {
        if self.exchange.pending.contains(caller) {
            return None;
        }
        let of = self.table.proc(caller.proc).map(|p| (p.group, p.rank))?;
        match ask {
            Ask::Put { items, once } => {
                match self.exchange.board.put(of, &items, once) {
                    Ok(found) => self.found(found),
                    Err(why) => return Some(Answer::Denied { why }),
                }
                return Some(Answer::Done);
            }
            Ask::Withdraw { keys } => {
                self.exchange.board.withdraw(of, &keys);
                return Some(Answer::Done);
            }
            _ => {}
        }
        let of_host = matches!(ask, Ask::Gather { .. });
        if !self.exchange.pending.add(caller, Address { host, group, of_host }) {
            return Some(too_many());
        }
        match ask {
            Ask::Find { keys, wait_ms } => {
                let found = self.exchange.board.find(caller, keys, wait_ms);
                self.found(found);
            }
            Ask::Gather { purpose, name, parts, data, context } => {
                let coming = Coming { host, caller, data: Bytes::from(data.to_vec()), context };
                let table = &self.table;
                let missing = |part, from, came: &HostSet| missing(table, part, from, came);
                let complete = self.exchange.meetings.come((purpose, name, parts), coming, missing);
                self.complete(complete);
            }
            _ => {}
        }
        None
    }

    /// A host needs the data of a rank elsewhere; asked again, the rank's host is.
    pub(super) fn fetch(&mut self, host: HostIndex, asker: Group, caller: Caller, group: Group, rank: Rank) {
        let asked = self.exchange.pending.contains(caller);
        let known = self.exchange.fetches.iter().filter(|_| asked).find(|(_, wanted)| wanted.caller == caller);
        let ticket = known.map_or(self.exchange.tickets, |(ticket, _)| *ticket);
        let address = Address { host, group: asker, of_host: true };
        let proc = self.table.groups.get(&group).and_then(|g| g.procs.get(rank.0 as usize));
        let answer = match proc.filter(|p| lives(p)).map(|p| p.host) {
            None => no_data(status::NOT_FOUND),
            Some(_) if !self.exchange.pending.add(caller, address) => too_many(),
            Some(of) => {
                self.exchange.tickets = self.exchange.tickets.max(ticket + 1);
                self.exchange.fetches.insert(ticket, Wanted { host: of, group, rank, caller });
                return self.send(of, &Fetch { ticket, group, rank });
            }
        };
        self.exchange.fetches.remove(&ticket);
        self.exchange.pending.remove(caller);
        self.send(host, &CallAnswer { group: asker, token: caller.token, answer });
    }

    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        if let Some(wanted) = self.exchange.fetches.remove(&fetched.ticket) {
            self.reply(wanted.caller, Answer::Data { status: fetched.status, data: fetched.data });
        }
    }

    /// Hosts that have a new place in the tree may have missed what was asked of them.
    pub(super) fn fetch_again(&mut self, hosts: &HostSet) {
        let again = self.exchange.fetches.iter().filter(|(_, wanted)| hosts.contains(wanted.host));
        let again: Vec<(HostIndex, Fetch)> =
            again.map(|(ticket, w)| (w.host, Fetch { ticket: *ticket, group: w.group, rank: w.rank })).collect();
        for (host, fetch) in again {
            self.send(host, &fetch);
        }
    }

    /// Nobody will answer for these ranks any more.
    pub(super) fn give_up_fetches(&mut self, gone: impl Fn(HostIndex, Group, Rank) -> bool) {
        let open = self.exchange.fetches.iter().filter(|(_, w)| gone(w.host, w.group, w.rank));
        let tickets: Vec<u64> = open.map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            if let Some(wanted) = self.exchange.fetches.remove(&ticket) {
                self.reply(wanted.caller, no_data(status::NOT_FOUND));
            }
        }
    }

    /// Answers those who have met.
    fn complete(&mut self, meetings: impl IntoIterator<Item = Complete>) {
        for complete in meetings {
            let answer = match complete.data {
                Some(data) => Answer::Gathered { data: data.to_vec().into(), context: complete.context },
                None => Answer::Denied { why: "the ranks have brought more than one answer takes".to_owned() },
            };
            for caller in complete.callers {
                self.reply(caller, answer.clone());
            }
            let groups = groups(&complete.key);
            match complete.key.0 {
                Purpose::Connect => self.exchange.ties.connected(groups.clone()),
                // Open MPI 4 leaves by a fence.
                Purpose::Disconnect | Purpose::Fence => {
                    self.exchange.ties.left(&groups);
                }
                Purpose::Construct | Purpose::Destruct => {}
            }
            for group in groups {
                self.forget_if_over(group);
            }
        }
    }

    fn found(&mut self, found: impl IntoIterator<Item = Found>) {
        for (caller, items) in found {
            self.reply(caller, Answer::Items { items });
        }
    }

    /// Time has passed.
    pub(super) fn exchange_tick(&mut self, now_ms: u64) {
        let found = self.exchange.board.tick(now_ms);
        self.found(found);
    }

    fn reply(&mut self, caller: Caller, answer: Answer) {
        let Some(Address { host, group, .. }) = self.exchange.pending.remove(caller) else { return };
        if !matches!(answer, Answer::Data { .. }) {
            self.answers.keep(caller.proc, caller.token, answer.clone());
        }
        self.send(host, &CallAnswer { group, token: caller.token, answer });
        if self.table.proc(caller.proc).is_some_and(|proc| !lives(proc)) {
            // Its group may have been kept for this answer.
            self.forget_if_over(group);
        }
    }

    /// A process has ended.
    pub(super) fn exchange_ended(&mut self, exit: &ProcExit) {
        self.waits_no_more(exit.proc);
        let Some((group, rank)) = self.table.proc(exit.proc).map(|p| (p.group, p.rank)) else { return };
        if exit.phase != Phase::Finalised {
            self.give_up_fetches(|_, g, r| (g, r) == (group, rank));
        }
        self.nobody_waits_for(group, rank);
    }

    fn nobody_waits_for(&mut self, group: Group, rank: Rank) {
        let table = &self.table;
        let missing = |part, from, came: &HostSet| missing(table, part, from, came);
        let complete = self.exchange.meetings.ended(group, rank, missing);
        self.complete(complete);
    }

    /// A host was lost, with these processes.
    pub(super) fn exchange_lost(&mut self, host: HostIndex, procs: &[ProcId]) {
        for proc in procs {
            self.waits_no_more(*proc);
        }
        self.exchange.pending.forget_host(host);
        self.give_up_fetches(|of, _, _| of == host);
        for proc in procs {
            let named = self.table.proc(*proc).map(|p| (p.group, p.rank));
            if let Some((group, rank)) = named {
                self.nobody_waits_for(group, rank);
            }
        }
    }

    fn waits_no_more(&mut self, proc: ProcId) {
        self.exchange.pending.forget(proc);
        self.exchange.board.forget(proc);
    }

    /// Words of a rank's library.
    pub(super) fn on_say(&mut self, said: &Say) {
        let Some(proc) = self.table.proc(said.proc) else { return };
        let (group, rank, host) = (proc.group, proc.rank, self.table.host_name(proc.host));
        let text = String::from_utf8_lossy(&said.text).into_owned();
        self.emit(Event::RankSaid { group, rank, host, text });
    }
}

fn no_data(status: i32) -> Answer {
    Answer::Data { status, data: ByteVec::from(Vec::new()) }
}

fn too_many() -> Answer {
    Answer::Denied { why: "too many calls of this job wait for other ranks".to_owned() }
}

fn lives(proc: &Proc) -> bool {
    proc.ended.is_none() && !proc.lost
}

/// The first living rank of a part from this one on that is on none of the hosts that have come.
fn missing(table: &Table, part: Part, from: Rank, came: &HostSet) -> Option<Rank> {
    let procs = &table.groups.get(&part.group)?.procs;
    let meant = part.rank.map_or(0..procs.len(), |rank| rank.0 as usize..rank.0 as usize + 1);
    let rest = meant.start.max(from.0 as usize)..meant.end;
    let awaited = |proc: &&Proc| lives(proc) && !came.contains(proc.host);
    procs.get(rest)?.iter().find(awaited).map(|proc| proc.rank)
}
