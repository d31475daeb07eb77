//! A QUIC implementation whose allocations are counted on its own account.
//!
//! The seam between the core and QUIC is a trait, so the line between "our code" and "theirs" can be drawn exactly
//! there: everything that happens inside a call through the seam is theirs.

use std::time::Instant;

use proto_core::machine::FourTuple;
use proto_core::quic::{
    Accept, CannotConnect, Cid, CloseReason, Connect, Connection, ConnectionStats, Datagram, DatagramError,
    PacketOut, Provider, State, WriteRetry,
};

use crate::count::theirs;

/// The same provider, counted apart.
#[derive(Debug)]
pub struct Attributed<P>(pub P);

/// The same connection, counted apart.
#[derive(Debug)]
pub struct AttributedConnection<C>(C);

impl<P: Provider> Provider for Attributed<P> {
    type Connection = AttributedConnection<P::Connection>;

    fn connect(&mut self, connect: Connect<'_>, now: Instant) -> Result<Self::Connection, CannotConnect> {
        theirs(|| self.0.connect(connect, now)).map(AttributedConnection)
    }

    fn accept(&mut self, accept: Accept, now: Instant) -> Result<Self::Connection, CannotConnect> {
        theirs(|| self.0.accept(accept, now)).map(AttributedConnection)
    }

    fn is_supported(&self, version: u32) -> bool {
        self.0.is_supported(version)
    }

    fn write_retry(&self, retry: WriteRetry<'_>, out: &mut [u8]) -> Option<usize> {
        theirs(|| self.0.write_retry(retry, out))
    }

    fn write_version_negotiation(&self, scid: &Cid, dcid: &Cid, out: &mut [u8]) -> Option<usize> {
        theirs(|| self.0.write_version_negotiation(scid, dcid, out))
    }
}

impl<C: Connection> Connection for AttributedConnection<C> {
    fn handle_packet(&mut self, packet: &mut [u8], path: FourTuple, now: Instant) {
        theirs(|| self.0.handle_packet(packet, path, now));
    }

    fn is_stateless_reset(&self, packet: &[u8]) -> bool {
        theirs(|| self.0.is_stateless_reset(packet))
    }

    fn poll_packet(&mut self, out: &mut [u8], now: Instant) -> Option<PacketOut> {
        theirs(|| self.0.poll_packet(out, now))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        theirs(|| self.0.poll_timeout())
    }

    fn handle_timeout(&mut self, now: Instant) {
        theirs(|| self.0.handle_timeout(now));
    }

    fn send_datagram(&mut self, datagram: Datagram) -> Result<(), DatagramError> {
        theirs(|| self.0.send_datagram(datagram))
    }

    fn poll_datagram(&mut self) -> Option<Datagram> {
        theirs(|| self.0.poll_datagram())
    }

    fn max_datagram_len(&self) -> Option<usize> {
        theirs(|| self.0.max_datagram_len())
    }

    fn path_datagram_len(&self) -> Option<usize> {
        theirs(|| self.0.path_datagram_len())
    }

    fn packet_size(&self) -> usize {
        theirs(|| self.0.packet_size())
    }

    fn take_outgrown(&mut self) -> u64 {
        theirs(|| self.0.take_outgrown())
    }

    fn datagram_space(&self) -> usize {
        theirs(|| self.0.datagram_space())
    }

    fn datagrams_queued(&self) -> usize {
        theirs(|| self.0.datagrams_queued())
    }

    fn send_stream(&mut self, stream: u64, bytes: &[u8]) -> usize {
        theirs(|| self.0.send_stream(stream, bytes))
    }

    fn read_stream(&mut self, out: &mut [u8]) -> Option<(u64, usize)> {
        theirs(|| self.0.read_stream(out))
    }

    fn take_discarded(&mut self) -> u64 {
        theirs(|| self.0.take_discarded())
    }

    fn discard_streams(&mut self) -> usize {
        theirs(|| self.0.discard_streams())
    }

    fn ping(&mut self) {
        theirs(|| self.0.ping());
    }

    fn state(&self) -> State {
        theirs(|| self.0.state())
    }

    fn close_reason(&self) -> Option<CloseReason> {
        theirs(|| self.0.close_reason())
    }

    fn close(&mut self, code: u64, reason: &[u8], now: Instant) {
        theirs(|| self.0.close(code, reason, now));
    }

    fn peer_certificate(&self) -> Option<&[u8]> {
        theirs(|| self.0.peer_certificate())
    }

    fn alpn(&self) -> &[u8] {
        theirs(|| self.0.alpn())
    }

    fn poll_path_change(&mut self) -> Option<FourTuple> {
        theirs(|| self.0.poll_path_change())
    }

    fn cids_wanted(&self) -> usize {
        theirs(|| self.0.cids_wanted())
    }

    fn provide_cid(&mut self, cid: Cid, reset_token: [u8; 16]) {
        theirs(|| self.0.provide_cid(cid, reset_token));
    }

    fn poll_retired_cid(&mut self) -> Option<Cid> {
        theirs(|| self.0.poll_retired_cid())
    }

    fn stats(&self) -> ConnectionStats {
        theirs(|| self.0.stats())
    }
}
