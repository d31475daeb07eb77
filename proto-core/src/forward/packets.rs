//! Packets from services: which stream or flow each belongs to, and what an ICMP error means to it.

use std::net::SocketAddr;
use std::time::Instant;

use super::NotReached;
use super::stack::Stack;
use crate::backend::FlowId;
use crate::quic::Datagram;
use crate::routing::packet::{self, FiveTuple, Fragment, Kind, Parsed, TCP, TcpFlags, TooBig, UDP};
use crate::tcp::Segment;

impl Stack {
    /// Takes one packet; the agent has let it in, so it comes from an address of a service.
    pub(super) fn handle_packet(&mut self, packet: Datagram, now: Instant) {
        self.advance(now);
        let Ok(parsed) = packet::parse(&packet) else {
            self.stats.malformed += 1;
            return;
        };
        if parsed.fragment != Fragment::No {
            self.stats.fragments += 1;
            if let Some(whole) = self.partial.take((), &packet, &parsed, now) {
                self.handle_packet(whole.into(), now);
            }
            return;
        }
        if !packet::verify_checksums(&parsed, &packet) {
            self.stats.bad_checksum += 1;
            return;
        }
        if self.directory.local(parsed.flow.source) != Some(parsed.flow.destination) {
            self.stats.stray += 1;
            return;
        }
        match parsed.kind {
            Kind::Tcp(flags) => self.on_segment(&parsed, flags, &packet),
            Kind::Udp => self.on_udp(&parsed, packet),
            Kind::IcmpError => self.on_error(&parsed, &packet),
            Kind::EchoRequest | Kind::EchoReply | Kind::Other => self.stats.stray += 1,
        }
    }

    fn on_segment(&mut self, parsed: &Parsed, flags: TcpFlags, packet: &[u8]) {
        let source = SocketAddr::new(parsed.flow.source, parsed.flow.source_port);
        let id = self.tcp.get(&parsed.flow.destination_port).copied();
        let id = id.filter(|id| self.stream(*id).and_then(|stream| stream.remote()) == Some(source));
        match id {
            Some(id) => self.feed(id, parsed, packet),
            None => {
                self.stats.stray += 1;
                self.answer_stray(parsed, flags, packet);
            }
        }
    }

    /// A segment to no connection is answered with a reset, so that the other end does not wait (RFC 9293 §3.10.7.1).
    fn answer_stray(&mut self, parsed: &Parsed, flags: TcpFlags, packet: &[u8]) {
        let Some((service, _)) = self.directory.find(&super::Host::Address(parsed.flow.source)) else {
            return;
        };
        let mut answer = Vec::new();
        if !flags.rst && packet::tcp_reset(packet, parsed, &mut answer) {
            self.push_packet(service, answer);
        }
    }

    fn feed(&mut self, id: FlowId, parsed: &Parsed, packet: &[u8]) {
        let Some(segment) = Segment::parse(parsed, packet) else {
            self.stats.malformed += 1;
            return;
        };
        let now = self.now;
        if let Some(stream) = self.stream(id) {
            stream.receive(&segment, now);
        }
        self.after(id);
    }

    fn on_error(&mut self, parsed: &Parsed, packet: &[u8]) {
        let message = packet.get(parsed.transport.start..).unwrap_or_default();
        let (Some(&kind), Some(&code)) = (message.first(), message.get(1)) else {
            return;
        };
        if let Some(TooBig {
            mtu,
            sequence: Some(sequence),
        }) = TooBig::read(packet, parsed)
        {
            self.on_segment_too_big(parsed.flow, mtu, sequence);
            return;
        }
        let why = if parsed.flow.source.is_ipv4() {
            meaning_v4(kind, code)
        } else {
            meaning_v6(kind, code)
        };
        let Some(why) = why else { return };
        match parsed.flow.protocol {
            TCP => self.on_stream_error(parsed.flow, why),
            UDP => self.on_udp_error(parsed.flow, why),
            _ => self.stats.stray += 1,
        }
    }

    /// The path carries less than a segment of a stream: those to come become shorter.
    fn on_segment_too_big(&mut self, flow: FiveTuple, mtu: usize, sequence: u32) {
        let source = SocketAddr::new(flow.source, flow.source_port);
        let id = self.tcp.get(&flow.destination_port).copied();
        let stream = id.and_then(|id| self.stream(id));
        let stream = stream.filter(|stream| stream.remote() == Some(source));
        let (Some(id), Some(stream)) = (id, stream) else {
            self.stats.stray += 1;
            return;
        };
        stream.on_too_big(mtu, sequence);
        self.after(id);
    }

    /// Ends a connection that is being opened; one that stands outlives such errors (RFC 5461 §4).
    fn on_stream_error(&mut self, flow: FiveTuple, why: NotReached) {
        let source = SocketAddr::new(flow.source, flow.source_port);
        let Some(id) = self.tcp.get(&flow.destination_port).copied() else {
            self.stats.stray += 1;
            return;
        };
        let opening = self
            .stream(id)
            .is_some_and(|stream| stream.remote() == Some(source) && stream.is_opening());
        if opening {
            self.refuse(id, why);
        }
    }
}

/// RFC 792, RFC 1812 §5.2.7.1. Of what is too long for the path, datagrams are cut and segments become shorter.
fn meaning_v4(kind: u8, code: u8) -> Option<NotReached> {
    match (kind, code) {
        (3, 4) => None,
        (3, 2 | 3) => Some(NotReached::Refused),
        (3, 9 | 10 | 13) => Some(NotReached::NotAllowed),
        (3, _) => Some(NotReached::Unreachable),
        (11, _) => Some(NotReached::TimedOut),
        _ => None,
    }
}

/// RFC 4443 §3.
fn meaning_v6(kind: u8, code: u8) -> Option<NotReached> {
    match (kind, code) {
        (1, 4) => Some(NotReached::Refused),
        (1, 1 | 5 | 6) => Some(NotReached::NotAllowed),
        (1, _) => Some(NotReached::Unreachable),
        (3, _) => Some(NotReached::TimedOut),
        _ => None,
    }
}
