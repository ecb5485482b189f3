//! The ranks' streams at the root, on a thread of their own.
//!
//! Output is written by threads that may wait. While a terminal does not read, nothing is acknowledged, the windows of the
//! ranks fill up and their pipes stall; neither the control plane nor the connections nor the other stream notice. Standard input goes the other way.

mod bars;
mod input;
mod lines;
mod pending;
mod plane;
mod sink;
mod writer;

use std::path::{Path, PathBuf};
use std::thread;

use muster_core::tree::EdgeId;
use muster_protocol::message::{Stamp, StdinTo, StreamEnd};
use muster_protocol::{Group, ProcId};
use muster_transport::dial::Dialed;
use tokio::sync::mpsc;

/// How output looks and where it goes.
#[derive(Debug, Clone)]
pub struct Style {
    /// Whether every line starts with its rank.
    pub label: bool,
    /// Directory for one file for every rank and stream, besides the terminal.
    pub dir: Option<PathBuf>,
    /// Who reads standard input.
    pub stdin: StdinTo,
    /// Ranks that the command line starts.
    pub ranks: u32,
}

/// What the control plane tells this thread.
pub enum OutputOrder {
    /// A child's bulk connection.
    Child(EdgeId, Box<Dialed>),
    /// A child is gone.
    ChildGone(EdgeId),
    /// Processes whose output will come: group, first process, size.
    Group(Group, ProcId, u32),
    /// Streams are complete at these lengths.
    Ends(Vec<StreamEnd>),
    /// The output of these processes will never be complete.
    Lost(Vec<ProcId>),
    /// Every host has said how long its streams were: tell when all of it is written.
    Finish,
}

/// What this thread tells the control plane.
#[derive(Debug)]
pub enum OutputReport {
    /// Everything is written.
    Finished,
    /// Whoever read standard output has closed it.
    ReaderGone,
    /// The host of this process is lost with output of it that never came.
    Incomplete(ProcId),
    /// Output cannot be written, and why.
    Failed(String),
}

/// Makes the directory for the files of ranks, if it is missing.
pub fn make_dir(dir: &Path) -> std::io::Result<()> {
    let told = |e: std::io::Error| std::io::Error::new(e.kind(), format!("output directory {}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(told)
}

/// Whether what ranks have written last, where our own messages stand, is a line without an end.
pub fn line_is_open() -> bool {
    sink::line_is_open()
}

/// The thread.
pub struct Output {
    orders: mpsc::UnboundedSender<OutputOrder>,
}

impl Output {
    /// Starts it.
    pub fn start(stamp: Stamp, style: Style, reports: mpsc::UnboundedSender<OutputReport>) -> std::io::Result<Self> {
        // Unbounded by type, bounded by what is sent: a few orders for each child, group and host.
        let (orders, queue) = mpsc::unbounded_channel();
        let (done_sender, done) = mpsc::unbounded_channel();
        let writers = writer::Writers::start(style.label, style.dir.as_deref(), &done_sender, &reports)?;
        let channels = plane::Channels { orders: queue, writers, done, reports };
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(channels.reports.send(OutputReport::Failed(error.to_string()))),
            };
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, plane::run(stamp, style.stdin, style.ranks, channels));
        })?;
        Ok(Self { orders })
    }

    /// Hands an order over.
    pub fn order(&self, order: OutputOrder) {
        let _ = self.orders.send(order);
    }
}
