//! An end of ours, and the application above either kind.

use std::time::{Duration, Instant};

use super::smol::Smol;
use crate::routing::packet::{self, FiveTuple};
use crate::tcp::{Budget, Config, Connection, Segment, State};

/// What is written, and how fast what comes is taken.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Application {
    pub(in super::super) sent: Vec<u8>,
    pub(in super::super) written: usize,
    /// Ends its stream when everything is written.
    pub(in super::super) closes: bool,
    /// Only after the other has ended.
    pub(in super::super) closes_last: bool,
    pub(in super::super) received: Vec<u8>,
    pub(in super::super) peer_ended: bool,
    /// Bytes taken in each interval; `None` takes everything at once.
    pub(in super::super) appetite: Option<(usize, Duration)>,
    pub(in super::super) next_meal: Option<Instant>,
}

impl Application {
    pub(in super::super) fn sends(sent: Vec<u8>) -> Self {
        Self {
            sent,
            closes: true,
            ..Self::default()
        }
    }

    /// How much may be taken now.
    pub(super) fn budget(&mut self, now: Instant) -> usize {
        match self.appetite {
            None => usize::MAX,
            Some(_) if self.next_meal.is_some_and(|at| at > now) => 0,
            Some((bytes, each)) => {
                self.next_meal = Some(now + each);
                bytes
            }
        }
    }

    pub(super) fn wants_to_close(&self) -> bool {
        let last = !self.closes_last || self.peer_ended;
        self.closes && last && self.written == self.sent.len()
    }
}

pub(in super::super) enum End {
    Ours(Box<Ours>),
    Smol(Box<Smol>),
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, application) = match self {
            Self::Ours(ours) => (format!("{:#?}", ours.connection), &ours.application),
            Self::Smol(smol) => (format!("{:?}", smol.state()), &smol.application),
        };
        let (written, received) = (application.written, application.received.len());
        write!(f, "{kind} wrote {written}, received {received}")
    }
}

impl End {
    pub(super) fn receive(&mut self, packet: Vec<u8>, now: Instant, begun: Instant) {
        match self {
            Self::Ours(ours) => ours.receive(&packet, now),
            Self::Smol(smol) => smol.receive(packet, now - begun),
        }
    }

    pub(super) fn work(&mut self, now: Instant, begun: Instant) {
        match self {
            Self::Ours(ours) => ours.work(now),
            Self::Smol(smol) => smol.work(now, now - begun),
        }
    }

    pub(super) fn send(&mut self, mtu: usize, now: Instant, begun: Instant) -> Option<Vec<u8>> {
        match self {
            Self::Ours(ours) => ours.connection.as_mut()?.send(mtu, now),
            Self::Smol(smol) => smol.send(now - begun),
        }
    }

    pub(super) fn next(&mut self, now: Instant, begun: Instant) -> Option<Instant> {
        let meal = match self.application() {
            application if application.appetite.is_some() => application.next_meal.filter(|at| *at > now),
            _ => None,
        };
        let own = match self {
            Self::Ours(ours) => ours.connection.as_ref().and_then(|it| it.poll_timeout()),
            Self::Smol(smol) => smol
                .next(now - begun)
                .map(|at| (begun + at).max(now + super::MILLI)),
        };
        if let (Self::Ours(ours), Some(own)) = (&*self, own) {
            let resting = ours.held_back || own > now;
            assert!(
                resting,
                "a drained connection asks for no wake-up at the same instant: {ours:?}"
            );
        }
        own.into_iter().chain(meal).min()
    }

    pub(in super::super) fn application(&self) -> &Application {
        match self {
            Self::Ours(ours) => &ours.application,
            Self::Smol(smol) => &smol.application,
        }
    }

    pub(in super::super) fn application_mut(&mut self) -> &mut Application {
        match self {
            Self::Ours(ours) => &mut ours.application,
            Self::Smol(smol) => &mut smol.application,
        }
    }

    /// Closed in both directions, with everything taken.
    pub(in super::super) fn is_closed(&mut self) -> bool {
        match self {
            Self::Ours(ours) => ours
                .connection
                .as_ref()
                .is_some_and(|it| it.is_over() && it.readable() == 0),
            Self::Smol(smol) => smol.is_closed(),
        }
    }
}

/// An end of ours.
#[derive(Debug)]
pub(in super::super) struct Ours {
    pub(in super::super) connection: Option<Connection>,
    pub(in super::super) application: Application,
    config: Config,
    budget: Budget,
    finished: bool,
    pub(in super::super) held_back: bool,
}

impl Ours {
    pub(super) fn new(
        flow: FiveTuple,
        calls: bool,
        config: Config,
        budget: &Budget,
        application: Application,
        now: Instant,
    ) -> Self {
        Self {
            // Close to where numbers wrap.
            connection: calls.then(|| Connection::connect(flow, config, 0xffff_f000, budget, now)),
            application,
            config,
            budget: budget.clone(),
            finished: false,
            held_back: false,
        }
    }

    pub(super) fn receive(&mut self, packet: &[u8], now: Instant) {
        let parsed = packet::parse(packet).unwrap();
        assert!(packet::verify_checksums(&parsed, packet));
        let segment = Segment::parse(&parsed, packet).unwrap();
        match &mut self.connection {
            Some(connection) => connection.receive(&segment, now),
            None => {
                self.connection = Connection::accept(&segment, self.config, 0x7fff_ff00, &self.budget, now);
            }
        }
    }

    pub(super) fn work(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        connection.handle_timeout(now);
        let application = &mut self.application;
        let mut budget = if connection.readable() > 0 {
            application.budget(now)
        } else {
            0
        };
        loop {
            let received = &mut application.received;
            let taken = connection.drain(
                &mut |bytes| {
                    let bytes = &bytes[..bytes.len().min(budget)];
                    received.extend_from_slice(bytes);
                    bytes.len()
                },
                now,
            );
            budget -= taken;
            if taken == 0 {
                break;
            }
        }
        application.peer_ended |= connection.peer_finished();
        while application.written < application.sent.len() {
            let rest = &application.sent[application.written..];
            let filled = connection.fill(
                &mut |room| {
                    let count = room.len().min(rest.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    count
                },
                now,
            );
            match filled {
                Some(filled) => application.written += filled,
                None => break,
            }
        }
        let open = matches!(connection.state(), State::Established | State::CloseWait);
        if open && application.wants_to_close() && !self.finished {
            self.finished = true;
            connection.finish();
        }
    }
}
