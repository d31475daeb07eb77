//! Writing packets: from the queue of connections that want to send into batches of equal size.

use std::num::NonZeroUsize;
use std::time::Instant;

use super::carrier::Carriage;
use super::slot::Slot;
use super::{ACK_HOLD, Pool};
use crate::id::ConnId;
use crate::machine::{Ecn, FourTuple, Transmit};
use crate::quic::{Connection, PacketOut, Provider};
use crate::wire::channel::PREFIX_LEN;

/// Most datagrams in one batch: what Linux takes in one call with UDP_SEGMENT.
const MAX_SEGMENTS: usize = 64;

/// Most bytes in one batch: the largest UDP payload over IPv4.
const MAX_BATCH: usize = 65_507;

/// A packet that was written behind a batch but belongs on another path; it goes out next.
#[derive(Debug, Default)]
pub(super) struct Stash {
    bytes: Vec<u8>,
    path: Option<FourTuple>,
}

impl Stash {
    pub(super) fn is_full(&self) -> bool {
        self.path.is_some()
    }

    fn put(&mut self, packet: &[u8], path: FourTuple) {
        self.bytes.clear();
        self.bytes.extend_from_slice(packet);
        self.path = Some(path);
    }

    fn take(&mut self, out: &mut [u8]) -> Option<(usize, FourTuple)> {
        let path = self.path?;
        out.get_mut(..self.bytes.len())?.copy_from_slice(&self.bytes);
        self.path = None;
        Some((self.bytes.len(), path))
    }
}

impl<Q: Provider> Pool<Q> {
    /// Writes the next batch into `buf`: datagrams of one connection on one path, all of one size but the last.
    pub fn poll_transmit(&mut self, buf: &mut [u8], now: Instant) -> Option<Transmit> {
        self.advance(now);
        if let Some((len, path)) = self.stash.take(buf).or_else(|| self.beside.pop(buf)) {
            return Some(Transmit {
                path,
                ecn: Ecn::NotEct,
                len,
                segment_size: None,
            });
        }
        while let Some(id) = self.dirty.pop_front() {
            if self.waits(id) {
                continue;
            }
            let Some(carriage) = self.carriage(id) else {
                // Its channel is gone; the connection will follow.
                self.rest(id);
                continue;
            };
            let (prefix, path) = match carriage {
                Carriage::Bare => (None, None),
                Carriage::Framed(prefix, path) => (Some(prefix), Some(path)),
                Carriage::Inside(prefix, inside) => {
                    if self.write_inside(id, prefix, inside, buf) {
                        self.dirty.push_back(id);
                    } else {
                        self.rest(id);
                    }
                    continue;
                }
            };
            let now = self.now;
            let first_len = self.config.max_udp_payload.min(buf.len());
            let Some(slot) = self.slots.get_mut(id.index as usize).filter(|slot| slot.id == id) else {
                continue;
            };
            let Some(first) = write_packet(slot, prefix, &mut buf[..first_len], now) else {
                self.rest(id);
                continue;
            };
            // With one datagram that the interface refuses, the whole batch would be refused.
            let batched = slot.established() && !first.is_probe;
            // Still in the queue, behind the others: nobody waits for one connection to run dry.
            self.dirty.push_back(id);
            let mut transmit = if batched {
                self.fill_batch(id, first, prefix, buf)
            } else {
                Transmit {
                    path: first.path,
                    ecn: Ecn::NotEct,
                    len: first.len,
                    segment_size: None,
                }
            };
            transmit.path = path.unwrap_or(transmit.path);
            return Some(transmit);
        }
        None
    }

    /// A connection has nothing more to send for now.
    fn rest(&mut self, id: ConnId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.dirty = false;
            slot.hold = None;
            slot.unacked = 0;
        }
        self.schedule(id);
        self.touch_if_closed(id);
    }

    /// Whether a connection that wants to send has nothing but what may wait for a crowded queue. It is asked again after
    /// a moment: nobody keeps a list of who waits for whom.
    fn waits(&mut self, id: ConnId) -> bool {
        let Some(behind) = self.slot(id).and_then(|slot| slot.behind) else {
            return false;
        };
        let now = self.now;
        let crowded = now < behind.until && self.is_crowded(behind.queue);
        let Some(slot) = self.slot_mut(id) else {
            return false;
        };
        if !crowded || !slot.established() || slot.connection.datagrams_queued() > 0 {
            slot.behind = None;
            return false;
        }
        slot.dirty = false;
        slot.hold = Some(behind.until.min(now + ACK_HOLD));
        self.schedule(id);
        true
    }

    fn fill_batch(
        &mut self,
        id: ConnId,
        first: PacketOut,
        prefix: Option<[u8; PREFIX_LEN]>,
        buf: &mut [u8],
    ) -> Transmit {
        let stride = first.len;
        let end = buf.len().min(MAX_BATCH).min(stride.saturating_mul(MAX_SEGMENTS));
        let mut len = stride;
        let now = self.now;
        let mut slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.id == id);
        while let Some(slot) = slot.as_deref_mut().filter(|_| len + stride <= end) {
            // QUIC looks at everything, and allocates, before it says that it has nothing: the drain asks once, not
            // every batch as well.
            if slot.connection.datagrams_queued() == 0 {
                break;
            }
            let Some(packet) = write_packet(slot, prefix, &mut buf[len..len + stride], now) else {
                break;
            };
            if packet.path != first.path {
                self.stash.put(&buf[len..len + packet.len], packet.path);
                break;
            }
            len += packet.len;
            if packet.len < stride {
                break;
            }
        }
        let segment_size = if len > stride {
            NonZeroUsize::new(stride)
        } else {
            None
        };
        Transmit {
            path: first.path,
            ecn: Ecn::NotEct,
            len,
            segment_size,
        }
    }

    /// Saying goodbye can complete with the last packet written; nobody else would notice.
    fn touch_if_closed(&mut self, id: ConnId) {
        let closed = self
            .slot(id)
            .is_some_and(|slot| slot.connection.state() == crate::quic::State::Closed);
        if closed {
            self.touch(id);
        }
    }
}

/// Writes a packet behind the prefix of its channel, if it travels in one. The length is that of both.
fn write_packet<C: Connection>(
    slot: &mut Slot<C>,
    prefix: Option<[u8; PREFIX_LEN]>,
    out: &mut [u8],
    now: Instant,
) -> Option<PacketOut> {
    let Some(prefix) = prefix else {
        return slot.connection.poll_packet(out, now);
    };
    let (front, room) = out.split_first_chunk_mut()?;
    *front = prefix;
    let packet = slot.connection.poll_packet(room, now)?;
    Some(PacketOut {
        len: PREFIX_LEN + packet.len,
        ..packet
    })
}
