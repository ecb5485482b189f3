//! Reading files that people or operators may have put there, or not.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Something that is no file is not waited for.
const NONBLOCK: i32 = 0o4000;

/// More than Open MPI's files of parameters have.
pub const PARAMS_BYTES_MAX: u64 = 1 << 20;

/// The beginning of a file, as text. Only of a real one: a pipe in its place would hold us up for ever.
pub fn beginning(path: &Path, bytes_max: u64) -> Option<String> {
    let file = File::options().read(true).custom_flags(NONBLOCK).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
