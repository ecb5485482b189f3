//! Reading what the library hands over. Everything is copied: the memory stays the library's.

use std::ffi::{CStr, c_char};

use minicbor::bytes::ByteVec;
use muster_protocol::message::EnvVar;
use muster_protocol::pmix;

use crate::abi::{self, Info, Value, kind};

/// A text; empty for a null pointer.
///
/// # Safety
/// The pointer is null or names bytes with a zero among them.
pub unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and a text by this function's contract.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Texts up to a null pointer; none for a null pointer.
///
/// # Safety
/// The pointer is null or names an array of texts that ends with a null pointer.
pub unsafe fn texts(pointer: *const *const c_char) -> Vec<String> {
    let mut all = Vec::new();
    if pointer.is_null() {
        return all;
    }
    loop {
        // SAFETY: the array goes on up to its null pointer, by this function's contract. What is read stays a pointer: a reference
        // to the first byte would not reach the others.
        let next = unsafe { *pointer.add(all.len()) };
        if next.is_null() {
            return all;
        }
        // SAFETY: an element that is not null is a text.
        all.push(unsafe { text(next) });
    }
}

/// Bytes; none for a null pointer.
///
/// # Safety
/// The pointer is null or names so many bytes.
pub unsafe fn bytes(pointer: *const c_char, length: usize) -> Vec<u8> {
    // SAFETY: bytes have no alignment; the rest is this function's contract.
    unsafe { slice(pointer.cast::<u8>(), length) }.to_vec()
}

/// An array; empty for a null pointer.
///
/// # Safety
/// The pointer is null or names so many elements, which nobody changes while the slice lives.
pub unsafe fn slice<'a, T>(pointer: *const T, length: usize) -> &'a [T] {
    if pointer.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: not null, and so many elements by this function's contract.
    unsafe { std::slice::from_raw_parts(pointer, length) }
}

/// The text in a field of fixed length.
pub fn field(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A process.
pub fn proc(raw: &abi::Proc) -> pmix::Proc {
    pmix::Proc { namespace: field(&raw.namespace), rank: raw.rank }
}

/// A process by pointer; one without a name for a null pointer.
///
/// # Safety
/// The pointer is null or names a process.
pub unsafe fn proc_at(pointer: *const abi::Proc) -> pmix::Proc {
    // SAFETY: this function's contract.
    match unsafe { pointer.as_ref() } {
        Some(raw) => proc(raw),
        None => pmix::Proc { namespace: String::new(), rank: pmix::RANK_WILDCARD },
    }
}

/// Processes.
///
/// # Safety
/// The pointer is null or names so many processes.
pub unsafe fn procs(pointer: *const abi::Proc, length: usize) -> Vec<pmix::Proc> {
    // SAFETY: this function's contract.
    unsafe { slice(pointer, length) }.iter().map(proc).collect()
}

/// The value of a key.
pub fn find<'a>(infos: &'a [Info], key: &str) -> Option<&'a Value> {
    infos.iter().find(|info| field(&info.key) == key).map(|info| &info.value)
}

/// A whole number of whatever type; a value that is none is none.
pub fn number(value: &Value) -> Option<i64> {
    // SAFETY: each reads the member of the union that its type says; all of them are plain numbers.
    unsafe {
        match value.kind {
            kind::BOOL | kind::PERSISTENCE => Some(value.data.byte.into()),
            kind::SIZE | kind::UINT64 => i64::try_from(value.data.uint64).ok(),
            kind::INT | kind::INT32 => Some(value.data.int.into()),
            kind::INT64 => Some(value.data.int64),
            kind::UINT16 => Some(value.data.uint16.into()),
            kind::UINT32 | kind::UINT | kind::PROC_RANK => Some(value.data.uint32.into()),
            _ => None,
        }
    }
}

/// Whether a flag is set. A key without a value is as good as a true one.
pub fn is_set(infos: &[Info], key: &str) -> bool {
    find(infos, key).is_some_and(|value| value.kind == kind::UNDEF || number(value).is_some_and(|n| n != 0))
}

/// The bytes of a byte object.
///
/// # Safety
/// The value is the library's: what its type says is true.
pub unsafe fn blob(value: &Value) -> Option<Vec<u8>> {
    if value.kind != kind::BYTE_OBJECT {
        return None;
    }
    // SAFETY: the type says that this is the member, and it names so many bytes.
    Some(unsafe { bytes(value.data.bytes.bytes, value.data.bytes.size) })
}

/// A value that can be published.
///
/// # Safety
/// The value is the library's: what its type says is true.
pub unsafe fn published(value: &Value) -> Option<pmix::Value> {
    match value.kind {
        // SAFETY: the type says that this is the member, and it is null or a text.
        kind::STRING => Some(pmix::Value::Text(unsafe { text(value.data.string) })),
        // SAFETY: this function's contract.
        kind::BYTE_OBJECT => unsafe { blob(value) }.map(|bytes| pmix::Value::Bytes(ByteVec::from(bytes))),
        // SAFETY: the type says that this is the member.
        kind::UINT32 => Some(pmix::Value::Number(unsafe { value.data.uint32 })),
        _ => None,
    }
}

/// A value as words, if it is text, a flag or a number.
///
/// # Safety
/// The value is the library's: what its type says is true.
pub unsafe fn as_text(value: &Value) -> Option<String> {
    match value.kind {
        // SAFETY: the type says that this is the member, and it is null or a text.
        kind::STRING => Some(unsafe { text(value.data.string) }),
        kind::UNDEF => Some("true".to_owned()),
        kind::BOOL => number(value).map(|flag| (flag != 0).to_string()),
        _ => number(value).map(|number| number.to_string()),
    }
}

/// Keys with their values as words; those whose values are something else are left out.
///
/// # Safety
/// The pointer is null or names so many infos of the library's.
pub unsafe fn words(pointer: *const Info, length: usize) -> Vec<EnvVar> {
    // SAFETY: this function's contract.
    let infos = unsafe { slice(pointer, length) };
    let word = |info: &Info| {
        // SAFETY: the library's, by this function's contract.
        let value = unsafe { as_text(&info.value) }?;
        Some(EnvVar { name: field(&info.key), value: Some(value) })
    };
    infos.iter().filter_map(word).collect()
}

/// A key with its value, for tests.
///
/// # Safety
/// The value's type says what it is, and its pointers are valid.
#[cfg(test)]
pub(crate) unsafe fn shown(info: &Info) -> String {
    // SAFETY: each reads the member that the type says, whose pointers are valid by this function's contract.
    let value = unsafe {
        match info.value.kind {
            kind::PROC => {
                let proc = proc_at(info.value.data.proc);
                format!("{}:{}", proc.namespace, proc.rank)
            }
            kind::REGEX => format!("regex({})", text(info.value.data.bytes.bytes)),
            kind::BYTE_OBJECT => format!("{:?}", blob(&info.value).unwrap_or_default()),
            kind::DATA_ARRAY => {
                let array = *info.value.data.array;
                let inner: Vec<String> = if array.kind == kind::INFO {
                    slice(array.array.cast::<Info>(), array.size).iter().map(|info| shown(info)).collect()
                } else {
                    let procs = procs(array.array.cast(), array.size);
                    procs.iter().map(|proc| format!("{}:{}", proc.namespace, proc.rank)).collect()
                };
                format!("{{{}}}", inner.join(" "))
            }
            _ => as_text(&info.value).unwrap_or_else(|| format!("type {}", info.value.kind)),
        }
    };
    format!("{}={value}", field(&info.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::Infos;

    #[test]
    fn null_pointers_are_nothing() {
        // SAFETY: null is allowed in each of them.
        unsafe {
            assert_eq!(text(std::ptr::null()), "");
            assert_eq!(texts(std::ptr::null()), Vec::<String>::new());
            assert_eq!(bytes(std::ptr::null(), 5), Vec::<u8>::new());
            assert_eq!(procs(std::ptr::null(), 5), Vec::new());
            assert_eq!(proc_at(std::ptr::null()).rank, pmix::RANK_WILDCARD);
        }
        let array = [c"a".as_ptr(), c"b c".as_ptr(), std::ptr::null()];
        // SAFETY: an array of texts that ends with a null pointer.
        assert_eq!(unsafe { texts(array.as_ptr()) }, ["a", "b c"]);
    }

    #[test]
    fn flags_and_numbers_are_read_whatever_their_type() {
        let mut infos = Infos::new();
        infos.flag(c"yes", true);
        infos.flag(c"no", false);
        infos.number(c"ten", 10);
        infos.size(c"huge", usize::MAX);
        infos.text(c"text", "1").unwrap();
        let list = infos.list();
        let set: Vec<bool> = ["yes", "no", "ten", "text", "absent"].iter().map(|key| is_set(list, key)).collect();
        assert_eq!(set, [true, false, true, false, false]);
        let numbers: Vec<Option<i64>> =
            ["ten", "huge", "text"].iter().map(|key| find(list, key).and_then(number)).collect();
        assert_eq!(numbers, [Some(10), None, None]);
    }

    #[test]
    fn info_as_words_leaves_out_what_has_none() {
        let mut infos = Infos::new();
        infos.text(c"pmix.wdir", "/tmp").unwrap();
        infos.flag(c"pmix.flag", true);
        infos.loose_bytes(c"pmix.blob", &[1]);
        // SAFETY: what `Infos` has built is valid.
        let words = unsafe { words(infos.pointer(), infos.len()) };
        let words: Vec<(&str, Option<&str>)> = words.iter().map(|w| (w.name.as_str(), w.value.as_deref())).collect();
        assert_eq!(words, [("pmix.wdir", Some("/tmp")), ("pmix.flag", Some("true"))]);
    }
}
