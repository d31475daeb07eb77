//! Many connections behind one socket.
//!
//! The pool finds the connection that a packet belongs to, opens and accepts connections, and knows which of them have
//! something to send, something to tell, or a timer running. Each question is answered by an index: connection ids in a
//! hash table, deadlines in a heap, senders and talkers in queues. No wake-up looks at connections that have nothing to
//! do. What travels inside connections is the role's business.
//!
//! Acknowledgements are held back for a moment ([`ACK_HOLD`], or [`ACK_AFTER`] packets), because QUIC stacks write one
//! whenever they are asked to send: one acknowledgement per batch instead of one per packet. Who breaks a silence
//! ([`ACK_QUIET`]) is answered at once.
//!
//! DATAGRAMs have no flow control, and a relay that acknowledges everything invites more than it can pass on. So the
//! acknowledgements of one connection can be tied to the queue of another ([`Pool::acknowledge_behind`]): while that is
//! crowded, the sender's own congestion window holds back what would only be dropped after it was decrypted.

mod carrier;
mod config;
mod door;
mod index;
mod ring;
mod slot;
mod transmit;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::slab::Slab;

use carrier::{CARRIED, Carrier};
pub use carrier::{MAX_RAW_LEN, Origin, Via};
pub use config::{Admission, PoolConfig, PoolEvent, PoolStats};
use ring::Ring;
pub use ring::STATELESS_SLOTS;
use slot::{Behind, Slot};

use super::accept::FrontDoor;
use super::header::{Header, LongKind};
use super::{
    CannotConnect, Cid, Connect, Connection, ConnectionStats, Datagram, DatagramError, LOCAL_CID_LEN,
    Provider, Purpose, State,
};
use crate::id::ConnId;
use crate::machine::{Deadline, FourTuple, Received, Wake};
use crate::rng::{Rng, SeededMap};
use crate::timer::DeadlineIndex;

/// How long an acknowledgement may wait for company. A peer's probe timeout allows for `max_ack_delay` (25 ms), so this
/// costs nothing but a slightly later congestion window.
pub const ACK_HOLD: Duration = Duration::from_millis(1);

/// After how many packets a held acknowledgement goes out at once: often enough to open a small congestion window.
pub const ACK_AFTER: u32 = 16;

/// After how long a silence the next packet is acknowledged at once: nothing suggests that company is on its way, and a
/// keepalive then costs one wake-up instead of two.
pub const ACK_QUIET: Duration = Duration::from_millis(100);

/// How long acknowledgements wait for a crowded queue at most: they then go out, so that a slow receiver narrows its senders'
/// windows and never stops what they send to others. A peer's probe timeout allows for `max_ack_delay` (25 ms).
pub const ACK_BEHIND: Duration = Duration::from_millis(5);

/// A queue with more DATAGRAMs than this is crowded: what one connection may have on the way however slow it is.
pub const CROWDED: usize = 256;

/// Connection ids of ours that a peer holds at one time: the one in use and one to change to.
const CIDS_PER_CONNECTION: usize = 2;

/// Packets of one batch that follow one another to the same connection.
#[derive(Debug)]
struct Run {
    id: ConnId,
    dcid: Cid,
    carrier: Option<u32>,
    path: FourTuple,
    was_established: bool,
    packets: u32,
}

impl Run {
    /// Whether a packet with a short header came the same way with the same connection id.
    fn continues_with(&self, packet: &[u8], carrier: Option<u32>) -> bool {
        self.carrier == carrier
            && packet.first().is_some_and(|first| first & 0xc0 == 0x40)
            && packet.get(1..=LOCAL_CID_LEN) == Some(self.dcid.as_bytes())
    }
}

/// Connections, and the indices over them.
#[derive(Debug)]
pub struct Pool<Q: Provider> {
    provider: Q,
    config: PoolConfig,
    rng: Rng,
    door: FrontDoor,
    /// Payloads beside QUIC that wait to be sent: stateless answers, and what a role sends.
    beside: Ring,
    /// The same, received.
    raw: Ring,
    carriers: SeededMap<u32, Carrier>,
    /// Addresses whose first packets are answered, each with what the role calls it.
    invitations: SeededMap<SocketAddr, u32>,
    slots: Slab<Slot<Q::Connection>>,
    generation: u32,
    handshakes: usize,
    cids: SeededMap<Cid, ConnId>,
    /// Connections that this side opened: few, by configuration.
    clients: Vec<ConnId>,
    deadlines: DeadlineIndex,
    dirty: VecDeque<ConnId>,
    touched: VecDeque<ConnId>,
    stash: transmit::Stash,
    now: Instant,
    stats: PoolStats,
}

impl<Q: Provider> Pool<Q> {
    /// An empty pool.
    pub fn new(provider: Q, config: PoolConfig, mut rng: Rng, now: Instant) -> Self {
        let door = FrontDoor::new(config.reset_key, &mut rng, now);
        let speaks_first = config.admission == Admission::Nobody && !config.raw;
        Self {
            cids: rng.map(),
            beside: Ring::new(!speaks_first),
            raw: Ring::new(config.raw),
            carriers: rng.map(),
            invitations: rng.map(),
            provider,
            config,
            door,
            rng,
            slots: Slab::new(),
            generation: 0,
            handshakes: 0,
            clients: Vec::new(),
            deadlines: DeadlineIndex::default(),
            dirty: VecDeque::new(),
            touched: VecDeque::new(),
            stash: transmit::Stash::default(),
            now,
            stats: PoolStats::default(),
        }
    }

    /// Opens a connection to `path.remote`.
    ///
    /// # Errors
    /// If the configuration is unusable or the pool is full.
    pub fn connect(
        &mut self,
        server_name: Option<&str>,
        path: FourTuple,
        now: Instant,
    ) -> Result<ConnId, CannotConnect> {
        self.open(server_name, path, Purpose::Control, now)
    }

    fn open(
        &mut self,
        server_name: Option<&str>,
        path: FourTuple,
        purpose: Purpose,
        now: Instant,
    ) -> Result<ConnId, CannotConnect> {
        if self.slots.len() >= self.config.max_connections {
            return Err(CannotConnect("too many connections".into()));
        }
        let scid = self.fresh_cid();
        let connect = Connect {
            server_name,
            scid,
            path,
            purpose,
        };
        let connection = self.provider.connect(connect, now)?;
        let id = self.insert(connection, path, Some(path.local));
        self.clients.push(id);
        if let Some(slot) = self.slot_mut(id) {
            slot.peer = Some(path.remote);
        }
        self.stats.opened += 1;
        self.own_cid(id, scid);
        self.mark_dirty(id);
        Ok(id)
    }

    /// Takes one received batch: every packet in it goes to its connection, or through the front door.
    pub fn handle_datagram(&mut self, received: Received<'_>, now: Instant) {
        self.advance(now);
        let from = received.path;
        let mut run: Option<Run> = None;
        let size = received.segment_size();
        for packet in received.payload.chunks_mut(size) {
            let Some((packet, carrier)) = self.unwrap(packet, from) else {
                continue;
            };
            if let Some(run) = run.as_mut().filter(|run| run.continues_with(packet, carrier)) {
                self.hand_over(run, packet, now);
                continue;
            }
            let path = if carrier.is_some() { CARRIED } else { from };
            let Some(next) = self.find(packet, path, carrier, now) else {
                continue;
            };
            if let Some(run) = run.replace(next) {
                self.conclude(&run);
            }
            if let Some(run) = &mut run {
                self.hand_over(run, packet, now);
            }
        }
        if let Some(run) = run {
            self.conclude(&run);
        }
    }

    /// The connection that a packet belongs to, or the new one that it begins.
    fn find(&mut self, packet: &[u8], path: FourTuple, carrier: Option<u32>, now: Instant) -> Option<Run> {
        let Ok(header) = Header::parse(packet, LOCAL_CID_LEN) else {
            self.not_quic(packet, path, carrier);
            return None;
        };
        let (Header::Short { dcid } | Header::Long { dcid, .. }) = header;
        let known = self.cids.get(&dcid).copied();
        let id = known.or_else(|| self.stranger(&header, packet, path, carrier, now))?;
        let slot = self.slot(id)?;
        if slot.carrier != carrier {
            self.stats.wrong_way += 1;
            return None;
        }
        Some(Run {
            id,
            dcid,
            carrier,
            path,
            was_established: slot.established(),
            packets: 0,
        })
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        while let Some(index) = self.deadlines.pop_due(self.now) {
            let Some(slot) = self.slots.get_mut(index as usize) else {
                continue;
            };
            let id = slot.id;
            // The connection comes first: after a sleep of hours it is over, and flushing a held acknowledgement instead
            // would start its idle time anew.
            if slot.connection.poll_timeout().is_some_and(|at| at <= self.now) {
                slot.connection.handle_timeout(self.now);
                self.stats.outgrown += slot.connection.take_outgrown();
                self.mark_dirty(id);
                self.touch(id);
                continue;
            }
            if slot.hold.is_some_and(|at| at <= self.now) {
                slot.hold = None;
                self.mark_dirty(id);
                continue;
            }
            self.schedule(id);
        }
    }

    /// The next event, oldest connection first.
    pub fn poll_event(&mut self) -> Option<PoolEvent> {
        while let Some(id) = self.touched.front().copied() {
            if let Some(slot) = self.slots.get_mut(id.index as usize).filter(|slot| slot.id == id) {
                if let Some(event) = slot.poll_event() {
                    self.note(&event);
                    return Some(event);
                }
                slot.touched = false;
            }
            self.touched.pop_front();
        }
        None
    }

    /// Whether [`Pool::poll_event`] may have something to tell.
    pub fn has_events(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Queues bytes on stream 0 or 1 of a connection and returns how many it took, from the front:
    /// [`Connection::send_stream`]. Every [`PoolEvent::Readable`] is the moment to try with the rest.
    pub fn send_stream(&mut self, id: ConnId, stream: u64, bytes: &[u8]) -> usize {
        let Some(slot) = self.slot_mut(id) else { return 0 };
        let taken = slot.connection.send_stream(stream, bytes);
        if taken > 0 {
            self.mark_dirty(id);
        }
        taken
    }

    /// The next bytes of stream 0 or 1 of a connection: [`Connection::read_stream`].
    pub fn read_stream(&mut self, id: ConnId, out: &mut [u8]) -> Option<(u64, usize)> {
        let slot = self.slot_mut(id)?;
        let read = slot.connection.read_stream(out);
        let discarded = slot.connection.take_discarded();
        self.stats.foreign_stream_bytes += discarded;
        // Room that was read free is to be told, whenever that is: nothing else may be on its way to the peer.
        if read.is_some() || discarded > 0 {
            self.mark_dirty(id);
        }
        read
    }

    /// Reads and drops what a connection's streams carry; returns the number of bytes.
    pub fn discard_streams(&mut self, id: ConnId) -> usize {
        let dropped = self
            .slot_mut(id)
            .map_or(0, |slot| slot.connection.discard_streams());
        if dropped > 0 {
            self.mark_dirty(id);
        }
        dropped
    }

    /// When [`Pool::handle_timeout`] or a drain is wanted.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.dirty.is_empty()
            || !self.touched.is_empty()
            || !self.beside.is_empty()
            || self.stash.is_full()
        {
            return Some(Deadline {
                at: self.now,
                wake: Wake::QueuedOutput,
            });
        }
        self.deadlines
            .earliest()
            .map(|at| Deadline { at, wake: Wake::Quic })
    }

    /// The next DATAGRAM of a connection, moved out.
    pub fn poll_datagram(&mut self, id: ConnId) -> Option<Datagram> {
        self.slot_mut(id)?.connection.poll_datagram()
    }

    /// Queues a DATAGRAM on a connection, moving the buffer.
    ///
    /// # Errors
    /// If the connection is gone or does not take it; the buffer is dropped.
    pub fn send_datagram(&mut self, id: ConnId, datagram: Datagram) -> Result<(), DatagramError> {
        let slot = self.slot_mut(id).ok_or(DatagramError::NotReady)?;
        slot.connection.send_datagram(datagram)?;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push_back(id);
        }
        Ok(())
    }

    /// The largest DATAGRAM payload that a connection sends now.
    pub fn max_datagram_len(&self, id: ConnId) -> Option<usize> {
        self.slot(id)?.connection.max_datagram_len()
    }

    /// The largest DATAGRAM payload that a connection's path carries, for whoever remembers it: [`Connection::path_datagram_len`].
    pub fn path_datagram_len(&self, id: ConnId) -> Option<usize> {
        self.slot(id)?.connection.path_datagram_len()
    }

    /// The largest UDP payload that a connection's path carries.
    pub fn packet_size(&self, id: ConnId) -> Option<usize> {
        Some(self.slot(id)?.connection.packet_size())
    }

    /// The same of every established connection.
    pub fn packet_sizes(&self) -> impl Iterator<Item = usize> {
        let slots = self.slots.iter().filter(|(_, slot)| slot.established());
        slots.map(|(_, slot)| slot.connection.packet_size())
    }

    /// How many more DATAGRAMs a connection takes now; 0 if it is gone.
    pub fn datagram_space(&self, id: ConnId) -> usize {
        self.slot(id).map_or(0, |slot| slot.connection.datagram_space())
    }

    /// Lets the acknowledgements of `id` wait while the queue of `queue` is crowded, for [`ACK_BEHIND`] at most.
    pub fn acknowledge_behind(&mut self, id: ConnId, queue: ConnId) {
        if !self.is_crowded(queue) {
            return;
        }
        let until = self.now + ACK_BEHIND;
        if let Some(slot) = self.slot_mut(id) {
            slot.behind.get_or_insert(Behind { queue, until });
        }
    }

    fn is_crowded(&self, queue: ConnId) -> bool {
        self.slot(queue)
            .is_some_and(|slot| slot.connection.datagrams_queued() > CROWDED)
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self, id: ConnId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.connection.ping();
            self.mark_dirty(id);
        }
    }

    /// Closes a connection; [`PoolEvent::Closed`] follows.
    pub fn close(&mut self, id: ConnId, code: u64, reason: &[u8], now: Instant) {
        self.advance(now);
        let now = self.now;
        if let Some(slot) = self.slot_mut(id) {
            slot.connection.close(code, reason, now);
            self.mark_dirty(id);
            self.touch(id);
        }
    }

    /// Forgets a connection at once: its peer is told nothing and no event follows.
    pub fn discard(&mut self, id: ConnId) {
        if self.slot(id).is_some() {
            self.remove(id);
        }
    }

    /// Closes every connection with the same reason.
    pub fn close_all(&mut self, code: u64, reason: &[u8], now: Instant) {
        let ids: Vec<ConnId> = self.slots.iter().map(|(_, slot)| slot.id).collect();
        for id in ids {
            self.close(id, code, reason, now);
        }
    }

    /// Whether every connection has said its goodbye: none is open, and nothing waits to be sent.
    pub fn is_drained(&self) -> bool {
        self.dirty.is_empty()
            && !self.stash.is_full()
            && self
                .slots
                .iter()
                .all(|(_, slot)| matches!(slot.connection.state(), State::Closing | State::Closed))
    }

    /// The certificate of a connection's peer, DER.
    pub fn peer_certificate(&self, id: ConnId) -> Option<&[u8]> {
        self.slot(id)?.connection.peer_certificate()
    }

    /// The agreed application protocol of a connection.
    pub fn alpn(&self, id: ConnId) -> &[u8] {
        self.slot(id).map_or(&[], |slot| slot.connection.alpn())
    }

    /// Where a connection's peer was last heard, as the pool saw it.
    pub fn peer_address(&self, id: ConnId) -> Option<SocketAddr> {
        self.slot(id)?.peer
    }

    /// The path of an established connection: the one it began on, until the peer has answered on another.
    pub fn path(&self, id: ConnId) -> Option<FourTuple> {
        Some(self.slot(id)?.path)
    }

    /// Counters and estimates of a connection.
    pub fn connection_stats(&self, id: ConnId) -> Option<ConnectionStats> {
        Some(self.slot(id)?.connection.stats())
    }

    /// The number of connections, handshakes included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Connection ids in the table, for tests of leaks.
    pub fn cids_known(&self) -> usize {
        self.cids.len()
    }

    /// Counters.
    pub fn stats(&self) -> PoolStats {
        self.stats
    }

    /// Time as the pool last saw it.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Time running backwards is clamped.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Gives a packet to the connection of a run.
    fn hand_over(&mut self, run: &mut Run, packet: &mut [u8], now: Instant) {
        let Some(slot) = self.slot_mut(run.id) else { return };
        let local = slot.client_local.unwrap_or(run.path.local);
        let remote = run.path.remote;
        slot.connection
            .handle_packet(packet, FourTuple { local, remote }, now);
        run.packets += 1;
    }

    /// Draws the conclusions of a run of packets: what to say, and when.
    fn conclude(&mut self, run: &Run) {
        let (id, now) = (run.id, self.now);
        let Some(slot) = self.slot_mut(id) else { return };
        let outgrown = slot.connection.take_outgrown();
        slot.peer = Some(run.path.remote);
        slot.unacked += run.packets;
        let heard = slot.heard.replace(now);
        let after_silence = heard.is_some_and(|at| now.saturating_duration_since(at) >= ACK_QUIET);
        // What waits was held back by the congestion window, and the packets may have opened it.
        let waiting = slot.connection.datagrams_queued() > 0;
        let flush = !run.was_established
            || !slot.established()
            || waiting
            || slot.unacked >= ACK_AFTER
            || after_silence;
        if flush {
            self.mark_dirty(id);
        } else if !slot.dirty && slot.hold.is_none() {
            slot.hold = Some(now + ACK_HOLD);
            self.schedule(id);
        }
        self.touch(id);
        self.stats.outgrown += outgrown;
    }

    fn note(&mut self, event: &PoolEvent) {
        match event {
            PoolEvent::Established(id) => {
                self.handshakes = self.handshakes.saturating_sub(1);
                self.refresh_cids(*id);
            }
            PoolEvent::Closed(id, _) => self.remove(*id),
            PoolEvent::PathChanged(id, _) => self.refresh_cids(*id),
            PoolEvent::Readable(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
