//! The variables that a user sets for ranks: `-x`, `-genv`, `-env` and their relatives.

use muster_core::plan::never_forwarded;

use super::error::UsageError;
use super::scan::{Segment, Setting};
use super::sources::Sources;
use super::table::Id;
use super::values;
use crate::discover::Surroundings;

/// Variables for ranks; remembers what it could not find.
pub(super) struct Exports<'a> {
    site: &'a Surroundings,
    /// Whether the launcher's whole environment goes along.
    everything: bool,
    named: Vec<(String, String)>,
    unset: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Exports<'a> {
    /// Reads what concerns all programs.
    pub(super) fn new(sources: &Sources, site: &'a Surroundings) -> Result<Self, UsageError> {
        let mut exports = Self { site, everything: false, named: Vec::new(), unset: Vec::new(), notes: Vec::new() };
        for setting in sources.all(&[Id::GenvAll, Id::GenvNone]) {
            exports.everything = values::switch(setting)? == (setting.opt.id == Id::GenvAll);
        }
        for setting in sources.all(&[Id::Export, Id::Genv, Id::GenvList]) {
            let found = exports.read(setting)?;
            exports.named.extend(found);
        }
        for setting in sources.all(&[Id::UnsetEnv]) {
            for name in setting.value.split(',') {
                exports.unset.push(variable(setting, name.trim())?);
            }
        }
        Ok(exports)
    }

    /// All variables of one program, later ones win.
    pub(super) fn of(&mut self, segment: &Segment) -> Result<Vec<(String, String)>, UsageError> {
        let mut everything = self.everything;
        let mut own = Vec::new();
        for setting in &segment.settings {
            match setting.opt.id {
                Id::EnvAll | Id::EnvNone => everything = values::switch(setting)? == (setting.opt.id == Id::EnvAll),
                Id::Env | Id::EnvList => own.extend(self.read(setting)?),
                _ => {}
            }
        }
        let forwarded = self.site.vars().filter(|(name, _)| everything && never_forwarded(name).is_none());
        let mut env: Vec<(String, String)> = forwarded.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        env.extend(self.named.iter().cloned());
        env.extend(own);
        Ok(env)
    }

    /// Variables to take out.
    pub(super) fn unset(&self) -> Vec<String> {
        self.unset.clone()
    }

    /// What could not be found.
    pub(super) fn into_notes(self) -> Vec<String> {
        self.notes
    }

    fn read(&mut self, setting: &Setting) -> Result<Vec<(String, String)>, UsageError> {
        let from_list = matches!(setting.opt.id, Id::GenvList | Id::EnvList);
        // In its environment form -x is a list; on the command line and in files a value may have commas of its own.
        let list = from_list || matches!(setting.origin, muster_core::hosts::Origin::Env(_));
        let mut parts: Vec<&str> = if list { setting.value.split(',').collect() } else { vec![&setting.value] };
        parts.retain(|part| !(list && part.trim().is_empty()));
        let mut out = Vec::with_capacity(parts.len());
        for part in parts {
            match part.split_once('=') {
                Some((name, value)) if !from_list => out.push((variable(setting, name.trim())?, value.to_owned())),
                _ => {
                    let name = variable(setting, part.trim())?;
                    match self.site.var(&name) {
                        Some(value) => out.push((name, value.to_owned())),
                        // Scripts name variables that are set on some machines only.
                        None => self
                            .notes
                            .push(format!("{}: {name} is not set here, so it is not set for the ranks", setting.place)),
                    }
                }
            }
        }
        Ok(out)
    }
}

fn variable(setting: &Setting, name: &str) -> Result<String, UsageError> {
    if name.is_empty() || name.contains(['=', '\0']) || name.chars().any(char::is_whitespace) {
        return Err(setting.bad("does not name a variable; write NAME=VALUE"));
    }
    Ok(name.to_owned())
}
