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
/// Fences from this size on are compressed, where that makes them smaller by an eighth at least.
pub const FENCE_PACKED_BYTES_MIN: usize = 16 << 10;
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
/// Fields in one PMI message, all blocks of a spawn together. Generous: a spawned program's arguments are fields.
pub const PMI_MESSAGE_FIELDS_MAX: usize = 65_536;
/// Requests of one rank that may wait for an answer at once; several threads of a PMI-2 client may ask.
pub const PMI_WAITING_REQUESTS_MAX: usize = 64;
/// Length of the mark by which a PMI-2 client tells its threads apart.
pub const PMI_THRID_BYTES_MAX: usize = 256;
/// Length of a published service name.
pub const PMI_NAME_BYTES_MAX: usize = PMI_VALUE_BYTES_MAX;
/// Length of a published port; UCX ports are longer than a PMI value may be.
pub const PMI_PORT_BYTES_MAX: usize = 4 * PMI_VALUE_BYTES_MAX;
/// Answers that wait for a rank that does not read; a client asks one question at a time, so few ever wait.
pub const PMI_WAITING_ANSWERS_MAX: usize = 1_024;
/// Bytes read from a rank's PMI socket after the rank has ended: more than the kernel keeps for one. A process that the rank
/// left behind could write for ever.
pub const PMI_LAST_BYTES_MAX: usize = 4 << 20;
/// Entries in one key-value space.
pub const KVS_ENTRIES_MAX: usize = 4 << 20;

/// A message between an agent and its PMIx server: a whole fence, and little else.
pub const PMIX_MESSAGE_BYTES_MAX: usize = FENCE_BYTES_MAX + (1 << 20);
/// Operations of one host's ranks that wait for the agent: several of every rank.
pub const PMIX_WAITING_OPERATIONS_MAX: usize = 8 * RANKS_PER_HOST_MAX as usize;
/// Messages that wait to be written to the agent: every operation, and as many others.
pub const PMIX_QUEUE_MESSAGES_MAX: usize = 2 * PMIX_WAITING_OPERATIONS_MAX;
/// Bytes of a rank's words, logged or told with an abort, that are passed on at a time.
pub const PMIX_TEXT_BYTES_MAX: usize = 64 << 10;
/// What the members of a group on one host bring: no more would fit into the message to the launcher.
pub const PMIX_ENDPOINT_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX as usize;
/// Time that a PMIx library may take over one call: it takes microseconds, or its thread hangs.
pub const PMIX_CALL_TIMEOUT_MS: u64 = 30_000;

/// Shortest job key, after trimming.
///
/// Whoever connects sees the public key that is derived from the job key, and can try guesses against it at leisure. Sixteen
/// bytes are room for a key that cannot be guessed; less is a password.
pub const JOB_KEY_BYTES_MIN: usize = 16;
/// Longest job key: a larger file is not a key but a mistake.
pub const JOB_KEY_BYTES_MAX: usize = 64 << 10;
/// Answer of somebody's HTTPS server; the objects of a Kubernetes API server are smaller.
pub const HTTPS_REPLY_BYTES_MAX: usize = 4 << 20;
/// Body of a report to the Trainer's status server.
pub const STATUS_BODY_BYTES_MAX: usize = 64 << 10;
/// Metrics in such a report.
pub const STATUS_METRICS_ENTRIES_MAX: usize = 256;
/// Length of a metric's name and of its value, in characters.
pub const STATUS_METRIC_CHARS_MAX: usize = 64;
/// Least time between the end of one report and the next.
pub const STATUS_PERIOD_MS: u64 = 5_000;
/// Time for one report; at the end of a command its exit waits so long beyond the period at most.
pub const STATUS_POST_TIMEOUT_MS: u64 = 2_000;
/// Message that a kubelet keeps of a container that has ended.
pub const TERMINATION_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Read of each file by which control planes are told apart: the first lines say enough.
pub const TRACE_FILE_BYTES_MAX: u64 = 64 << 10;
/// Agents that a launcher starts on its own machine.
pub const LOCAL_AGENTS_MAX: u32 = 1_024;

/// Inputs that wait for the launcher's loop; whoever would add another one waits instead.
pub const LAUNCHER_QUEUE_INPUTS_MAX: usize = 65_536;
/// Inputs that wait for an agent's loop; whoever would add another one waits instead.
pub const AGENT_QUEUE_INPUTS_MAX: usize = 4_096;
/// Orders that wait for an agent's executor: every rank's start, and as many others.
pub const WAITING_ORDERS_MAX: usize = 2 * RANKS_PER_HOST_MAX as usize;
/// Room above that for orders that end ranks: starts must not keep them out.
pub const RESERVED_ORDERS_MAX: usize = 1_024;
/// Bytes of one stream of a remote shell that its receiver has not handed on.
pub const SHELL_WINDOW_BYTES: u64 = 4 << 20;
/// Remote shells that one agent serves at a time, connections that are kept for the next one included.
pub const SHELLS_CONNECTIONS_MAX: usize = 1_024;
/// What a remote shell says to the launcher on its machine: a command line, and little else.
pub const DESK_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Messages that wait to be written to standard error. Further ones are dropped and counted: whoever does not read thousands
/// will not miss one.
pub const TELLER_QUEUE_MESSAGES_MAX: usize = 4_096;
/// Wishes of a joining agent's job that wait: one for each connection of an edge.
pub const JOIN_QUEUE_WISHES_MAX: usize = 8;
/// Payload of reports that wait in one node to be merged; more goes up as it is.
pub const HELD_REPORTS_BYTES_MAX: usize = 1 << 20;

/// Candidates of one branch of the tree that are dialled at a time.
pub const BRANCH_DIALS_MAX: usize = 3;
/// Attempts to open a bulk connection.
pub const BULK_ATTEMPTS_MAX: u32 = 4;
/// Ranks of a host whose output pipes are enlarged. Linux gives a user without privilege 64 MiB of pipe buffers by default and
/// makes every further pipe of that user tiny; half of it is left to others.
pub const LARGE_PIPES_MAX: usize = 32;

/// Answers to calls that the root keeps for one process: of every request that may wait.
pub const KEPT_ANSWERS_MAX: usize = PMI_WAITING_REQUESTS_MAX;
/// Calls of all ranks of a job whose answer waits for other ranks.
pub const PENDING_REQUESTS_MAX: usize = 1 << 20;
/// Signals that are kept for a rank whose start has not come back; the oldest are forgotten.
pub const KEPT_SIGNALS_MAX: usize = 64;
/// Pairs of source and reason of which an agent remembers that it has logged them; beyond it nothing is logged until some are
/// forgotten.
pub const REMEMBERED_REFUSALS_MAX: usize = 1_024;
/// Addresses of its interfaces that a host tells; of one with more nothing is known.
pub const HOST_ADDRESSES_MAX: usize = 256;
/// Launchers that an agent remembers; the oldest are forgotten first.
pub const REMEMBERED_LAUNCHERS_MAX: usize = 256;
/// Processes that an agent remembers of a job, to know what they left: ranks and what descends from them. Of further ones
/// nothing is removed.
pub const REMEMBERED_PROCESSES_MAX: usize = 1 << 16;

const _: () = assert!(PMI_VALUE_BYTES_MAX.is_multiple_of(2));
const _: () = assert!(SILENCE_PROBE_MS > 2 * HEARTBEAT_PERIOD_MS && SILENCE_DEAD_MS > SILENCE_PROBE_MS);
const _: () = assert!(FENCE_LEASE_MS > SILENCE_DEAD_MS + LEASE_KILL_RESERVE_MS);
const _: () = assert!(BULK_PAYLOAD_BYTES_MAX <= STREAM_WINDOW_BYTES_MAX);
const _: () = assert!(HELLO_PAYLOAD_BYTES_MAX < CONTROL_PAYLOAD_BYTES_MAX);
