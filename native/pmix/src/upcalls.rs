//! What the library calls. All of it runs in the library's one thread: nothing here waits, and nothing is answered from inside,
//! since some releases would then wait for themselves.

use std::ffi::{c_char, c_int, c_void};

use minicbor::bytes::ByteVec;
use muster_protocol::limits::{FENCE_BYTES_MAX, PMIX_ENDPOINT_BYTES_MAX, PMIX_TEXT_BYTES_MAX};
use muster_protocol::pmix::{FromPmix, GroupOp, Item, SpawnProgram};

use crate::abi::{
    self, App, EventDone, GROUP_CONSTRUCT, Info, InfoDone, LookupDone, ModexDone, OpDone, SpawnDone, Status,
    TABLE_SLOTS, kind, status,
};
use crate::host::{Host, Mark, Waiting};
use crate::{logged, values};

/// The first series whose members of a group bring more than the bytes that are passed on here.
const GROUPS_BRING_MORE_SINCE: u32 = 6;

/// The table of upcalls for a library of this series. Only slots that are the same in every release are filled; the rest is zero,
/// which is "not offered".
pub fn table(series: u32) -> Box<[*const c_void; TABLE_SLOTS]> {
    let mut slots = Box::new([std::ptr::null(); TABLE_SLOTS]);
    let group = if series < GROUPS_BRING_MORE_SINCE { group as *const c_void } else { no_group as *const c_void };
    let filled: [(usize, *const c_void); 17] = [
        (0, client_connected as *const c_void),
        (1, client_finalised as *const c_void),
        (2, abort as *const c_void),
        (3, fence as *const c_void),
        (4, direct_modex as *const c_void),
        (5, publish as *const c_void),
        (6, lookup as *const c_void),
        (7, unpublish as *const c_void),
        (8, spawn as *const c_void),
        (9, connect as *const c_void),
        (10, disconnect as *const c_void),
        (11, register_events as *const c_void),
        (12, deregister_events as *const c_void),
        (14, notify_event as *const c_void),
        (17, log as *const c_void),
        (25, group),
        (27, client_connected_with_info as *const c_void),
    ];
    for (slot, function) in filled {
        slots[slot] = function;
    }
    slots
}

/// Tells the agent, if there is one.
fn tell(message: FromPmix) -> Status {
    match Host::get() {
        Some(host) => {
            host.tell(message);
            status::OPERATION_SUCCEEDED
        }
        None => status::ERROR,
    }
}

fn ask(waiting: Option<Waiting>, message: impl FnOnce(u64) -> FromPmix) -> Status {
    match (Host::get(), waiting) {
        (Some(host), Some(waiting)) => host.ask(waiting, message),
        (None, _) => status::ERROR,
        // Nobody wants to know the end, so there is nothing to begin.
        (_, None) => status::BAD_PARAM,
    }
}

fn op(done: Option<OpDone>, mark: *mut c_void) -> Option<Waiting> {
    done.map(|done| Waiting::Op(done, Mark(mark)))
}

unsafe extern "C" fn client_connected(
    proc: *const abi::Proc,
    _object: *mut c_void,
    _done: Option<OpDone>,
    _mark: *mut c_void,
) -> Status {
    // SAFETY: the library names a process of its own for the time of the call.
    // Any other answer than "done" makes some releases wait for a call that others would not take.
    tell(FromPmix::Connected { proc: unsafe { values::proc_at(proc) } })
}

unsafe extern "C" fn client_connected_with_info(
    proc: *const abi::Proc,
    _object: *mut c_void,
    _infos: *const Info,
    _length: usize,
    _done: Option<OpDone>,
    _mark: *mut c_void,
) -> Status {
    // SAFETY: as above.
    tell(FromPmix::Connected { proc: unsafe { values::proc_at(proc) } })
}

unsafe extern "C" fn client_finalised(
    proc: *const abi::Proc,
    _object: *mut c_void,
    _done: Option<OpDone>,
    _mark: *mut c_void,
) -> Status {
    // SAFETY: the library names a process of its own for the time of the call.
    tell(FromPmix::Finalised { proc: unsafe { values::proc_at(proc) } })
}

unsafe extern "C" fn abort(
    proc: *const abi::Proc,
    _object: *mut c_void,
    status: c_int,
    message: *const c_char,
    _procs: *const abi::Proc,
    _length: usize,
    _done: Option<OpDone>,
    _mark: *mut c_void,
) -> Status {
    // SAFETY: the library names a process and a text, or null, for the time of the call.
    let (proc, mut message) = unsafe { (values::proc_at(proc), values::text(message)) };
    let end = (0..=PMIX_TEXT_BYTES_MAX.min(message.len())).rev().find(|at| message.is_char_boundary(*at));
    message.truncate(end.unwrap_or_default());
    tell(FromPmix::Abort { proc, status, message })
}

unsafe extern "C" fn fence(
    procs: *const abi::Proc,
    procs_length: usize,
    infos: *const Info,
    infos_length: usize,
    data: *const c_char,
    data_length: usize,
    done: Option<ModexDone>,
    mark: *mut c_void,
) -> Status {
    if data_length > FENCE_BYTES_MAX {
        return status::OUT_OF_RESOURCE;
    }
    // SAFETY: the library's arrays have these lengths and stay as they are for the time of the call.
    let (procs, infos, data) = unsafe {
        (values::procs(procs, procs_length), values::slice(infos, infos_length), values::bytes(data, data_length))
    };
    let collect = values::is_set(infos, "pmix.collect");
    let waiting = done.map(|done| Waiting::Modex(done, Mark(mark)));
    ask(waiting, |token| FromPmix::Fence { token, procs, collect, data: ByteVec::from(data) })
}

unsafe extern "C" fn direct_modex(
    proc: *const abi::Proc,
    _infos: *const Info,
    _length: usize,
    done: Option<ModexDone>,
    mark: *mut c_void,
) -> Status {
    // SAFETY: the library names a process for the time of the call.
    let proc = unsafe { values::proc_at(proc) };
    ask(done.map(|done| Waiting::Modex(done, Mark(mark))), |token| FromPmix::Modex { token, proc })
}

unsafe extern "C" fn publish(
    proc: *const abi::Proc,
    infos: *const Info,
    length: usize,
    done: Option<OpDone>,
    mark: *mut c_void,
) -> Status {
    // SAFETY: the library names a process and an array of this length for the time of the call.
    let (proc, infos) = unsafe { (values::proc_at(proc), values::slice(infos, length)) };
    let persistence = values::find(infos, "pmix.persist").and_then(values::number);
    let once = persistence == Some(abi::PERSISTENCE_FIRST_READ.into());
    let mut items = Vec::new();
    for info in infos {
        let key = values::field(&info.key);
        // The rest says how to publish.
        if key.starts_with("pmix.") {
            continue;
        }
        // SAFETY: the library's value is what its type says.
        let Some(value) = (unsafe { values::published(&info.value) }) else { return status::NOT_SUPPORTED };
        items.push(Item { key, value });
    }
    ask(op(done, mark), |token| FromPmix::Publish { token, proc, items, once })
}

unsafe extern "C" fn lookup(
    proc: *const abi::Proc,
    keys: *const *const c_char,
    infos: *const Info,
    length: usize,
    done: Option<LookupDone>,
    mark: *mut c_void,
) -> Status {
    // SAFETY: the library names a process, texts up to a null pointer, and an array of this length for the time of the call.
    let (proc, keys, infos) = unsafe { (values::proc_at(proc), values::texts(keys), values::slice(infos, length)) };
    // Its value is how many keys to wait for, none meaning all; as a flag, whether to wait.
    let wait = values::find(infos, "pmix.wait")
        .is_some_and(|value| value.kind != kind::BOOL || values::number(value) == Some(1));
    let timeout = values::find(infos, "pmix.timeout").and_then(values::number);
    let timeout_s = timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0);
    let waiting = done.map(|done| Waiting::Lookup(done, Mark(mark)));
    ask(waiting, |token| FromPmix::Lookup { token, proc, keys, wait, timeout_s })
}

unsafe extern "C" fn unpublish(
    proc: *const abi::Proc,
    keys: *const *const c_char,
    _infos: *const Info,
    _length: usize,
    done: Option<OpDone>,
    mark: *mut c_void,
) -> Status {
    // SAFETY: the library names a process, and texts up to a null pointer, for the time of the call.
    let (proc, keys) = unsafe { (values::proc_at(proc), values::texts(keys)) };
    ask(op(done, mark), |token| FromPmix::Unpublish { token, proc, keys })
}

unsafe extern "C" fn spawn(
    proc: *const abi::Proc,
    infos: *const Info,
    infos_length: usize,
    apps: *const App,
    apps_length: usize,
    done: Option<SpawnDone>,
    mark: *mut c_void,
) -> Status {
    // SAFETY: the library's arrays have these lengths and stay as they are for the time of the call.
    let (parent, info, apps) =
        unsafe { (values::proc_at(proc), values::words(infos, infos_length), values::slice(apps, apps_length)) };
    // SAFETY: the library's, as above.
    let apps: Option<Vec<SpawnProgram>> = apps.iter().map(|app| unsafe { program(app) }).collect();
    let Some(apps) = apps else { return status::BAD_PARAM };
    let waiting = done.map(|done| Waiting::Spawn(done, Mark(mark)));
    ask(waiting, |token| FromPmix::Spawn { token, parent, info, apps })
}

/// # Safety
/// The library's: its pointers are null or name what they say.
unsafe fn program(app: &App) -> Option<SpawnProgram> {
    // SAFETY: this function's contract.
    let (program, argv, env, info) = unsafe {
        (values::text(app.cmd), values::texts(app.argv), values::texts(app.env), values::words(app.info, app.ninfo))
    };
    // SAFETY: this function's contract.
    let wdir = (!app.cwd.is_null()).then(|| unsafe { values::text(app.cwd) });
    Some(SpawnProgram { program, argv, env, wdir, count: u32::try_from(app.maxprocs).ok()?, info })
}

unsafe extern "C" fn connect(
    procs: *const abi::Proc,
    length: usize,
    _infos: *const Info,
    _infos_length: usize,
    done: Option<OpDone>,
    mark: *mut c_void,
) -> Status {
    // SAFETY: the library's array has this length and stays as it is for the time of the call.
    let procs = unsafe { values::procs(procs, length) };
    ask(op(done, mark), |token| FromPmix::Connect { token, procs })
}

unsafe extern "C" fn disconnect(
    procs: *const abi::Proc,
    length: usize,
    _infos: *const Info,
    _infos_length: usize,
    done: Option<OpDone>,
    mark: *mut c_void,
) -> Status {
    // SAFETY: the library's array has this length and stays as it is for the time of the call.
    let procs = unsafe { values::procs(procs, length) };
    ask(op(done, mark), |token| FromPmix::Disconnect { token, procs })
}

/// Every event that the agent knows of goes to every server anyway.
extern "C" fn register_events(
    _codes: *const Status,
    _codes_length: usize,
    _infos: *const Info,
    _infos_length: usize,
    _done: Option<OpDone>,
    _mark: *mut c_void,
) -> Status {
    status::OPERATION_SUCCEEDED
}

extern "C" fn deregister_events(
    _codes: *const Status,
    _codes_length: usize,
    _done: Option<OpDone>,
    _mark: *mut c_void,
) -> Status {
    status::OPERATION_SUCCEEDED
}

/// What a rank says of others that it believes dead; agents know better.
extern "C" fn notify_event(
    _code: Status,
    _source: *const abi::Proc,
    _range: u8,
    _infos: *const Info,
    _infos_length: usize,
    _done: Option<OpDone>,
    _mark: *mut c_void,
) -> Status {
    status::OPERATION_SUCCEEDED
}

unsafe extern "C" fn log(
    proc: *const abi::Proc,
    infos: *const Info,
    length: usize,
    _directives: *const Info,
    _directives_length: usize,
    done: Option<OpDone>,
    mark: *mut c_void,
) {
    // SAFETY: the library names a process and an array of this length for the time of the call.
    let (proc, infos) = unsafe { (values::proc_at(proc), values::slice(infos, length)) };
    let mut text = Vec::new();
    for info in infos {
        match values::field(&info.key).as_str() {
            "pmix.log.stderr" | "pmix.log.stdout" if info.value.kind == kind::STRING => {
                // SAFETY: the type says that this is the member, and it is null or a text.
                text.extend(unsafe { values::text(info.value.data.string) }.into_bytes());
            }
            "pmix.log.msg" => {
                // SAFETY: the library's value is what its type says.
                text.extend(logged::unpacked(&unsafe { values::blob(&info.value) }.unwrap_or_default()));
            }
            _ => {}
        }
    }
    text.truncate(PMIX_TEXT_BYTES_MAX);
    // This upcall returns nothing: the end must be told, and not from here.
    match (Host::get(), op(done, mark)) {
        (Some(host), Some(waiting)) => {
            host.ask_surely(waiting, |token| FromPmix::Log { token, proc, text: ByteVec::from(text) });
        }
        (Some(host), None) => host.tell(FromPmix::Log { token: 0, proc, text: ByteVec::from(text) }),
        (None, _) => {}
    }
}

unsafe extern "C" fn group(
    op: u8,
    id: *const c_char,
    procs: *const abi::Proc,
    procs_length: usize,
    infos: *const Info,
    infos_length: usize,
    done: Option<InfoDone>,
    mark: *mut c_void,
) -> Status {
    // A group's end needs nobody else. It must be "done" at once: some releases ask twice otherwise, with one callback for both,
    // and use it after they have freed it.
    if op != GROUP_CONSTRUCT {
        return status::OPERATION_SUCCEEDED;
    }
    // SAFETY: the library names a text and arrays of these lengths for the time of the call.
    let (id, procs, infos) =
        unsafe { (values::text(id), values::procs(procs, procs_length), values::slice(infos, infos_length)) };
    let context = values::is_set(infos, "pmix.grp.actxid");
    // SAFETY: the library's value is what its type says.
    let endpoint = values::find(infos, "pmix.grp.endpt").and_then(|value| unsafe { values::blob(value) });
    let endpoint = ByteVec::from(endpoint.unwrap_or_default());
    if endpoint.len() > PMIX_ENDPOINT_BYTES_MAX {
        return status::OUT_OF_RESOURCE;
    }
    let waiting = done.map(|done| Waiting::Info(done, Mark(mark)));
    ask(waiting, |token| FromPmix::Group { token, op: GroupOp::Construct, id, procs, context, endpoint })
}

/// Groups of libraries that let members bring more, as infos of any type: a group without those would be told as a good one.
extern "C" fn no_group(
    op: u8,
    _id: *const c_char,
    _procs: *const abi::Proc,
    _procs_length: usize,
    _infos: *const Info,
    _infos_length: usize,
    _done: Option<InfoDone>,
    _mark: *mut c_void,
) -> Status {
    if op == GROUP_CONSTRUCT { status::NOT_SUPPORTED } else { status::OPERATION_SUCCEEDED }
}

/// The handler for every event that concerns this server itself. There is nothing to do: the agent sees ranks end by itself, and a
/// library without a handler would take some events for its own end.
pub(crate) extern "C" fn any_event(
    _id: usize,
    _status: Status,
    _source: *const abi::Proc,
    _infos: *mut Info,
    _length: usize,
    _results: *mut Info,
    _results_length: usize,
    done: Option<EventDone>,
    mark: *mut c_void,
) {
    if let Some(done) = done {
        // SAFETY: the library's own callback with its own mark, once, and nothing else is pointed to.
        unsafe { done(status::EVENT_ACTION_COMPLETE, std::ptr::null_mut(), 0, None, std::ptr::null_mut(), mark) };
    }
}

/// What a rank has put, on its way to another host. The mark is the agent's number for it, not an address.
pub(crate) extern "C" fn fetched(status: Status, data: *mut c_char, length: usize, mark: *mut c_void) {
    // SAFETY: the library's bytes stay as they are for the time of the call.
    tell(unsafe { answer(mark.addr() as u64, status, data, length) });
}

/// # Safety
/// The pointer is null or names so many bytes.
unsafe fn answer(token: u64, status: Status, data: *const c_char, length: usize) -> FromPmix {
    if length > FENCE_BYTES_MAX {
        return not_fetched(token, status::OUT_OF_RESOURCE);
    }
    // SAFETY: this function's contract.
    FromPmix::Fetched { token, status, data: ByteVec::from(unsafe { values::bytes(data, length) }) }
}

/// The process as the agent knows it; used where a fetch fails at once.
pub(crate) fn not_fetched(token: u64, status: Status) -> FromPmix {
    FromPmix::Fetched { token, status, data: ByteVec::from(Vec::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slots_that_never_moved_are_filled() {
        for series in [3, 6] {
            let table = table(series);
            let filled: Vec<usize> = (0..TABLE_SLOTS).filter(|slot| !table[*slot].is_null()).collect();
            assert_eq!(filled, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 17, 25, 27]);
        }
    }

    #[test]
    fn groups_whose_members_bring_more_than_is_passed_on_are_refused() {
        assert_eq!(table(5)[25], group as *const c_void);
        assert_eq!(table(6)[25], no_group as *const c_void);
        let null = std::ptr::null_mut();
        let asked = |op| no_group(op, null, std::ptr::null(), 0, std::ptr::null(), 0, None, null.cast());
        assert_eq!(
            [asked(GROUP_CONSTRUCT), asked(GROUP_CONSTRUCT + 1)],
            [status::NOT_SUPPORTED, status::OPERATION_SUCCEEDED]
        );
    }

    #[test]
    fn what_a_rank_has_put_is_told_unless_it_is_too_much() {
        // SAFETY: two bytes; null.
        let told = unsafe { [answer(3, 0, c"ab".as_ptr(), 2), answer(4, 0, std::ptr::null(), FENCE_BYTES_MAX + 1)] };
        let data = |data: &[u8]| ByteVec::from(data.to_vec());
        assert_eq!(
            told,
            [
                FromPmix::Fetched { token: 3, status: 0, data: data(b"ab") },
                FromPmix::Fetched { token: 4, status: status::OUT_OF_RESOURCE, data: data(b"") },
            ]
        );
    }

    #[test]
    fn without_an_agent_nothing_is_begun() {
        let proc = crate::info::proc("job.0", 1).expect("it fits");
        let null = std::ptr::null_mut();
        // SAFETY: valid or null, as these functions take it.
        let answers = unsafe {
            [
                client_connected(&raw const proc, null, None, null),
                publish(&raw const proc, std::ptr::null(), 0, None, null),
            ]
        };
        assert_eq!(answers, [status::ERROR, status::ERROR]);
    }
}
