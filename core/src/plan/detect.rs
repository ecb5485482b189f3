//! Which bootstrap a program needs, by what it links or imports. Reading files is the caller's; what they mean is decided here.

use super::Bootstrap;

/// A sign that a program needs a bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// The bootstrap.
    pub bootstrap: Bootstrap,
    /// The sign, for people: "./a.out links libmpi.so.40 (Open MPI)".
    pub because: String,
    /// Whether the program itself links it. What a script starts or imports, or what a wrapper is given, may not be used at all.
    pub certain: bool,
    /// The PMIx library of the program's own MPI, when it had better serve it.
    pub pmix_library: Option<String>,
}

/// Libraries that tell, by the beginning of their names: `libmpi.so.40` and `libmpi.so.40.30.4` are the same.
const LIBRARIES: [(&str, Bootstrap, &str); 10] = [
    ("libmpi.so.40", Bootstrap::Pmix, "Open MPI"),
    ("libmpi_cxx.so.40", Bootstrap::Pmix, "Open MPI"),
    ("libmpi_mpifh.so.40", Bootstrap::Pmix, "Open MPI"),
    ("liboshmem.so.40", Bootstrap::Pmix, "Open MPI"),
    ("libpmix.so.2", Bootstrap::Pmix, "PMIx"),
    ("libmpi.so.12", Bootstrap::Pmi, "the MPICH family"),
    ("libmpich.so.12", Bootstrap::Pmi, "MPICH"),
    ("libmpifort.so.12", Bootstrap::Pmi, "the MPICH family"),
    ("libpmi.so.0", Bootstrap::Pmi, "PMI"),
    ("libpmi2.so.0", Bootstrap::Pmi, "PMI-2"),
];

/// What a library that a file needs says about it.
pub fn of_library(file: &str, soname: &str) -> Option<Sign> {
    let is = |name: &str| soname.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let (_, bootstrap, family) = LIBRARIES.iter().find(|(name, ..)| is(name))?;
    Some(Sign {
        bootstrap: *bootstrap,
        because: format!("{file} links {soname} ({family})"),
        certain: true,
        pmix_library: None,
    })
}

/// Whether a `libmpi` that needs this library is Open MPI's from 5.0 on. Their sessions need a server of their own PMIx series (5.x): 4.2
/// answers their groups with less than they expect.
pub fn is_of_open_mpi_5(soname: &str) -> bool {
    let number = soname.strip_prefix("libopen-pal.so.").and_then(|n| n.split('.').next()?.parse::<u32>().ok());
    number.is_some_and(|n| n >= 80)
}

/// Interpreter and its arguments, when a file begins as a script.
pub fn interpreter(head: &[u8]) -> Option<Vec<String>> {
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let words: Vec<String> = String::from_utf8_lossy(line).split_whitespace().map(str::to_owned).collect();
    // `env` only looks the next word up; its options and settings come before that.
    let is_env = words.first().is_some_and(|w| w.ends_with("/env"));
    let from = if is_env { words.iter().skip(1).position(|w| !w.starts_with('-') && !w.contains('='))? + 1 } else { 0 };
    (from < words.len()).then(|| words[from..].to_vec())
}

/// What a Python interpreter is asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PythonRun {
    /// A file.
    Script(String),
    /// A module.
    Module(String),
    /// The code itself.
    Code(String),
}

/// The text that a shell is asked to run.
pub fn shell_code(argv: &[String]) -> Option<&str> {
    let (shell, args) = argv.split_first()?;
    let name = shell.rsplit('/').next().unwrap_or(shell);
    if !["sh", "bash", "dash", "ash", "ksh", "zsh"].contains(&name) {
        return None;
    }
    let flag = args.iter().position(|a| a.starts_with('-') && !a.starts_with("--") && a.ends_with('c'))?;
    args.get(flag + 1).map(String::as_str)
}

/// The words of a wrapper's command line that may begin the command that it wraps, by their positions: `numactl -l ./a.out`,
/// `env A=1 ./a.out`, `timeout 5 ./a.out`.
pub fn wrapped(argv: &[String]) -> impl Iterator<Item = usize> {
    (1..argv.len()).filter(|at| !argv[*at].starts_with('-') && !argv[*at].contains('='))
}

/// Options of Python that take the next word.
const PYTHON_VALUES: [&str; 3] = ["-W", "-X", "--check-hash-based-pycs"];

/// Whether a program is a Python interpreter, by its name.
pub fn is_python(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    let rest = name.strip_prefix("python").or_else(|| name.strip_prefix("pypy"));
    rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// What the arguments of a Python interpreter ask it to run.
pub fn python_run(args: &[String]) -> Option<PythonRun> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-m" => return args.next().cloned().map(PythonRun::Module),
            "-c" => return args.next().cloned().map(PythonRun::Code),
            // Options of one letter may be written together.
            joined if !joined.starts_with("--") && joined.starts_with('-') && joined.ends_with('m') => {
                return args.next().cloned().map(PythonRun::Module);
            }
            joined if !joined.starts_with("--") && joined.starts_with('-') && joined.ends_with('c') => {
                return args.next().cloned().map(PythonRun::Code);
            }
            option if PYTHON_VALUES.contains(&option) => _ = args.next(),
            option if option.starts_with('-') => {}
            script => return Some(PythonRun::Script(script.to_owned())),
        }
    }
    None
}

/// Whether Python code imports mpi4py, as its text says; what it imports by other modules is not followed.
pub fn imports_mpi4py(code: &str) -> bool {
    let is_import = |statement: &str| {
        let mut words = statement.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
        matches!(words.next(), Some("import" | "from")) && words.any(|w| w == "mpi4py")
    };
    code.lines()
        .map(|line| line.split('#').next().unwrap_or(line))
        .flat_map(|line| line.split(';'))
        .any(|s| is_import(s.trim_start()))
}

/// Words of a shell script that may name a program: what it looks like is left to the caller.
pub fn script_words(script: &str) -> impl Iterator<Item = &str> {
    let code =
        script.lines().map(|line| line.split(" #").next().unwrap_or(line)).filter(|l| !l.trim_start().starts_with('#'));
    let separates = |c: char| c.is_whitespace() || "\"'`;|&()<>={}".contains(c);
    code.flat_map(move |line| line.split(separates))
        .filter(|w| !w.is_empty() && !w.contains('$') && !w.starts_with('-'))
}

/// Why no bootstrap can be chosen for a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bootstrap of {program} is not clear: {}; choose one with --bootstrap pmi or --bootstrap pmix", .signs.join("; "))]
pub struct Ambiguous {
    /// The program.
    program: String,
    /// What speaks for one and what for another.
    signs: Vec<String>,
}

/// The bootstrap that all signs of one program speak for; none without any.
///
/// # Errors
/// When they contradict each other.
pub fn decide(program: &str, signs: Vec<Sign>) -> Result<Option<Sign>, Ambiguous> {
    let mut kinds: Vec<Sign> = Vec::new();
    for sign in signs {
        if !kinds.iter().any(|known| known.bootstrap == sign.bootstrap) {
            kinds.push(sign);
        }
    }
    match kinds.len() {
        0 | 1 => Ok(kinds.pop()),
        _ => Err(Ambiguous { program: program.to_owned(), signs: kinds.into_iter().map(|s| s.because).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(soname: &str) -> Option<Bootstrap> {
        of_library("x", soname).map(|sign| sign.bootstrap)
    }

    #[test]
    fn libraries_tell_the_family() {
        for (soname, want) in [
            ("libmpi.so.40", Some(Bootstrap::Pmix)),
            ("libmpi.so.40.30.4", Some(Bootstrap::Pmix)),
            ("libmpi.so.12", Some(Bootstrap::Pmi)),
            ("libmpich.so.12", Some(Bootstrap::Pmi)),
            ("libpmi2.so.0", Some(Bootstrap::Pmi)),
            ("libmpi.so.400", None),
            ("libmpi.so", None),
            ("libm.so.6", None),
        ] {
            assert_eq!(kind(soname), want, "{soname}");
        }
    }

    #[test]
    fn open_mpi_5_is_known_by_what_it_is_built_on() {
        for (soname, want) in [
            ("libopen-pal.so.80", true),
            ("libopen-pal.so.80.0.4", true),
            ("libopen-pal.so.40", false),
            ("libc.so.80", false),
        ] {
            assert_eq!(is_of_open_mpi_5(soname), want, "{soname}");
        }
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let of = |head: &str| interpreter(head.as_bytes()).map(|words| words.join(" "));
        for (head, want) in [
            ("#!/bin/sh\nexit", Some("/bin/sh")),
            ("#! /usr/bin/env -S A=1 python3 -u\n", Some("python3 -u")),
            ("#!/usr/bin/env\n", None),
            ("#!\n", None),
            ("\x7fELF", None),
        ] {
            assert_eq!(of(head).as_deref(), want, "{head:?}");
        }
    }

    #[test]
    fn python_is_known_by_its_name_and_its_script_by_its_place() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (name, want) in [("python", true), ("/opt/v/bin/python3.11", true), ("pythonic", false), ("bash", false)] {
            assert_eq!(is_python(name), want, "{name}");
        }
        let script = |name: &str| Some(PythonRun::Script(name.into()));
        assert_eq!(python_run(&words("-u -W ignore a.py -m x")), script("a.py"));
        assert_eq!(python_run(&words("-m mpi4py.bench hello")), Some(PythonRun::Module("mpi4py.bench".into())));
        assert_eq!(python_run(&words("-c import")), Some(PythonRun::Code("import".into())));
        assert_eq!(python_run(&words("-um mpi4py.bench")), Some(PythonRun::Module("mpi4py.bench".into())));
        assert_eq!(python_run(&words("-i")), None);
    }

    #[test]
    fn a_wrapper_is_looked_behind() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(wrapped(&words("env -i A=1 ./a.out x")).collect::<Vec<_>>(), [3, 4]);
        let code = |shell: &str| shell_code(&[shell.to_owned(), "-ec".into(), "./a.out".into()]).map(str::to_owned);
        assert_eq!((code("/bin/bash").as_deref(), code("./a.out")), (Some("./a.out"), None));
    }

    #[test]
    fn an_import_is_a_statement_and_not_a_word() {
        for (code, want) in [
            ("from mpi4py import MPI", true),
            ("  import os, mpi4py.futures", true),
            ("x = 1; from mpi4py.MPI import COMM_WORLD", true),
            ("print('mpi4py')", false),
            ("# import mpi4py", false),
            ("from mpi4pyx import y", false),
        ] {
            assert_eq!(imports_mpi4py(code), want, "{code}");
        }
    }

    #[test]
    fn words_of_a_script_are_what_may_be_a_program() {
        let script = "#!/bin/sh\n# ./comment\nexport A=/opt/x\nexec \"./a.out\" -v $B && (/usr/bin/b) # ./no\n";
        let words: Vec<&str> = script_words(script).collect();
        assert_eq!(words, ["export", "A", "/opt/x", "exec", "./a.out", "/usr/bin/b"]);
    }

    #[test]
    fn signs_that_contradict_each_other_are_told() {
        let sign = |file: &str, soname: &str| of_library(file, soname).unwrap();
        assert_eq!(decide("./run", Vec::new()), Ok(None));
        let open = sign("./a", "libmpi.so.40");
        assert_eq!(decide("./run", vec![open.clone(), sign("./b", "libmpi.so.40")]), Ok(Some(open.clone())));
        let error = decide("./run", vec![open, sign("./b", "libmpi.so.12")]).unwrap_err();
        insta::assert_snapshot!(error, @"the bootstrap of ./run is not clear: ./a links libmpi.so.40 (Open MPI); ./b links libmpi.so.12 (the MPICH family); choose one with --bootstrap pmi or --bootstrap pmix");
    }
}
