//! The grammar of mpiexec: options, a program with its arguments, `:`, again options and a program, …

use std::iter::Peekable;
use std::vec::IntoIter;

use muster_core::hosts::Origin;

use super::configfile;
use super::error::{UsageError, nearest};
use super::table::{self, Id, Opt, Takes};

/// A word of the command line and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// File and line for words of a `-configfile`.
    pub(super) at: Option<(String, u32)>,
}

impl Word {
    /// The beginning of an error message.
    fn prefix(&self) -> String {
        self.at.as_ref().map_or_else(String::new, |(file, line)| format!("{file}:{line}: "))
    }

    fn origin(&self, flag: &str) -> Origin {
        match &self.at {
            Some((file, line)) => Origin::file(file.clone(), *line),
            None => Origin::flag(flag),
        }
    }
}

/// One option with its value.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) opt: &'static Opt,
    pub(super) value: String,
    pub(super) origin: Origin,
    /// The option and where it was given, for messages.
    pub(super) place: String,
}

impl Setting {
    /// An error about this value.
    pub(super) fn bad(&self, why: impl Into<String>) -> UsageError {
        UsageError::BadValue { place: self.place.clone(), value: self.value.clone(), why: why.into() }
    }
}

/// One program with the options before it.
#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) settings: Vec<Setting>,
    pub(super) argv: Vec<String>,
}

/// Splits a command line into its programs.
pub(super) fn scan(words: Vec<Word>) -> Result<Vec<Segment>, UsageError> {
    let mut segments = Vec::new();
    let mut segment = Segment::default();
    let mut words = words.into_iter().peekable();
    let mut options = true;
    let mut from_file = false;
    while let Some(word) = words.next() {
        if word.text == ":" {
            segments.push(std::mem::take(&mut segment));
            options = true;
            continue;
        }
        if !options || word.text == "-" || !word.text.starts_with('-') {
            options = false;
            segment.argv.push(word.text);
            continue;
        }
        if word.text == "--" {
            options = false;
            continue;
        }
        let setting = option(&word, &mut words)?;
        if setting.opt.id != Id::ConfigFile {
            segment.settings.push(setting);
            continue;
        }
        if let Some(rest) = words.next() {
            let why = format!(
                "takes the place of the rest of the command line, but {:?} follows; put it into the file",
                rest.text
            );
            return Err(setting.bad(why));
        }
        if from_file {
            return Err(setting.bad("stands in a configuration file itself; one cannot name another"));
        }
        from_file = true;
        words = configfile::read(&setting)?.into_iter().peekable();
    }
    segments.push(segment);
    Ok(segments)
}

/// The options at the beginning of a command line, and the words after them, which are left as they are.
pub(super) fn leading(words: Vec<Word>) -> Result<(Segment, Vec<String>), UsageError> {
    let mut segment = Segment::default();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next_if(|word| word.text.len() > 1 && word.text.starts_with('-')) {
        if word.text == "--" {
            break;
        }
        segment.settings.push(option(&word, &mut words)?);
    }
    Ok((segment, words.map(|word| word.text).collect()))
}

/// Reads one option and what belongs to it.
fn option(word: &Word, rest: &mut Peekable<IntoIter<Word>>) -> Result<Setting, UsageError> {
    let (flag, inline) = match word.text.split_once('=') {
        Some((flag, value)) => (flag, Some(value.to_owned())),
        None => (word.text.as_str(), None),
    };
    let opt = table::by_flag(flag).ok_or_else(|| unknown(word, flag))?;
    let missing = |metavar| UsageError::MissingValue { at: word.prefix(), flag: flag.to_owned(), metavar };
    let mut next = |metavar| rest.next().filter(|w| w.text != ":").map(|w| w.text).ok_or_else(|| missing(metavar));
    let value = match (opt.takes, inline) {
        (Takes::Switch, inline) => inline.unwrap_or_else(|| "true".to_owned()),
        (Takes::Value(_) | Takes::Number(_) | Takes::Pair, Some(value)) => value,
        (Takes::Value(metavar), None) => next(metavar)?,
        (Takes::Pair, None) => {
            let name = next("NAME VALUE")?;
            if name.contains('=') { name } else { format!("{name}={}", next("NAME VALUE")?) }
        }
        // Only a number can be meant for it: anything else is the next option or the program.
        (Takes::Number(_), None) => rest.next_if(|w| is_number(&w.text)).map(|w| w.text).unwrap_or_default(),
    };
    let place = format!("{}{flag}", word.prefix());
    Ok(Setting { opt, value, origin: word.origin(flag), place })
}

fn unknown(word: &Word, flag: &str) -> UsageError {
    let (at, given) = (word.prefix(), flag.to_owned());
    if let Some(advice) = table::elsewhere(flag) {
        return UsageError::Elsewhere { at, flag: given, advice };
    }
    let name = flag.trim_start_matches('-');
    let suggestion = match nearest(name, table::all().flat_map(|o| o.names.iter().copied())) {
        Some(near) if near.len() > 1 => Some(format!("--{near}")),
        _ => glued_number(name),
    };
    UsageError::UnknownFlag { at, flag: given, suggestion }
}

/// `-n4` is a common slip.
fn glued_number(name: &str) -> Option<String> {
    let end = name.find(|c: char| c.is_ascii_digit())?;
    let (option, number) = name.split_at(end);
    table::by_flag(&format!("-{option}"))?;
    is_number(number).then(|| format!("-{option} {number}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
