//! Building what the library is given: arrays of keys with values, with the memory that they point to.
//!
//! By hand, bytes only: the library's own constructors differ between releases, its layouts do not.

use std::ffi::{CStr, CString, c_char};

use muster_protocol::pmix;

use crate::abi::{self, ByteObject, Data, DataArray, Info, Proc, Value, kind};

/// Why something cannot be said to the library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Texts end with a zero byte there.
    #[error("the value of {key} has a zero byte inside")]
    ZeroByte {
        /// Its key.
        key: String,
    },
    /// A name or a key is longer than the library's field for it.
    #[error("\"{name}\" is longer than the {max} bytes that PMIx has for it, or has a zero byte inside")]
    BadName {
        /// It.
        name: String,
        /// Room.
        max: usize,
    },
}

/// A process as the library names it.
///
/// # Errors
/// When its namespace's name does not fit.
pub fn proc(namespace: &str, rank: u32) -> Result<Proc, BadValue> {
    Ok(Proc { namespace: filled(namespace)?, rank })
}

/// A text in a field of fixed length.
fn filled<const N: usize>(text: &str) -> Result<[c_char; N], BadValue> {
    // The last byte stays zero.
    if text.len() >= N || text.bytes().any(|byte| byte == 0) {
        return Err(BadValue::BadName { name: text.to_owned(), max: N - 1 });
    }
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from.cast_signed();
    }
    Ok(field)
}

/// The field of a key of this program's.
fn key_field(key: &CStr) -> [c_char; abi::KEY_BYTES] {
    let mut field = [0; abi::KEY_BYTES];
    // All but the last byte, which stays zero.
    for (to, from) in field[..abi::KEY_BYTES - 1].iter_mut().zip(key.to_bytes()) {
        *to = from.cast_signed();
    }
    field
}

/// Memory that values point to. It is held by the very pointers that the values have: an owner would claim it for itself alone each
/// time it is moved, and theirs would be valid no longer.
enum Kept {
    Text(*mut c_char),
    Bytes(*mut [u8]),
    Proc(*mut Proc),
    Infos(*mut DataArray, *mut Infos),
    Procs(*mut DataArray, *mut [Proc]),
}

impl Kept {
    fn text(text: CString) -> (Self, *mut c_char) {
        let pointer = text.into_raw();
        (Self::Text(pointer), pointer)
    }

    fn bytes(bytes: Vec<u8>) -> (Self, ByteObject) {
        let size = bytes.len();
        let pointer = Box::into_raw(bytes.into_boxed_slice());
        (Self::Bytes(pointer), ByteObject { bytes: pointer.cast(), size })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: each pointer was made from a box, or from a text, of this type, which nothing else frees.
        unsafe {
            match *self {
                Self::Text(text) => drop(CString::from_raw(text)),
                Self::Bytes(bytes) => drop(Box::from_raw(bytes)),
                Self::Proc(proc) => drop(Box::from_raw(proc)),
                Self::Infos(array, infos) => drop((Box::from_raw(array), Box::from_raw(infos))),
                Self::Procs(array, procs) => drop((Box::from_raw(array), Box::from_raw(procs))),
            }
        }
    }
}

/// An array of keys with values.
#[derive(Default)]
pub struct Infos {
    list: Vec<Info>,
    kept: Vec<Kept>,
    /// Positions in `list` of bytes that the library may have kept.
    loose: Vec<usize>,
}

impl Drop for Infos {
    fn drop(&mut self) {
        for position in &self.loose {
            if let Some(info) = self.list.get(*position) {
                // SAFETY: the type of this one is that of bytes. They were made by the C library's means, or they were kept by
                // the library, which has put a null pointer here.
                unsafe { libc::free(info.value.data.bytes.bytes.cast()) };
            }
        }
    }
}

impl Infos {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first, for a call of the library, which reads and does not write.
    pub fn pointer(&mut self) -> *mut Info {
        if self.list.is_empty() { std::ptr::null_mut() } else { self.list.as_mut_ptr() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Its keys with their values, to look at.
    pub fn list(&self) -> &[Info] {
        &self.list
    }

    fn add(&mut self, key: &CStr, kind: u16, set: impl FnOnce(&mut Data)) {
        let mut data = Data { raw: [0; 3] };
        set(&mut data);
        self.list.push(Info { key: key_field(key), flags: 0, value: Value { kind, data } });
    }

    /// Text.
    ///
    /// # Errors
    /// When it has a zero byte inside.
    pub fn text(&mut self, key: &CStr, value: &str) -> Result<(), BadValue> {
        let text = CString::new(value).map_err(|_| BadValue::ZeroByte { key: key.to_string_lossy().into_owned() })?;
        let (kept, text) = Kept::text(text);
        self.add(key, kind::STRING, |data| data.string = text);
        self.kept.push(kept);
        Ok(())
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &CStr, value: bool) {
        self.add(key, kind::BOOL, |data| data.byte = value.into());
    }

    /// 16 bits; more is told as the most that fits.
    pub fn short(&mut self, key: &CStr, value: u32) {
        self.add(key, kind::UINT16, |data| data.uint16 = u16::try_from(value).unwrap_or(u16::MAX));
    }

    /// 32 bits.
    pub fn number(&mut self, key: &CStr, value: u32) {
        self.add(key, kind::UINT32, |data| data.uint32 = value);
    }

    /// `size_t`.
    pub fn size(&mut self, key: &CStr, value: usize) {
        self.add(key, kind::SIZE, |data| data.size = value);
    }

    /// A rank.
    pub fn rank(&mut self, key: &CStr, value: u32) {
        self.add(key, kind::PROC_RANK, |data| data.uint32 = value);
    }

    /// A process.
    pub fn proc(&mut self, key: &CStr, value: Proc) {
        let value = Box::into_raw(Box::new(value));
        self.add(key, kind::PROC, |data| data.proc = value);
        self.kept.push(Kept::Proc(value));
    }

    /// Bytes that the library may keep: then it frees them, and says so by a null pointer in place of theirs.
    pub fn loose_bytes(&mut self, key: &CStr, value: &[u8]) {
        // SAFETY: takes a number; what it gives is null or so many bytes.
        let copy = unsafe { libc::malloc(value.len()) }.cast::<u8>();
        if copy.is_null() {
            return;
        }
        // SAFETY: both have this length, and one was made just now.
        unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), copy, value.len()) };
        let bytes = ByteObject { bytes: copy.cast(), size: value.len() };
        self.loose.push(self.list.len());
        self.add(key, kind::BYTE_OBJECT, |data| data.bytes = bytes);
    }

    /// A node or process map, which is text for libraries whose maps have no type of their own.
    ///
    /// # Errors
    /// When it has a zero byte inside.
    pub fn map(&mut self, key: &CStr, value: &str, typed: bool) -> Result<(), BadValue> {
        if !typed {
            return self.text(key, value);
        }
        let text = CString::new(value).map_err(|_| BadValue::ZeroByte { key: key.to_string_lossy().into_owned() })?;
        // Its terminator belongs to it.
        let (kept, object) = Kept::bytes(text.into_bytes_with_nul());
        self.add(key, kind::REGEX, |data| data.bytes = object);
        self.kept.push(kept);
        Ok(())
    }

    /// An array of keys with values.
    pub fn infos(&mut self, key: &CStr, mut value: Infos) {
        let (first, size) = (value.pointer(), value.len());
        let array = Box::into_raw(Box::new(DataArray { kind: kind::INFO, size, array: first.cast() }));
        self.add(key, kind::DATA_ARRAY, |data| data.array = array);
        self.kept.push(Kept::Infos(array, Box::into_raw(Box::new(value))));
    }

    /// An array of processes.
    pub fn procs(&mut self, key: &CStr, value: Vec<Proc>) {
        let size = value.len();
        let procs = Box::into_raw(value.into_boxed_slice());
        let array = Box::into_raw(Box::new(DataArray { kind: kind::PROC, size, array: procs.cast() }));
        self.add(key, kind::DATA_ARRAY, |data| data.array = array);
        self.kept.push(Kept::Procs(array, procs));
    }
}

/// What a look-up has found, with the memory that it points to.
#[derive(Default)]
pub struct Findings {
    list: Vec<abi::Published>,
    kept: Vec<Kept>,
}

impl Findings {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// When its key, its owner's name or its text cannot be said.
    pub fn add(&mut self, owner: &pmix::Proc, item: pmix::Item) -> Result<(), BadValue> {
        let mut data = Data { raw: [0; 3] };
        let kind = match item.value {
            pmix::Value::Text(text) => {
                let text = CString::new(text).map_err(|_| BadValue::ZeroByte { key: item.key.clone() })?;
                let (kept, text) = Kept::text(text);
                data.string = text;
                self.kept.push(kept);
                kind::STRING
            }
            pmix::Value::Bytes(bytes) => {
                let (kept, object) = Kept::bytes(Vec::from(bytes));
                data.bytes = object;
                self.kept.push(kept);
                kind::BYTE_OBJECT
            }
            pmix::Value::Number(number) => {
                data.uint32 = number;
                kind::UINT32
            }
        };
        let proc = proc(&owner.namespace, owner.rank)?;
        self.list.push(abi::Published { proc, key: filled(&item.key)?, value: Value { kind, data } });
        Ok(())
    }

    /// The first, for an answer to the library.
    pub fn pointer(&mut self) -> *mut abi::Published {
        if self.list.is_empty() { std::ptr::null_mut() } else { self.list.as_mut_ptr() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values;

    #[test]
    fn what_is_built_reads_back_after_it_was_moved() {
        let mut inner = Infos::new();
        inner.rank(c"pmix.rank", 3);
        inner.short(c"pmix.lrank", 70_000);
        let mut infos = Infos::new();
        infos.text(c"pmix.jobid", "job").unwrap();
        infos.flag(c"pmix.spawned", true);
        infos.number(c"pmix.job.size", 4);
        infos.map(c"pmix.nmap", "raw:a,b", true).unwrap();
        infos.map(c"pmix.pmap", "raw:0;1", false).unwrap();
        infos.proc(c"pmix.parent", proc("job.0", 7).unwrap());
        infos.loose_bytes(c"pmix.grp.endpt", &[1, 2]);
        infos.size(c"pmix.grp.ctxid", 9);
        infos.infos(c"pmix.pdata", inner);
        infos.procs(c"pmix.grp.mbrs", vec![proc("job.0", 1).unwrap(), proc("job.0", 2).unwrap()]);
        let infos = Box::new(infos);
        // SAFETY: what `Infos` has built is made of valid pointers, and lives.
        let shown: Vec<String> = unsafe { infos.list().iter().map(|info| values::shown(info)).collect() };
        assert_eq!(
            shown,
            [
                "pmix.jobid=job",
                "pmix.spawned=true",
                "pmix.job.size=4",
                "pmix.nmap=regex(raw:a,b)",
                "pmix.pmap=raw:0;1",
                "pmix.parent=job.0:7",
                "pmix.grp.endpt=[1, 2]",
                "pmix.grp.ctxid=9",
                "pmix.pdata={pmix.rank=3 pmix.lrank=65535}",
                "pmix.grp.mbrs={job.0:1 job.0:2}",
            ]
        );
    }

    #[test]
    fn bytes_that_the_library_has_kept_are_not_freed_again() {
        let mut infos = Infos::new();
        infos.loose_bytes(c"kept", &[1, 2, 3]);
        infos.loose_bytes(c"left", &[4]);
        // SAFETY: two infos, the first of which is bytes; what is done to it is what the library does.
        unsafe {
            let kept = &mut (*infos.pointer()).value.data.bytes;
            assert_eq!(values::bytes(kept.bytes, kept.size), [1, 2, 3]);
            libc::free(kept.bytes.cast());
            kept.bytes = std::ptr::null_mut();
        }
        drop(infos);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let mut infos = Infos::new();
        let error = infos.text(c"pmix.jobid", "a\0b").unwrap_err();
        assert_eq!(error.to_string(), "the value of pmix.jobid has a zero byte inside");
        assert!(infos.is_empty());
        let longest = "n".repeat(255);
        assert!(proc(&longest, 0).is_ok());
        let error = proc(&format!("{longest}n"), 0).unwrap_err();
        assert!(
            error.to_string().ends_with("is longer than the 255 bytes that PMIx has for it, or has a zero byte inside")
        );
    }
}
