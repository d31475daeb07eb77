//! A tunnel whose far end is a mirror: every packet comes back with its ends exchanged, a ping as its answer.

use std::collections::VecDeque;
use std::time::Instant;

use proto_core::machine::{Deadline, Forward, Machine, Received, SendError, Transmit, Tunnel, Wake};

const ROOM: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Mirror {
    packets: VecDeque<Vec<u8>>,
    seen: Option<Instant>,
    ending: bool,
}

/// Exchanges addresses and ports, which no checksum notices, and turns an echo request into its reply.
fn reflect(packet: &mut [u8]) {
    let (from, to, header) = match packet[0] >> 4 {
        4 => (12..16, 16..20, usize::from(packet[0] & 15) * 4),
        _ => (8..24, 24..40, 40),
    };
    let (protocol, source) = (
        if header == 40 { packet[6] } else { packet[9] },
        packet[from.clone()].to_vec(),
    );
    packet.copy_within(to.clone(), from.start);
    packet[to].copy_from_slice(&source);
    match protocol {
        1 | 58 => {
            let (request, reply) = if protocol == 1 { (8, 0) } else { (128, 129) };
            if packet[header] != request {
                return;
            }
            packet[header] = reply;
            let sum = u16::from_be_bytes([packet[header + 2], packet[header + 3]]);
            // One's complement arithmetic, RFC 1624.
            let difference = (u32::from(request) << 8) + u32::from(!(u16::from(reply) << 8));
            let sum = u32::from(sum) + difference;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
            packet[header + 2..header + 4].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {
            let source = [packet[header], packet[header + 1]];
            packet.copy_within(header + 2..header + 4, header);
            packet[header + 2..header + 4].copy_from_slice(&source);
        }
    }
}

impl Machine for Mirror {
    type Event = ();

    fn handle_datagram(&mut self, _: Received<'_>, _: Instant) -> Forward {
        Forward::NONE
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_transmit(&mut self, _: &mut [u8], _: Instant) -> Option<Transmit> {
        None
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let at = self.seen.filter(|_| !self.packets.is_empty())?;
        Some(Deadline {
            at,
            wake: Wake::QueuedOutput,
        })
    }

    fn shut_down(&mut self, _: Instant) {
        self.ending = true;
    }

    fn is_drained(&self) -> bool {
        self.ending
    }
}

impl Tunnel for Mirror {
    fn send_packet(&mut self, packet: &[u8], now: Instant) -> Result<(), SendError> {
        assert!(self.can_send(), "the shell asks first");
        let mut packet = packet.to_vec();
        // What the kernel says of its own accord (neighbour and router discovery) has no mirror image.
        if packet[0] >> 4 == 6 && packet[6] == 58 && packet[40] != 128 {
            return Err(SendError::NoRoute);
        }
        reflect(&mut packet);
        self.packets.push_back(packet);
        self.seen = Some(now);
        Ok(())
    }

    fn can_send(&self) -> bool {
        self.packets.len() < ROOM
    }

    fn poll_packet(&mut self, buf: &mut [u8]) -> Option<usize> {
        let packet = self.packets.pop_front()?;
        buf[..packet.len()].copy_from_slice(&packet);
        Some(packet.len())
    }
}
