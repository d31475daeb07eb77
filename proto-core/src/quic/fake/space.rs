//! One packet number space: what was sent and not yet acknowledged, what was received, what waits to be sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::crypto::CryptoStream;
use super::frame::Ack;
use super::ranges::Ranges;
use super::seal::Key;
use super::stream::Streams;
use crate::quic::Cid;

/// How long an acknowledgement of application data may be held back (RFC 9000 §13.2.1).
pub(super) const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

/// A packet this many behind the largest acknowledged one is lost (RFC 9002 §6.1.1).
const PACKET_THRESHOLD: u64 = 3;

/// The keys of a space, ours to seal with and the peer's to open with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    pub(super) seal: Key,
    pub(super) open: Key,
}

/// A frame that is sent again when its packet is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Crypto {
        start: usize,
        end: usize,
    },
    HandshakeDone,
    NewCid {
        sequence: u64,
        cid: Cid,
        token: [u8; 16],
    },
    RetireCid {
        sequence: u64,
    },
    PathChallenge([u8; 8]),
    PathResponse([u8; 8]),
    Stream {
        stream: u64,
        start: u64,
        end: u64,
    },
    /// The limit is the one that stands when the frame is written.
    MaxStreamData {
        stream: u64,
    },
}

/// An ack-eliciting packet on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) at: Instant,
    pub(super) size: usize,
    pub(super) controls: Vec<Control>,
}

/// What an ACK has told.
#[derive(Debug, Default)]
pub(super) struct Acked {
    pub(super) bytes: usize,
    /// When the largest newly acknowledged packet was sent.
    pub(super) largest_sent_at: Option<Instant>,
}

/// One packet number space.
#[derive(Debug)]
pub(super) struct PacketSpace {
    pub(super) keys: Option<Keys>,
    pub(super) discarded: bool,
    next_number: u64,
    pub(super) received: Ranges,
    /// Ack-eliciting packets received since the last ACK was sent.
    pub(super) unacknowledged: u32,
    /// An ACK is to be sent without waiting for company.
    pub(super) ack_now: bool,
    pub(super) ack_at: Option<Instant>,
    sent: VecDeque<Sent>,
    largest_acked: Option<u64>,
    pub(super) loss_at: Option<Instant>,
    /// When the last ack-eliciting packet left, or its probe timer fired.
    pub(super) probe_base: Option<Instant>,
    /// Ack-eliciting packets that are owed whatever the congestion window says.
    pub(super) probes: u8,
    pub(super) crypto: CryptoStream,
    pub(super) controls: VecDeque<Control>,
    /// Of application data alone.
    pub(super) streams: Streams,
}

impl PacketSpace {
    pub(super) fn new() -> Self {
        Self {
            keys: None,
            discarded: false,
            next_number: 0,
            received: Ranges::new(32),
            unacknowledged: 0,
            ack_now: false,
            ack_at: None,
            sent: VecDeque::new(),
            largest_acked: None,
            loss_at: None,
            probe_base: None,
            probes: 0,
            crypto: CryptoStream::new(),
            controls: VecDeque::new(),
            streams: Streams::new(),
        }
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    pub(super) fn has_in_flight(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Notes a packet that has been written; only ack-eliciting ones are remembered.
    pub(super) fn on_sent(&mut self, sent: Option<Sent>, acknowledged: bool, now: Instant) {
        self.next_number += 1;
        if acknowledged {
            self.unacknowledged = 0;
            self.ack_now = false;
            self.ack_at = None;
        }
        if let Some(sent) = sent {
            self.probes = self.probes.saturating_sub(1);
            self.probe_base = Some(now);
            self.sent.push_back(sent);
        }
    }

    /// Notes a received packet; `false` if it is a repetition.
    pub(super) fn on_received(&mut self, number: u64) -> bool {
        if self.received.contains(number) {
            return false;
        }
        self.received.insert(number, number + 1);
        true
    }

    /// Plans the ACK of an ack-eliciting packet: every second one of application data, any other at once.
    pub(super) fn plan_ack(&mut self, delayed: bool, now: Instant) {
        self.unacknowledged += 1;
        if !delayed || self.unacknowledged >= 2 {
            self.ack_now = true;
        } else if self.ack_at.is_none() {
            self.ack_at = Some(now + MAX_ACK_DELAY);
        }
    }

    /// Takes what an ACK covers out of flight; `None` if it names a packet never sent.
    pub(super) fn on_ack(&mut self, ack: &Ack<'_>) -> Option<Acked> {
        if ack.largest >= self.next_number {
            return None;
        }
        let mut acked = Acked::default();
        for (low, high) in ack.ranges() {
            let first = self.sent.partition_point(|sent| sent.number < low);
            let last = self.sent.partition_point(|sent| sent.number <= high);
            for sent in self.sent.drain(first..last) {
                acked.bytes += sent.size;
                if sent.number == ack.largest {
                    acked.largest_sent_at = Some(sent.at);
                }
                for control in sent.controls {
                    if let Control::Stream { stream, start, end } = control {
                        self.streams.on_acked(stream, start, end);
                    }
                }
            }
        }
        self.largest_acked = self.largest_acked.max(Some(ack.largest));
        Some(acked)
    }

    /// Declares packets lost (RFC 9002 §6.1), queues again what they carried and returns their number, size and the
    /// time the last of them was sent.
    pub(super) fn detect_losses(
        &mut self,
        loss_delay: Duration,
        now: Instant,
    ) -> (u64, usize, Option<Instant>) {
        self.loss_at = None;
        let Some(largest) = self.largest_acked else {
            return (0, 0, None);
        };
        let (mut count, mut bytes, mut last) = (0, 0, None);
        while let Some(oldest) = self.sent.front().filter(|sent| sent.number < largest) {
            let overdue = oldest.at + loss_delay;
            if oldest.number + PACKET_THRESHOLD > largest && overdue > now {
                self.loss_at = Some(overdue);
                break;
            }
            let Some(lost) = self.sent.pop_front() else { break };
            count += 1;
            bytes += lost.size;
            last = Some(lost.at);
            for control in lost.controls {
                self.requeue(control);
            }
        }
        (count, bytes, last)
    }

    /// Queues again what is under way, for a probe to carry.
    pub(super) fn prepare_probe(&mut self) {
        self.probes = 1;
        for index in 0..self.sent.len() {
            for control in self.sent[index].controls.clone() {
                self.requeue(control);
            }
        }
    }

    fn requeue(&mut self, control: Control) {
        match control {
            Control::Crypto { start, end } => self.crypto.requeue(start, end),
            Control::Stream { stream, start, end } => self.streams.requeue(stream, start, end),
            // An answer is only good at once.
            Control::PathResponse(_) => {}
            Control::HandshakeDone
            | Control::NewCid { .. }
            | Control::RetireCid { .. }
            | Control::MaxStreamData { .. }
            | Control::PathChallenge(_) => {
                if !self.controls.contains(&control) {
                    self.controls.push_back(control);
                }
            }
        }
    }

    /// Forgets keys and everything under way; returns the bytes that leave the flight with it.
    pub(super) fn discard(&mut self) -> usize {
        let bytes = self.sent.iter().map(|sent| sent.size).sum();
        let number = self.next_number;
        *self = Self {
            discarded: true,
            next_number: number,
            ..Self::new()
        };
        bytes
    }
}
