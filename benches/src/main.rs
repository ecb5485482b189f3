#![forbid(unsafe_code)]
//! Measures Muster as a whole against its peers: `bench [--pairs N] [--write FILE] [ROW…]`.

mod lobby;
mod pairs;
mod rows;
mod scheduler;
mod stage;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: bench [--pairs N] [--write FILE] \
    [start|kill|output|fence|many|idle|exec|rsh|cut|pmix|pmix-fence|pmix-memory]...\n\
    Measures these rows, or all. Every row with a peer takes N (5) pairs in turns. --write puts the table into FILE.";

struct Options {
    pairs: usize,
    write: Option<PathBuf>,
    rows: Vec<String>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { pairs: 5, write: None, rows: Vec::new() };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--pairs" => options.pairs = args.next().context(USAGE)?.parse().context("--pairs takes a number")?,
            "--write" => options.write = Some(args.next().context(USAGE)?.into()),
            row if rows::NAMES.contains(&row) => options.rows.push(arg),
            _ => bail!("{USAGE}"),
        }
    }
    if options.rows.is_empty() {
        options.rows = rows::NAMES.map(str::to_owned).to_vec();
    }
    Ok(options)
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "spawn-one-by-one").is_some() {
        return rows::spawn_one_by_one(args.next().context("how many?")?.parse()?);
    }
    let options = parse(args)?;
    let _one_group = scheduler::OneGroup::enter();
    let mut out = std::io::stdout();
    write!(out, "{}", table::HEAD)?;
    let mut all = String::new();
    for row in &options.rows {
        for outcome in rows::measure(row, options.pairs).with_context(|| format!("row {row}"))? {
            let line = table::line(&outcome);
            writeln!(out, "{line}")?;
            all += &line;
            all.push('\n');
        }
    }
    writeln!(out, "{}", table::surroundings())?;
    options.write.map_or(Ok(()), |path| table::write(&path, options.pairs, &all))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone, the exit status still tells.
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
