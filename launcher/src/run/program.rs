//! Which bootstrap the programs of a job need, as far as this machine has them.
//!
//! A program that is not here, or whose files do not tell, says nothing: it is then started as the others are, or with PMI, which
//! a program may leave alone.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use muster_core::plan::detect::{self, Ambiguous, PythonRun, Sign};
use muster_core::plan::{AppSpec, Bootstrap, JobSpec};

use super::elf;
use crate::discover::Surroundings;

/// Bytes of a script that are looked at.
const SCRIPT_BYTES_MAX: u64 = 256 << 10;
/// Files that are looked at for one program.
const FILES_MAX: usize = 256;
/// Libraries of libraries that are followed.
const DEPTH_MAX: u32 = 4;
/// Where the loader looks when nothing else is said.
const LIBRARY_FOLDERS: [&str; 5] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

/// Where a program is that is called by its bare name.
pub(crate) fn on_path(path: &str, name: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path).map(|dir| dir.join(name)).find(runs)
}

/// What each program of a job needs; none when nothing tells, or when the user has said it.
///
/// # Errors
/// When the signs of one program contradict each other.
pub(crate) fn find(spec: &JobSpec, site: &Surroundings) -> Result<Vec<Option<Sign>>, Ambiguous> {
    let sign = |app: &AppSpec| match app.bootstrap {
        Bootstrap::Auto => detect::decide(app.program(), Look::new(app, site).program(&app.argv)),
        _ => Ok(None),
    };
    spec.apps.iter().map(sign).collect()
}

/// A look at one program.
struct Look<'a> {
    app: &'a AppSpec,
    site: &'a Surroundings,
    seen: HashSet<PathBuf>,
}

impl<'a> Look<'a> {
    fn new(app: &'a AppSpec, site: &'a Surroundings) -> Self {
        Self { app, site, seen: HashSet::new() }
    }

    /// A variable as the rank will have it, if it can be known here.
    fn var(&self, name: &str) -> Option<&str> {
        let own = self.app.env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        own.or_else(|| self.site.var(name))
    }

    fn resolved(&self, path: &str) -> PathBuf {
        match self.app.wdir.as_deref() {
            Some(dir) if !path.starts_with('/') => Path::new(dir).join(path),
            _ => PathBuf::from(path),
        }
    }

    fn program(&mut self, argv: &[String]) -> Vec<Sign> {
        let signs = self.own(argv);
        if signs.is_empty() { self.behind(argv) } else { signs }
    }

    /// What the command that a wrapper is given says.
    fn behind(&mut self, argv: &[String]) -> Vec<Sign> {
        if let Some(code) = detect::shell_code(argv) {
            return self.words(code);
        }
        let begins = detect::wrapped(argv).find(|at| self.executable(&argv[*at]).is_some());
        begins.map_or_else(Vec::new, |at| uncertain(self.program(&argv[at..])))
    }

    fn own(&mut self, argv: &[String]) -> Vec<Sign> {
        let Some((name, args)) = argv.split_first() else { return Vec::new() };
        let Some(path) = self.executable(name) else { return Vec::new() };
        if detect::is_python(name) {
            return self.python(&path, args);
        }
        match interpreted(&path) {
            Some(words) if detect::is_python(&words[0]) => {
                let python = self.executable(&words[0]);
                let args: Vec<String> =
                    words[1..].iter().cloned().chain([path.to_string_lossy().into_owned()]).collect();
                python.map_or_else(Vec::new, |python| self.python(&python, &args))
            }
            Some(_) => self.script(&path),
            None => self.file(&path, name, 0),
        }
    }

    fn executable(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(self.resolved(name)).filter(|path| path.is_file());
        }
        on_path(self.var("PATH")?, name)
    }

    /// What a program or library, and the libraries it needs, say. The nearest sign is enough.
    fn file(&mut self, path: &Path, shown: &str, depth: u32) -> Vec<Sign> {
        if depth > DEPTH_MAX || self.seen.len() >= FILES_MAX || !self.seen.insert(path.to_owned()) {
            return Vec::new();
        }
        let Ok(Some(needs)) = elf::needs(path) else { return Vec::new() };
        let sign = |l: &String| {
            Some(Sign { pmix_library: self.own_pmix(path, &needs.folders, l), ..detect::of_library(shown, l)? })
        };
        let signs: Vec<Sign> = needs.libraries.iter().filter_map(sign).collect();
        if !signs.is_empty() {
            return signs;
        }
        let found: Vec<(PathBuf, &String)> =
            needs.libraries.iter().filter_map(|l| Some((self.find_library(path, &needs.folders, l)?, l))).collect();
        found.into_iter().flat_map(|(path, name)| self.file(&path, name, depth + 1)).collect()
    }

    /// The PMIx library beside the program's `libmpi`, if that is Open MPI 5.
    fn own_pmix(&self, of: &Path, folders: &[String], soname: &str) -> Option<String> {
        let libmpi = self.find_library(of, folders, soname)?;
        let needs = elf::needs(&libmpi).ok()??;
        needs.libraries.iter().find(|l| detect::is_of_open_mpi_5(l))?;
        let folder = std::fs::canonicalize(&libmpi).ok()?.parent()?.to_path_buf();
        let beside = ["openmpi/libpmix.so.2", "libpmix.so.2"].map(|name| folder.join(name));
        let own = beside
            .into_iter()
            .find(|path| path.is_file())
            .or_else(|| self.find_library(&libmpi, &needs.folders, "libpmix.so.2"));
        own.map(|path| path.to_string_lossy().into_owned())
    }

    fn find_library(&self, of: &Path, folders: &[String], name: &str) -> Option<PathBuf> {
        let origin = of.parent().map_or_else(String::new, |dir| dir.to_string_lossy().into_owned());
        let own = folders.iter().map(|f| f.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin));
        let asked = self.var("LD_LIBRARY_PATH").unwrap_or_default().split(':').filter(|f| !f.is_empty());
        let debian = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let all = own.chain(asked.map(str::to_owned)).chain(LIBRARY_FOLDERS.map(str::to_owned)).chain([debian]);
        all.map(|folder| Path::new(&folder).join(name)).find(|path| path.is_file())
    }

    /// The programs that a shell script may start.
    fn script(&mut self, path: &Path) -> Vec<Sign> {
        text(path).map_or_else(Vec::new, |text| self.words(&text))
    }

    fn words(&mut self, script: &str) -> Vec<Sign> {
        let mut signs = Vec::new();
        for word in detect::script_words(script) {
            if let Some(program) = self.executable(word).filter(|p| interpreted(p).is_none()) {
                signs.extend(self.file(&program, word, 0));
            }
        }
        uncertain(signs)
    }

    fn python(&mut self, python: &Path, args: &[String]) -> Vec<Sign> {
        let shown = match detect::python_run(args) {
            Some(PythonRun::Script(script)) => {
                let path = self.resolved(&script);
                text(&path).filter(|code| detect::imports_mpi4py(code)).map(|_| script)
            }
            Some(PythonRun::Code(code)) => detect::imports_mpi4py(&code).then(|| "the code".to_owned()),
            Some(PythonRun::Module(module)) => (module == "mpi4py" || module.starts_with("mpi4py.")).then_some(module),
            None => None,
        };
        let Some(shown) = shown else { return Vec::new() };
        let Some(package) = self.mpi4py(python) else { return Vec::new() };
        self.mpi4py_signs(&package, &shown)
    }

    /// The folder of mpi4py that this interpreter imports.
    fn mpi4py(&self, python: &Path) -> Option<PathBuf> {
        let asked = self.var("PYTHONPATH").unwrap_or_default().split(':').filter(|f| !f.is_empty()).map(PathBuf::from);
        // Not of the file that a virtual environment's interpreter is a link to.
        let prefix = python.parent()?.parent()?;
        let libraries = ["lib", "lib64", "local/lib"].map(|lib| prefix.join(lib));
        let versions = libraries.iter().flat_map(|lib| entries(lib)).filter(|p| named(p, "python"));
        let sites = versions.flat_map(|v| [v.join("site-packages"), v.join("dist-packages")]);
        asked.chain(sites).map(|site| site.join("mpi4py")).find(|package| package.is_dir())
    }

    /// A wheel brings a module for each family, and loads the one of the MPI that it finds first (`mpi4py/_mpiabi.py`).
    fn mpi4py_signs(&mut self, package: &Path, shown: &str) -> Vec<Sign> {
        let modules =
            entries(package).into_iter().filter(|p| named(p, "MPI.") && p.extension().is_some_and(|e| e == "so"));
        let modules: Vec<PathBuf> = modules.collect();
        let asked = self.var("MPI4PY_MPIABI").map(str::to_owned);
        let first = || self.first_mpi(package).and_then(|path| elf::needs(&path).ok()??.soname);
        let found = if modules.len() > 1 && asked.is_none() { first() } else { None };
        let found = found.as_deref().and_then(|soname| detect::of_library("", soname)).map(|sign| sign.bootstrap);
        let mut signs = Vec::new();
        for module in modules {
            let name = module.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            if asked.as_deref().is_some_and(|abi| !name.contains(abi)) {
                continue;
            }
            let shown = format!("{shown} imports mpi4py, whose {name}");
            signs.extend(self.file(&module, &shown, 0).into_iter().filter(|s| found.is_none_or(|f| f == s.bootstrap)));
        }
        uncertain(signs)
    }

    /// The MPI library that mpi4py finds.
    fn first_mpi(&self, package: &Path) -> Option<PathBuf> {
        const NAMES: [&str; 3] = ["libmpi.so", "libmpi.so.12", "libmpi.so.40"];
        let asked =
            self.var("MPI4PY_LIBMPI").unwrap_or_default().split(':').filter(|p| !p.is_empty()).map(PathBuf::from);
        let environment = package.ancestors().find(|dir| dir.file_name().is_some_and(|n| n == "lib"));
        let beside = NAMES.iter().filter_map(|name| Some(environment?.join(name)));
        let loaded = NAMES.iter().filter_map(|name| self.find_library(package, &[], name));
        asked.chain(beside).chain(loaded).find(|path| path.is_file())
    }
}

/// Signs of something that may not be used.
fn uncertain(signs: Vec<Sign>) -> Vec<Sign> {
    signs.into_iter().map(|sign| Sign { certain: false, ..sign }).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).map_or_else(|_| Vec::new(), |dir| dir.flatten().map(|entry| entry.path()).collect());
    all.sort();
    all
}

fn named(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// Interpreter and arguments of a script.
/// The interpreter of a script and its words; none of what is no script.
pub(crate) fn interpreted(path: &Path) -> Option<Vec<String>> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut head).ok()?;
    detect::interpreter(&head)
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(SCRIPT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
