//! The files of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold what was built or fetched.
const NOT_SOURCES: &[&str] = &["target", "dist", ".git", ".cache"];

/// A text file of the workspace.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path from the workspace's root, with slashes.
    pub path: String,
    /// Content.
    pub text: String,
}

impl SourceFile {
    /// Whether it is a test by its place: all of it, not only a module inside.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.split('/').any(|part| part == "tests") || name == "tests.rs" || name.ends_with("_tests.rs")
    }
}

/// The workspace's root.
///
/// # Panics
/// When the workspace is gone.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace is there while it is tested")
}

/// The workspace's files with one of these endings, sorted by path.
///
/// # Panics
/// When a folder cannot be read.
pub fn with_endings(endings: &[&str]) -> Vec<SourceFile> {
    let root = root();
    let mut found = Vec::new();
    collect(&root, &root, endings, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The Rust sources below a folder, sorted by path.
pub fn rust_below(folder: &str) -> Vec<SourceFile> {
    let mut found = with_endings(&[".rs"]);
    found.retain(|file| file.path.starts_with(folder));
    found
}

/// One file.
///
/// # Panics
/// When it cannot be read.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))
}

fn collect(root: &Path, folder: &Path, endings: &[&str], found: &mut Vec<SourceFile>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !NOT_SOURCES.contains(&&*name) => collect(root, &path, endings, found),
            Ok(kind) if kind.is_file() && endings.iter().any(|ending| name.ends_with(ending)) => {
                // What is not text is not ours to judge; what has just gone away is no longer there to judge.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let relative = path.strip_prefix(root).unwrap_or(&path);
                found.push(SourceFile { path: relative.to_string_lossy().into_owned(), text });
            }
            _ => {}
        }
    }
}
