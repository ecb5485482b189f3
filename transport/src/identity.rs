//! From a shared secret file to a key pair that both sides hold.
//!
//! The job key is any secret that launcher and agents can read: a file of `muster key new`, or the ssh private key that an
//! operator mounts. Its bytes are only keying material, so that the type and format of such a key do not matter.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use aws_lc_rs::signature::Ed25519KeyPair;
use muster_protocol::limits::{JOB_KEY_BYTES_MAX, JOB_KEY_BYTES_MIN};
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;

const GENERATED_BYTES: usize = 32;
const SALT: &[u8] = b"muster job key";
const LABEL: &[u8] = b"muster identity 1 ed25519";

/// Why there is no usable job key.
#[derive(Debug, Error)]
pub enum JobKeyError {
    /// The file cannot be read.
    #[error("job key {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing in the file.
    #[error("job key {} is empty; `muster key new` makes one", path.display())]
    Empty {
        /// The key file.
        path: PathBuf,
    },
    /// The file is too short to be a secret.
    #[error(
        "job key {} has {bytes} bytes, at least {JOB_KEY_BYTES_MIN} are needed so that it cannot be guessed; \
         `muster key new` makes one", path.display()
    )]
    Short {
        /// The key file.
        path: PathBuf,
        /// Bytes it has after trimming.
        bytes: usize,
    },
    /// The file is too large to be a key.
    #[error("job key {} has more than {JOB_KEY_BYTES_MAX} bytes; is it the right file?", path.display())]
    Long {
        /// The key file.
        path: PathBuf,
    },
}

/// The secret that makes a job's launcher and agents trust each other.
#[derive(Clone)]
pub struct JobKey {
    bytes: Vec<u8>,
}

impl JobKey {
    /// Reads a key file. White space at both ends does not count: tools that make secrets differ in the last newline.
    pub fn read(path: &Path) -> Result<Self, JobKeyError> {
        use std::io::Read;
        let mut bytes = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(JOB_KEY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
            .map_err(|source| JobKeyError::Unreadable { path: path.to_owned(), source })?;
        Self::new(&bytes, path)
    }

    /// A key from bytes already in memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, JobKeyError> {
        Self::new(bytes, Path::new("(in memory)"))
    }

    fn new(bytes: &[u8], path: &Path) -> Result<Self, JobKeyError> {
        let path = || path.to_owned();
        if bytes.len() > JOB_KEY_BYTES_MAX {
            return Err(JobKeyError::Long { path: path() });
        }
        match bytes.trim_ascii() {
            [] => Err(JobKeyError::Empty { path: path() }),
            short if short.len() < JOB_KEY_BYTES_MIN => Err(JobKeyError::Short { path: path(), bytes: short.len() }),
            key => Ok(Self { bytes: key.to_owned() }),
        }
    }

    /// The text of a new key file: random bytes in hexadecimal and a newline.
    pub fn generate() -> String {
        let mut bytes = [0; GENERATED_BYTES];
        rand::fill(&mut bytes).expect("the system's random source works");
        let mut text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        text.push('\n');
        text
    }

    /// Sixteen random bytes in hexadecimal, for a name that others shall not guess.
    pub fn unguessable() -> String {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).expect("the system's random source works");
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The key pair that stands for this key.
    pub fn identity(&self) -> Identity {
        let mut seed = [0; 32];
        Salt::new(HKDF_SHA256, SALT)
            .extract(&self.bytes)
            .expand(&[LABEL], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut seed))
            .expect("one digest is a legal output length");
        Identity::from_seed(&seed)
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey(secret)")
    }
}

/// The Ed25519 key pair that both ends of a connection prove to hold.
#[derive(Clone)]
pub struct Identity {
    pub(crate) certified: Arc<CertifiedKey>,
}

impl Identity {
    fn from_seed(seed: &[u8; 32]) -> Self {
        let document = Ed25519KeyPair::from_seed_unchecked(seed)
            .ok()
            .and_then(|pair| pair.to_pkcs8v1().ok())
            .expect("any 32 bytes are an Ed25519 seed");
        let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(document.as_ref())).expect("the key was just encoded");
        let public = signer.public_key().expect("an Ed25519 signer knows its public key").to_vec();
        Self { certified: Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signer)) }
    }

    /// The public half as SubjectPublicKeyInfo, which is what crosses the wire.
    pub fn public_key(&self) -> &[u8] {
        &self.certified.cert[0]
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<JobKey, JobKeyError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, content).unwrap();
        JobKey::read(&path)
    }

    #[test]
    fn the_same_key_gives_the_same_identity_whatever_its_newline() {
        let one = read(b"0123456789abcdef\n").unwrap().identity();
        let two = read(b"  0123456789abcdef").unwrap().identity();
        let other = read(b"0123456789abcdeX").unwrap().identity();
        assert_eq!(one.public_key(), two.public_key());
        assert_ne!(one.public_key(), other.public_key());
        assert_eq!(one.public_key().len(), 44, "an Ed25519 SubjectPublicKeyInfo");
    }

    #[test]
    fn the_derivation_never_changes() {
        let public = JobKey::from_bytes(b"0123456789abcdef").unwrap().identity().public_key().to_vec();
        let hex: String = public[12..].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "297ea81494c26c88e6a7348887a7ac6fedeae7ffbae3d3879f1488646ac7b88e");
    }

    #[test]
    fn unusable_files_are_named() {
        let error = |content: &[u8]| read(content).unwrap_err().to_string();
        assert!(error(b" \n").ends_with("key is empty; `muster key new` makes one"));
        assert!(error(b"swordfish").contains("has 9 bytes, at least 16 are needed"));
        assert!(error(&vec![b'x'; JOB_KEY_BYTES_MAX + 1]).contains("more than 65536 bytes"));
        let missing = JobKey::read(Path::new("/nonexistent/key")).unwrap_err();
        assert!(missing.to_string().starts_with("job key /nonexistent/key cannot be read: No such file"), "{missing}");
    }

    #[test]
    fn generated_keys_are_long_and_differ() {
        let (a, b) = (JobKey::generate(), JobKey::generate());
        assert_eq!(a.len(), 2 * GENERATED_BYTES + 1);
        assert_ne!(a, b);
        assert!(read(a.as_bytes()).is_ok());
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = read(b"0123456789abcdef").unwrap();
        assert_eq!(format!("{key:?} {:?}", key.identity()), "JobKey(secret) Identity(secret)");
    }
}
