//! Where a value came from, so that an error can send its reader to the right place.

use std::fmt;

use serde::Serialize;

/// The place a value was given in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A command line flag, as it was typed.
    Flag(String),
    /// An environment variable.
    Env(String),
    /// A line of a file; line 0 stands for the whole file.
    File {
        /// The file as it was named.
        path: String,
        /// The line, from 1.
        line: u32,
    },
    /// Nobody gave it: the built-in default, or what was found on this machine.
    Default,
}

impl Origin {
    /// A command line flag.
    pub fn flag(name: impl Into<String>) -> Self {
        Self::Flag(name.into())
    }

    /// An environment variable.
    pub fn env(name: impl Into<String>) -> Self {
        Self::Env(name.into())
    }

    /// A line of a file.
    pub fn file(path: impl Into<String>, line: u32) -> Self {
        Self::File { path: path.into(), line }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File { path, line: 0 } => f.write_str(path),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Default => f.write_str("the built-in default"),
        }
    }
}
