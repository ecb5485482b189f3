//! The bulk plane of one host: output up, standard input down, on a thread of its own.
//!
//! It never touches control traffic, so a reader that has stopped reading stalls the pipes of ranks and nothing else. What is
//! on its way is bounded by windows: a stream that has used up its window is not read from until the root has written some of
//! it out. Frames of hosts below pass through untouched; where answers go is learned from what came up, as a switch does.

mod input;
mod output;
mod plane;
mod relay;

use std::os::fd::OwnedFd;
use std::thread;

use muster_core::tree::EdgeId;
use muster_protocol::hello::Welcome;
use muster_protocol::message::{Stamp, StreamEnd};
use muster_protocol::{HostIndex, ProcId, Stream};
use muster_transport::dial::Dialed;
use muster_transport::gate::Guest;
use tokio::sync::mpsc;

/// What the control plane tells the bulk plane.
pub enum BulkOrder {
    /// A job begins: whose frames are made here.
    Begin(Stamp, HostIndex),
    /// Read a rank's output.
    Output {
        /// The rank.
        proc: ProcId,
        /// Standard output or error.
        stream: Stream,
        /// The reading end.
        pipe: OwnedFd,
        /// Bytes that may be on their way to the root.
        window_bytes: u32,
    },
    /// Feed a rank's standard input.
    Input {
        /// The rank.
        proc: ProcId,
        /// The writing end.
        pipe: OwnedFd,
    },
    /// The parent's connection, to be welcomed.
    Uplink(Box<Guest>, Welcome),
    /// There is a new parent: the connection to the old one leads nowhere.
    DropUplink,
    /// The connection to a child.
    Child(EdgeId, Box<Dialed>),
    /// A child is gone.
    ChildGone(EdgeId),
    /// Every process of the job is gone: report how long its streams were.
    Finish,
    /// Report how long the streams are now, without waiting any longer: nobody takes what is left.
    FinishNow,
    /// The job is over; forget everything.
    Reset,
}

/// What the bulk plane tells the control plane.
#[derive(Debug)]
pub enum BulkReport {
    /// A connection to the parent is needed and lacking; comes again every 2 s until there is one.
    WantUplink,
    /// Every stream has been read to its end and sent, or nobody takes what is left. Comes once in a job.
    Finished(Vec<StreamEnd>),
}

/// The bulk plane's thread. Dropping this ends it.
pub struct Bulk {
    orders: mpsc::UnboundedSender<BulkOrder>,
}

impl Bulk {
    /// Starts the thread; `reports` is read by the control plane.
    pub fn start(reports: mpsc::UnboundedSender<BulkReport>) -> std::io::Result<Self> {
        // Unbounded by type, bounded by what is sent: a few orders for each rank and child.
        let (orders, queue) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("bulk".to_owned()).spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, plane::run(queue, reports));
        })?;
        Ok(Self { orders })
    }

    /// Hands an order over; after the thread has ended nothing happens.
    pub fn order(&self, order: BulkOrder) {
        let _ = self.orders.send(order);
    }
}
