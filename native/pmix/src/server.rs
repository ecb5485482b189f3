//! The server: what the agent tells it to do.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use muster_protocol::limits::PMIX_CALL_TIMEOUT_MS;
use muster_protocol::message::EnvVar;
use muster_protocol::pmix::{FromPmix, Namespace, Proc};

use crate::abi::{self, RANGE_LOCAL, Status, status};
use crate::host::Host;
use crate::info::{BadValue, Infos, proc};
use crate::library::{self, Library, NoLibrary};
use crate::maps::Maps;
use crate::namespace::{self, BadNamespace, Folders};
use crate::waiting::{Late, wait};
use crate::{process, upcalls, values};

/// Why the server cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no library.
    #[error(transparent)]
    NoLibrary(#[from] NoLibrary),
    /// The folder is not what was agreed.
    #[error("{} cannot be used as the PMIx server's folder: {why}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A namespace makes no sense.
    #[error(transparent)]
    Namespace(#[from] BadNamespace),
    /// Something cannot be said to the library.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// The library says no.
    #[error("{what} fails: {library} says {words}")]
    Refused {
        /// What was asked of it.
        what: String,
        /// Where it was loaded from.
        library: String,
        /// Its words.
        words: String,
    },
    /// The library does not come back: its thread hangs, and nothing more can be asked of it.
    #[error("{what} has not ended after {} s: {library} hangs", PMIX_CALL_TIMEOUT_MS / 1_000)]
    Late {
        /// What was asked of it.
        what: String,
        /// Where it was loaded from.
        library: String,
    },
}

/// A running server.
pub struct Server {
    pmix: Library,
    folder: PathBuf,
    /// Namespaces, with the folders of those that have ranks here.
    namespaces: BTreeMap<String, Option<PathBuf>>,
}

impl Server {
    /// Loads the first library that serves and starts it.
    ///
    /// # Safety
    /// No other thread reads or writes the environment while this runs: the library gets its settings there.
    ///
    /// # Errors
    /// When none serves, or the one that does cannot start.
    pub unsafe fn start(libraries: &[String], folder: &str, host: &str) -> Result<Self, Failure> {
        let folder = empty_folder(folder)?;
        // SAFETY: this function's contract.
        unsafe { settings() };
        let library = Library::first_of(libraries)?;
        // SAFETY: this function's contract.
        unsafe { settings_beside(&library) };
        // Some releases keep pointers into these two, and their threads may outlive a server that has ended or has not come up.
        let mut infos = ManuallyDrop::new(Infos::new());
        infos.text(c"pmix.srvr.tmpdir", &folder.to_string_lossy())?;
        infos.text(c"pmix.hname", host)?;
        let table = Box::leak(upcalls::table(library.version.numbers.0));
        // SAFETY: the table has more slots than any release copies, those that are filled have the types of the headers, and
        // both arrays live as long as the server.
        let rc = unsafe { (library.server_init)(table.as_mut_ptr(), infos.pointer(), infos.len()) };
        if rc != status::SUCCESS {
            return Err(refused(&library, "starting a PMIx server", rc));
        }
        // SAFETY: no codes and no infos means every event that nothing else handles; the handler lives for ever.
        unsafe {
            (library.register_event_handler)(null_mut(), 0, null_mut(), 0, upcalls::any_event, None, null_mut());
        }
        Ok(Self { pmix: library, folder, namespaces: BTreeMap::new() })
    }

    /// What to tell the agent of it.
    pub fn ready(&self) -> FromPmix {
        FromPmix::Ready { version: self.pmix.version.text.clone(), library: self.pmix.path.clone() }
    }

    /// Registers a namespace with its ranks here. One that makes no sense, whose folders cannot be made, or to which the library says
    /// no leaves nothing behind, and the others go on.
    ///
    /// # Errors
    /// When the library hangs.
    pub fn register(&mut self, namespace: &Namespace, uid: u32, gid: u32) -> Result<FromPmix, Failure> {
        let name = &namespace.name;
        if self.namespaces.contains_key(name) {
            return Ok(FromPmix::NotRegistered {
                namespace: name.clone(),
                why: format!("{name} is registered already"),
            });
        }
        match self.try_to_register(namespace, uid, gid) {
            Err(late @ Failure::Late { .. }) => Err(late),
            Err(failure) => {
                self.deregister(name)?;
                Ok(FromPmix::NotRegistered { namespace: name.clone(), why: failure.to_string() })
            }
            registered => registered,
        }
    }

    fn try_to_register(&mut self, namespace: &Namespace, uid: u32, gid: u32) -> Result<FromPmix, Failure> {
        let folders = self.make_folders(namespace, uid, gid)?;
        let folders = folders.as_ref().map(|[top, session]| Folders { top, session });
        let plain = Maps::of(namespace).map_err(BadNamespace::from)?;
        let maps = self.pmix.written(plain);
        let maps = maps.map_err(|rc| refused(&self.pmix, "writing the maps of a namespace", rc))?;
        // All of this stays for a library that hangs.
        let typed = self.pmix.version.maps_are_typed();
        let mut infos = ManuallyDrop::new(namespace::infos(namespace, folders, &maps, typed)?);
        let named = Box::leak(Box::new(proc(&namespace.name, 0)?));
        self.namespaces.entry(namespace.name.clone()).or_default();
        self.ask(
            || format!("registering namespace {}", namespace.name),
            |done, mark| {
                // SAFETY: the name's field has the length that is read, and the arrays live until the library has called back.
                unsafe {
                    (self.pmix.register_nspace)(
                        named.namespace.as_ptr(),
                        namespace.local.len() as c_int,
                        infos.pointer(),
                        infos.len(),
                        done,
                        mark,
                    )
                }
            },
        )?;
        drop(ManuallyDrop::into_inner(infos));
        let mut environments = Vec::with_capacity(namespace.local.len());
        for local in &namespace.local {
            named.rank = local.rank;
            let named = &raw const *named;
            self.ask(
                || format!("registering rank {} of {}", local.rank, namespace.name),
                // SAFETY: the process lives until the library has called back; it is given no object of ours.
                |done, mark| unsafe { (self.pmix.register_client)(named, uid, gid, null_mut(), done, mark) },
            )?;
            // SAFETY: it was made above, and the library has done with it.
            environments.push(self.environment(unsafe { &*named })?);
        }
        // SAFETY: it was a box, and the library has done with it.
        drop(unsafe { Box::from_raw(named) });
        Ok(FromPmix::Registered { namespace: namespace.name.clone(), environments })
    }

    /// Folders for the files of ranks here: the namespace's own, and one below it.
    fn make_folders(&mut self, namespace: &Namespace, uid: u32, gid: u32) -> Result<Option<[String; 2]>, Failure> {
        if namespace.local.is_empty() {
            return Ok(None);
        }
        let top = self.folder.join(&namespace.folder);
        let session = top.join("session");
        for folder in [&top, &session] {
            make_folder(folder, uid, gid)
                .map_err(|error| Failure::Folder { folder: folder.clone(), why: error.to_string() })?;
            self.namespaces.insert(namespace.name.clone(), Some(top.clone()));
        }
        Ok(Some([top, session].map(|folder| folder.to_string_lossy().into_owned())))
    }

    /// The variables that a rank needs.
    fn environment(&self, of: &abi::Proc) -> Result<Vec<EnvVar>, Failure> {
        // SAFETY: takes integers; one null pointer is an empty environment. The library grows it by the C library's means.
        let mut variables = unsafe { libc::calloc(1, size_of::<*mut c_char>()) }.cast::<*mut c_char>();
        // SAFETY: the process and the environment are valid for the call.
        let rc = unsafe { (self.pmix.setup_fork)(of, &raw mut variables) };
        // SAFETY: an environment is an array of texts up to a null pointer.
        let texts = unsafe { values::texts(variables.cast_const().cast()) };
        for position in 0..texts.len() {
            // SAFETY: the environment is ours: allocated texts in an allocated array, none of which is used afterwards.
            unsafe { libc::free((*variables.add(position)).cast()) };
        }
        // SAFETY: as above.
        unsafe { libc::free(variables.cast()) };
        self.check(rc, || format!("preparing the environment of rank {}", of.rank))?;
        let variable = |text: &String| {
            let (name, value) = text.split_once('=')?;
            Some(EnvVar { name: name.to_owned(), value: Some(value.to_owned()) })
        };
        Ok(texts.iter().filter_map(variable).collect())
    }

    /// Forgets a namespace and removes its folder.
    ///
    /// # Errors
    /// When the library hangs.
    pub fn deregister(&mut self, name: &str) -> Result<(), Failure> {
        let Some(folder) = self.namespaces.remove(name) else { return Ok(()) };
        // What cannot be removed is in a folder that the agent removes.
        let _ = folder.map(fs::remove_dir_all);
        let Ok(named) = proc(name, 0) else { return Ok(()) };
        let named = ManuallyDrop::new(Box::new(named));
        // Whether it knew the namespace does not matter.
        let end = wait(|done, mark| {
            // SAFETY: the name's field has the length that is read and lives until the library has called back.
            unsafe { (self.pmix.deregister_nspace)(named.namespace.as_ptr(), done, mark) };
            status::SUCCESS
        });
        end.map_err(|Late| Failure::Late {
            what: format!("deregistering namespace {name}"),
            library: self.pmix.path.clone(),
        })?;
        drop(ManuallyDrop::into_inner(named));
        Ok(())
    }

    /// Asks a rank here for what it has put; the answer goes to the agent.
    pub fn fetch(&self, host: &Host, token: u64, of: &Proc) {
        let rc = match proc(&of.namespace, of.rank) {
            // SAFETY: the process is copied by the call; the mark is a number.
            Ok(of) => unsafe {
                (self.pmix.dmodex_request)(
                    &raw const of,
                    upcalls::fetched,
                    std::ptr::without_provenance_mut(token as usize),
                )
            },
            Err(_) => status::BAD_PARAM,
        };
        if rc != status::SUCCESS {
            host.tell(upcalls::not_fetched(token, rc));
        }
    }

    /// Tells the ranks here of an event.
    ///
    /// # Errors
    /// When the process's name cannot be said.
    pub fn notify(&self, event: Status, of: &Proc) -> Result<(), Failure> {
        let of = proc(&of.namespace, of.rank)?;
        let mut infos = Infos::new();
        infos.proc(c"pmix.evproc", of);
        // Without a callback the arrays are copied, or done with, when the call returns.
        // SAFETY: process and array are valid for the call. A refusal means that nobody here wants to know.
        unsafe {
            (self.pmix.notify_event)(event, &raw const of, RANGE_LOCAL, infos.pointer(), infos.len(), None, null_mut());
        }
        Ok(())
    }

    /// Ends the server and removes everything that it and its ranks have put into its folder.
    pub fn finish(mut self) {
        // Before the library, which may hang, and after it.
        empty(&self.folder);
        let names: Vec<String> = self.namespaces.keys().cloned().collect();
        for name in names {
            if let Err(failure) = self.deregister(&name) {
                process::die(&failure.to_string());
            }
        }
        // SAFETY: the server runs, and nothing calls the library any more.
        unsafe { (self.pmix.server_finalize)() };
        empty(&self.folder);
    }

    /// Makes a call that ends by a callback.
    fn ask(
        &self,
        what: impl FnOnce() -> String,
        call: impl FnOnce(abi::OpDone, *mut c_void) -> Status,
    ) -> Result<(), Failure> {
        match wait(call) {
            Ok(rc) => self.check(rc, what),
            Err(Late) => Err(Failure::Late { what: what(), library: self.pmix.path.clone() }),
        }
    }

    fn check(&self, rc: Status, what: impl FnOnce() -> String) -> Result<(), Failure> {
        if rc == status::SUCCESS || rc == status::OPERATION_SUCCEEDED {
            return Ok(());
        }
        Err(refused(&self.pmix, &what(), rc))
    }
}

fn refused(library: &Library, what: &str, rc: Status) -> Failure {
    Failure::Refused { what: what.to_owned(), library: library.path.clone(), words: library.words_for(rc) }
}

/// Settings that a library reads while it starts. What people have set stays.
///
/// # Safety
/// No other thread reads or writes the environment while this runs.
unsafe fn settings() {
    // Job data by messages instead of shared files: the only way that every release understands of every other.
    // SAFETY: this function's contract.
    unsafe { process::set_default("PMIX_MCA_gds", "hash".as_ref()) };
    // Of the machine the server has to know cores and caches. Looking at devices as well is half of what its start costs; hwloc's
    // plugins for some of them bring X11, OpenCL and a C++ library into this process. Ranks look for themselves.
    // SAFETY: this function's contract.
    unsafe {
        process::set_default("HWLOC_COMPONENTS", "-linuxio".as_ref());
        process::set_default("HWLOC_PLUGINS_PATH", "/dev/null".as_ref());
    }
}

/// Settings of a library that lies in a folder of ours: where its plugins and texts are, instead of where it was built for.
///
/// # Safety
/// No other thread reads or writes the environment while this runs.
unsafe fn settings_beside(library: &Library) {
    if let Some(own) = library::own_folder(&library.path) {
        // The second is for the settings that an installed copy would come with: they may name its plugins once more.
        let (plugins, texts) = (own.as_path(), own.join("texts"));
        let places = [("PMIX_PKGLIBDIR", plugins), ("PMIX_SYSCONFDIR", plugins), ("PMIX_PKGDATADIR", texts.as_path())];
        // SAFETY: this function's contract.
        unsafe { process::replace_places(&places) };
    }
}

/// The folder, if it is empty: at the end everything in it is removed.
fn empty_folder(name: &str) -> Result<PathBuf, Failure> {
    let folder = PathBuf::from(name);
    let bad = |why: String| Failure::Folder { folder: folder.clone(), why };
    let mut entries = fs::read_dir(&folder).map_err(|error| bad(error.to_string()))?;
    if entries.next().is_some() {
        return Err(bad("it is not empty".to_owned()));
    }
    Ok(folder)
}

/// Makes a folder that nobody but its owner can look into.
fn make_folder(folder: &Path, uid: u32, gid: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    if fs::metadata(folder)?.uid() != uid {
        chown(folder, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Removes what is in a folder, as far as possible.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // What cannot be removed is in a folder that the agent removes.
        let _ = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().to_string_lossy().into_owned();
        assert!(empty_folder(&name).is_ok());
        fs::write(folder.path().join("precious"), "x").expect("written");
        let error = empty_folder(&name).unwrap_err().to_string();
        assert_eq!(error, format!("{name} cannot be used as the PMIx server's folder: it is not empty"));
        assert!(empty_folder("/nowhere/at/all").is_err());
    }

    #[test]
    fn emptying_spares_the_folder_itself_and_what_links_lead_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs::write(elsewhere.path().join("precious"), "x").expect("written");
        fs::create_dir_all(folder.path().join("a/b")).expect("made");
        fs::write(folder.path().join("a/b/file"), "x").expect("written");
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("link")).expect("linked");
        empty(folder.path());
        assert_eq!(fs::read_dir(folder.path()).expect("still there").count(), 0);
        assert!(elsewhere.path().join("precious").exists());
    }
}
