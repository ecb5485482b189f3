//! `--help`, made from the table of options.

use std::fmt::Write;

use super::table::{Id, Opt, SECTIONS, Takes};

const WIDTH: usize = 100;
const INDENT: usize = 8;

const OVERVIEW: &str = "\
Muster starts the ranks of a collective job on many hosts through their agents.

Usage:
  muster run  [OPTIONS] PROGRAM [ARGUMENTS] [: [OPTIONS] PROGRAM [ARGUMENTS]]...
  muster exec [OPTIONS] -- COMMAND [ARGUMENTS]          run mpirun, mpiexec, horovodrun, ... over the agents
  muster plan [OPTIONS] PROGRAM [ARGUMENTS] [: ...]     show what would run where, and why
  muster plan exec [OPTIONS] -- COMMAND [ARGUMENTS]     show what a command would get, and why
  muster hosts [OPTIONS]                                show whose agents answer now, as NAME:SLOTS
  muster key new [FILE]                                 make a job key for launcher and agents
  muster version
  muster help [COMMAND]

Called as mpiexec or mpirun, it is muster run.
";

const RUN: &str = "\
Usage: muster run  [OPTIONS] PROGRAM [ARGUMENTS] [: [OPTIONS] PROGRAM [ARGUMENTS]]...
       muster plan [OPTIONS] PROGRAM [ARGUMENTS] [: ...]

Runs PROGRAM as the ranks of one job on all hosts. Options end at the first word that is none; what
follows belongs to the program. ':' separates programs that form one job together; the first one's
ranks come first. -n, -wdir and the -env family belong to the program they stand before, all other
options to the whole job. Long options go with one dash, too, and take their value after a blank
or '='.

Times are numbers with ms, s, m or h; a plain number is seconds.
";

const EXEC: &str = "\
Usage: muster exec      [OPTIONS] -- COMMAND [ARGUMENTS]
       muster plan exec [OPTIONS] -- COMMAND [ARGUMENTS]

Waits until the agents of all hosts answer, then runs COMMAND on this machine: an unmodified mpirun,
mpiexec or horovodrun, or anything that starts processes through ssh. Its environment names the hosts
and makes Muster the remote shell of Open MPI, MPICH and Intel MPI; what is set already is kept.
muster plan exec shows each variable and its reason. When a host is lost, so is the command, at once;
when it leaves a host unused, that is told.
";

const HOSTS: &str = "\
Usage: muster hosts [OPTIONS]

Asks the agents of all hosts once, at the same time, and prints a line NAME:SLOTS for each that answers
and has the same key and job; this machine, if it is in the list by name, is shown unasked. The list is
read anew each time, and an empty file is a list of no hosts. The status is 0 whoever answers; -v tells on
standard error why a host is left out. Made to be asked again and again, such as by
  horovodrun --host-discovery-script \"muster hosts -f hosts\" ...
";

const FORMS: &str = "\
Other places for options:
  Every option except -configfile, -genv*, -env*, -v, --config and --json has an environment form:
  MUSTER_OPT_ and its first long name in capitals with '_', such as MUSTER_OPT_KEY_FILE. The same long
  names are the keys of a TOML file (--config). The command line goes before the environment, the
  environment before the file. Variables that start with MUSTER_OPT_ never reach ranks.
";

const KEY: &str = "\
Usage: muster key new [FILE]

Makes a new job key: 32 random bytes as text. Without FILE it goes to standard output, such as for
  muster key new | kubectl create secret generic job-key --from-file=key=/dev/stdin
FILE must not exist yet; it is created readable by its owner only. Launcher and agents take the key
with --key-file.
";

/// `muster --help`.
pub(super) fn overview() -> String {
    let mut out = OVERVIEW.to_owned();
    out.push_str("\nmuster run --help, muster exec --help and muster hosts --help describe all options.\n");
    out
}

/// `muster key --help`.
pub(super) fn key() -> String {
    KEY.to_owned()
}

/// `muster exec --help`.
pub(super) fn exec() -> String {
    with_options(EXEC, super::exec::takes)
}

/// `muster hosts --help`.
pub(super) fn hosts() -> String {
    with_options(HOSTS, super::hosts::takes)
}

fn with_options(text: &str, takes: impl Fn(Id) -> bool) -> String {
    let mut out = text.to_owned();
    out.push_str("\nOptions:\n");
    for option in super::table::all().filter(|o| takes(o.id)) {
        let _ = writeln!(out, "  {}", signature(option));
        wrap(&mut out, option.help);
    }
    out
}

/// `muster run --help` and `muster plan --help`.
pub(super) fn run() -> String {
    let mut out = RUN.to_owned();
    for (title, options) in SECTIONS {
        let _ = writeln!(out, "\n{title}:");
        for option in *options {
            let _ = writeln!(out, "  {}", signature(option));
            wrap(&mut out, option.help);
        }
    }
    out.push('\n');
    out.push_str(FORMS);
    out.push_str("\nExit status:\n");
    for (status, meaning) in muster_core::exit::table() {
        let _ = writeln!(out, "  {status:<7} {}", meaning.replace('`', ""));
    }
    out
}

/// `-n, --np N`: one letter first, then the name that gives the other forms, then the rest.
fn signature(option: &Opt) -> String {
    let mut names: Vec<String> = Vec::new();
    names.extend(option.names.iter().filter(|n| n.len() == 1).map(|n| format!("-{n}")));
    // mpiexec's own options are known with one dash.
    let of_mpiexec = ["genv", "env", "configfile"].iter().any(|start| option.key().starts_with(start));
    let dashes = if of_mpiexec { "-" } else { "--" };
    names.extend(option.names.iter().filter(|n| n.len() > 1).map(|n| format!("{dashes}{n}")));
    let names = names.join(", ");
    match option.takes {
        Takes::Switch => names,
        Takes::Value(metavar) => format!("{names} {metavar}"),
        Takes::Pair => format!("{names} NAME=VALUE  or  {names} NAME VALUE"),
        Takes::Number(metavar) => format!("{names} [{metavar}]"),
    }
}

fn wrap(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column == 0 || column + 1 + length > WIDTH {
            if column > 0 {
                out.push('\n');
            }
            out.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::all;

    #[test]
    fn every_option_and_status_is_described_in_readable_lines() {
        let text = run();
        for option in all() {
            assert!(text.contains(&signature(option)), "{:?}", option.id);
        }
        assert!(text.contains("  241     a host was lost"));
        assert!(text.lines().all(|line| line.chars().count() <= 120), "no line runs out of the window");
        insta::assert_snapshot!(text.lines().skip(11).take(9).collect::<Vec<_>>().join("\n"), @r"
        Programs and ranks:
          -n, --np N
                Ranks of this program. Default: all slots (of several programs, one may go without).
          --ppn, --perhost K
                Ranks per host, in place of the hosts' own slots.
          --placement ORDER
                block fills one host, then the next; cyclic gives one rank to each host in turn; seq gives
                one rank to each line of the host file. Default: block. For muster exec: strict makes it an
                error when the command leaves a host unused.
        ");
    }
}
