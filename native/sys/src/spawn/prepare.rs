//! Everything that a program start needs in the form that the kernel wants, made before there is a new process.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::SpawnOrder;

/// Where programs are looked for when the environment has no `PATH`, as `execvp` does.
const PATH_DEFAULT: &str = "/bin:/usr/bin";
/// What runs a script that does not name its interpreter.
const SHELL: &CStr = c"/bin/sh";

/// Strings and the null-terminated arrays of pointers to them.
pub(super) struct Image {
    pub(super) cwd: Option<CString>,
    /// Paths to try, in order.
    pub(super) programs: Vec<CString>,
    pub(super) argv: Vec<*const libc::c_char>,
    /// The arguments when the shell runs the program; the entry at 1 is filled with the program's path then.
    pub(super) shell_argv: Vec<*const libc::c_char>,
    pub(super) envp: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

fn c_string(bytes: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| invalid())
}

impl Image {
    pub(super) fn new(order: &SpawnOrder<'_>) -> io::Result<Self> {
        let program = order.argv.first().ok_or_else(invalid)?;
        let mut strings = Vec::with_capacity(order.argv.len() + order.env.len());
        for arg in order.argv {
            strings.push(c_string(arg.as_bytes())?);
        }
        for (name, value) in order.env {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(invalid());
            }
            strings.push(c_string([name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
        // The strings' bytes lie on the heap and do not move with `strings`.
        let (args, vars) = strings.split_at(order.argv.len());
        let null = std::ptr::null();
        let argv: Vec<_> = args.iter().map(|s| s.as_ptr()).chain([null]).collect();
        let shell_argv = [SHELL.as_ptr(), null].into_iter().chain(argv.iter().skip(1).copied()).collect();
        let envp = vars.iter().map(|s| s.as_ptr()).chain([null]).collect();
        let cwd = order.cwd.map(|d| c_string(d.as_os_str().as_bytes())).transpose()?;
        let programs = candidates(program, order.env)?;
        Ok(Self { cwd, programs, argv, shell_argv, envp, _strings: strings })
    }

    /// Whether one of the paths to try is a file: then "not found" speaks of something that the file needs.
    pub(super) fn program_exists(&self, cwd: Option<&Path>) -> bool {
        let base = cwd.map_or_else(PathBuf::new, Path::to_path_buf);
        self.programs.iter().any(|p| base.join(OsStr::from_bytes(p.to_bytes())).is_file())
    }
}

/// The paths at which a program may be.
fn candidates(program: &OsStr, env: &[(&OsStr, &OsStr)]) -> io::Result<Vec<CString>> {
    let name = program.as_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return Ok(vec![c_string(name)?]);
    }
    let path = env.iter().find(|(n, _)| *n == "PATH").map_or(OsStr::new(PATH_DEFAULT), |(_, v)| *v);
    path.as_bytes()
        .split(|b| *b == b':')
        // An empty entry means the working directory.
        .map(|dir| if dir.is_empty() { c_string(name) } else { c_string([dir, b"/", name].concat()) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(program: &str, path: Option<&str>) -> Vec<String> {
        let env: Vec<_> = path.map(|p| (OsStr::new("PATH"), OsStr::new(p))).into_iter().collect();
        let found = candidates(OsStr::new(program), &env).unwrap();
        found.into_iter().map(|p| p.into_string().unwrap()).collect()
    }

    #[test]
    fn programs_are_looked_for_as_execvp_does() {
        assert_eq!(paths("a.out", Some("/x:/y")), ["/x/a.out", "/y/a.out"]);
        assert_eq!(paths("a.out", Some("/x::/y:")), ["/x/a.out", "a.out", "/y/a.out", "a.out"]);
        assert_eq!(paths("a.out", None), ["/bin/a.out", "/usr/bin/a.out"]);
        assert_eq!(paths("./a.out", Some("/x")), ["./a.out"]);
        assert_eq!(paths("", Some("/x")), [""]);
    }
}
