//! Three places that an option can come from: the command line, the environment, a configuration file; in this order.

use std::path::Path;

use clap::CommandFactory;
use muster_core::hosts::Origin;
use toml::de::{DeTable, DeValue};

use super::error::{UsageError, nearest};
use super::scan::{Segment, Setting};
use super::table::{self, ENV_PREFIX, Id, Opt};
use crate::discover::Surroundings;

/// All settings of a command.
pub(super) struct Sources {
    /// Options of all programs on the command line, in order.
    flags: Vec<Setting>,
    env: Vec<Setting>,
    file: Vec<Setting>,
}

impl Sources {
    /// Gathers them.
    pub(super) fn gather(segments: &[Segment], site: &Surroundings) -> Result<Self, UsageError> {
        let flags: Vec<Setting> = segments.iter().flat_map(|s| s.settings.iter().cloned()).collect();
        let env = table::all().filter(|o| o.everywhere).filter_map(|opt| from_env(opt, site)).collect();
        let config = flags.iter().rev().find(|s| s.opt.id == Id::Config).cloned();
        let config = config.or_else(|| from_env(table::by_id(Id::Config), site));
        let file = match config {
            Some(setting) => from_file(&setting)?,
            None => Vec::new(),
        };
        Ok(Self { flags, env, file })
    }

    /// The setting that holds: the last one of the highest place that has any.
    pub(super) fn last(&self, id: Id) -> Option<&Setting> {
        self.layers().find_map(|layer| layer.iter().rev().find(|s| s.opt.id == id))
    }

    /// As [`Sources::last`], but without the command line: for options that each program has its own of.
    pub(super) fn common(&self, id: Id) -> Option<&Setting> {
        self.layers().skip(1).find_map(|layer| layer.iter().rev().find(|s| s.opt.id == id))
    }

    /// All settings of some options that add up, lowest place first.
    pub(super) fn all(&self, ids: &[Id]) -> impl Iterator<Item = &Setting> {
        [&self.file, &self.env, &self.flags].into_iter().flatten().filter(move |s| ids.contains(&s.opt.id))
    }

    /// The settings of some options that stand for one decision, from the highest place that has any.
    pub(super) fn group(&self, ids: &[Id]) -> Vec<&Setting> {
        self.layers()
            .map(|layer| layer.iter().filter(|s| ids.contains(&s.opt.id)).collect::<Vec<_>>())
            .find(|found| !found.is_empty())
            .unwrap_or_default()
    }

    fn layers(&self) -> impl Iterator<Item = &Vec<Setting>> {
        [&self.flags, &self.env, &self.file].into_iter()
    }
}

fn from_env(opt: &'static Opt, site: &Surroundings) -> Option<Setting> {
    let name = opt.env_name();
    let value = site.var(&name).filter(|value| !value.is_empty())?.to_owned();
    Some(Setting { opt, value, place: format!("environment variable {name}"), origin: Origin::env(name) })
}

/// Variables that look like options and are none, neither the launcher's nor the agent's: a slip of the fingers that nobody
/// would notice otherwise.
pub(super) fn strays(site: &Surroundings) -> Vec<String> {
    let mut known: Vec<String> =
        table::all().filter(|o| o.everywhere || o.id == Id::Config).map(Opt::env_name).collect();
    let agent = muster_worker_agent::setup::Options::command();
    known.extend(agent.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned)));
    let looks = |name: &&str| name.starts_with(ENV_PREFIX) && !known.iter().any(|k| k == name);
    let note = |name: &str| {
        let hint = nearest(name, known.iter().map(String::as_str));
        let hint = hint.map_or_else(String::new, |k| format!(" (did you mean {k}?)"));
        format!("{name} is ignored: no option has this environment form{hint}")
    };
    site.vars().map(|(name, _)| name).filter(looks).map(note).collect()
}

fn from_file(config: &Setting) -> Result<Vec<Setting>, UsageError> {
    let file = &config.value;
    let unreadable = |why: std::io::Error| UsageError::File {
        place: config.place.clone(),
        file: file.clone(),
        why: format!("cannot be read: {why}"),
    };
    let text = std::fs::read_to_string(Path::new(file)).map_err(unreadable)?;
    settings(file, &text)
}

fn settings(file: &str, text: &str) -> Result<Vec<Setting>, UsageError> {
    let line_of = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() as u32 + 1;
    let wrong = |at: usize, why: String| UsageError::InFile { at: Origin::file(file, line_of(at)), why };
    let table = DeTable::parse(text)
        .map_err(|e| wrong(e.span().map_or(0, |s| s.start), format!("not TOML: {}", e.message())))?;
    let mut out: Vec<(usize, Setting)> = Vec::new();
    for (key, value) in table.get_ref() {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        let opt = table::by_key(name).ok_or_else(|| wrong(at, unknown_key(name)))?;
        for value in values(opt, value.get_ref()).map_err(|why| wrong(at, format!("{name}: {why}")))? {
            if value.contains('\0') {
                return Err(wrong(at, format!("{name}: holds a NUL character, which no program can be given")));
            }
            let place = format!("{file}:{}: {name}", line_of(at));
            out.push((at, Setting { opt, value, origin: Origin::file(file, line_of(at)), place }));
        }
    }
    // The parser's table is sorted by name; the file's own order is what the user means.
    out.sort_by_key(|(at, _)| *at);
    Ok(out.into_iter().map(|(_, setting)| setting).collect())
}

fn unknown_key(name: &str) -> String {
    let known = table::all().filter(|o| o.everywhere).map(|o| o.key());
    let hint = nearest(&name.replace('_', "-"), known).map_or_else(String::new, |k| format!(" (did you mean {k}?)"));
    format!("unknown key {name:?}{hint}; keys are the long names of the options of muster run")
}

/// A value of the file as the command line would have it; several for lists and tables.
fn values(opt: &Opt, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let list = matches!(opt.id, Id::Export | Id::UnsetEnv | Id::Hosts);
    match value {
        DeValue::Array(items) if list => items.iter().map(|item| scalar(opt, item.get_ref())).collect(),
        DeValue::Table(table) if opt.id == Id::Export => table
            .iter()
            .map(|(name, value)| Ok(format!("{}={}", name.get_ref(), scalar(opt, value.get_ref())?)))
            .collect(),
        other => Ok(vec![scalar(opt, other)?]),
    }
}

fn scalar(opt: &Opt, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(on) => Ok(on.to_string()),
        DeValue::Integer(n) if n.radix() == 10 || (n.radix() == 8 && opt.id == Id::Umask) => Ok(n.as_str().to_owned()),
        DeValue::Float(n) => Ok(n.as_str().to_owned()),
        other => Err(format!(
            "found {}, which this option does not take; write a string or a decimal number",
            other.type_str()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        settings("m.toml", text).err().unwrap().to_string()
    }

    #[test]
    fn a_file_gives_settings_with_their_lines() {
        let text = "# c\ntimeout = \"10m\"\nkey_file = '/k'\nradix = 8\numask = 0o027\noversubscribe = true\n\
                    hosts = [\"a:2\", \"b\"]\n[export]\nA = \"1\"\nB = 2\n";
        let got: Vec<String> =
            settings("m.toml", text).unwrap().iter().map(|s| format!("{} = {}", s.place, s.value)).collect();
        insta::assert_snapshot!(got.join("\n"), @r"
        m.toml:2: timeout = 10m
        m.toml:3: key_file = /k
        m.toml:4: radix = 8
        m.toml:5: umask = 027
        m.toml:6: oversubscribe = true
        m.toml:7: hosts = a:2
        m.toml:7: hosts = b
        m.toml:8: export = A=1
        m.toml:8: export = B=2
        ");
    }

    #[test]
    fn mistakes_in_a_file_are_told_with_their_line() {
        insta::assert_snapshot!(error("\ntimout = 3\n"), @r#"m.toml:2: unknown key "timout" (did you mean timeout?); keys are the long names of the options of muster run"#);
        insta::assert_snapshot!(error("radix = [1]\n"), @"m.toml:1: radix: found array, which this option does not take; write a string or a decimal number");
        insta::assert_snapshot!(error("radix = 0x10\n"), @"m.toml:1: radix: found integer, which this option does not take; write a string or a decimal number");
        insta::assert_snapshot!(error("radix = 1\nradix = = 1\n"), @"m.toml:2: not TOML: extra `=`, expected nothing");
        insta::assert_snapshot!(error("radix = 16#\n[export\n"), @"m.toml:2: not TOML: unclosed table, expected `]`");
        insta::assert_snapshot!(error("wdir = \"a\\u0000b\"\n"), @"m.toml:1: wdir: holds a NUL character, which no program can be given");
    }
}
