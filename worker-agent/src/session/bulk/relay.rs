//! Connections of the bulk plane: the one to the parent, and those to children, whose frames pass through.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use muster_core::tree::EdgeId;
use muster_protocol::hello::Welcome;
use muster_protocol::limits::BULK_QUEUE_FRAMES_MAX;
use muster_protocol::{Frame, HostIndex};
use muster_transport::connection::{Receiver, Sender};
use muster_transport::dial::Dialed;
use muster_transport::gate::Guest;
use tokio_util::task::TaskTracker;

use super::plane::Shared;
use crate::session::tree::spawn_bulk;

/// The children's bulk connections, and which hosts are behind which.
#[derive(Default)]
pub(super) struct Below {
    children: RefCell<HashMap<EdgeId, Sender>>,
    routes: RefCell<HashMap<HostIndex, EdgeId>>,
    /// Children with a frame for which there is no uplink.
    waiting: Cell<usize>,
    tasks: TaskTracker,
}

impl Below {
    /// The parent's connection, from here on served by this thread.
    pub(super) fn welcome(&self, mut guest: Guest, welcome: Welcome) -> (Sender, Receiver) {
        if let Err(error) = guest.rehome() {
            tracing::debug!(%error, "a bulk connection stays with the thread that accepted it");
        }
        guest.welcome(welcome, BULK_QUEUE_FRAMES_MAX, &self.tasks)
    }

    /// A connection to a child, the first one or one instead of an earlier one.
    pub(super) fn add(&self, edge: EdgeId, dialed: Dialed) -> (Sender, Receiver) {
        let (sender, receiver) = spawn_bulk(dialed, &self.tasks);
        if let Some(old) = self.children.borrow_mut().insert(edge, sender.clone()) {
            old.abort();
        }
        (sender, receiver)
    }

    /// A child is gone.
    pub(super) fn remove(&self, edge: EdgeId) {
        if let Some(sender) = self.children.borrow_mut().remove(&edge) {
            sender.abort();
        }
        self.routes.borrow_mut().retain(|_, e| *e != edge);
    }

    /// Ends every connection, because frames that came over them may be lost: the children ask for new ones and send again.
    pub(super) fn restart(&self) {
        self.routes.borrow_mut().clear();
        for (_, sender) in self.children.borrow_mut().drain() {
            sender.abort();
        }
    }

    /// The connection through which a host is reached.
    pub(super) fn towards(&self, host: HostIndex) -> Option<Sender> {
        let edge = *self.routes.borrow().get(&host)?;
        self.children.borrow().get(&edge).cloned()
    }

    /// Whether a child has a frame for which there is no uplink.
    pub(super) fn anybody_waits(&self) -> bool {
        self.waiting.get() > 0
    }

    fn ended(&self, edge: EdgeId, ended: &Sender) {
        if self.children.borrow().get(&edge).is_some_and(|current| same(current, ended)) {
            self.remove(edge);
        }
    }
}

/// Whether both are ends of one connection.
pub(super) fn same(one: &Sender, other: &Sender) -> bool {
    Arc::ptr_eq(one.traffic(), other.traffic())
}

/// Hears the parent until its connection ends.
pub(super) async fn read_uplink(mine: Sender, mut receiver: Receiver, shared: Rc<Shared>) {
    while let Ok(Some(frame)) = receiver.recv().await {
        if let Some((child, frame)) = shared.down(frame) {
            let _ = child.send(frame).await;
        }
    }
    mine.abort();
    shared.uplink_ended(&mine);
}

/// Passes a child's frames on. Not reading it while there is nobody to pass them to is what stalls the ranks below.
pub(super) async fn read_child(edge: EdgeId, mine: Sender, mut receiver: Receiver, shared: Rc<Shared>) {
    while let Ok(Some(frame)) = receiver.recv().await {
        shared.below.routes.borrow_mut().insert(frame.header.host, edge);
        pass_up(frame, &mine, &shared).await;
    }
    mine.abort();
    shared.below.ended(edge, &mine);
}

/// Waits for an uplink if there is none, but not longer than the connection lasts: over the next one the frame comes again.
async fn pass_up(frame: Frame, from: &Sender, shared: &Shared) {
    let waiting = Waiting::new(&shared.below.waiting);
    let uplink = loop {
        let came = shared.uplink_came.notified();
        if let Some(uplink) = shared.uplink() {
            break uplink;
        }
        shared.want_uplink();
        tokio::select! {
            () = came => {}
            () = from.closed() => return,
        }
    };
    drop(waiting);
    // A frame that is lost with its uplink is sent again by the host that made it.
    let _ = uplink.send(frame).await;
}

/// Counts as long as it lives.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
