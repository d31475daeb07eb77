//! One service: its way through the netstack, and its own link, which it needs where the intermediate speaks v1 only.

use std::time::Instant;

use crate::id::{LaneId, ServiceId, ServiceIndex};
use crate::link::Link;

#[derive(Debug)]
pub(super) struct Published {
    pub(super) id: ServiceId,
    /// What stands before its packets on a connection that several services share.
    pub(super) prefix: Box<[u8]>,
    /// Its index at the shared link, while it is offered there.
    pub(super) offered_as: Option<ServiceIndex>,
    /// Whether it was told that it is registered there.
    pub(super) told: bool,
    /// Its own link; withdrawn while the shared one is in use.
    pub(super) link: Link,
    /// The way of its packets through the netstack.
    pub(super) lane: LaneId,
    /// Removed from the configuration: when its link ends.
    pub(super) leaves_at: Option<Instant>,
}

impl Published {
    pub(super) fn is_leaving(&self) -> bool {
        self.leaves_at.is_some()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let link = self.link.poll_timeout().map(|deadline| deadline.at);
        [link, self.leaves_at].into_iter().flatten().min()
    }
}
