//! What an agent says to its PMIx server.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::{Item, Namespace, Proc};

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToPmix {
    /// First message: load a library and start the server.
    #[n(0)]
    Start {
        /// Libraries to try, in order: paths or names for the loader. The first that can be loaded and is new enough serves.
        #[n(0)]
        libraries: Vec<String>,
        /// Folder for the server's files; it exists and is empty.
        #[n(1)]
        folder: String,
        /// This host's name among the nodes.
        #[n(2)]
        host: String,
        /// Folders of the job here, to be removed with everything in them when the agent is gone.
        #[n(3)]
        scratch: Vec<String>,
    },
    /// Register a namespace with its ranks here and tell the environment that they need.
    #[n(1)]
    Register {
        /// It.
        #[n(0)]
        namespace: Namespace,
        /// User id of the ranks.
        #[n(1)]
        uid: u32,
        /// Group id of the ranks.
        #[n(2)]
        gid: u32,
    },
    /// Forget a namespace.
    #[n(2)]
    Deregister {
        /// Its name.
        #[n(0)]
        namespace: String,
    },
    /// The end of an operation without a result: publish, unpublish, connect, disconnect, log.
    #[n(3)]
    Done {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
    },
    /// The end of a fence or of a direct modex.
    #[n(4)]
    Data {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// Result.
        #[n(2)]
        data: ByteVec,
    },
    /// The end of a look-up.
    #[n(5)]
    Found {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// What was found, with who published it.
        #[n(2)]
        items: Vec<(Proc, Item)>,
    },
    /// The end of a spawn.
    #[n(6)]
    Spawned {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// The new namespace; empty without success.
        #[n(2)]
        namespace: String,
    },
    /// The end of a group operation.
    #[n(7)]
    Grouped {
        /// The operation.
        #[n(0)]
        token: u64,
        /// PMIx status.
        #[n(1)]
        status: i32,
        /// Members.
        #[n(2)]
        members: Vec<Proc>,
        /// Context id, if one was asked for.
        #[n(3)]
        context: Option<u64>,
        /// What the members have brought, one behind the other.
        #[n(4)]
        endpoint: ByteVec,
    },
    /// Another host wants what a rank here has put; answered by [`super::FromPmix::Fetched`].
    #[n(8)]
    Fetch {
        /// The agent's number for it.
        #[n(0)]
        token: u64,
        /// The rank.
        #[n(1)]
        proc: Proc,
    },
    /// Tell the ranks here of an event that concerns other processes, one after the other.
    #[n(9)]
    Notify {
        /// PMIx status that names the event.
        #[n(0)]
        event: i32,
        /// Whom it concerns.
        #[n(1)]
        procs: Vec<Proc>,
    },
    /// A rank here has ended; answered by [`super::FromPmix::Drained`].
    #[n(10)]
    Ended {
        /// It.
        #[n(0)]
        proc: Proc,
    },
}
