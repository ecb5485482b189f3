//! What stands in for a service mesh's sidecar: a proxy that has the agent's port and is ready later than its pod.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Host;

/// What the proxy does with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Manner {
    /// Closes it at once: it has no way to the agent yet.
    Close,
    /// Resets it when the first bytes have come.
    Reset,
    /// Passes the bytes on.
    Forward,
}

#[derive(Debug)]
struct Shared {
    ended: AtomicBool,
    manner: AtomicU8,
    turned_away: AtomicUsize,
    upstream: SocketAddr,
    idle: Duration,
}

/// The proxy. It takes no new connections when this is dropped.
#[derive(Debug)]
pub struct MeshProxy {
    shared: Arc<Shared>,
    host: Arc<Host>,
    port: u16,
}

impl MeshProxy {
    /// Listens on a host's port; connections go to another port of its loopback, and end when one direction was quiet for
    /// `idle`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(host: &Arc<Host>, port: u16, agent: u16, idle: Duration, manner: Manner) -> Result<Self> {
        let listener = host.call(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?.context("cannot listen")?;
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            manner: AtomicU8::new(manner as u8),
            turned_away: AtomicUsize::new(0),
            upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, agent)),
            idle,
        });
        let (seen, of) = (Arc::clone(&shared), Arc::clone(host));
        thread::spawn(move || accept(&listener, &seen, &of));
        Ok(Self { shared, host: Arc::clone(host), port })
    }

    /// From now on, new connections are treated so.
    pub fn turn(&self, manner: Manner) {
        self.shared.manner.store(manner as u8, Ordering::SeqCst);
    }

    /// How many connections were not passed on.
    pub fn turned_away(&self) -> usize {
        self.shared.turned_away.load(Ordering::SeqCst)
    }
}

impl Drop for MeshProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // The thread waits for connections, and keeps the host until it has seen that: one more wakes it.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let _ = self.host.call(move || TcpStream::connect(address).map(drop));
    }
}

fn accept(listener: &TcpListener, shared: &Shared, host: &Host) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let manner = shared.manner.load(Ordering::SeqCst);
        if manner == Manner::Forward as u8 {
            let upstream = shared.upstream;
            // Only in the host's namespace is the agent there.
            match host.call(move || TcpStream::connect(upstream)) {
                Ok(Ok(agent)) => join(client, agent, shared.idle),
                _ => drop(shared.turned_away.fetch_add(1, Ordering::SeqCst)),
            }
            continue;
        }
        shared.turned_away.fetch_add(1, Ordering::SeqCst);
        if manner == Manner::Reset as u8 {
            // The kernel resets a connection that is closed before all was read.
            let _ = client.peek(&mut [0]);
        }
    }
}

/// Passes bytes both ways.
fn join(client: TcpStream, agent: TcpStream, idle: Duration) {
    for (from, to) in [(client.try_clone(), agent.try_clone()), (Ok(agent), Ok(client))] {
        if let (Ok(from), Ok(to)) = (from, to) {
            thread::spawn(move || pass(from, to, idle));
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, idle: Duration) {
    let mut bytes = [0; 16 << 10];
    if from.set_read_timeout(Some(idle)).is_ok() {
        loop {
            match from.read(&mut bytes) {
                Ok(0) => return drop(to.shutdown(Shutdown::Write)),
                Ok(n) if bytes.get(..n).is_some_and(|read| to.write_all(read).is_ok()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
    }
    // Too quiet, or broken: neither side hears more.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
