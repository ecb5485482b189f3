//! Names to addresses without the C library, whose static form loads shared objects for this.
//!
//! In this order: IP literals, the hosts file, `localhost`, DNS as the resolver configuration says (search list and ndots
//! included). Both files are read again when they change, since pods get theirs rewritten; a missing file is an empty one.
//! Answers are not kept: a worker that restarts has a new address, and one that did not exist a moment ago may exist now.

mod hosts;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use thiserror::Error;

use hosts::HostsTable;

/// Longest host name, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// Why a name has no address.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// Not something that can be a host's name.
    #[error("\"{name}\" is not a host name: {why}")]
    BadName {
        /// What was to be resolved.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Everyone who was asked answered that there is no such name.
    #[error("no address for \"{name}\": it is not in {} and DNS does not know it{}", hosts.display(), if *.search { " (search list tried)" } else { "" })]
    Unknown {
        /// The name.
        name: String,
        /// The hosts file that was looked into.
        hosts: PathBuf,
        /// Whether a search list was applied.
        search: bool,
    },
    /// There is no DNS server to ask.
    #[error("no address for \"{name}\": it is not in {}, and {} names no DNS server ({why})", hosts.display(), resolv_conf.display())]
    NoServer {
        /// The name.
        name: String,
        /// The hosts file that was looked into.
        hosts: PathBuf,
        /// The resolver configuration.
        resolv_conf: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// DNS was asked and gave no usable answer.
    #[error("no address for \"{name}\": it is not in {}, and DNS did not answer ({source})", hosts.display())]
    Dns {
        /// The name.
        name: String,
        /// The hosts file that was looked into.
        hosts: PathBuf,
        /// What the DNS client said.
        source: Box<NetError>,
    },
}

impl ResolveError {
    /// Whether asking again later can help: names of pods appear when the pods do.
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::BadName { .. })
    }
}

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The hosts file.
    pub hosts: PathBuf,
    /// The resolver configuration.
    pub resolv_conf: PathBuf,
    /// Port of the DNS servers that the resolver configuration names.
    pub dns_port: u16,
}

impl Default for Sources {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into(), dns_port: 53 }
    }
}

/// What tells that a file has changed; `None` for a file that is not there.
type Stamp = Option<(SystemTime, u64)>;

struct Cached<T> {
    stamp: Stamp,
    value: T,
}

/// Resolves names. Belongs to the runtime it is first used on: DNS connections live there.
pub struct Resolver {
    sources: Sources,
    hosts: Mutex<Option<Cached<Arc<HostsTable>>>>,
    dns: Mutex<Option<Cached<TokioResolver>>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(Sources::default())
    }
}

impl Resolver {
    /// A resolver over these files; they are read when needed.
    pub fn new(sources: Sources) -> Self {
        Self { sources, hosts: Mutex::new(None), dns: Mutex::new(None) }
    }

    /// The addresses of a name, at least one, in the order to try them.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(address) = literal(name) {
            return Ok(vec![address]);
        }
        check_name(name)?;
        if let Some(addresses) = self.hosts_table().lookup(name) {
            return Ok(addresses.to_vec());
        }
        if is_localhost(name) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.ask_dns(name).await
    }

    async fn ask_dns(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let hosts = || self.sources.hosts.clone();
        let dns = self.dns_client().map_err(|why| ResolveError::NoServer {
            name: name.to_owned(),
            hosts: hosts(),
            resolv_conf: self.sources.resolv_conf.clone(),
            why,
        })?;
        let unknown = || ResolveError::Unknown { name: name.to_owned(), hosts: hosts(), search: !name.ends_with('.') };
        match dns.lookup_ip(name).await {
            Ok(answer) => {
                let addresses: Vec<IpAddr> = answer.iter().collect();
                if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
            }
            Err(error) if error.is_no_records_found() => Err(unknown()),
            Err(error) => Err(ResolveError::Dns { name: name.to_owned(), hosts: hosts(), source: Box::new(error) }),
        }
    }

    fn hosts_table(&self) -> Arc<HostsTable> {
        let path = &self.sources.hosts;
        refreshed(&self.hosts, path, || {
            let text = fs::read(path).unwrap_or_default();
            Ok(Arc::new(HostsTable::parse(&String::from_utf8_lossy(&text))))
        })
        .unwrap_or_default()
    }

    fn dns_client(&self) -> Result<TokioResolver, String> {
        refreshed(&self.dns, &self.sources.resolv_conf, || self.new_dns_client())
    }

    fn new_dns_client(&self) -> Result<TokioResolver, String> {
        let text = fs::read(&self.sources.resolv_conf).map_err(|error| error.to_string())?;
        let (mut config, mut options) = parse_resolv_conf(text).map_err(|error| error.to_string())?;
        for connection in config.name_servers.iter_mut().flat_map(|server| &mut server.connections) {
            connection.port = self.sources.dns_port;
        }
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build().map_err(|error| error.to_string())
    }
}

/// What was made from a file, made anew if the file has changed since.
fn refreshed<T: Clone>(
    cache: &Mutex<Option<Cached<T>>>,
    path: &Path,
    make: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let stamp = stamp(path);
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cached) = cache.as_ref().filter(|cached| cached.stamp == stamp) {
        return Ok(cached.value.clone());
    }
    let value = make()?;
    *cache = Some(Cached { stamp, value: value.clone() });
    Ok(value)
}

fn stamp(path: &Path) -> Stamp {
    let read = || -> io::Result<_> {
        let meta = fs::metadata(path)?;
        Ok((meta.modified()?, meta.len()))
    };
    read().ok()
}

/// An address as text, with or without the brackets that separate an IPv6 address from a port.
fn literal(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    inner.parse().ok()
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn check_name(name: &str) -> Result<(), ResolveError> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let why = if bare.is_empty() {
        "it is empty"
    } else if bare.len() > NAME_BYTES_MAX {
        "it is longer than 253 bytes"
    } else if bare.split('.').any(|label| label.is_empty() || label.len() > 63) {
        "a part between dots is empty or longer than 63 bytes"
    } else if !bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        "only letters, digits, '-', '_' and '.' may stand in it"
    } else {
        return Ok(());
    };
    Err(ResolveError::BadName { name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_localhost_are_recognised() {
        assert_eq!(literal("[::1]"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(literal("10.1.2.3"), Some(Ipv4Addr::new(10, 1, 2, 3).into()));
        assert_eq!(literal("10.1.2"), None);
        assert!(is_localhost("LocalHost.") && is_localhost("a.localhost") && !is_localhost("mylocalhost"));
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_with_a_reason() {
        let why = |name: &str| check_name(name).unwrap_err().to_string();
        assert_eq!(why(""), "\"\" is not a host name: it is empty");
        assert!(why("a..b").contains("between dots"));
        assert!(why("worker[0-3]").contains("only letters"));
        assert!(why(&"a.".repeat(200)).contains("longer than 253"));
        assert!(check_name("worker_0.job-1.svc.").is_ok());
    }
}
