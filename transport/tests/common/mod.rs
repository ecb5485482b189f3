//! What the tests of this crate share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::frame::{EVERY_HOST, Frame, Kind};
use muster_protocol::hello::{Hello, HostFacts, Lane, RELEASE, Role, VERSION_MAX, VERSION_MIN, Welcome};
use muster_protocol::{Epoch, Generation, HostIndex};
use muster_transport::dial::Dialer;
use muster_transport::gate::Gate;
use muster_transport::identity::{Identity, JobKey};
use muster_transport::resolve::Resolver;
use muster_transport::tls::{acceptor, connector};

/// A safety net for tests, never a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn identity(key: &str) -> Identity {
    JobKey::from_bytes(format!("a key for tests: {key}").as_bytes()).unwrap().identity()
}

pub(crate) fn gate(key: &str) -> Gate {
    Gate::listen(&["127.0.0.1:0".parse().unwrap()], Some(acceptor(&identity(key)))).unwrap()
}

pub(crate) fn dialer(key: &str) -> Dialer {
    Dialer::new(Arc::new(Resolver::default()), Some(connector(&identity(key))))
}

pub(crate) fn port(gate: &Gate) -> u16 {
    gate.addresses()[0].port()
}

pub(crate) fn address(gate: &Gate) -> SocketAddr {
    gate.addresses()[0]
}

pub(crate) fn hello(job: &str, incarnation: u64) -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        release: RELEASE.to_owned(),
        role: Role::Launcher,
        lane: Lane::Control,
        job: job.to_owned(),
        epoch: Epoch(1),
        from: "launcher".to_owned(),
        incarnation,
        you: HostIndex(3),
        your_name: "worker-3".to_owned(),
        generation: Generation(0),
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome { version: VERSION_MAX, release: RELEASE.to_owned(), incarnation: 42, facts: HostFacts::default() }
}

pub(crate) fn output(seq: u64, payload: impl Into<Bytes>) -> Frame {
    Frame::new(Kind::Output, EVERY_HOST, Epoch(1), Generation(0), payload.into()).with(0, 1, seq)
}

/// A small generator of numbers whose seed can be printed and given back.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
