use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Input, Subject, inputs};
use crate::machine::{Deadline, Ecn, Forward, FourTuple, Machine, Received, Transmit, Wake};
use crate::sim::MachineHost;

/// What is wrong with an echoing machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Never asks to be woken for what is queued.
    Secretive,
    /// Asks for a wake-up it has had already.
    Restless,
    /// Keeps everything it has ever heard.
    Hoarding,
    /// Trusts a length byte.
    Gullible,
    /// Answers with what is different in every instance.
    Moody(u8),
    /// Believes that time never runs backwards.
    Trusting,
}

/// Echoes every datagram, and sends a byte of its own every second.
#[derive(Debug)]
struct Echo {
    flaw: Flaw,
    now: Instant,
    next: Instant,
    path: FourTuple,
    queue: VecDeque<(FourTuple, Vec<u8>)>,
    hoard: Vec<u8>,
}

impl Echo {
    fn new(flaw: Flaw, now: Instant) -> Self {
        let path = FourTuple {
            local: "192.0.2.1:4433".parse().unwrap(),
            remote: "192.0.2.2:4433".parse().unwrap(),
        };
        Self {
            flaw,
            now,
            next: now + Duration::from_secs(1),
            path,
            queue: VecDeque::new(),
            hoard: Vec::new(),
        }
    }
}

impl Machine for Echo {
    type Event = ();

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        if self.flaw == Flaw::Trusting {
            assert!(now >= self.now, "time ran backwards");
        }
        self.now = self.now.max(now);
        let size = received.segment_size();
        for datagram in received
            .payload
            .chunks(size)
            .filter(|datagram| datagram.len() > 1)
        {
            if self.flaw == Flaw::Hoarding {
                self.hoard.extend_from_slice(datagram);
            }
            if self.flaw == Flaw::Gullible {
                let _ = datagram[usize::from(datagram[0])];
            }
            let mut answer = datagram[1..].to_vec();
            if let Flaw::Moody(mood) = self.flaw {
                answer[0] = mood;
            }
            self.queue.push_back((received.path, answer));
        }
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.next <= self.now {
            self.queue.push_back((self.path, vec![7; 40]));
            if self.flaw != Flaw::Restless {
                self.next = self.now + Duration::from_secs(1);
            }
        }
    }

    fn poll_transmit(&mut self, buf: &mut [u8], _: Instant) -> Option<Transmit> {
        let (path, payload) = self.queue.pop_front()?;
        buf[..payload.len()].copy_from_slice(&payload);
        Some(Transmit {
            path,
            ecn: Ecn::NotEct,
            len: payload.len(),
            segment_size: None,
        })
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if !self.queue.is_empty() && self.flaw != Flaw::Secretive {
            return Some(Deadline {
                at: self.now,
                wake: Wake::QueuedOutput,
            });
        }
        Some(Deadline {
            at: self.next,
            wake: Wake::Keepalive,
        })
    }

    fn shut_down(&mut self, _: Instant) {}

    fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }
}

fn subject(flaw: Flaw) -> Subject<MachineHost<Echo>> {
    Subject::new(move |now| MachineHost::new(Echo::new(flaw, now)))
        .with_peer(|now| MachineHost::new(Echo::new(Flaw::None, now)))
        .bounded(|host| host.machine.hoard.len(), 1000)
}

/// Every byte value as the beginning of an input, several times over.
fn varied_script() -> Vec<Input> {
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..6000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    inputs(&bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_sound_machine_passes(bytes in vec(any::<u8>(), 0..2000)) {
        subject(Flaw::None).check(&inputs(&bytes));
    }
}

#[test]
fn scripts_hold_every_kind_of_input() {
    let kinds: std::collections::HashSet<_> = varied_script().iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 11);
}

/// What the contract says about a machine with this flaw.
fn complaint(subject: &Subject<MachineHost<Echo>>) -> String {
    let check = AssertUnwindSafe(|| subject.check(&varied_script()));
    let panic = catch_unwind(check).expect_err("the flaw is found");
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
}

#[test]
fn flaws_are_found() {
    for (flaw, rule) in [
        (Flaw::Secretive, "rule 2"),
        (Flaw::Restless, "rule 3"),
        (Flaw::Hoarding, "rule 5"),
        (Flaw::Gullible, "out of bounds"),
        (Flaw::Trusting, "backwards"),
    ] {
        let said = complaint(&subject(flaw));
        assert!(said.contains(rule), "{flaw:?}: {said}");
    }
}

#[test]
fn twins_that_differ_are_found() {
    let mood = Cell::new(0);
    let subject = Subject::new(move |now| {
        mood.set(mood.get() + 1);
        MachineHost::new(Echo::new(Flaw::Moody(mood.get()), now))
    });
    let said = complaint(&subject);
    assert!(said.contains("rule 6"), "{said}");
}
