//! Two ends, two paths that die and heal, and a thousand packets a second each way, in virtual time.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Change, PathKind, Route, Selector};
use crate::test_origin;
use crate::window::Once;

static ORIGIN: LazyLock<Instant> = LazyLock::new(test_origin::origin);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What is under way.
#[derive(Clone, Copy, Debug)]
enum Flight {
    Packet {
        sequence: u32,
        twice: bool,
    },
    /// A question that carries nothing but wants an acknowledgement.
    Probe,
    Ack,
}

/// One end: it sends a packet a millisecond, and acknowledges everything.
struct End {
    selector: Selector,
    once: Once,
    sent: u32,
    /// When each number came first.
    arrived: BTreeMap<u32, Instant>,
    repeated: u64,
    changes: Vec<(Instant, Change)>,
    /// Packets handed to a path, by kind.
    used: [u64; 2],
}

/// The two ends and what is between them.
struct Pair {
    ends: [End; 2],
    now: Instant,
    flights: BTreeMap<(Instant, u64), (usize, PathKind, Flight)>,
    order: u64,
    /// Whether packets from end i on path k arrive.
    alive: [[bool; 2]; 2],
    rtt: [Duration; 2],
}

const KINDS: [PathKind; 2] = [PathKind::Relayed, PathKind::Direct];

fn slot(kind: PathKind) -> usize {
    match kind {
        PathKind::Relayed => 0,
        PathKind::Direct => 1,
    }
}

impl Pair {
    /// Both paths stand; the direct one is in use.
    fn new(relayed: Duration, direct: Duration) -> Self {
        let end = || {
            let mut selector = Selector::new();
            selector.on_established(PathKind::Relayed, relayed, *ORIGIN);
            assert_eq!(selector.route(), Route::One(PathKind::Relayed));
            selector.on_established(PathKind::Direct, direct, *ORIGIN);
            assert_eq!(selector.poll_change(), Some(Change::Promoted));
            End {
                selector,
                once: Once::default(),
                sent: 0,
                arrived: BTreeMap::new(),
                repeated: 0,
                changes: Vec::new(),
                used: [0; 2],
            }
        };
        Self {
            ends: [end(), end()],
            now: *ORIGIN,
            flights: BTreeMap::new(),
            order: 0,
            alive: [[true; 2]; 2],
            rtt: [relayed, direct],
        }
    }

    fn put(&mut self, from: usize, kind: PathKind, flight: Flight) {
        if self.alive[from][slot(kind)] {
            self.order += 1;
            let at = self.now + self.rtt[slot(kind)] / 2;
            self.flights.insert((at, self.order), (1 - from, kind, flight));
        }
    }

    fn send(&mut self, from: usize) {
        let end = &mut self.ends[from];
        let sequence = end.sent;
        end.sent += 1;
        let (paths, twice) = match end.selector.route() {
            Route::One(kind) => (vec![kind], false),
            Route::Both => (KINDS.to_vec(), true),
            Route::Nowhere => (vec![], false),
        };
        for kind in paths {
            self.ends[from].selector.on_sent(kind, self.now);
            self.ends[from].used[slot(kind)] += 1;
            self.put(from, kind, Flight::Packet { sequence, twice });
        }
    }

    fn receive(&mut self, to: usize, kind: PathKind, flight: Flight) {
        let (now, rtt) = (self.now, self.rtt[slot(kind)]);
        let end = &mut self.ends[to];
        match flight {
            Flight::Ack => return end.selector.on_acknowledged(kind, rtt, now),
            Flight::Probe => {}
            Flight::Packet { sequence, twice } => {
                if !twice || end.once.take(sequence) {
                    let first = end.arrived.insert(sequence, now).is_none();
                    assert!(first, "{sequence} came through twice");
                } else {
                    end.repeated += 1;
                }
            }
        }
        // Acknowledgements go the way back of the same path.
        self.put(to, kind, Flight::Ack);
    }

    /// Every millisecond: what is due, and one packet of each end if there is traffic.
    fn run(&mut self, span: Duration, traffic: bool) {
        let end = self.now + span;
        while self.now < end {
            self.now += ms(1);
            while let Some(entry) = self.flights.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, kind, flight) = entry.remove();
                self.receive(to, kind, flight);
            }
            for side in 0..2 {
                let now = self.now;
                self.ends[side].selector.handle_timeout(now);
                if self.ends[side].selector.poll_probe() {
                    self.ends[side].selector.on_sent(PathKind::Direct, now);
                    self.put(side, PathKind::Direct, Flight::Probe);
                }
                while let Some(change) = self.ends[side].selector.poll_change() {
                    self.ends[side].changes.push((now, change));
                }
                let selector = &self.ends[side].selector;
                assert!(!selector.has_output());
                assert!(
                    selector.poll_timeout().is_none_or(|at| at > now),
                    "asks again: {selector:?}"
                );
                if traffic {
                    self.send(side);
                }
            }
        }
    }

    /// The longest time without a new packet at an end.
    fn gap(&self, side: usize) -> Duration {
        let mut times: Vec<Instant> = self.ends[side].arrived.values().copied().collect();
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    fn routes(&self) -> [Route; 2] {
        [0, 1].map(|side: usize| self.ends[side].selector.route())
    }

    fn changes(&self, side: usize) -> Vec<Change> {
        self.ends[side]
            .changes
            .iter()
            .map(|(_, change)| *change)
            .collect()
    }

    fn kill_direct(&mut self, ways: [bool; 2]) {
        for (side, dead) in ways.into_iter().enumerate() {
            self.alive[side][1] &= !dead;
        }
    }
}

const DIRECT: Route = Route::One(PathKind::Direct);
const RELAYED: Route = Route::One(PathKind::Relayed);

/// The contract of failover (docs/wire.md, and what users feel): the gap, the return, and nobody sees a packet twice.
#[test]
fn a_dead_direct_path_is_left_in_time_and_taken_again_when_it_heals() {
    for (relayed, direct) in [(20, 10), (40, 20), (100, 90), (300, 200), (5, 1)] {
        for ways in [[true, true], [true, false], [false, true]] {
            let mut pair = Pair::new(ms(relayed), ms(direct));
            pair.run(ms(2000), true);
            assert_eq!(pair.routes(), [DIRECT; 2]);
            assert_eq!(pair.ends[0].used[0], 0, "nothing goes twice in peace");
            pair.kill_direct(ways);
            pair.run(ms(4000), true);
            assert_eq!(pair.routes(), [RELAYED; 2], "whichever way died");
            let bound = ms(100).max(3 * ms(direct)) + ms(relayed - direct) / 2 + ms(1);
            for side in 0..2 {
                assert!(
                    pair.gap(side) <= bound,
                    "{:?} of {bound:?} at {relayed}/{direct}, {ways:?}",
                    pair.gap(side)
                );
            }
            pair.alive = [[true; 2]; 2];
            let healed = pair.now;
            pair.run(ms(3000), true);
            assert_eq!(pair.routes(), [DIRECT; 2]);
            for side in 0..2 {
                let returned = pair.ends[side]
                    .changes
                    .iter()
                    .find(|(_, change)| *change == Change::Returning);
                let (at, _) = returned.unwrap();
                assert!(*at - healed <= ms(1000), "{:?}", *at - healed);
                assert!(pair.gap(side) <= bound, "the way back is not felt");
                assert_eq!(
                    pair.changes(side),
                    [
                        Change::Doubted,
                        Change::Abandoned,
                        Change::Returning,
                        Change::Recovered
                    ]
                );
            }
        }
    }
}

#[test]
fn a_short_silence_costs_duplicates_and_nothing_else() {
    let mut pair = Pair::new(ms(40), ms(20));
    pair.run(ms(1000), true);
    pair.kill_direct([true, true]);
    pair.run(ms(200), true);
    assert_eq!(pair.routes(), [Route::Both; 2]);
    pair.alive = [[true; 2]; 2];
    pair.run(ms(1000), true);
    assert_eq!(pair.routes(), [DIRECT; 2]);
    assert_eq!(pair.changes(0), [Change::Doubted, Change::Recovered]);
    assert!(pair.ends[0].repeated > 0, "both copies came, one was taken");
}

#[test]
fn a_path_that_is_gone_for_long_is_asked_rarely() {
    let mut pair = Pair::new(ms(40), ms(20));
    pair.kill_direct([true, true]);
    pair.run(ms(60_000), true);
    let before = pair.ends[0].selector.stats().probes;
    assert!((70..120).contains(&before), "{before} in the first minute");
    pair.run(ms(100_000), true);
    let later = pair.ends[0].selector.stats().probes - before;
    assert!((18..25).contains(&later), "{later} in 100 s");
    let direct = pair.ends[0].used[1];
    pair.run(ms(1000), true);
    assert_eq!(
        pair.ends[0].used[1], direct,
        "no packet goes to a path that is believed dead"
    );
}

#[test]
fn an_idle_path_is_not_doubted() {
    let mut pair = Pair::new(ms(40), ms(20));
    pair.run(ms(1000), true);
    pair.run(ms(60_000), false);
    assert_eq!(pair.routes(), [DIRECT; 2]);
    assert_eq!(pair.changes(0), []);
    pair.run(ms(1000), true);
    assert_eq!(pair.changes(0), []);
}

#[test]
fn without_another_path_a_silent_one_is_kept() {
    let mut pair = Pair::new(ms(40), ms(20));
    for end in &mut pair.ends {
        end.selector.on_closed(PathKind::Relayed);
    }
    pair.kill_direct([true, true]);
    pair.run(ms(5000), true);
    assert_eq!(pair.routes(), [DIRECT; 2]);
    pair.alive = [[true; 2]; 2];
    pair.run(ms(1000), true);
    assert_eq!(pair.routes(), [DIRECT; 2]);
}

#[test]
fn a_connection_that_ends_takes_its_path_along() {
    let mut selector = Selector::new();
    assert_eq!(selector.route(), Route::Nowhere);
    selector.on_established(PathKind::Direct, ms(10), *ORIGIN);
    selector.on_established(PathKind::Relayed, ms(10), *ORIGIN);
    selector.on_closed(PathKind::Direct);
    assert_eq!(selector.route(), RELAYED);
    assert_eq!(selector.poll_timeout(), None);
    selector.on_closed(PathKind::Relayed);
    assert_eq!(selector.route(), Route::Nowhere);
    let changes: Vec<Change> = std::iter::from_fn(|| selector.poll_change()).collect();
    assert_eq!(changes, [Change::Promoted, Change::Lost, Change::Lost]);
}

#[test]
fn a_failed_check_is_doubt_enough() {
    let mut selector = Selector::new();
    selector.on_established(PathKind::Relayed, ms(10), *ORIGIN);
    selector.on_established(PathKind::Direct, ms(10), *ORIGIN);
    selector.on_check_failed(*ORIGIN);
    assert_eq!(selector.route(), Route::Both);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// However the paths die and heal: no packet comes through twice (asserted at each arrival), while a path lives the
    /// receivers get packets again within the bound, and when all is well the direct path is in use.
    #[test]
    fn it_settles_after_any_faults(
        relayed in 2u64..200, direct in 1u64..200,
        faults in prop::collection::vec((any::<bool>(), any::<bool>(), 1u64..2500), 0..8),
    ) {
        let mut pair = Pair::new(ms(relayed), ms(direct));
        for (there, back, span) in faults {
            pair.alive[0][1] = there;
            pair.alive[1][1] = back;
            pair.run(ms(span), true);
        }
        pair.alive = [[true; 2]; 2];
        pair.run(ms(3000) + 8 * ms(direct), true);
        prop_assert_eq!(pair.routes(), [DIRECT; 2]);
        let bound = ms(100).max(3 * ms(direct)) + ms(relayed.abs_diff(direct)) / 2 + ms(2);
        for side in 0..2 {
            // A path that dies again while it is being trusted again can cost a second time.
            prop_assert!(pair.gap(side) <= 2 * bound, "{:?}", pair.gap(side));
        }
    }
}
