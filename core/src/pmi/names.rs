//! The names that ranks publish; the root keeps one table for the job.

use std::collections::HashMap;

use bytes::Bytes;
use muster_protocol::limits::{PMI_NAME_BYTES_MAX, PMI_NAMES_MAX, PMI_PORT_BYTES_MAX};

/// Why a name was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Somebody has published it already.
    #[error("the name is already published; unpublish it first")]
    Taken,
    /// The table is full.
    #[error("the job has published {PMI_NAMES_MAX} names, which is the limit")]
    Full,
    /// The name or the port is empty or too long.
    #[error("the name must have 1 to {PMI_NAME_BYTES_MAX} bytes and the port 1 to {PMI_PORT_BYTES_MAX}")]
    Length,
}

/// Whether a name and its port may be published at all.
pub fn check_name(name: &[u8], port: &[u8]) -> Result<(), NameError> {
    let fits = |bytes: &[u8], max: usize| !bytes.is_empty() && bytes.len() <= max;
    if fits(name, PMI_NAME_BYTES_MAX) && fits(port, PMI_PORT_BYTES_MAX) { Ok(()) } else { Err(NameError::Length) }
}

/// Published names and their ports.
#[derive(Debug, Default)]
pub struct NameTable {
    ports: HashMap<Bytes, Bytes>,
}

impl NameTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes a name. A second publication is refused: MPI calls it an error, and hydra refuses it too.
    pub fn publish(&mut self, name: Bytes, port: Bytes) -> Result<(), NameError> {
        check_name(&name, &port)?;
        if self.ports.contains_key(&name) {
            return Err(NameError::Taken);
        }
        if self.ports.len() >= PMI_NAMES_MAX {
            return Err(NameError::Full);
        }
        self.ports.insert(name, port);
        Ok(())
    }

    /// The port under a name.
    pub fn lookup(&self, name: &[u8]) -> Option<Bytes> {
        self.ports.get(name).cloned()
    }

    /// Takes a name back; says whether it was there.
    pub fn unpublish(&mut self, name: &[u8]) -> bool {
        self.ports.remove(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_published_once_until_it_is_taken_back() {
        let mut table = NameTable::new();
        let (name, port) = (Bytes::from("svc"), Bytes::from("tag#0$"));
        assert_eq!(table.lookup(b"svc"), None);
        assert_eq!(table.publish(name.clone(), port.clone()), Ok(()));
        assert_eq!(table.publish(name.clone(), Bytes::from("other")), Err(NameError::Taken));
        assert_eq!(table.lookup(b"svc"), Some(port.clone()));
        assert!(table.unpublish(b"svc"));
        assert!(!table.unpublish(b"svc"));
        assert_eq!(table.publish(name, port), Ok(()));
    }

    #[test]
    fn the_table_and_its_entries_are_bounded() {
        let mut table = NameTable::new();
        let port = Bytes::from("p");
        assert_eq!(table.publish(Bytes::new(), port.clone()), Err(NameError::Length));
        assert_eq!(
            table.publish(Bytes::from(vec![b'n'; PMI_NAME_BYTES_MAX + 1]), port.clone()),
            Err(NameError::Length)
        );
        assert_eq!(
            table.publish(port.clone(), Bytes::from(vec![b'p'; PMI_PORT_BYTES_MAX + 1])),
            Err(NameError::Length)
        );
        for i in 0..PMI_NAMES_MAX {
            table.publish(Bytes::from(i.to_string()), port.clone()).unwrap();
        }
        assert_eq!(table.publish(Bytes::from("more"), port), Err(NameError::Full));
    }
}
