//! A PMIx server for the ranks of one host.
//!
//! It runs in a process of its own, `muster-pmix`: the agent is a static program, which cannot load a library, and a crash of the
//! C library ends this process and nothing else. It decides nothing. What ranks ask of the library goes to the agent as a message,
//! and the agent's answers go back to the library (`muster_protocol::pmix`). There is no build-time dependency on PMIx: the layouts
//! of [`abi`] are the same in every release from 3.1 to 6.1, and the library is loaded at run time.
//!
//! Four kinds of threads: the library's own, in which [`upcalls`] run and never wait; the main thread, which reads the agent's
//! messages and calls the library ([`server`], [`answers`]); a writer
//! ([`link`]); and one that waits for the end of the agent, which the main thread may be kept from seeing ([`scratch`]).

pub mod abi;
pub mod answers;
pub mod host;
pub mod info;
pub mod last_words;
pub mod library;
pub mod link;
pub mod logged;
pub mod maps;
pub mod namespace;
pub mod operations;
pub mod process;
pub mod scratch;
pub mod server;
pub mod upcalls;
pub mod values;
pub mod waiting;
