//! Ports for the ranks of one rig alone.
//!
//! Ranks that outlive a peer connect to its port once more, which may belong to a rank of another test by then. That one takes them for
//! ranks of its own job that it has never heard of: it asks for their data, or complains.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The first port that is given to anybody; all are below those that the kernel gives.
const FIRST: u16 = 10_000;
/// Each rank takes one, and the kernel keeps it for a minute when the rank is gone.
const PORTS_OF_A_RIG: u16 = 250;
const RIGS_MAX: u16 = 80;

/// Rigs of this process so far.
static RIGS: AtomicU32 = AtomicU32::new(0);

/// See the module above.
pub(super) struct Ports {
    first: u16,
    /// A name that only one process of the machine can have at a time.
    _claim: UnixListener,
}

impl Ports {
    pub(super) fn claim() -> Self {
        // Not always the same ones first.
        let start = std::process::id().wrapping_add(RIGS.fetch_add(1, Ordering::Relaxed));
        let free = (0..RIGS_MAX).find_map(|step| {
            let number = ((start % u32::from(RIGS_MAX)) as u16 + step) % RIGS_MAX;
            let name =
                SocketAddr::from_abstract_name(format!("muster-pmix-test-ports-{number}")).expect("a short name");
            let claim = UnixListener::bind_addr(&name).ok()?;
            Some(Self { first: FIRST + number * PORTS_OF_A_RIG, _claim: claim })
        });
        free.expect("fewer rigs at a time than there are ports for")
    }

    /// What tells Open MPI's ranks to use them.
    pub(super) fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("OMPI_MCA_btl_tcp_port_min_v4", self.first.to_string()),
            ("OMPI_MCA_btl_tcp_port_range_v4", PORTS_OF_A_RIG.to_string()),
        ]
    }
}
