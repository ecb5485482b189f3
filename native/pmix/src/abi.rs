//! Layouts and numbers of libpmix, as far as they are used.
//!
//! They are the same in every release from 3.1 to 6.1 on a machine with eight-byte pointers; the sizes are asserted below.

use std::ffi::{c_char, c_int, c_void};

/// A status.
pub type Status = c_int;

/// Bytes of a namespace's name with its terminator.
pub const NAMESPACE_BYTES: usize = 256;
/// Bytes of a key with its terminator.
pub const KEY_BYTES: usize = 512;
/// Pointers in the table of upcalls. Every release copies its own number of them (32 at most so far), so the rest must be there.
pub const TABLE_SLOTS: usize = 64;

/// Statuses.
pub mod status {
    use super::Status;
    /// Done, or: the callback will come.
    pub const SUCCESS: Status = 0;
    /// Something went wrong.
    pub const ERROR: Status = -1;
    /// An argument that makes no sense.
    pub const BAD_PARAM: Status = -27;
    /// A limit was reached.
    pub const OUT_OF_RESOURCE: Status = -29;
    /// Not offered.
    pub const NOT_SUPPORTED: Status = -47;
    /// Done at once: no callback will come.
    pub const OPERATION_SUCCEEDED: Status = -157;
    /// An event handler's end.
    pub const EVENT_ACTION_COMPLETE: Status = -334;
}

/// Data types.
pub mod kind {
    /// None; as an info's value it means "given".
    pub const UNDEF: u16 = 0;
    /// One byte.
    pub const BOOL: u16 = 1;
    /// Text.
    pub const STRING: u16 = 3;
    /// `size_t`.
    pub const SIZE: u16 = 4;
    /// `int`.
    pub const INT: u16 = 6;
    /// Signed, 32 bits.
    pub const INT32: u16 = 9;
    /// Signed, 64 bits.
    pub const INT64: u16 = 10;
    /// `unsigned`.
    pub const UINT: u16 = 11;
    /// 16 bits.
    pub const UINT16: u16 = 13;
    /// 32 bits.
    pub const UINT32: u16 = 14;
    /// 64 bits.
    pub const UINT64: u16 = 15;
    /// A process, by pointer.
    pub const PROC: u16 = 22;
    /// An info.
    pub const INFO: u16 = 24;
    /// Bytes with their number.
    pub const BYTE_OBJECT: u16 = 27;
    /// For how long something published is kept: one byte.
    pub const PERSISTENCE: u16 = 30;
    /// An array, by pointer.
    pub const DATA_ARRAY: u16 = 39;
    /// A rank.
    pub const PROC_RANK: u16 = 40;
    /// A node or process map; text before 3.2.
    pub const REGEX: u16 = 49;
}

/// Events for the ranks of this server only.
pub const RANGE_LOCAL: u8 = 2;
/// What is published is gone after it was read once.
pub const PERSISTENCE_FIRST_READ: u8 = 1;
/// A group comes to be.
pub const GROUP_CONSTRUCT: u8 = 0;

/// A process.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Proc {
    /// Its namespace, with zeros behind it.
    pub namespace: [c_char; NAMESPACE_BYTES],
    /// Its rank.
    pub rank: u32,
}

/// Bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ByteObject {
    /// The first.
    pub bytes: *mut c_char,
    /// How many.
    pub size: usize,
}

/// An array of one type.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DataArray {
    /// Of which.
    pub kind: u16,
    /// How many.
    pub size: usize,
    /// The first.
    pub array: *mut c_void,
}

/// A value without its type.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Data {
    /// [`kind::BOOL`], [`kind::PERSISTENCE`].
    pub byte: u8,
    /// [`kind::STRING`].
    pub string: *mut c_char,
    /// [`kind::SIZE`].
    pub size: usize,
    /// [`kind::INT`], [`kind::INT32`].
    pub int: c_int,
    /// [`kind::INT64`].
    pub int64: i64,
    /// [`kind::UINT16`].
    pub uint16: u16,
    /// [`kind::UINT32`], [`kind::UINT`], [`kind::PROC_RANK`].
    pub uint32: u32,
    /// [`kind::UINT64`].
    pub uint64: u64,
    /// [`kind::PROC`].
    pub proc: *mut Proc,
    /// [`kind::BYTE_OBJECT`], [`kind::REGEX`].
    pub bytes: ByteObject,
    /// [`kind::DATA_ARRAY`].
    pub array: *mut DataArray,
    /// All of it.
    pub raw: [u64; 3],
}

/// A value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Value {
    /// Its type.
    pub kind: u16,
    /// It.
    pub data: Data,
}

/// A key with a value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Info {
    /// Key, with zeros behind it.
    pub key: [c_char; KEY_BYTES],
    /// Flags; none are used.
    pub flags: u32,
    /// Value.
    pub value: Value,
}

/// A published key with its value and its owner.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Published {
    /// Owner.
    pub proc: Proc,
    /// Key, with zeros behind it.
    pub key: [c_char; KEY_BYTES],
    /// Value.
    pub value: Value,
}

/// A program of a spawn.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct App {
    /// What to execute.
    pub cmd: *const c_char,
    /// Arguments, up to a null pointer.
    pub argv: *const *const c_char,
    /// Variables, up to a null pointer.
    pub env: *const *const c_char,
    /// Directory.
    pub cwd: *const c_char,
    /// Number of ranks.
    pub maxprocs: c_int,
    /// Info.
    pub info: *const Info,
    /// How many.
    pub ninfo: usize,
}

const _: () = assert!(size_of::<Proc>() == 260);
const _: () = assert!(size_of::<ByteObject>() == 16);
const _: () = assert!(size_of::<DataArray>() == 24);
const _: () = assert!(size_of::<Value>() == 32);
const _: () = assert!(size_of::<Info>() == 552);
const _: () = assert!(std::mem::offset_of!(Info, value) == 520);
const _: () = assert!(size_of::<Published>() == 808);
const _: () = assert!(std::mem::offset_of!(Published, value) == 776);
const _: () = assert!(size_of::<App>() == 56);

/// Frees what was given with an answer.
pub type Release = unsafe extern "C" fn(*mut c_void);
/// The end of an operation.
pub type OpDone = unsafe extern "C" fn(Status, *mut c_void);
/// The end of a fence or of a direct modex.
pub type ModexDone = unsafe extern "C" fn(Status, *const c_char, usize, *mut c_void, Option<Release>, *mut c_void);
/// The end of a look-up. What is found is copied before this returns.
pub type LookupDone = unsafe extern "C" fn(Status, *mut Published, usize, *mut c_void);
/// The end of a spawn. The name is copied before this returns.
pub type SpawnDone = unsafe extern "C" fn(Status, *mut c_char, *mut c_void);
/// The end of a group operation.
pub type InfoDone = unsafe extern "C" fn(Status, *mut Info, usize, *mut c_void, Option<Release>, *mut c_void);
/// An event handler's way to say that it has ended.
pub type EventDone = unsafe extern "C" fn(Status, *mut Info, usize, Option<OpDone>, *mut c_void, *mut c_void);
/// An event handler.
pub type EventHandler =
    extern "C" fn(usize, Status, *const Proc, *mut Info, usize, *mut Info, usize, Option<EventDone>, *mut c_void);
/// The answer to a request for what a rank has put.
pub type Fetched = extern "C" fn(Status, *mut c_char, usize, *mut c_void);

/// Functions of the library.
pub mod call {
    use super::{EventHandler, Fetched, Info, OpDone, Proc, Status};
    use std::ffi::{c_char, c_int, c_void};

    /// `PMIx_Get_version`.
    pub type GetVersion = unsafe extern "C" fn() -> *const c_char;
    /// `PMIx_Error_string`.
    pub type ErrorString = unsafe extern "C" fn(Status) -> *const c_char;
    /// `PMIx_generate_regex`, `PMIx_generate_ppn`: a list as the library reads it, which is the caller's.
    pub type Generate = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> Status;
    /// `PMIx_server_init`.
    pub type ServerInit = unsafe extern "C" fn(*mut *const c_void, *mut Info, usize) -> Status;
    /// `PMIx_server_finalize`.
    pub type ServerFinalize = unsafe extern "C" fn() -> Status;
    /// `PMIx_server_register_nspace`.
    pub type RegisterNspace =
        unsafe extern "C" fn(*const c_char, c_int, *mut Info, usize, OpDone, *mut c_void) -> Status;
    /// `PMIx_server_deregister_nspace`.
    pub type DeregisterNspace = unsafe extern "C" fn(*const c_char, OpDone, *mut c_void);
    /// `PMIx_server_register_client`.
    pub type RegisterClient = unsafe extern "C" fn(*const Proc, u32, u32, *mut c_void, OpDone, *mut c_void) -> Status;
    /// `PMIx_server_setup_fork`.
    pub type SetupFork = unsafe extern "C" fn(*const Proc, *mut *mut *mut c_char) -> Status;
    /// `PMIx_server_dmodex_request`.
    pub type DmodexRequest = unsafe extern "C" fn(*const Proc, Fetched, *mut c_void) -> Status;
    /// `PMIx_Register_event_handler`.
    pub type RegisterEventHandler = unsafe extern "C" fn(
        *mut Status,
        usize,
        *mut Info,
        usize,
        EventHandler,
        Option<extern "C" fn(Status, usize, *mut c_void)>,
        *mut c_void,
    ) -> Status;
    /// `PMIx_Notify_event`.
    pub type NotifyEvent =
        unsafe extern "C" fn(Status, *const Proc, u8, *const Info, usize, Option<OpDone>, *mut c_void) -> Status;
}
