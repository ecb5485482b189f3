//! What a program or a library needs, by its dynamic section.

use std::fs::File;
use std::io;
use std::path::Path;

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};

/// What the loader is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Names of libraries.
    pub(super) libraries: Vec<String>,
    /// Folders to look for them first; `$ORIGIN` is not replaced.
    pub(super) folders: Vec<String>,
    /// What a library calls itself.
    pub(super) soname: Option<String>,
}

/// Reads a file; none when it is no program or library of 64 bits.
pub(super) fn needs(path: &Path) -> io::Result<Option<Needs>> {
    let cache = ReadCache::new(File::open(path)?);
    Ok(of_file::<elf::FileHeader64<Endianness>, _>(&cache))
}

fn of_file<'data, H, R>(data: R) -> Option<Needs>
where
    H: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let mut needs = Needs::default();
    let Some(dynamic) = segments.iter().find_map(|s| s.dynamic(endian, data).ok().flatten()) else {
        return Some(needs);
    };
    let value = |tag| dynamic.iter().find(|d| d.tag32(endian) == Some(tag)).map(|d| d.d_val(endian).into());
    let (table, size) = (value(elf::DT_STRTAB)?, value(elf::DT_STRSZ)?);
    let strings = segments.iter().find_map(|s| s.data_range(endian, data, table, size).ok().flatten())?;
    let text = |entry: &H::Dyn| {
        let at: u64 = entry.d_val(endian).into();
        let bytes = strings.get(usize::try_from(at).ok()?..)?;
        let end = bytes.iter().position(|b| *b == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    for entry in dynamic {
        match entry.tag32(endian) {
            Some(elf::DT_SONAME) => needs.soname = text(entry),
            Some(elf::DT_NEEDED) => needs.libraries.extend(text(entry)),
            Some(elf::DT_RUNPATH | elf::DT_RPATH) => {
                needs.folders.extend(text(entry).iter().flat_map(|t| t.split(':')).map(str::to_owned));
            }
            _ => {}
        }
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_the_c_library_and_a_text_is_none() {
        let this = std::env::current_exe().unwrap();
        let needs = needs(&this).unwrap().unwrap();
        assert!(needs.libraries.iter().any(|l| l.starts_with("libc.so")), "{needs:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh\n").unwrap();
        assert_eq!(super::needs(file.path()).unwrap(), None);
    }
}
