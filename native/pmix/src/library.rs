//! Finding a libpmix that serves.

use std::ffi::{CStr, CString, OsString, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};

use crate::abi::{Status, call, status};
use crate::maps::Maps;

/// The oldest release whose layouts are those of [`crate::abi`].
const OLDEST: (u32, u32) = (3, 1);
/// The first release in which maps have a type of their own.
const MAPS_TYPED_SINCE: (u32, u32) = (3, 2);
/// The first release that takes lists as they are, if they are marked. The one before takes those without a mark.
const MAPS_MARKED_SINCE: (u32, u32) = (4, 0);

/// What libpmix and its plugins need besides the C library. Where they lie beside a libpmix they are loaded first, by their full
/// path, which makes the loader use them: so a folder with all of them serves without `LD_LIBRARY_PATH`, wherever it was copied.
const NEIGHBOURS: &[&str] = &[
    "libz.so.1",
    "libudev.so.1",
    "libmunge.so.2",
    "libevent_core-2.1.so.7",
    "libevent_pthreads-2.1.so.7",
    "libhwloc.so.15",
];

/// Why a library does not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLibrary {
    /// The loader refuses it.
    #[error("{name} cannot be loaded: {why}")]
    Unloadable {
        /// Which.
        name: String,
        /// The loader's words.
        why: String,
    },
    /// It lacks a function.
    #[error("{name} is no PMIx library with a server: it has no {symbol}")]
    Lacks {
        /// Which.
        name: String,
        /// The function.
        symbol: &'static str,
    },
    /// Its version cannot be read.
    #[error("{name} says that its version is \"{version}\", which has no number")]
    NoVersion {
        /// Which.
        name: String,
        /// What it says.
        version: String,
    },
    /// It is too old.
    #[error("{name} is PMIx {version}; {}.{} or later is needed", OLDEST.0, OLDEST.1)]
    TooOld {
        /// Which.
        name: String,
        /// Its version.
        version: String,
    },
    /// None of several serves.
    #[error("no PMIx library serves: {}", list(.0))]
    NoneServes(Vec<NoLibrary>),
}

fn list(reasons: &[NoLibrary]) -> String {
    if reasons.is_empty() {
        return "none was named".to_owned();
    }
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A version: the first two numbers, and all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Major and minor number.
    pub numbers: (u32, u32),
    /// As the library says it, without the words around: `4.2.2`, `5.0.11rc1`.
    pub text: String,
}

impl Version {
    /// The version in what `PMIx_Get_version` answers: `OpenPMIx 4.2.2 (PMIx Standard: 4.2, …)`.
    pub fn parse(words: &str) -> Option<Self> {
        let text = words.split([' ', ',']).find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = text.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        Some(Self { numbers: (parts.next()??, parts.next()??), text: text.to_owned() })
    }

    /// Whether node and process maps have a type of their own.
    pub fn maps_are_typed(&self) -> bool {
        self.numbers >= MAPS_TYPED_SINCE
    }
}

/// A loaded library with the functions that are used. It stays loaded: nothing here ever unloads a library whose server has run.
pub struct Library {
    /// Its version.
    pub version: Version,
    /// Where it was loaded from.
    pub path: String,
    pub(crate) error_string: call::ErrorString,
    pub(crate) server_init: call::ServerInit,
    pub(crate) server_finalize: call::ServerFinalize,
    pub(crate) register_nspace: call::RegisterNspace,
    pub(crate) deregister_nspace: call::DeregisterNspace,
    pub(crate) register_client: call::RegisterClient,
    pub(crate) setup_fork: call::SetupFork,
    pub(crate) dmodex_request: call::DmodexRequest,
    pub(crate) register_event_handler: call::RegisterEventHandler,
    pub(crate) notify_event: call::NotifyEvent,
    /// Writers of node and process maps, where maps can be had from nobody else.
    generators: Option<[call::Generate; 2]>,
    // A server's threads may run for ever: nothing may be taken away under them.
    _handle: ManuallyDrop<Handle>,
    _neighbours: ManuallyDrop<Vec<Handle>>,
}

impl Library {
    /// Loads the first of these that serves.
    ///
    /// # Errors
    /// When none does, with the reason for each.
    pub fn first_of(names: &[String]) -> Result<Self, NoLibrary> {
        let mut reasons = Vec::new();
        for name in names {
            match Self::load(name) {
                Ok(library) => return Ok(library),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(NoLibrary::NoneServes(reasons))
    }

    /// Loads one.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn load(name: &str) -> Result<Self, NoLibrary> {
        let neighbours = neighbours(name).into_iter().filter_map(|path| open(path.into()).ok()).collect();
        let handle = open(name.into())
            .map_err(|error| NoLibrary::Unloadable { name: name.to_owned(), why: error.to_string() })?;
        let find = Finder { name, handle: &handle };
        let get_version: call::GetVersion = find.function("PMIx_Get_version")?;
        // SAFETY: the function takes nothing and returns a text that lives as long as the library, or null.
        let words = unsafe { text(get_version()) };
        let version = Version::parse(&words)
            .ok_or_else(|| NoLibrary::NoVersion { name: name.to_owned(), version: words.clone() })?;
        if version.numbers < OLDEST {
            return Err(NoLibrary::TooOld { name: name.to_owned(), version: version.text });
        }
        let generators = if version.maps_are_typed() {
            None
        } else {
            Some([find.function("PMIx_generate_regex")?, find.function("PMIx_generate_ppn")?])
        };
        Ok(Self {
            generators,
            path: path_of(get_version as *const c_void).unwrap_or_else(|| name.to_owned()),
            version,
            error_string: find.function("PMIx_Error_string")?,
            server_init: find.function("PMIx_server_init")?,
            server_finalize: find.function("PMIx_server_finalize")?,
            register_nspace: find.function("PMIx_server_register_nspace")?,
            deregister_nspace: find.function("PMIx_server_deregister_nspace")?,
            register_client: find.function("PMIx_server_register_client")?,
            setup_fork: find.function("PMIx_server_setup_fork")?,
            dmodex_request: find.function("PMIx_server_dmodex_request")?,
            register_event_handler: find.function("PMIx_Register_event_handler")?,
            notify_event: find.function("PMIx_Notify_event")?,
            _handle: ManuallyDrop::new(handle),
            _neighbours: ManuallyDrop::new(neighbours),
        })
    }

    /// The maps as this library reads them. What libraries generate themselves is not always text: the later ones compress it,
    /// with zero bytes inside, from some hundred nodes on. So lists are written as they are where that is possible.
    ///
    /// # Errors
    /// The status with which the library refuses to generate them. It must have been started before.
    pub fn written(&self, maps: Maps) -> Result<Maps, Status> {
        let Some([nodes, procs]) = self.generators else {
            let mark = if self.version.numbers < MAPS_MARKED_SINCE { "" } else { "raw:" };
            return Ok(Maps { nodes: format!("{mark}{}", maps.nodes), procs: format!("{mark}{}", maps.procs), ..maps });
        };
        // SAFETY: the two functions of a library that has been started.
        let (nodes, procs) = unsafe { (generated(nodes, &maps.nodes)?, generated(procs, &maps.procs)?) };
        Ok(Maps { nodes, procs, ..maps })
    }

    /// The library's words for a status, with its number.
    pub fn words_for(&self, status: Status) -> String {
        // SAFETY: the function takes a number and returns a text that lives as long as the library, or null.
        let words = unsafe { text((self.error_string)(status)) };
        format!("{words} ({status})")
    }
}

/// # Safety
/// The function is one that generates maps, of a library that has been started.
unsafe fn generated(by: call::Generate, list: &str) -> Result<String, Status> {
    let list = CString::new(list).map_err(|_| status::BAD_PARAM)?;
    let mut map = std::ptr::null_mut();
    // SAFETY: reads a text and writes a pointer to a text of the C library's memory, which is the caller's.
    let rc = unsafe { by(list.as_ptr(), &raw mut map) };
    // SAFETY: null or a text, as said; it is freed once.
    let copy = unsafe { text(map) };
    // SAFETY: as above.
    unsafe { libc::free(map.cast()) };
    if rc == status::SUCCESS { Ok(copy) } else { Err(rc) }
}

/// The folder with the plugins and, below it, the texts of a library that lies in a folder of ours. The texts are the mark:
/// installed libraries have a folder for their plugins, too, and need no help.
pub fn own_folder(path: &str) -> Option<PathBuf> {
    let folder = Path::new(path).parent()?.join("pmix");
    folder.join("texts").is_dir().then_some(folder)
}

fn neighbours(name: &str) -> Vec<PathBuf> {
    // A name without a folder is looked up by the loader, which knows no neighbours.
    let Some(folder) = Path::new(name).parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Vec::new();
    };
    NEIGHBOURS.iter().map(|neighbour| folder.join(neighbour)).filter(|path| path.exists()).collect()
}

fn open(name: OsString) -> Result<Handle, libloading::Error> {
    // For all: the plugins of a libpmix look its functions up among those of the whole program.
    // SAFETY: runs the constructors of a library that the user or the agent has chosen to run in this process, which has nothing
    // that they could break: no other thread runs yet.
    unsafe { Handle::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }
}

struct Finder<'a> {
    name: &'a str,
    handle: &'a Handle,
}

impl Finder<'_> {
    fn function<T: Copy>(&self, symbol: &'static str) -> Result<T, NoLibrary> {
        // SAFETY: the types of `call` are those of the functions in the headers of every release that is taken.
        let found = unsafe { self.handle.get::<T>(symbol.as_bytes()) };
        found.map(|function| *function).map_err(|_| NoLibrary::Lacks { name: self.name.to_owned(), symbol })
    }
}

/// # Safety
/// The pointer is null or names a text with a terminator that does not change meanwhile.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and a text by this function's contract.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// The file that an address was loaded from.
fn path_of(address: *const c_void) -> Option<String> {
    // SAFETY: all-zero is a value of this structure of pointers.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: fills the structure; the address need not be valid.
    let rc = unsafe { libc::dladdr(address, &raw mut found) };
    // SAFETY: on success the name is null or a text of the loader's, which lives as long as the library is loaded.
    let path = (rc != 0).then(|| unsafe { text(found.dli_fname) })?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_libraries_say_them() {
        let cases = [
            ("OpenPMIx 4.2.2 (PMIx Standard: 4.2, Stable ABI: 4.1, Provisional ABI: 4.1)", Some(((4, 2), "4.2.2"))),
            ("OpenPMIx 5.0.11rc1 (PMIx Standard: 5.1)", Some(((5, 0), "5.0.11rc1"))),
            ("OpenPMIx 3.2.5a1, repo rev: v3.2.5a1", Some(((3, 2), "3.2.5a1"))),
            ("2.2", Some(((2, 2), "2.2"))),
            ("OpenPMIx 5", None),
            ("OpenPMIx", None),
            ("", None),
        ];
        for (words, wanted) in cases {
            let found = Version::parse(words);
            assert_eq!(found.as_ref().map(|v| (v.numbers, v.text.as_str())), wanted, "{words:?}");
        }
    }

    #[test]
    fn maps_are_text_before_3_2() {
        let typed = |text| Version::parse(text).map(|version| version.maps_are_typed());
        assert_eq!([typed("3.1.5"), typed("3.2.0"), typed("6.0.0")], [Some(false), Some(true), Some(true)]);
    }

    #[test]
    fn a_library_that_does_not_serve_is_refused_with_the_reason() {
        let error =
            Library::first_of(&["/nowhere/libpmix.so.2".into(), "libc.so.6".into()]).err().expect("none serves");
        let text = error.to_string();
        assert!(text.starts_with("no PMIx library serves: /nowhere/libpmix.so.2 cannot be loaded: "), "{text}");
        assert!(text.ends_with("; libc.so.6 is no PMIx library with a server: it has no PMIx_Get_version"), "{text}");
        let none = Library::first_of(&[]).err().expect("none serves");
        assert_eq!(none.to_string(), "no PMIx library serves: none was named");
        let old = NoLibrary::TooOld { name: "libpmix.so.2".into(), version: "2.2.5".into() };
        assert_eq!(old.to_string(), "libpmix.so.2 is PMIx 2.2.5; 3.1 or later is needed");
    }
}
