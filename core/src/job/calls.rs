//! What ranks ask of the root: names and more ranks.

use bytes::Bytes;
use muster_protocol::event::Event;
use muster_protocol::limits::{GROUPS_MAX, PROCS_MAX};
use muster_protocol::message::{Answer, Ask, Call, CallAnswer, KeyValue, SpawnApp};
use muster_protocol::{Group, HostIndex, ProcId};

use super::machine::{Job, Stage};
use super::spawn::{place_spawned, spec_of};

impl Job {
    pub(super) fn on_call(&mut self, host: HostIndex, call: Call) {
        let Some(proc) = self.table.proc(call.proc) else { return };
        let group = proc.group;
        let answer = match call.ask {
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
            Ask::Spawn { apps, preput } => match self.spawn(call.proc, &apps, preput) {
                Ok((kvsname, count)) => Answer::Spawned { kvsname, count },
                Err(why) => Answer::Denied { why },
            },
        };
        self.send(host, &CallAnswer { group, token: call.token, answer });
    }

    fn spawn(&mut self, by: ProcId, apps: &[SpawnApp], preput: Vec<KeyValue>) -> Result<(String, u32), String> {
        if self.stage != Stage::Running {
            return Err("the job is ending".to_owned());
        }
        let total = apps.iter().map(|a| u64::from(a.count)).sum::<u64>() + self.table.procs.len() as u64;
        if total > u64::from(PROCS_MAX) || self.table.groups.len() >= GROUPS_MAX as usize {
            return Err(format!("a job has at most {PROCS_MAX} processes in {GROUPS_MAX} groups"));
        }
        let placed = place_spawned(&self.setup.hosts, &self.table.loads(), apps)?;
        let group = Group(self.table.groups.len() as u32);
        let spec = spec_of(&self.setup.spec, group, ProcId(self.table.procs.len() as u32), apps, preput);
        let (kvsname, size) = (spec.kvsname.clone(), spec.size);
        self.start_group(spec, &placed);
        if let Some(p) = self.table.proc(by) {
            let by = (p.group, p.rank);
            self.emit(Event::Spawned { group, size, by });
        }
        Ok((kvsname, size))
    }
}
