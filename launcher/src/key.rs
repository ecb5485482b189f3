//! `muster key new`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use muster_transport::identity::JobKey;

use crate::report;
use crate::run::Usage;

/// Makes a job key: into a new file that only its owner reads, or to standard output.
pub fn new(file: Option<&str>) -> anyhow::Result<()> {
    let key = JobKey::generate();
    let Some(file) = file else {
        return report::print(&key);
    };
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(Path::new(file))
        .map_err(|e| Usage(format!("key file {file} cannot be created: {e}")))?;
    out.write_all(key.as_bytes()).and_then(|()| out.sync_all()).with_context(|| format!("key file {file}"))
}
