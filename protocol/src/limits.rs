//! Every limit of the system, with its unit in its name.
//!
//! Passing a limit is an error with a name, never growth. Relations between limits are asserted at compile time below.

/// Hosts in one job.
pub const HOSTS_MAX: u32 = 65_536;
/// Ranks on one host.
pub const RANKS_PER_HOST_MAX: u32 = 4_096;
/// Processes in one job, spawned ones included.
pub const PROCS_MAX: u32 = 1 << 22;
/// Process groups in one job.
pub const GROUPS_MAX: u32 = 65_536;
/// Children of one node of the tree unless told otherwise.
pub const TREE_RADIX_DEFAULT: u32 = 32;
/// Children of one node of the tree at most.
pub const TREE_RADIX_MAX: u32 = 1_024;

/// Payload of a control frame.
pub const CONTROL_PAYLOAD_BYTES_MAX: u32 = 4 << 20;
/// Payload of one piece of a fence; larger fences travel in several.
pub const FENCE_CHUNK_BYTES_MAX: u32 = 1 << 20;
/// All key-values of one fence together.
pub const FENCE_BYTES_MAX: usize = 256 << 20;
/// Payload of a bulk frame.
pub const BULK_PAYLOAD_BYTES_MAX: u32 = 256 << 10;
/// Payload of a hello, the only frame read before the other side is known.
pub const HELLO_PAYLOAD_BYTES_MAX: u32 = 16 << 10;

/// Unacknowledged output kept for one stream of one rank at most.
pub const STREAM_WINDOW_BYTES_MAX: u32 = 1 << 20;
/// Unacknowledged output kept for one stream when thousands of streams share the budget.
pub const STREAM_WINDOW_BYTES_MIN: u32 = 16 << 10;
/// Unacknowledged output of all streams together, the budget at the root.
pub const OUTPUT_BUDGET_BYTES: u64 = 24 << 20;
/// Standard input on its way to one rank.
pub const STDIN_WINDOW_BYTES: u32 = 1 << 20;
/// A line longer than this is passed on in pieces.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Connections that have not proven themselves yet, at one agent.
pub const UNPROVEN_CONNECTIONS_MAX: usize = 256;
/// Time for TLS and hello.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// Frames queued for one connection.
pub const CONNECTION_QUEUE_FRAMES_MAX: usize = 65_536;
/// Frames queued for one bulk connection.
pub const BULK_QUEUE_FRAMES_MAX: usize = 16;

/// Time between two heartbeats of the root.
pub const HEARTBEAT_PERIOD_MS: u64 = 1_000;
/// Silence after which a peer is probed by a new connection.
pub const SILENCE_PROBE_MS: u64 = 3_000;
/// Silence after which a peer whose probe failed is dead.
pub const SILENCE_DEAD_MS: u64 = 5_000;
/// Time that ranks may live without hearing from the root.
pub const FENCE_LEASE_MS: u64 = 15_000;
/// Part of the lease kept for killing.
pub const LEASE_KILL_RESERVE_MS: u64 = 2_000;
/// Time between the polite and the hard kill unless told otherwise.
pub const KILL_GRACE_MS: u64 = 5_000;

/// Length of a PMI key, with its terminator, as hydra advertises.
pub const PMI_KEY_BYTES_MAX: usize = 64;
/// Length of a PMI value. More than this breaks MPICH and MVAPICH; an odd number misaligns segmented business cards.
pub const PMI_VALUE_BYTES_MAX: usize = 1_024;
/// Length of a key-value space's name, as hydra advertises.
pub const PMI_KVSNAME_BYTES_MAX: usize = 256;
/// One PMI message, `mcmd=spawn` blocks included.
pub const PMI_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Names published in one job.
pub const PMI_NAMES_MAX: usize = 65_536;

const _: () = assert!(PMI_VALUE_BYTES_MAX.is_multiple_of(2));
const _: () = assert!(SILENCE_PROBE_MS > 2 * HEARTBEAT_PERIOD_MS && SILENCE_DEAD_MS > SILENCE_PROBE_MS);
const _: () = assert!(FENCE_LEASE_MS > SILENCE_DEAD_MS + LEASE_KILL_RESERVE_MS);
const _: () = assert!(BULK_PAYLOAD_BYTES_MAX <= STREAM_WINDOW_BYTES_MAX);
const _: () = assert!(HELLO_PAYLOAD_BYTES_MAX < CONTROL_PAYLOAD_BYTES_MAX);
