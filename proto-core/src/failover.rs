//! Which of two paths packets take: the relayed one, the direct one, or both for a moment.
//!
//! A [`Selector`] belongs to one end of a session and decides for what this end sends; the other end decides for itself. It sees
//! three things of a path: packets go out, acknowledgements come in, and the connection on it comes and goes.
//!
//! ```text
//!              established                    no acknowledgement for `patience`
//!   Relayed ───────────────► Direct ────────────────────────────────► Both
//!      ▲                       ▲     acknowledged for `SETTLE` again    │
//!      │                       └────────────────────────────────────────┤
//!      │                            silent for `HOPELESS`               │
//!      └────────────────────────────────────────────────────────────────┘
//!         and the silent path is asked (with back-off) until it answers: then Both again, then Direct
//! ```
//! A false alarm costs packets sent twice for a moment, a late one costs packets: so the alarm comes early. Nothing is
//! queued for a path that is believed dead; what it held when it died was sent on the other as well, or is lost, and whoever
//! speaks through the tunnel repeats it.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

/// Beyond one and a quarter round trips: what an acknowledgement may take because it waits for company, and because hosts are
/// busy. After the alarm the first echo still needs a round trip through the relay, and the two together shall be no longer
/// than 100 ms where direct round trips take 20.
const SLACK: Duration = Duration::from_millis(20);

/// The alarm never comes earlier: on short paths it is the hosts that are late, and sending twice makes them later.
const LEAST_PATIENCE: Duration = Duration::from_millis(25);

/// Least time of steady acknowledgements after which a path in doubt is trusted alone again.
const SETTLE: Duration = Duration::from_millis(150);

/// Least time of silence in doubt after which a path is believed dead.
const HOPELESS: Duration = Duration::from_millis(500);

/// Between two questions to a path that is believed dead, at first, …
const PROBE_FIRST: Duration = Duration::from_millis(400);

/// … for so long, …
const PROBE_EAGERLY: Duration = Duration::from_secs(30);

/// … and then growing by half to this: 0.2 packets per second.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// One of the two paths of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathKind {
    /// Through a channel of the intermediate.
    Relayed,
    /// Straight between the hosts.
    Direct,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On one path, bare.
    One(PathKind),
    /// On both paths, with a sequence number.
    Both,
    /// There is no path: drop it.
    Nowhere,
}

/// Why the route changed; for people and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A direct path came to be.
    Promoted,
    /// The direct path shows distress: both are used.
    Doubted,
    /// The direct path has proved itself again.
    Recovered,
    /// The direct path is believed dead.
    Abandoned,
    /// A path that was believed dead has answered: both are used until it has proved itself.
    Returning,
    /// The connection on the path in use is over.
    Lost,
}

/// Counters of a selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelectorStats {
    /// Times that packets began to be sent twice.
    pub doubted: u64,
    /// Times that the direct path was given up for the relayed one.
    pub abandoned: u64,
    /// Times that the direct path was taken into use, again or for the first time.
    pub promoted: u64,
    /// Questions to a path that was believed dead.
    pub probes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Path {
    rtt: Duration,
    /// The first packet since the last acknowledgement.
    unanswered: Option<Instant>,
}

impl Path {
    /// How long an acknowledgement may take before the path is in doubt. Never above max(3 RTT, 100 ms).
    fn patience(&self) -> Duration {
        (self.rtt + self.rtt / 4 + SLACK).max(LEAST_PATIENCE)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The relayed path, if there is one; the direct one does not exist.
    Relayed,
    Direct,
    /// Both, since then; the direct path has been acknowledging again since `steady`.
    Both {
        since: Instant,
        steady: Option<Instant>,
    },
    /// The relayed path, while the direct one is asked whether it lives.
    Abandoned {
        since: Instant,
        probe_at: Instant,
        interval: Duration,
    },
}

/// Chooses between the paths of a session, for one end.
#[derive(Debug)]
pub struct Selector {
    relayed: Option<Path>,
    direct: Option<Path>,
    mode: Mode,
    changes: Vec<Change>,
    probe: bool,
    stats: SelectorStats,
}

/// Most changes that are kept for the owner.
const CHANGES: usize = 16;

impl Default for Selector {
    fn default() -> Self {
        Self::new()
    }
}

impl Selector {
    /// A selector without paths.
    pub fn new() -> Self {
        Self {
            relayed: None,
            direct: None,
            mode: Mode::Relayed,
            changes: Vec::with_capacity(CHANGES),
            probe: false,
            stats: SelectorStats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> SelectorStats {
        self.stats
    }

    /// Where the next packet goes.
    pub fn route(&self) -> Route {
        match (self.mode, self.relayed, self.direct) {
            (Mode::Both { .. }, Some(_), Some(_)) => Route::Both,
            (Mode::Direct | Mode::Both { .. }, _, Some(_)) | (_, None, Some(_)) => {
                Route::One(PathKind::Direct)
            }
            (_, Some(_), _) => Route::One(PathKind::Relayed),
            (_, None, None) => Route::Nowhere,
        }
    }

    /// A connection on this path is established, in place of any other on a path of this kind.
    pub fn on_established(&mut self, kind: PathKind, rtt: Duration, _now: Instant) {
        let path = Some(Path {
            rtt,
            unanswered: None,
        });
        match kind {
            PathKind::Relayed => self.relayed = path,
            PathKind::Direct => {
                self.direct = path;
                self.mode = Mode::Direct;
                self.stats.promoted += 1;
                self.tell(Change::Promoted);
            }
        }
    }

    /// The connection on this path is over.
    pub fn on_closed(&mut self, kind: PathKind) {
        let used = match self.route() {
            Route::One(used) => used == kind,
            Route::Both => true,
            Route::Nowhere => false,
        };
        match kind {
            PathKind::Relayed => self.relayed = None,
            PathKind::Direct => {
                self.direct = None;
                self.mode = Mode::Relayed;
                self.probe = false;
            }
        }
        if used {
            self.tell(Change::Lost);
        }
    }

    /// A packet was handed to the connection on this path. `true` if a wait for its acknowledgement begins with it.
    pub fn on_sent(&mut self, kind: PathKind, now: Instant) -> bool {
        let path = self.path_mut(kind).filter(|path| path.unanswered.is_none());
        let begins = path.is_some();
        if let Some(path) = path {
            path.unanswered = Some(now);
        }
        begins
    }

    /// The peer has acknowledged something that was sent on this path.
    pub fn on_acknowledged(&mut self, kind: PathKind, rtt: Duration, now: Instant) {
        let Some(path) = self.path_mut(kind) else {
            return;
        };
        path.rtt = rtt;
        path.unanswered = None;
        if kind == PathKind::Relayed {
            return;
        }
        match &mut self.mode {
            Mode::Both { steady, .. } => {
                steady.get_or_insert(now);
            }
            Mode::Abandoned { .. } => {
                self.mode = Mode::Both {
                    since: now,
                    steady: Some(now),
                };
                self.tell(Change::Returning);
            }
            Mode::Relayed | Mode::Direct => {}
        }
    }

    /// How long an acknowledgement of the direct path may take before it is in doubt; `None` if there is none.
    pub fn patience(&self) -> Option<Duration> {
        self.direct.as_ref().map(Path::patience)
    }

    /// A connectivity check on the direct path stayed unanswered, or the peer's packets do not arrive on it.
    pub fn on_check_failed(&mut self, now: Instant) {
        if self.mode == Mode::Direct {
            self.doubt(now);
        }
    }

    /// When [`Selector::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let direct = self.direct?;
        let doubt = direct.unanswered.map(|at| at + direct.patience());
        match self.mode {
            Mode::Relayed => None,
            Mode::Direct => doubt,
            Mode::Both { since, steady: None } => Some(since + self.hopeless(direct)),
            Mode::Both {
                steady: Some(steady), ..
            } => {
                let settled = steady + Self::settle(direct);
                Some(doubt.map_or(settled, |doubt| doubt.min(settled)))
            }
            Mode::Abandoned { probe_at, .. } => Some(probe_at),
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(direct) = self.direct else {
            return;
        };
        let doubtful = direct.unanswered.is_some_and(|at| at + direct.patience() <= now);
        match self.mode {
            Mode::Direct if doubtful => self.doubt(now),
            Mode::Both { since, steady: None } if since + self.hopeless(direct) <= now => {
                // With nothing to fall back on, a silent path is better than none.
                if self.relayed.is_none() {
                    self.mode = Mode::Both {
                        since: now,
                        steady: None,
                    };
                    return;
                }
                self.stats.abandoned += 1;
                self.mode = Mode::Abandoned {
                    since: now,
                    probe_at: now,
                    interval: PROBE_FIRST,
                };
                self.tell(Change::Abandoned);
                self.handle_timeout(now);
            }
            Mode::Both { steady: Some(_), .. } if doubtful => {
                // It answered, and stopped: from the beginning.
                self.mode = Mode::Both {
                    since: now,
                    steady: None,
                };
                self.forget_unanswered();
            }
            Mode::Both {
                steady: Some(steady), ..
            } if steady + Self::settle(direct) <= now => {
                self.mode = Mode::Direct;
                self.stats.promoted += 1;
                self.tell(Change::Recovered);
            }
            Mode::Abandoned {
                since,
                probe_at,
                interval,
            } if probe_at <= now => {
                let eager = now < since + PROBE_EAGERLY;
                let next = if eager {
                    interval
                } else {
                    (interval * 3 / 2).min(PROBE_MAX)
                };
                self.mode = Mode::Abandoned {
                    since,
                    probe_at: now + next,
                    interval: next,
                };
                self.probe = true;
                self.stats.probes += 1;
            }
            Mode::Relayed | Mode::Direct | Mode::Both { .. } | Mode::Abandoned { .. } => {}
        }
    }

    /// Whether the direct connection shall ask its peer for a sign of life now.
    pub fn poll_probe(&mut self) -> bool {
        std::mem::take(&mut self.probe)
    }

    /// The next change of the route.
    pub fn poll_change(&mut self) -> Option<Change> {
        (!self.changes.is_empty()).then(|| self.changes.remove(0))
    }

    /// Whether there is something to take without waiting.
    pub fn has_output(&self) -> bool {
        self.probe || !self.changes.is_empty()
    }

    fn doubt(&mut self, now: Instant) {
        self.mode = Mode::Both {
            since: now,
            steady: None,
        };
        self.stats.doubted += 1;
        self.forget_unanswered();
        self.tell(Change::Doubted);
    }

    /// From here on only what is sent from here on counts.
    fn forget_unanswered(&mut self) {
        if let Some(direct) = &mut self.direct {
            direct.unanswered = None;
        }
    }

    fn settle(direct: Path) -> Duration {
        SETTLE.max(direct.rtt * 2)
    }

    fn hopeless(&self, direct: Path) -> Duration {
        HOPELESS.max(direct.rtt * 6)
    }

    fn path_mut(&mut self, kind: PathKind) -> Option<&mut Path> {
        match kind {
            PathKind::Relayed => self.relayed.as_mut(),
            PathKind::Direct => self.direct.as_mut(),
        }
    }

    fn tell(&mut self, change: Change) {
        if self.changes.len() < CHANGES {
            self.changes.push(change);
        }
    }
}
