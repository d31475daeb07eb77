//! Loss by time: RACK, and the probe for a lost tail (RFC 8985).

use super::rtt::{MILLISECOND, Micros, Rtt, SECOND};
use super::scoreboard::Delivered;

/// How much longer the peer may delay the acknowledgement of a single segment: most do for 40 ms. Where one takes longer
/// the probe was for nothing, which its acknowledgement shows, and costs one segment.
const DELAYED: Micros = 50 * MILLISECOND;

/// So many segments delivered behind a hole are proof enough while no reordering was seen (RFC 5681).
const DUPLICATES: u32 = 3;

/// Recoveries after which a widened window is narrowed again.
const PERSISTENCE: u32 = 16;

/// The widest window, in quarters of a round trip.
const WIDEST: u32 = 32;

/// What is known about the newest segment delivered, and about reordering.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rack {
    /// When the newest delivered segment was sent, and where it ended.
    newest: Option<(Micros, u64)>,
    rtt: Micros,
    reordering: bool,
    /// The reordering window in quarters of the least round trip.
    quarters: u32,
    persist: u32,
    /// Duplicates were reported in the round that ends here.
    round: Option<u64>,
}

impl Default for Rack {
    fn default() -> Self {
        Self {
            newest: None,
            rtt: 0,
            reordering: false,
            quarters: 1,
            persist: 0,
            round: None,
        }
    }
}

impl Rack {
    /// Segments were delivered (RFC 8985 §6.2 steps 1 to 3). `echoes_older` says whether the acknowledgement's
    /// timestamp proves that it answers something older than a retransmission sent at a time.
    pub(super) fn on_delivered(
        &mut self,
        delivered: &Delivered,
        rtt: &Rtt,
        now: Micros,
        echoes_older: impl Fn(Micros) -> bool,
    ) {
        self.reordering |= delivered.reordered;
        let again = delivered.again.filter(|&(at, _)| {
            let early = rtt.least().is_some_and(|least| now.saturating_sub(at) < least);
            !early && !echoes_older(at)
        });
        if let Some((at, end)) = again.max(delivered.once) {
            self.rtt = now.saturating_sub(at);
            self.newest = self.newest.max(Some((at, end)));
        }
    }

    /// The peer got something twice: what was taken for lost was late (RFC 8985 §6.2 step 4).
    pub(super) fn on_duplicate(&mut self, una: u64, next: u64) {
        self.reordering = true;
        if self.round.is_some_and(|round| una < round) {
            return;
        }
        self.round = Some(next);
        self.quarters = (self.quarters + 1).min(WIDEST);
        self.persist = PERSISTENCE;
    }

    /// What was taken for lost was late.
    pub(super) fn on_undone(&mut self) {
        self.reordering = true;
    }

    /// A recovery has ended.
    pub(super) fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    /// How long after the newest delivered segment an older one may come.
    pub(super) fn window(&self, rtt: &Rtt, recovering: bool, sacked: u32) -> Micros {
        if !self.reordering && (recovering || sacked >= DUPLICATES) {
            return 0;
        }
        let least = rtt.least().unwrap_or(0);
        (least * u64::from(self.quarters) / 4).min(rtt.smoothed().unwrap_or(0))
    }

    /// Whether a segment sent at `at` that ends at `end` is lost; otherwise when it will be, if that is known.
    pub(super) fn judge(
        &self,
        at: Micros,
        end: u64,
        window: Micros,
        now: Micros,
    ) -> Result<(), Option<Micros>> {
        if self.newest.is_none_or(|newest| newest <= (at, end)) {
            return Err(None);
        }
        let deadline = at + self.rtt + window;
        if deadline <= now {
            Ok(())
        } else {
            Err(Some(deadline))
        }
    }
}

/// How long to wait before the tail is probed (RFC 8985 §7.2).
pub(super) fn probe_timeout(rtt: &Rtt, single: bool) -> Micros {
    match rtt.smoothed() {
        None => SECOND,
        // Two milliseconds more, for clocks of that grain.
        Some(smoothed) => 2 * smoothed + if single { DELAYED } else { 2 * MILLISECOND },
    }
}
