//! Where to run: hosts, port and key, from what the user says and from what lies around.

mod error;
mod hosts;
mod key;
mod port;
mod status;
mod surroundings;

pub use error::DiscoverError;
pub use hosts::{Found, find_hosts};
pub use key::{FoundKey, find_key};
pub use port::find_port;
pub use status::{StatusServer, find_status_server};
pub use surroundings::Surroundings;
