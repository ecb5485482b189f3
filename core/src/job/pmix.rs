//! What PMIx clients need of each other and only the root can bring together: meetings, published values, direct modex.

use std::collections::BTreeMap;

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use muster_protocol::event::Event;
use muster_protocol::message::{Answer, Ask, CallAnswer, Fetch, Fetched, Part, Say};
use muster_protocol::{Group, HostIndex, HostSet, ProcId, Rank};

use super::board::{Board, Found};
use super::machine::Job;
use super::meetings::Meetings;
use super::pending::{Caller, Pending};
use super::table::{Proc, Table};
use crate::pmix::status;

/// What is going on between ranks of different hosts.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pending: Pending,
    meetings: Meetings,
    board: Board,
    /// Who waits for the data of a rank elsewhere, with the host that was asked for them.
    fetches: BTreeMap<u64, (HostIndex, HostIndex, Caller)>,
    tickets: u64,
}

impl Exchange {
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.board.due_ms()
    }
}

impl Job {
    /// Takes up a question, or answers it at once.
    pub(super) fn exchange(&mut self, host: HostIndex, caller: Caller, ask: Ask) -> Option<Answer> {
        if self.exchange.pending.contains(caller) {
            return None;
        }
        let of = self.table.proc(caller.proc).map(|p| (p.group, p.rank))?;
        match ask {
            Ask::Put { items, once } => {
                if let Err(why) = self.exchange.board.put(of, &items, once) {
                    return Some(Answer::Denied { why });
                }
                self.exchange_goes_on();
                return Some(Answer::Done);
            }
            Ask::Withdraw { keys } => {
                self.exchange.board.withdraw(of, &keys);
                return Some(Answer::Done);
            }
            _ => {}
        }
        if !self.exchange.pending.add(caller) {
            return Some(Answer::Denied { why: "too many calls of this job wait for other ranks".to_owned() });
        }
        match ask {
            Ask::Find { keys, wait_ms } => self.exchange.board.find(host, caller, keys, wait_ms),
            Ask::Gather { purpose, name, parts, data, context } => {
                let data = Bytes::from(data.to_vec());
                self.exchange.meetings.come((purpose, name, parts), host, caller, data, context);
            }
            Ask::Fetch { group, rank } => self.fetch(host, caller, group, rank),
            _ => {}
        }
        self.exchange_goes_on();
        None
    }

    fn fetch(&mut self, host: HostIndex, caller: Caller, group: Group, rank: Rank) {
        let proc = self.table.groups.get(&group).and_then(|g| g.procs.get(rank.0 as usize));
        let Some(of) = proc.filter(|p| lives(p)).map(|p| p.host) else {
            return self.reply(host, caller, no_data(status::NOT_FOUND));
        };
        let ticket = self.exchange.tickets;
        self.exchange.tickets += 1;
        self.exchange.fetches.insert(ticket, (of, host, caller));
        self.send(of, &Fetch { ticket, group, rank });
    }

    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        if let Some((_, host, caller)) = self.exchange.fetches.remove(&fetched.ticket) {
            self.reply(host, caller, Answer::Data { status: fetched.status, data: fetched.data });
        }
    }

    /// Answers whoever need not wait any longer.
    pub(super) fn exchange_goes_on(&mut self) {
        let table = &self.table;
        for complete in self.exchange.meetings.complete(|parts| living_hosts(table, parts)) {
            let answer = Answer::Gathered { data: complete.data.to_vec().into(), context: complete.context };
            for (host, caller) in complete.callers {
                self.reply(host, caller, answer.clone());
            }
        }
        let served = self.exchange.board.served();
        self.found(served);
        let hosts = &self.table.hosts;
        let lost = |(of, ..): &(HostIndex, HostIndex, Caller)| hosts.get(of.0 as usize).is_none_or(|h| h.lost);
        let (gone, kept) = std::mem::take(&mut self.exchange.fetches).into_iter().partition(|(_, f)| lost(f));
        self.exchange.fetches = kept;
        let gone: BTreeMap<u64, (HostIndex, HostIndex, Caller)> = gone;
        for (_, host, caller) in gone.into_values() {
            self.reply(host, caller, no_data(status::NOT_FOUND));
        }
    }

    fn found(&mut self, found: Vec<Found>) {
        for (host, caller, items) in found {
            self.reply(host, caller, Answer::Items { items });
        }
    }

    /// Time has passed.
    pub(super) fn exchange_tick(&mut self, now_ms: u64) {
        let found = self.exchange.board.tick(now_ms);
        self.found(found);
    }

    fn reply(&mut self, host: HostIndex, caller: Caller, answer: Answer) {
        let Some(group) = self.table.proc(caller.proc).map(|p| p.group) else { return };
        if self.exchange.pending.remove(caller) {
            self.answers.keep(caller.proc, caller.token, answer.clone());
            self.send(host, &CallAnswer { group, token: caller.token, answer });
        }
    }

    /// A process has ended or was lost.
    pub(super) fn waits_no_more(&mut self, proc: ProcId) {
        self.exchange.pending.forget(proc);
        self.exchange.board.forget(|caller| caller.proc == proc);
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

fn lives(proc: &Proc) -> bool {
    proc.ended.is_none() && !proc.lost
}

/// Where the living among these are.
fn living_hosts(table: &Table, parts: &[Part]) -> HostSet {
    let mut hosts = HostSet::new();
    for part in parts {
        let Some(group) = table.groups.get(&part.group) else { continue };
        let procs = match part.rank {
            Some(rank) => group.procs.get(rank.0 as usize).map_or(&[][..], std::slice::from_ref),
            None => &group.procs[..],
        };
        for proc in procs.iter().filter(|p| lives(p)) {
            hosts.insert(proc.host);
        }
    }
    hosts
}
