//! The device under one session: one packet in, one packet out, both moved rather than copied.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::quic::Datagram;

/// A device that holds at most one packet in each direction.
#[derive(Debug)]
pub(super) struct Port {
    incoming: Option<Datagram>,
    /// What the stack wrote: an answer to a packet, or a segment that it was allowed to send.
    reply: Option<Vec<u8>>,
    segment: Option<Vec<u8>>,
    may_send: bool,
    mtu: usize,
}

impl Port {
    pub(super) fn new(mtu: usize) -> Self {
        Self {
            incoming: None,
            reply: None,
            segment: None,
            may_send: false,
            mtu,
        }
    }

    pub(super) fn receive(&mut self, packet: Datagram) {
        self.incoming = Some(packet);
    }

    /// Lets the stack send one segment.
    pub(super) fn allow_one(&mut self) {
        self.may_send = true;
    }

    pub(super) fn take_reply(&mut self) -> Option<Vec<u8>> {
        self.reply.take()
    }

    pub(super) fn take_segment(&mut self) -> Option<Vec<u8>> {
        self.may_send = false;
        self.segment.take()
    }

    pub(super) fn mtu(&self) -> usize {
        self.mtu
    }

    /// The interface above has to be made anew to learn of it.
    pub(super) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }
}

pub(super) struct Incoming(Datagram);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(super) struct Outgoing<'a>(&'a mut Option<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        *self.0 = Some(packet);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), Outgoing(&mut self.reply)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        if !self.may_send || self.segment.is_some() {
            return None;
        }
        Some(Outgoing(&mut self.segment))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}
