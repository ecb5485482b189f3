//! The commands of PMI-1.

use bytes::Bytes;
use muster_protocol::limits::{PMI_KEY_BYTES_MAX, PMI_KVSNAME_BYTES_MAX, PMI_NAME_BYTES_MAX, PMI_VALUE_BYTES_MAX};

use super::action::{Action, PmiError, Upcall};
use super::answers::found;
use super::names::check_name;
use super::reply::can_carry;
use super::server::{Asker, Server};
use super::spawn::SpawnRequest;
use super::wire::{Dialect, Message, shown};

/// Result codes as `pmi.h` numbers them.
pub(super) const FAIL: i32 = 1;
const INVALID_KEY_LENGTH: i32 = 5;
const INVALID_VALUE: i32 = 6;
const INVALID_VALUE_LENGTH: i32 = 7;
const INVALID_LENGTH: i32 = 8;
/// What a client expects of an exit code that it does not give.
const EXITCODE_DEFAULT: i32 = 1;

/// A field that the command cannot do without.
pub(super) fn required<'a>(message: &'a Message, field: &'static str) -> Result<&'a Bytes, PmiError> {
    let missing = || PmiError::MissingField { command: shown(message.command()), field };
    message.fields.get(field).ok_or_else(missing)
}

pub(super) fn own(bytes: &[u8]) -> Bytes {
    // A slice would keep the whole read buffer in memory.
    Bytes::copy_from_slice(bytes)
}

impl Server {
    pub(super) fn v1(&mut self, asker: Asker, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        let reply = |name: &str, rc: i32| asker.reply(name, name, rc);
        let bytes = match message.command() {
            b"init" => return self.init(&asker, message, out),
            b"get_maxes" => reply("maxes", 0)
                .number("kvsname_max", PMI_KVSNAME_BYTES_MAX as i64)
                .number("keylen_max", PMI_KEY_BYTES_MAX as i64)
                .number("vallen_max", PMI_VALUE_BYTES_MAX as i64)
                .finish(),
            b"get_appnum" => reply("appnum", 0).number("appnum", i64::from(self.members[asker.local].appnum)).finish(),
            b"get_universe_size" => {
                reply("universe_size", 0).number("size", self.setup.universe_size.map_or(-1, i64::from)).finish()
            }
            b"get_my_kvsname" => reply("my_kvsname", 0).text("kvsname", &self.setup.kvsname).finish(),
            b"put" => reply("put_result", self.put_v1(message)?).finish(),
            b"get" => self.get_v1(&asker, message)?,
            b"barrier_in" => return self.barrier(asker, message, out),
            b"publish_name" => {
                let (name, port) = (required(message, "service")?, required(message, "port")?);
                return self.publish(asker, name, port, out);
            }
            b"lookup_name" => return self.lookup_name(asker, required(message, "service")?, out),
            b"unpublish_name" => return self.unpublish_name(asker, required(message, "service")?, out),
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

    /// Both dialects begin here. Of PMI-1 only 1.1 is offered, whatever the client asks for: with 1.2 barriers are no longer
    /// in lock-step, come in groups and must carry a tag, and MPICH does without all that when it is told 1.1.
    fn init(&mut self, asker: &Asker, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        required(message, "pmi_version")?;
        let (rc, version, subversion) = match message.fields.number::<u32>("pmi_version") {
            Some(1) => (0, 1, 1),
            Some(2) => (0, 2, 0),
            _ => (-1, 1, 1),
        };
        if rc == 0 {
            self.initialise(asker.local, out);
        }
        let reply = asker.reply("response_to_init", "response_to_init", rc);
        let bytes = reply.number("pmi_version", version).number("pmi_subversion", subversion).finish();
        out.push(Action::Send { local: asker.local, bytes });
        Ok(())
    }

    fn barrier(&mut self, mut asker: Asker, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        let Some(group) = message.fields.get("group") else { return self.enter_fence(asker, out) };
        let text = String::from_utf8_lossy(group);
        let (name, tag) = text.split_once(':').unwrap_or((&text, "0"));
        let tag = tag.parse::<i32>().unwrap_or(0);
        if name == "WORLD" {
            asker.tag = Some(i64::from(tag));
            return self.enter_fence(asker, out);
        }
        let bytes = asker.reply("barrier_out", "barrier_out", FAIL).number("tag", i64::from(tag)).finish();
        out.push(Action::Send { local: asker.local, bytes });
        Ok(())
    }

    fn is_own_kvsname(&self, message: &Message) -> bool {
        message.fields.get("kvsname").is_none_or(|name| *name == self.setup.kvsname)
    }

    fn put_v1(&mut self, message: &Message) -> Result<i32, PmiError> {
        let (key, value) = (required(message, "key")?, required(message, "value")?);
        if !self.is_own_kvsname(message) {
            return Ok(FAIL);
        }
        Ok(self.put(key, value))
    }

    /// Stores a pair; gives the result code.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> i32 {
        let rc = check_pair(key, value);
        if rc != 0 {
            return rc;
        }
        if key.starts_with(b"PMI_") {
            return FAIL;
        }
        self.kvs.put(key, value).map_or(INVALID_LENGTH, |()| 0)
    }

    fn get_v1(&mut self, asker: &Asker, message: &Message) -> Result<Bytes, PmiError> {
        let key = required(message, "key")?;
        let value = self.is_own_kvsname(message).then(|| self.value(asker.dialect, key)).flatten();
        Ok(match value {
            Some(value) => asker.reply("get_result", "get_result", 0).bytes("value", &value).finish(),
            None => asker.reply("get_result", "get_result", FAIL).finish(),
        })
    }

    /// What a key stands for, in a form that the dialect can carry. Nothing is ever asked of another host: after a fence
    /// this host has everything. Of the manager's own keys only these two are served; clients do without
    /// `PMI_hwloc_xmlfile` and `PMI_mpi_memory_alloc_kinds`, and no rank can put a key that begins like them.
    pub(super) fn value(&self, dialect: Dialect, key: &[u8]) -> Option<Bytes> {
        let value = match key {
            b"PMI_process_mapping" => self.setup.mapping.clone().map(Bytes::from),
            b"universeSize" => self.setup.universe_size.map(|size| Bytes::from(size.to_string())),
            _ => self.kvs.get(key).cloned(),
        };
        value.filter(|value| can_carry(dialect, value))
    }

    pub(super) fn publish(
        &mut self,
        asker: Asker,
        name: &[u8],
        port: &[u8],
        out: &mut Vec<Action>,
    ) -> Result<(), PmiError> {
        if let Err(error) = check_name(name, port) {
            let reply = asker.reply("publish_result", "name-publish-response", FAIL);
            out.push(Action::Send { local: asker.local, bytes: reply.reason(&error.to_string()).finish() });
            return Ok(());
        }
        self.upcall(asker, Upcall::Publish { name: own(name), port: own(port) }, out)
    }

    pub(super) fn lookup_name(&mut self, asker: Asker, name: &[u8], out: &mut Vec<Action>) -> Result<(), PmiError> {
        if name.len() > PMI_NAME_BYTES_MAX {
            out.push(Action::Send { local: asker.local, bytes: found(&asker, None) });
            return Ok(());
        }
        self.upcall(asker, Upcall::Lookup { name: own(name) }, out)
    }

    pub(super) fn unpublish_name(&mut self, asker: Asker, name: &[u8], out: &mut Vec<Action>) -> Result<(), PmiError> {
        if name.len() > PMI_NAME_BYTES_MAX {
            let reply = asker.reply("unpublish_result", "name-unpublish-response", FAIL);
            out.push(Action::Send { local: asker.local, bytes: reply.finish() });
            return Ok(());
        }
        self.upcall(asker, Upcall::Unpublish { name: own(name) }, out)
    }

    pub(super) fn spawn(&mut self, asker: Asker, message: &Message, out: &mut Vec<Action>) -> Result<(), PmiError> {
        match SpawnRequest::parse(message) {
            Ok(request) => self.upcall(asker, Upcall::Spawn(request), out),
            Err(error) => {
                let reply = asker.reply("spawn_result", "spawn-response", FAIL).reason(&error.to_string());
                out.push(Action::Send { local: asker.local, bytes: reply.finish() });
                Ok(())
            }
        }
    }

    /// Clients of different ages and families name the fields of an abort differently.
    pub(super) fn abort_request(&mut self, local: usize, message: &Message, out: &mut Vec<Action>) {
        let fields = &message.fields;
        let exitcode = fields.number("exitcode").or_else(|| fields.number("exit_code")).unwrap_or(EXITCODE_DEFAULT);
        let text = ["message", "error_msg", "msg"].iter().find_map(|key| fields.get(key));
        self.abort(local, exitcode, text.map_or(&[], |text| &text[..]), out);
    }
}

/// The result code of a pair's lengths. An empty value could never be given back to a modern client.
pub(super) fn check_pair(key: &[u8], value: &[u8]) -> i32 {
    if key.is_empty() || key.len() > PMI_KEY_BYTES_MAX {
        INVALID_KEY_LENGTH
    } else if value.is_empty() {
        INVALID_VALUE
    } else if value.len() > PMI_VALUE_BYTES_MAX {
        INVALID_VALUE_LENGTH
    } else {
        0
    }
}
