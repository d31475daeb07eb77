//! The indices over connections: who owns an id, who is due when, who wants to send or to tell something.
//!
//! Every change of a connection passes through here, so that no question ever needs a look at all of them.

use std::net::SocketAddr;
use std::time::Duration;

use super::slot::Slot;
use super::{CIDS_PER_CONNECTION, Pool};
use crate::id::ConnId;
use crate::machine::FourTuple;
use crate::quic::{Cid, Connection, LOCAL_CID_LEN, Provider};

impl<Q: Provider> Pool<Q> {
    pub(super) fn insert(
        &mut self,
        connection: Q::Connection,
        path: FourTuple,
        client_local: Option<SocketAddr>,
    ) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let id = ConnId {
            index: entry.key() as u32,
            generation: self.generation,
        };
        entry.insert(Slot::new(id, connection, path, client_local));
        self.handshakes += 1;
        id
    }

    pub(super) fn remove(&mut self, id: ConnId) {
        let slot = self.slots.remove(id.index as usize);
        if !slot.reported_established {
            self.handshakes = self.handshakes.saturating_sub(1);
        }
        for cid in &slot.cids {
            self.cids.remove(cid);
        }
        self.clients.retain(|client| *client != id);
        self.deadlines.set(id.index, None);
    }

    pub(super) fn slot(&self, id: ConnId) -> Option<&Slot<Q::Connection>> {
        self.slots.get(id.index as usize).filter(|slot| slot.id == id)
    }

    pub(super) fn slot_mut(&mut self, id: ConnId) -> Option<&mut Slot<Q::Connection>> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.id == id)
    }

    pub(super) fn fresh_cid(&mut self) -> Cid {
        let mut bytes = [0; LOCAL_CID_LEN];
        loop {
            self.rng.fill(&mut bytes);
            let cid = Cid::new(&bytes).expect("8 bytes fit");
            if !self.cids.contains_key(&cid) {
                return cid;
            }
        }
    }

    pub(super) fn own_cid(&mut self, id: ConnId, cid: Cid) {
        if let Some(slot) = self.slot_mut(id) {
            slot.cids.push(cid);
            self.cids.insert(cid, id);
        }
    }

    /// Forgets ids that the peer has retired and gives it a spare one.
    pub(super) fn refresh_cids(&mut self, id: ConnId) {
        while let Some(retired) = self
            .slot_mut(id)
            .and_then(|slot| slot.connection.poll_retired_cid())
        {
            self.cids.remove(&retired);
            if let Some(slot) = self.slot_mut(id) {
                slot.cids.retain(|cid| *cid != retired);
                slot.spares = slot.spares.saturating_sub(1);
            }
        }
        while self
            .slot(id)
            .is_some_and(|slot| slot.spares + 1 < CIDS_PER_CONNECTION && slot.connection.cids_wanted() > 0)
        {
            let cid = self.fresh_cid();
            let token = self.door.reset_token(&cid);
            self.own_cid(id, cid);
            if let Some(slot) = self.slot_mut(id) {
                slot.connection.provide_cid(cid, token);
                slot.spares += 1;
            }
            self.mark_dirty(id);
        }
    }

    pub(super) fn mark_dirty(&mut self, id: ConnId) {
        if let Some(slot) = self
            .slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.id == id && !slot.dirty)
        {
            slot.dirty = true;
            self.dirty.push_back(id);
        }
    }

    pub(super) fn touch(&mut self, id: ConnId) {
        if let Some(slot) = self.slots.get_mut(id.index as usize).filter(|slot| slot.id == id) {
            slot.reported_readable = false;
            if !slot.touched {
                slot.touched = true;
                self.touched.push_back(id);
            }
        }
    }

    /// Brings the deadline index up to date, lazily: an entry that is too early is corrected when it comes due, so the
    /// timer that moves with every packet costs nothing per packet.
    pub(super) fn schedule(&mut self, id: ConnId) {
        let Some(slot) = self.slots.get(id.index as usize).filter(|slot| slot.id == id) else {
            return;
        };
        let wanted = [slot.connection.poll_timeout(), slot.hold]
            .into_iter()
            .flatten()
            .min();
        let Some(wanted) = wanted else { return };
        // A provider that wants to be woken now although it was just given time would spin the shell.
        let wanted = wanted.max(self.now + Duration::from_micros(1));
        if self.deadlines.of(id.index).is_none_or(|current| wanted < current) {
            self.deadlines.set(id.index, Some(wanted));
        }
    }
}
