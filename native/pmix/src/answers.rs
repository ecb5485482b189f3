//! The agent's answers on their way to the library. Never called in the library's own thread.

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};

use muster_protocol::pmix::{Item, Proc, ToPmix};

use crate::abi::{Status, status};
use crate::host::{Host, Waiting};
use crate::info::{BadValue, Findings, Infos, proc};

/// The result of an operation, as the library is told it.
enum End {
    /// Nothing but the status.
    Bare,
    /// Bytes.
    Bytes(Vec<u8>),
    /// What was found.
    Found(Findings),
    /// The name of a new namespace.
    Namespace(Box<crate::abi::Proc>),
    /// Keys with values.
    Infos(Infos),
}

/// Hands an answer to the library, and gives back every message that is none. An answer to nothing changes nothing.
pub fn hand_on(host: &Host, message: ToPmix) -> Option<ToPmix> {
    let (token, status, end) = match message {
        ToPmix::Done { token, status } => (token, status, Ok(End::Bare)),
        ToPmix::Data { token, status, data } => (token, status, Ok(End::Bytes(data.into()))),
        ToPmix::Found { token, status, items } => (token, status, findings(items).map(End::Found)),
        ToPmix::Spawned { token, status, namespace } => {
            (token, status, proc(&namespace, 0).map(|named| End::Namespace(Box::new(named))))
        }
        ToPmix::Grouped { token, status, members, context, endpoint } => {
            (token, status, group(&members, context, &endpoint).map(End::Infos))
        }
        other => return Some(other),
    };
    if let Some(waiting) = host.take(token) {
        match end {
            Ok(end) => finish(waiting, status, end),
            Err(_) => refuse(waiting, status::BAD_PARAM),
        }
    }
    None
}

/// Ends an operation without a result.
pub fn refuse(waiting: Waiting, status: Status) {
    finish(waiting, status, End::Bare);
}

/// Ends an operation. One of another sort than its result ends with an error, so that nobody waits for ever.
fn finish(waiting: Waiting, status: Status, end: End) {
    // Of each block below: the callback and its mark came with an upcall and are used this once, outside of the library's
    // own thread. What is pointed to lives until the call has returned, where the library copies it, or until it calls the release
    // function that goes with it.
    match (waiting, end) {
        (Waiting::Op(done, mark), End::Bare) => {
            // SAFETY: as said above.
            unsafe { done(status, mark.0) };
        }
        (Waiting::Modex(done, mark), End::Bytes(data)) => {
            let data = Box::new(data);
            let (pointer, length) = (data.as_ptr().cast::<c_char>(), data.len());
            // SAFETY: as said above; it is released by its own type.
            unsafe { done(status, pointer, length, mark.0, Some(free::<Vec<u8>>), Box::into_raw(data).cast()) };
        }
        (Waiting::Lookup(done, mark), End::Found(mut found)) => {
            // SAFETY: as said above; it is copied.
            unsafe { done(status, found.pointer(), found.len(), mark.0) };
        }
        (Waiting::Spawn(done, mark), End::Namespace(mut named)) => {
            // The library reads a field of fixed length. Without success there is no name.
            let name = if named.namespace[0] == 0 { null_mut() } else { named.namespace.as_mut_ptr() };
            // SAFETY: as said above; it is copied.
            unsafe { done(status, name, mark.0) };
        }
        (Waiting::Info(done, mark), End::Infos(infos)) => {
            let mut infos = Box::new(infos);
            let (pointer, length) = (infos.pointer(), infos.len());
            // SAFETY: as said above; it is released by its own type.
            unsafe { done(status, pointer, length, mark.0, Some(free::<Infos>), Box::into_raw(infos).cast()) };
        }
        (waiting, end) => {
            let status = if matches!(end, End::Bare) { status } else { status::ERROR };
            bare(waiting, if status == status::SUCCESS { status::ERROR } else { status });
        }
    }
}

/// Ends an operation with a status alone.
fn bare(waiting: Waiting, status: Status) {
    // SAFETY: as in `finish`; nothing is pointed to.
    unsafe {
        match waiting {
            Waiting::Op(done, mark) => done(status, mark.0),
            Waiting::Modex(done, mark) => done(status, null(), 0, mark.0, None, null_mut()),
            Waiting::Lookup(done, mark) => done(status, null_mut(), 0, mark.0),
            Waiting::Spawn(done, mark) => done(status, null_mut(), mark.0),
            Waiting::Info(done, mark) => done(status, null_mut(), 0, mark.0, None, null_mut()),
        }
    }
}

fn findings(items: Vec<(Proc, Item)>) -> Result<Findings, BadValue> {
    let mut found = Findings::new();
    for (owner, item) in items {
        found.add(&owner, item)?;
    }
    Ok(found)
}

fn group(members: &[Proc], context: Option<u64>, endpoint: &[u8]) -> Result<Infos, BadValue> {
    let mut infos = Infos::new();
    if !members.is_empty() {
        let members: Result<Vec<_>, _> = members.iter().map(|member| proc(&member.namespace, member.rank)).collect();
        infos.procs(c"pmix.grp.mbrs", members?);
    }
    if let Some(context) = context {
        infos.size(c"pmix.grp.ctxid", context as usize);
    }
    if !endpoint.is_empty() {
        // Some releases take these bytes for themselves.
        infos.loose_bytes(c"pmix.grp.endpt", endpoint);
    }
    Ok(infos)
}

/// The release function for a `T` that was handed over as a pointer.
unsafe extern "C" fn free<T>(pointer: *mut c_void) {
    // SAFETY: each caller of the library gives this function together with a box of this type that it has let go of, and the
    // library calls it once.
    drop(unsafe { Box::from_raw(pointer.cast::<T>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use minicbor::bytes::ByteVec;
    use muster_protocol::pmix::FromPmix;

    use super::*;
    use crate::host::{Mark, Out};
    use crate::values;

    /// What the library was told, with its marks as numbers.
    static TOLD: Mutex<Vec<(usize, Status, Vec<u8>)>> = Mutex::new(Vec::new());

    extern "C" fn op_done(status: Status, mark: *mut c_void) {
        TOLD.lock().expect("no panic").push((mark.addr(), status, vec![]));
    }

    extern "C" fn modex_done(
        status: Status,
        data: *const c_char,
        length: usize,
        mark: *mut c_void,
        free: Option<crate::abi::Release>,
        given: *mut c_void,
    ) {
        // SAFETY: what `hand_on` gives is valid until it is freed.
        let data = unsafe { values::bytes(data, length) };
        TOLD.lock().expect("no panic").push((mark.addr(), status, data));
        if let Some(free) = free {
            // SAFETY: what goes with the release function, once.
            unsafe { free(given) };
        }
    }

    fn mark(number: usize) -> Mark {
        Mark(std::ptr::without_provenance_mut(number))
    }

    #[test]
    fn each_operation_ends_once_and_with_an_answer_of_its_own_sort() {
        let (host, inbox) = Host::install().expect("the only test that installs one");
        let log = |token| FromPmix::Log { token, proc: Proc { namespace: "j".into(), rank: 0 }, text: vec![].into() };
        let waiting =
            [Waiting::Op(op_done, mark(1)), Waiting::Op(op_done, mark(2)), Waiting::Modex(modex_done, mark(3))];
        for operation in waiting {
            assert_eq!(host.ask(operation, log), status::SUCCESS);
        }
        let mut tokens = inbox.try_iter().map(|out| match out {
            Out::Say(FromPmix::Log { token, .. }) => token,
            other => panic!("{other:?}"),
        });
        let [first, second, third] = [(); 3].map(|()| tokens.next().expect("a message"));
        let data = |token| ToPmix::Data { token, status: 0, data: ByteVec::from(vec![5, 6]) };
        assert_eq!(hand_on(host, ToPmix::Done { token: first, status: -24 }), None);
        // Not again, and not with another sort of answer.
        assert_eq!(hand_on(host, ToPmix::Done { token: first, status: 0 }), None);
        assert_eq!(hand_on(host, data(second)), None);
        assert_eq!(hand_on(host, data(third)), None);
        assert_eq!(
            *TOLD.lock().expect("no panic"),
            [(1, -24, vec![]), (2, status::ERROR, vec![]), (3, status::SUCCESS, vec![5, 6])]
        );
        let other = ToPmix::Deregister { namespace: "j".into() };
        assert_eq!(hand_on(host, other.clone()), Some(other));
    }

    #[test]
    fn a_group_gets_what_was_agreed_and_nothing_else() {
        let members = [Proc { namespace: "j".into(), rank: 1 }, Proc { namespace: "j".into(), rank: 2 }];
        let shown = |infos: Infos| -> Vec<String> {
            // SAFETY: what `Infos` has built is valid.
            infos.list().iter().map(|info| unsafe { values::shown(info) }).collect()
        };
        let full = group(&members, Some(100), &[7]).expect("it can be said");
        assert_eq!(shown(full), ["pmix.grp.mbrs={j:1 j:2}", "pmix.grp.ctxid=100", "pmix.grp.endpt=[7]"]);
        assert!(group(&[], None, &[]).expect("it can be said").is_empty());
        assert!(group(&[Proc { namespace: "n".repeat(256), rank: 0 }], None, &[]).is_err());
    }
}
