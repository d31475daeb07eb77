//! One segment, read by smoltcp's wire format.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use crate::routing::packet::{FiveTuple, Kind, Parsed};

/// A TCP segment of an IP packet. Its checksum is the caller's to verify.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub(super) flow: FiveTuple,
    pub(super) repr: TcpRepr<'a>,
}

impl<'a> Segment<'a> {
    /// Reads the segment of a packet, whose `parsed` must come from [`crate::routing::packet::parse`] of the same bytes.
    ///
    /// `None` if it is not TCP, has port 0, damaged options, or flags that contradict each other.
    pub fn parse(parsed: &Parsed, packet: &'a [u8]) -> Option<Self> {
        let Kind::Tcp(_) = parsed.kind else { return None };
        let bytes = packet.get(parsed.transport.clone())?;
        let segment = TcpPacket::new_checked(bytes).ok()?;
        let any = IpAddress::Ipv4(std::net::Ipv4Addr::UNSPECIFIED);
        let repr = TcpRepr::parse(&segment, &any, &any, &ChecksumCapabilities::ignored()).ok()?;
        Some(Self {
            flow: parsed.flow,
            repr,
        })
    }

    /// Whether it opens a connection: SYN and nothing else.
    pub fn opens(&self) -> bool {
        self.repr.control == TcpControl::Syn && self.repr.ack_number.is_none()
    }

    pub(super) fn sequence(&self) -> u32 {
        self.repr.seq_number.0 as u32
    }

    pub(super) fn acknowledgement(&self) -> Option<u32> {
        self.repr.ack_number.map(|number| number.0 as u32)
    }

    pub(super) fn is_syn(&self) -> bool {
        self.repr.control == TcpControl::Syn
    }

    pub(super) fn is_fin(&self) -> bool {
        self.repr.control == TcpControl::Fin
    }

    pub(super) fn is_rst(&self) -> bool {
        self.repr.control == TcpControl::Rst
    }

    /// How much of the sequence space it takes.
    pub(super) fn len(&self) -> u64 {
        self.repr.segment_len() as u64
    }
}

/// What a segment to be sent says, without its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) control: TcpControl,
    pub(super) sequence: u32,
    pub(super) acknowledgement: Option<u32>,
    pub(super) window: u16,
    pub(super) options: Options,
}

/// The options of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) sack_permitted: bool,
    pub(super) blocks: [Option<(u32, u32)>; 3],
    /// This end's time, and the peer's to echo.
    pub(super) timestamp: Option<(u32, u32)>,
}

impl Header {
    pub(super) fn repr(&self, flow: &FiveTuple) -> TcpRepr<'static> {
        TcpRepr {
            src_port: flow.source_port,
            dst_port: flow.destination_port,
            control: self.control,
            seq_number: TcpSeqNumber(self.sequence as i32),
            ack_number: self.acknowledgement.map(|number| TcpSeqNumber(number as i32)),
            window_len: self.window,
            window_scale: self.options.scale,
            max_seg_size: self.options.mss,
            sack_permitted: self.options.sack_permitted,
            sack_ranges: self.options.blocks,
            timestamp: self
                .options
                .timestamp
                .map(|(value, echo)| TcpTimestampRepr::new(value, echo)),
            payload: &[],
        }
    }
}
