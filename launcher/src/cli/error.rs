//! What can be wrong with a command line, its environment forms and its files.

use muster_core::hosts::Origin;

/// A usage error; `muster` exits with 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No such subcommand.
    #[error("unknown command {given:?}{hint}; muster --help lists the commands", hint = did_you_mean(suggestion))]
    UnknownCommand {
        /// What was typed.
        given: String,
        /// A command with a similar name.
        suggestion: Option<String>,
    },
    /// No such option.
    #[error(
        "{at}unknown option {flag:?}{hint}; options stand before the program, and muster run --help lists them",
        hint = did_you_mean(suggestion)
    )]
    UnknownFlag {
        /// The file and line it stands in, or nothing for the command line.
        at: String,
        /// What was typed.
        flag: String,
        /// An option with a similar name.
        suggestion: Option<String>,
    },
    /// An option of another launcher, or of a later release.
    #[error("{at}option {flag:?} is not supported: {advice}")]
    Elsewhere {
        /// The file and line it stands in, or nothing for the command line.
        at: String,
        /// What was typed.
        flag: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// A command of a later release.
    #[error("muster {command} is not in this release; it has run, exec, plan, hosts, key new, version and help")]
    NotInRelease {
        /// The command.
        command: String,
    },
    /// An option at the end without its value.
    #[error("{at}{flag} needs a value: {flag} {metavar}")]
    MissingValue {
        /// The file and line it stands in, or nothing for the command line.
        at: String,
        /// What was typed.
        flag: String,
        /// What should follow.
        metavar: &'static str,
    },
    /// A value that cannot be used.
    #[error("{place}: {value:?} {why}")]
    BadValue {
        /// The option and where it was given.
        place: String,
        /// The value.
        value: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// An option that only `muster plan` has.
    #[error("{0} goes with muster plan only")]
    PlanOnly(String),
    /// An option that `muster exec` does not have.
    #[error(
        "{place}: muster exec does not take it; what belongs to the command stands behind it: muster exec [OPTIONS] -- COMMAND"
    )]
    NotForExec {
        /// The option and where it was given.
        place: String,
    },
    /// An option that `muster hosts` does not have.
    #[error("{place}: muster hosts does not take it; muster hosts --help tells what it takes")]
    NotForHosts {
        /// Where it stands.
        place: String,
    },
    /// Nothing to run.
    #[error("no command to run; write it after the options: muster exec [OPTIONS] -- mpirun [ARGUMENTS]")]
    NoCommand,
    /// Two options that exclude each other.
    #[error("{first} and {second} are both given; keep one of them")]
    Conflict {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// Nothing to run.
    #[error("no program to run; write it after the options: muster run [OPTIONS] PROGRAM [ARGUMENTS]")]
    NoProgram,
    /// Nothing between two `:`.
    #[error("program {position} is missing: each ':' stands between two programs")]
    NoProgramBetween {
        /// Which of the programs, from 1.
        position: usize,
    },
    /// An argument that is not text.
    #[error("argument {position} is not valid UTF-8: {shown:?}; rename the file or pass the bytes another way")]
    NotUtf8 {
        /// Which argument, from 1.
        position: usize,
        /// The argument with the bad bytes replaced.
        shown: String,
    },
    /// A file of the command line that cannot be read or understood.
    #[error("{place}: {file}: {why}")]
    File {
        /// The option that named it.
        place: String,
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A place in a file that cannot be understood.
    #[error("{at}: {why}")]
    InFile {
        /// File and line.
        at: Origin,
        /// What is wrong.
        why: String,
    },
    /// Something that a command does not take.
    #[error("muster {command} does not take {given:?}; muster {command} --help tells what it takes")]
    Unexpected {
        /// The command.
        command: &'static str,
        /// What was typed.
        given: String,
    },
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |s| format!(" (did you mean {s}?)"))
}

/// The most similar of some words, if one is similar enough to be a slip of the fingers.
pub(super) fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    words.map(|w| (distance(word, w), w)).filter(|(d, _)| *d <= allowed).min().map(|(_, w)| w)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let words = || ["timeout", "hosts", "hostfile", "ppn"].into_iter();
        assert_eq!(nearest("timout", words()), Some("timeout"));
        assert_eq!(nearest("tiemout", words()), Some("timeout"));
        assert_eq!(nearest("hostfil", words()), Some("hostfile"));
        assert_eq!(nearest("host", words()), Some("hosts"));
        assert_eq!(nearest("xy", words()), None);
        assert_eq!(nearest("bind-to", words()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
