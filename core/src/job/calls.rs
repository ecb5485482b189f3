//! What ranks ask of the root: names and more ranks.

use bytes::Bytes;
use muster_protocol::event::Event;
use muster_protocol::limits::{GROUPS_MAX, PROCS_MAX};
use muster_protocol::message::{Answer, Ask, Call, CallAnswer, KeyValue, SpawnApp};
use muster_protocol::{Group, HostIndex, ProcId};

use super::answers::Known;
use super::credit;
use super::fit::{check, settle_in};
use super::machine::{Job, Stage};
use super::pending::Caller;
use super::spawn::{place_spawned, spec_of};

impl Job {
    pub(super) fn on_call(&mut self, host: HostIndex, call: Call) {
        let Some(proc) = self.table.proc(call.proc) else { return };
        let group = proc.group;
        // What a whole host asks is asked in the name of one of its ranks, which may end meanwhile.
        let of_host = matches!(call.ask, Ask::Gather { .. } | Ask::Fetch { .. });
        if proc.lost || proc.ended.is_some() && !of_host {
            // Nobody waits for the answer.
            return;
        }
        if let Ask::Fetch { group: of, rank } = call.ask {
            // Asking once more changes nothing, so its answers are not kept.
            return self.fetch(host, group, Caller { proc: call.proc, token: call.token }, of, rank);
        }
        let answer = match self.answers.known(call.proc, call.token) {
            Known::Answered(answer) => answer,
            Known::Stale => return,
            Known::No => {
                let caller = Caller { proc: call.proc, token: call.token };
                let Some(answer) = self.answer_to(host, group, caller, call.ask) else { return };
                self.answers.keep(call.proc, call.token, answer.clone());
                answer
            }
        };
        self.send(host, &CallAnswer { group, token: call.token, answer });
    }

    /// The answer, unless it has to wait.
    fn answer_to(&mut self, host: HostIndex, group: Group, caller: Caller, ask: Ask) -> Option<Answer> {
        let proc = caller.proc;
        Some(match ask {
            Ask::Publish { name, port } => match self.names.publish(Bytes::from(name), Bytes::from(port)) {
                Ok(()) => Answer::Done,
                Err(e) => Answer::Denied { why: e.to_string() },
            },
            Ask::Lookup { name } => match self.names.lookup(name.as_bytes()) {
                Some(port) => Answer::Found { port: String::from_utf8_lossy(&port).into_owned() },
                None => Answer::Denied { why: format!("no port is published as {name:?}") },
            },
            Ask::Unpublish { name } => match self.names.unpublish(name.as_bytes()) {
                true => Answer::Done,
                false => Answer::Denied { why: format!("no port is published as {name:?}") },
            },
            Ask::Spawn { apps, preput } => match self.spawn(proc, &apps, preput) {
                Ok((kvsname, count)) => Answer::Spawned { kvsname, count },
                Err(why) => Answer::Denied { why },
            },
            other => return self.exchange(host, group, caller, other),
        })
    }

    fn spawn(&mut self, by: ProcId, apps: &[SpawnApp], preput: Vec<KeyValue>) -> Result<(String, u32), String> {
        if self.stage != Stage::Running {
            return Err("the job is ending".to_owned());
        }
        let Some(spawner) = self.table.proc(by) else { return Err("the rank that asks has ended".to_owned()) };
        let (of, rank, program) = (spawner.group, spawner.rank, spawner.app as usize);
        let (procs, groups) = (self.table.procs_ever, self.table.groups_ever);
        let total = apps.iter().map(|a| u64::from(a.count)).sum::<u64>() + u64::from(procs);
        if total > u64::from(PROCS_MAX) || groups >= GROUPS_MAX {
            return Err(format!("a job has at most {PROCS_MAX} processes in {GROUPS_MAX} groups"));
        }
        let placed = place_spawned(&self.setup.hosts, &self.table.loads(), &self.table.gone(), apps)?;
        let Some(parent) = self.table.groups.get(&of).map(|g| &g.spec) else {
            return Err("the group of the rank that asks has ended".to_owned());
        };
        let mut spec = spec_of((parent, program), (Group(groups), ProcId(procs)), apps, preput);
        if let Some(pmix) = &mut spec.pmix {
            pmix.parent = Some((of, rank));
        }
        spec.window_bytes =
            credit::of_spawned(self.table.groups.values().filter(|g| g.alive > 0).map(|g| &g.spec), spec.size);
        settle_in(&mut spec, &placed, &self.setup.hosts);
        check(&spec).map_err(|e| e.to_string())?;
        let (kvsname, size, group) = (spec.kvsname.clone(), spec.size, spec.group);
        self.start_group(spec, &placed, false);
        self.emit(Event::Spawned { group, size, by: (of, rank) });
        Ok((kvsname, size))
    }
}
