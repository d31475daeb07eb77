//! The next packet for the peer.

use std::ops::Range;
use std::time::Instant;

use smoltcp::wire::TcpControl;

use super::congestion::Congestion;
use super::pacer::Pace;
use super::recovery::Probe;
use super::rtt::Micros;
use super::segment::{Header, Options};
use super::timers::Timer;
use super::{Connection, State};
use crate::routing::packet;

/// The least MTU of an IPv4 host that is asked to make segments; less than that is taken for this.
const LEAST_MTU: usize = 576;

/// No IPv6 path carries less (RFC 8200 §5).
const LEAST_MTU_V6: usize = 1280;

/// Segments at the beginning that are not paced: the initial window (RFC 6928).
const UNPACED_SEGMENTS: u64 = 10;

const TCP_HEADER: usize = 20;

/// The options of a segment with timestamps, and with as many blocks as fit beside them.
const TIMESTAMP: usize = 12;
const BLOCKS: usize = 28;

impl Connection {
    /// The next packet for the peer, not longer than `mtu` (if that is at least 576); call it only while the tunnel has
    /// room.
    pub fn send(&mut self, mtu: usize, now: Instant) -> Option<Vec<u8>> {
        let now = self.advance(now);
        let mtu = self.path_mtu.map_or(mtu, |path| mtu.min(path)).max(LEAST_MTU);
        if let Some(sequence) = self.refusal.take() {
            return self.write(TcpControl::Rst, sequence, None, Options::default(), 0..0);
        }
        if std::mem::take(&mut self.reset_due) {
            let sequence = self.number(self.next);
            let acknowledged = Some(self.rx.acknowledgement());
            return self.write(TcpControl::Rst, sequence, acknowledged, Options::default(), 0..0);
        }
        match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => self.send_syn(mtu, now),
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self.send_segment(mtu, now),
        }
    }

    /// ICMP says that the path carries no more than `mtu` of a segment that began at `sequence`. Believed only of a segment
    /// that is under way (RFC 5927 §7.2), for the rest of the connection; what was too long is lost and sent again.
    pub fn on_too_big(&mut self, mtu: usize, sequence: u32) {
        let behind = sequence.wrapping_sub(self.number(self.una));
        if u64::from(behind) >= self.next - self.una {
            return;
        }
        let least = if self.flow.source.is_ipv4() {
            LEAST_MTU
        } else {
            LEAST_MTU_V6
        };
        let mtu = mtu.max(least);
        if self.path_mtu.is_some_and(|known| known <= mtu) {
            return;
        }
        self.path_mtu = Some(mtu);
        // What timed out did so for its length: the next timeout, seconds away by now, has nothing to add. In a flow that
        // runs, the losses are noticed like others.
        if self.rtt.has_backed_off() {
            self.rtt.relax();
            self.board.give_up_all();
            self.timer = None;
        }
    }

    fn send_syn(&mut self, mtu: usize, now: Micros) -> Option<Vec<u8>> {
        let again = self.next > 0;
        if again {
            self.board.next_lost(1)?;
        }
        let answers = self.state == State::SynReceived;
        let mut options = Options {
            mss: u16::try_from(mtu - self.ip_header() - TCP_HEADER).ok(),
            scale: Some(self.rx.scale()),
            sack_permitted: self.sack,
            ..self.options(now)
        };
        if answers {
            options.scale = options.scale.filter(|_| self.peer_scale.is_some());
        }
        let acknowledged = answers.then(|| self.rx.acknowledgement());
        let packet = self.write(TcpControl::Syn, self.initial, acknowledged, options, 0..0)?;
        self.on_sent(0..1, again, now);
        if answers {
            self.on_acknowledged();
        }
        Some(packet)
    }

    fn send_segment(&mut self, mtu: usize, now: Micros) -> Option<Vec<u8>> {
        self.paced = None;
        if !self.sack && self.owed > 0 {
            return self.send_acknowledgement();
        }
        let mss = self.mss(mtu);
        match self.next {
            // Nothing but the SYN was sent.
            0 | 1 => {
                let (algorithm, smoothed) = (self.config.congestion, self.rtt.smoothed());
                self.congestion = Congestion::new(algorithm, mss as u64, smoothed, self.initial);
            }
            _ => self.congestion.set_mss(mss as u64),
        }
        let most = mss
            - if self.sack && self.rx.has_blocks() {
                BLOCKS
            } else {
                0
            };
        if let Some(range) = self.next_lost(most, now) {
            return self.transmit(range, true, now);
        }
        match self.due.take() {
            Some(Timer::Tail) => {
                if let Some((range, again)) = self.tail(most) {
                    self.stats.probes += 1;
                    self.probe = Some(Probe {
                        end: self.next.max(range.end),
                        again: again.then_some(now),
                    });
                    return self.transmit(range, again, now);
                }
                self.arm(now);
            }
            Some(Timer::Persist) if self.board.is_empty() => {
                if let Some(range) = self.new_data(most) {
                    // Too little for a whole segment, but the peer has had time to say more.
                    return self.transmit(range, false, now);
                }
                self.persist(now);
                return self.ask();
            }
            Some(Timer::KeepAlive) => return self.ask(),
            Some(Timer::Persist | Timer::Retransmit | Timer::Reorder) | None => {}
        }
        if let Some(range) = self.next_new(most, now) {
            return self.transmit(range, false, now);
        }
        self.send_acknowledgement()
    }

    /// A lost segment, if the window allows it.
    fn next_lost(&mut self, most: usize, now: Micros) -> Option<Range<u64>> {
        let pipe = self.board.pipe();
        if !self.board.has_lost() || (pipe > 0 && pipe >= self.congestion.window()) {
            return None;
        }
        if !self.is_time(now) {
            return None;
        }
        self.board.next_lost(most as u64)
    }

    /// What a tail loss probe carries: new data if the peer has room for it, or the last segment again.
    fn tail(&mut self, most: usize) -> Option<(Range<u64>, bool)> {
        match self.new_data(most) {
            Some(range) => Some((range, false)),
            None => self.board.tail(most as u64).map(|range| (range, true)),
        }
    }

    /// The next `most` bytes that were never sent, and the end behind them, as far as the peer has room.
    fn new_data(&self, most: usize) -> Option<Range<u64>> {
        let left = self.written.checked_sub(self.next)?;
        let room = self.edge.saturating_sub(self.next);
        let len = left.min(room).min(most as u64);
        // The end takes a place in the window, but none in the segment.
        let ends = self.finishing && len == left && room > len;
        let end = self.next + len + u64::from(ends);
        (self.next < end).then_some(self.next..end)
    }

    /// The rate at which to send. The first window goes at once, as everywhere where pacing is done: an answer that fits
    /// into it is not worth a delay.
    fn pace(&self) -> Option<Pace> {
        let paced = self.next > UNPACED_SEGMENTS * self.peer_mss as u64;
        self.congestion.pace().filter(|_| paced)
    }

    /// Whether the pacing lets a segment go now.
    fn is_time(&mut self, now: Micros) -> bool {
        let Some(pace) = self.pace() else { return true };
        self.paced = self.pacer.ask(pace, now).err();
        self.paced.is_none()
    }

    /// The owner has less to send than the window allows: what is delivered now does not show what the path carries.
    fn note_limit(&mut self, most: usize) {
        let pipe = self.board.pipe();
        let little = self.written.saturating_sub(self.next) < most as u64;
        if little && !self.board.has_lost() && pipe + most as u64 <= self.congestion.window() {
            self.delivery.on_app_limited(pipe);
            self.pacer.rest();
        }
    }

    /// New data, if both windows allow it and it is worth a segment (RFC 9293 §3.8.6.2.1).
    fn next_new(&mut self, most: usize, now: Micros) -> Option<Range<u64>> {
        let Some(range) = self.new_data(most) else {
            self.note_limit(most);
            self.persist(now);
            return None;
        };
        let len = range.end - range.start;
        let all = range.end >= self.written;
        let pipe = self.board.pipe();
        let worth = all || len >= most as u64 || len >= self.widest / 2;
        if !worth {
            self.note_limit(most);
            self.persist(now);
            return None;
        }
        if pipe == 0 && now.saturating_sub(self.sent) > self.rtt.timeout() && self.board.is_empty() {
            self.congestion.on_idle();
        }
        if pipe > 0 && pipe + len > self.congestion.window() {
            self.limited_until = self.next;
            return None;
        }
        if !self.is_time(now) {
            return None;
        }
        if 2 * pipe >= self.congestion.window() && self.congestion.in_slow_start() {
            self.limited_until = self.next;
        }
        Some(range)
    }

    /// Sends a range of the stream.
    fn transmit(&mut self, range: Range<u64>, again: bool, now: Micros) -> Option<Vec<u8>> {
        let control = if range.end > self.written {
            TcpControl::Fin
        } else if range.end == self.written {
            TcpControl::Psh
        } else {
            TcpControl::None
        };
        let mut options = self.options(now);
        options.blocks = self.blocks();
        let acknowledged = Some(self.rx.acknowledgement());
        let sequence = self.number(range.start);
        let data = range.start..range.end.min(self.written);
        let packet = self.write(control, sequence, acknowledged, options, data)?;
        self.on_sent(range, again, now);
        self.on_acknowledged();
        Some(packet)
    }

    fn on_sent(&mut self, range: Range<u64>, again: bool, now: Micros) {
        let quiet = self.board.pipe() == 0;
        if quiet || self.board.first().is_some_and(|first| first.start == range.start) {
            self.since = now;
        }
        let len = range.end - range.start;
        if quiet && self.delivery.is_app_limited() {
            self.congestion.on_restart(self.delivery.delivered(), now);
        }
        let stamp = self.delivery.stamp(self.board.pipe(), len, now);
        if let Some(pace) = self.pace() {
            self.pacer.on_sent(len, pace, now);
        }
        if again {
            self.stats.retransmits += 1;
            self.board.sent_again(range.start, now, stamp);
        } else {
            self.next = range.end;
            self.board.push(range.clone(), now, stamp);
        }
        if let Some(episode) = &mut self.episode {
            episode.on_sent(len, again, now);
        }
        self.sent = now;
        self.moved = now;
        self.arm(now);
    }

    /// An acknowledgement alone, if one is due.
    fn send_acknowledgement(&mut self) -> Option<Vec<u8>> {
        if self.owed == 0 {
            return None;
        }
        let owed = self.owed - 1;
        let packet = self.last_word();
        self.on_acknowledged();
        self.owed = owed;
        packet
    }

    /// An acknowledgement of everything that has come; to be repeated when the peer repeats its end after this end has
    /// forgotten everything else.
    pub fn last_word(&mut self) -> Option<Vec<u8>> {
        let mut options = self.options(self.now);
        options.blocks = self.blocks();
        let acknowledged = Some(self.rx.acknowledgement());
        self.write(
            TcpControl::None,
            self.number(self.next),
            acknowledged,
            options,
            0..0,
        )
    }

    /// Asks the peer to say where it is: an acknowledgement from before the window (RFC 9293 §3.8.4).
    fn ask(&mut self) -> Option<Vec<u8>> {
        let options = self.options(self.now);
        let acknowledged = Some(self.rx.acknowledgement());
        let sequence = self.number(self.una).wrapping_sub(1);
        let packet = self.write(TcpControl::None, sequence, acknowledged, options, 0..0);
        self.on_acknowledged();
        packet
    }

    fn on_acknowledged(&mut self) {
        self.owed = 0;
        self.delayed = None;
        self.acknowledged = self.rx.next();
    }

    fn options(&self, now: Micros) -> Options {
        Options {
            timestamp: self
                .timestamps
                .map(|timestamps| (self.timestamp(now), timestamps.recent)),
            ..Options::default()
        }
    }

    fn blocks(&mut self) -> [Option<(u32, u32)>; 3] {
        if self.sack { self.rx.blocks() } else { [None; 3] }
    }

    fn ip_header(&self) -> usize {
        if self.flow.source.is_ipv4() { 20 } else { 40 }
    }

    /// The payload of a full segment.
    fn mss(&self, mtu: usize) -> usize {
        let options = if self.timestamps.is_some() { TIMESTAMP } else { 0 };
        (mtu - self.ip_header() - TCP_HEADER).min(self.peer_mss) - options
    }

    pub(super) fn number(&self, offset: u64) -> u32 {
        self.initial.wrapping_add(offset as u32)
    }

    fn write(
        &mut self,
        control: TcpControl,
        sequence: u32,
        acknowledgement: Option<u32>,
        options: Options,
        data: Range<u64>,
    ) -> Option<Vec<u8>> {
        let window = match control {
            TcpControl::Syn => self.rx.announce_first(),
            TcpControl::Rst => 0,
            TcpControl::None | TcpControl::Psh | TcpControl::Fin => self.rx.announce(),
        };
        let header = Header {
            control,
            sequence,
            acknowledgement,
            window,
            options,
        };
        let front = self.written - self.ring.len() as u64;
        let offset = data.start.saturating_sub(front) as usize;
        let payload = self
            .ring
            .pieces(offset, data.end.saturating_sub(data.start) as usize);
        let mut packet = Vec::new();
        packet::tcp(&self.flow, &header.repr(&self.flow), payload, &mut packet).then_some(packet)
    }
}
