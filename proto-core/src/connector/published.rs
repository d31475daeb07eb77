//! One service with its link.

use std::time::Instant;

use crate::id::{LaneId, ServiceId};
use crate::link::Link;

#[derive(Debug)]
pub(super) struct Published {
    pub(super) id: ServiceId,
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
