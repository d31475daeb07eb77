//! Ways of packets other than straight to their peer, and payloads that are no packets.
//!
//! A *carrier* is a relay channel: packets of its connections travel behind its five bytes, along the path of the control
//! connection, or inside that as DATAGRAMs. The connections know nothing of it: to them every carrier is one path that never
//! changes, whatever address the intermediate sees this host at. A connection that travels in a channel takes no packet that
//! comes another way, and the other way round.
//!
//! *Invitations* are addresses whose first packets are answered although this side accepts nobody else.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Pool, Received};
use crate::id::ConnId;
use crate::machine::{FourTuple, canonical};
use crate::quic::{CannotConnect, Connection, Provider, Purpose};
use crate::wire::channel::{CHANNEL, PREFIX_LEN, channel_prefix, parse_channel};
use crate::wire::check::CHECK;
use crate::wire::v1;

/// The longest payload beside QUIC that is kept: a connectivity check and a message of v1 are shorter.
pub const MAX_RAW_LEN: usize = 64;

/// The path of every connection in a channel, as the connection sees it. Addresses for documentation (RFC 5737) that no packet
/// is sent to.
pub(super) const CARRIED: FourTuple = FourTuple {
    local: address(1),
    remote: address(2),
};

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last)),
        443,
    )
}

/// How a channel's frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carrier {
    /// The path of the control connection.
    pub(super) path: FourTuple,
    /// As DATAGRAMs of this connection, where bare frames do not pass.
    pub(super) inside: Option<ConnId>,
}

/// How a connection between agent and connector reaches its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// In the channel with this number.
    Carrier(u32),
    /// Straight.
    Path(FourTuple),
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It travels in this channel.
    Carrier(u32),
    /// Its first packet came from an address that was invited under this name.
    Invited(u32),
    /// This side opened it, or accepts anybody.
    Plain,
}

impl<Q: Provider> Pool<Q> {
    /// Opens a connection to a connector. Its certificate's names are the role's to check.
    ///
    /// # Errors
    /// If the configuration is unusable, the pool is full or the channel unknown.
    pub fn connect_session(&mut self, via: Via, now: Instant) -> Result<ConnId, CannotConnect> {
        match via {
            Via::Path(path) => self.open(None, path, Purpose::Session, now),
            Via::Carrier(number) => {
                if !self.carriers.contains_key(&number) {
                    return Err(CannotConnect("no such channel".into()));
                }
                let id = self.open(None, CARRIED, Purpose::Carried, now)?;
                if let Some(slot) = self.slot_mut(id) {
                    slot.carrier = Some(number);
                }
                Ok(id)
            }
        }
    }

    /// Sets how the frames of a channel travel: along this path, or as DATAGRAMs `inside` a connection.
    pub fn set_carrier(&mut self, number: u32, path: FourTuple, inside: Option<ConnId>) {
        self.carriers.insert(number, Carrier { path, inside });
    }

    /// Forgets a channel. Connections in it are the role's to discard; until then their packets go nowhere.
    pub fn remove_carrier(&mut self, number: u32) {
        self.carriers.remove(&number);
    }

    /// Channels that are known, for tests of leaks.
    pub fn carriers(&self) -> usize {
        self.carriers.len()
    }

    /// Answers first packets from this address, and calls it so.
    pub fn invite(&mut self, address: SocketAddr, name: u32) {
        self.invitations.insert(canonical(address), name);
    }

    /// Takes an invitation back; connections that came by it stay.
    pub fn uninvite(&mut self, address: SocketAddr) {
        self.invitations.remove(&canonical(address));
    }

    /// Invitations, for tests of leaks.
    pub fn invitations(&self) -> usize {
        self.invitations.len()
    }

    pub(super) fn invitation(&self, address: SocketAddr) -> Option<u32> {
        self.invitations.get(&canonical(address)).copied()
    }

    /// Where a connection comes from.
    pub fn origin(&self, id: ConnId) -> Origin {
        let slot = self.slot(id);
        let carrier = slot.and_then(|slot| slot.carrier).map(Origin::Carrier);
        let invited = slot.and_then(|slot| slot.invitation).map(Origin::Invited);
        carrier.or(invited).unwrap_or(Origin::Plain)
    }

    /// Takes a frame of a channel that came as a DATAGRAM of the control connection `inside`.
    pub fn handle_carried(&mut self, frame: &mut [u8], inside: ConnId, now: Instant) {
        let number = parse_channel(frame);
        let carrier = number.and_then(|number| self.carriers.get(&number)).copied();
        let Some(carrier) = carrier.filter(|carrier| carrier.inside == Some(inside)) else {
            self.stats.unknown_channel += 1;
            return;
        };
        let received = Received {
            path: carrier.path,
            ecn: crate::machine::Ecn::NotEct,
            stride: None,
            payload: frame,
        };
        self.handle_datagram(received, now);
    }

    /// Sends a payload beside QUIC: a connectivity check, a message of v1. `false` if too many wait.
    pub fn send_raw(&mut self, path: FourTuple, payload: &[u8]) -> bool {
        self.beside.push(path, |out| {
            out.get_mut(..payload.len())?.copy_from_slice(payload);
            Some(payload.len())
        })
    }

    /// The next payload beside QUIC that came in, and its path.
    pub fn poll_raw(&mut self, out: &mut [u8; MAX_RAW_LEN]) -> Option<(usize, FourTuple)> {
        self.raw.pop(out)
    }

    /// Sorts a payload: a QUIC packet, bare or out of the channel that is given back with it, or something else that is kept.
    pub(super) fn unwrap<'a>(
        &mut self,
        packet: &'a mut [u8],
        from: FourTuple,
    ) -> Option<(&'a mut [u8], Option<u32>)> {
        match packet.first() {
            Some(&CHANNEL) => {
                let number = parse_channel(packet);
                let known = |number: &u32| {
                    let carrier = self.carriers.get(number);
                    carrier.is_some_and(|carrier| carrier.path.remote == from.remote)
                };
                let Some(number) = number.filter(known) else {
                    self.stats.unknown_channel += 1;
                    return None;
                };
                Some((packet.get_mut(PREFIX_LEN..)?, Some(number)))
            }
            Some(&CHECK) if self.config.raw => {
                self.keep_raw(packet, from);
                None
            }
            Some(_) | None => Some((packet, None)),
        }
    }

    /// Something that cannot be a packet of QUIC; perhaps one of v1's short messages.
    pub(super) fn not_quic(&mut self, packet: &[u8], path: FourTuple, carrier: Option<u32>) {
        if carrier.is_none() && self.config.raw && packet.first() == Some(&v1::MAGIC) {
            self.keep_raw(packet, path);
        } else {
            self.stats.not_quic += 1;
        }
    }

    pub(super) fn keep_raw(&mut self, payload: &[u8], path: FourTuple) {
        let kept = payload.len() <= MAX_RAW_LEN
            && self.raw.push(path, |out| {
                out.get_mut(..payload.len())?.copy_from_slice(payload);
                Some(payload.len())
            });
        if !kept {
            self.stats.raw_dropped += 1;
        }
    }

    /// How the packets of a connection travel now: the bytes before each, the path if it is not theirs, and the connection that
    /// they travel inside. `None` if its channel is gone.
    pub(super) fn carriage(&self, id: ConnId) -> Option<Carriage> {
        let Some(number) = self.slot(id)?.carrier else {
            return Some(Carriage::Bare);
        };
        let carrier = self.carriers.get(&number)?;
        let prefix = channel_prefix(number);
        Some(match carrier.inside {
            None => Carriage::Framed(prefix, carrier.path),
            Some(inside) => Carriage::Inside(prefix, inside),
        })
    }

    /// Writes packets of a connection as DATAGRAMs of another. Rare, so they are copied; what finds no room is lost, as in any
    /// queue on the way.
    pub(super) fn write_inside(
        &mut self,
        id: ConnId,
        prefix: [u8; PREFIX_LEN],
        inside: ConnId,
        buf: &mut [u8],
    ) -> bool {
        let room = self.max_datagram_len(inside).unwrap_or(0).min(buf.len());
        let now = self.now;
        let packet = self.slot_mut(id).and_then(|slot| {
            let out = buf.get_mut(PREFIX_LEN..room)?;
            slot.connection.poll_packet(out, now)
        });
        let Some(packet) = packet else { return false };
        let end = PREFIX_LEN + packet.len;
        if let Some(frame) = buf.get_mut(..end) {
            if let Some(front) = frame.first_chunk_mut() {
                *front = prefix;
            }
            let _ = self.send_datagram(inside, frame.to_vec().into());
        }
        true
    }
}

/// See [`Pool::carriage`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Carriage {
    Bare,
    Framed([u8; PREFIX_LEN], FourTuple),
    Inside([u8; PREFIX_LEN], ConnId),
}

#[cfg(test)]
mod tests;
