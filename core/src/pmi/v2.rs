//! The commands of PMI-2.

use bytes::Bytes;

use super::action::{Action, PmiError};
use super::reply::{Reply, can_carry};
use super::server::{Asker, Server};
use super::v1::{FAIL, check_pair, own, required};
use super::wire::{Message, shown};

impl Server {
    pub(super) fn v2(&mut self, asker: Asker, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        let reply = |name: &str, rc: i32| asker.reply(name, name, rc);
        let bytes = match message.command() {
            b"fullinit" => self.full_init(&asker, message)?,
            b"job-getid" => reply("job-getid-response", 0).text("jobid", &self.setup.kvsname).finish(),
            // Nobody implements these two, nor this one of Slurm's beside Slurm; clients live with a refusal.
            b"job-connect" => reply("job-connect-response", FAIL).finish(),
            b"job-disconnect" => reply("job-disconnect-response", FAIL).finish(),
            b"ring" => reply("ring-response", FAIL).finish(),
            b"info-getjobattr" => {
                let value = self.value(asker.dialect, required(message, "key")?);
                looked_up(reply("info-getjobattr-response", 0), value)
            }
            b"info-putnodeattr" => return self.put_node_attr(&asker, message, out),
            b"info-getnodeattr" => return self.get_node_attr(asker, message, out),
            b"kvs-put" => {
                let rc = self.put(required(message, "key")?, required(message, "value")?);
                reply("kvs-put-response", rc).finish()
            }
            b"kvs-get" => {
                let own_job =
                    message.fields.get("jobid").is_none_or(|job| job.is_empty() || *job == self.setup.kvsname);
                let key = required(message, "key")?;
                let value = own_job.then(|| self.value(asker.dialect, key)).flatten();
                looked_up(reply("kvs-get-response", 0), value)
            }
            b"kvs-fence" => return self.enter_fence(asker, out),
            b"name-publish" => {
                let (name, port) = (required(message, "name")?, required(message, "port")?);
                return self.publish(asker, name, port, out);
            }
            b"name-lookup" => return self.lookup_name(asker, required(message, "name")?, out),
            b"name-unpublish" => return self.unpublish_name(asker, required(message, "name")?, out),
            b"spawn" => return self.spawn(asker, message, out),
            b"abort" => {
                self.abort_request(asker.local, message, out);
                return Ok(());
            }
            b"finalize" => {
                self.finalise(&asker, out);
                return Ok(());
            }
            command => return Err(PmiError::UnknownCommand { command: shown(command) }),
        };
        out.push(Action::Send { local: asker.local, bytes });
        Ok(())
    }

    /// Everything that any client looks for: Slurm's library insists on the versions, MPICH on the rest.
    fn full_init(&self, asker: &Asker, message: &Message) -> Result<Bytes, PmiError> {
        let member = &self.members[asker.local];
        if let Some(claimed) = message.fields.get("pmirank").filter(|r| !r.is_empty()) {
            let rank = member.rank.0;
            // MPICH says -1 when it finds no rank in its environment.
            let claim: Option<i64> = message.fields.number("pmirank");
            if !claim.is_some_and(|c| c < 0 || c == i64::from(rank)) {
                return Err(PmiError::BadField {
                    command: shown(message.command()),
                    field: "pmirank",
                    value: shown(claimed),
                    expected: rank.to_string(),
                });
            }
        }
        let mut reply = asker
            .reply("fullinit-response", "fullinit-response", 0)
            .number("pmi-version", 2)
            .number("pmi-subversion", 0)
            .number("rank", i64::from(member.rank.0))
            .number("size", i64::from(self.setup.size))
            .number("appnum", i64::from(member.appnum))
            .text("debugged", "FALSE")
            .text("pmiverbose", "FALSE");
        if let Some(spawner) = &self.setup.spawner {
            reply = reply.text("spawner-jobid", spawner);
        }
        Ok(reply.finish())
    }

    /// Node attributes never leave the host and are seen by its ranks without a fence.
    fn put_node_attr(&mut self, asker: &Asker, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        let (key, value) = (required(message, "key")?, required(message, "value")?);
        let mut rc = check_pair(key, value);
        if rc == 0 {
            rc = self.node_attrs.put_local(key, value).map_or(FAIL, |()| 0);
        }
        let bytes = asker.reply("info-putnodeattr-response", "info-putnodeattr-response", rc).finish();
        out.push(Action::Send { local: asker.local, bytes });
        let (ready, parked) =
            std::mem::take(&mut self.parked).into_iter().partition(|(_, wanted)| rc == 0 && wanted == key);
        self.parked = parked;
        let ready: Vec<(Asker, Bytes)> = ready;
        for (waiter, _) in ready {
            self.members[waiter.local].waiting -= 1;
            out.push(Action::Send { local: waiter.local, bytes: node_attr(&waiter, Some(value.clone())) });
        }
        Ok(())
    }

    fn get_node_attr(&mut self, asker: Asker, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        let key = required(message, "key")?;
        let value = self.node_attrs.get(key).cloned();
        let wait = message.fields.get("wait").is_some_and(|wait| wait.eq_ignore_ascii_case(b"TRUE"));
        // A key that nobody may put is not worth waiting for.
        if value.is_none() && wait && check_pair(key, b"any") == 0 {
            self.count_request(asker.local)?;
            self.parked.push((asker, own(key)));
            return Ok(());
        }
        out.push(Action::Send { local: asker.local, bytes: node_attr(&asker, value) });
        Ok(())
    }
}

fn node_attr(asker: &Asker, value: Option<Bytes>) -> Bytes {
    let value = value.filter(|value| can_carry(asker.dialect, value));
    looked_up(asker.reply("info-getnodeattr-response", "info-getnodeattr-response", 0), value)
}

/// Not found is an answer, not a failure: clients before MPICH 4.1 take a result code for an error.
fn looked_up(reply: Reply, value: Option<Bytes>) -> Bytes {
    match value {
        Some(value) => reply.text("found", "TRUE").bytes("value", &value).finish(),
        None => reply.text("found", "FALSE").finish(),
    }
}
