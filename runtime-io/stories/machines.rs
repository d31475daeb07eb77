//! Small machines that keep the contract.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use proto_core::machine::{Deadline, Ecn, Forward, FourTuple, Machine, Received, Run, Transmit, Wake};

/// What is queued, and when the queue was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    batches: VecDeque<(FourTuple, Option<NonZeroUsize>, Vec<u8>)>,
    seen: Option<Instant>,
}

impl Queue {
    pub(crate) fn push(
        &mut self,
        path: FourTuple,
        stride: Option<NonZeroUsize>,
        bytes: Vec<u8>,
        now: Instant,
    ) {
        self.batches.push_back((path, stride, bytes));
        self.seen = Some(now);
    }

    fn transmit(&mut self, buf: &mut [u8]) -> Option<Transmit> {
        let (path, segment_size, bytes) = self.batches.pop_front()?;
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        Some(Transmit {
            path,
            ecn: Ecn::NotEct,
            len,
            segment_size,
        })
    }

    fn deadline(&self) -> Option<Deadline> {
        let at = self.seen.filter(|_| !self.batches.is_empty())?;
        Some(Deadline {
            at,
            wake: Wake::QueuedOutput,
        })
    }
}

/// Sends back what comes in, batch for batch.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    queue: Queue,
    ending: bool,
}

impl Machine for Echo {
    type Event = ();

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.queue
            .push(received.path, received.stride, received.payload.to_vec(), now);
        Forward::NONE
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_transmit(&mut self, buf: &mut [u8], _: Instant) -> Option<Transmit> {
        self.queue.transmit(buf)
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.queue.deadline()
    }

    fn shut_down(&mut self, _: Instant) {
        self.ending = true;
    }

    fn is_drained(&self) -> bool {
        self.ending && self.queue.batches.is_empty()
    }
}

/// Sends each received batch on in two runs, out of the receive buffer.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) next: SocketAddr,
    pub(crate) ending: bool,
}

impl Machine for Relay {
    type Event = ();

    fn handle_datagram(&mut self, received: Received<'_>, _: Instant) -> Forward {
        let segment = received.segment_size();
        let len = received.payload.len();
        for datagram in received.payload.chunks_mut(segment) {
            datagram[0] = b'R';
        }
        let middle = len.div_ceil(segment) / 2 * segment;
        let path = FourTuple {
            local: received.path.local,
            remote: self.next,
        };
        let mut forward = Forward::NONE;
        for (start, end) in [(0, middle), (middle, len)] {
            if start < end {
                assert!(forward.push(Run { start, end, path }));
            }
        }
        forward
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_transmit(&mut self, _: &mut [u8], _: Instant) -> Option<Transmit> {
        None
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }

    fn shut_down(&mut self, _: Instant) {
        self.ending = true;
    }

    fn is_drained(&self) -> bool {
        self.ending
    }
}

/// Sends numbered datagrams and takes them back, with a bound on how many are under way; an event when all are back.
#[derive(Debug)]
pub(crate) struct Pump {
    target: SocketAddr,
    size: usize,
    window: usize,
    sent: usize,
    returned: Vec<bool>,
    back: usize,
    done: bool,
    seen: Option<Instant>,
    ending: bool,
}

impl Pump {
    pub(crate) fn new(target: SocketAddr, total: usize, size: usize, window: usize) -> Self {
        Self {
            target,
            size,
            window,
            sent: 0,
            returned: vec![false; total],
            back: 0,
            done: false,
            seen: None,
            ending: false,
        }
    }

    fn datagram(number: usize, size: usize) -> impl Iterator<Item = u8> {
        let seed = number as u32;
        let filler = (4..size).map(move |at| (number ^ at) as u8);
        seed.to_be_bytes().into_iter().chain(filler)
    }

    fn may_send(&self) -> bool {
        self.sent < self.returned.len() && self.sent - self.back < self.window
    }
}

impl Machine for Pump {
    type Event = &'static str;

    fn handle_datagram(&mut self, received: Received<'_>, now: Instant) -> Forward {
        self.seen = Some(now);
        let segment = received.segment_size();
        for datagram in received.payload.chunks(segment) {
            let number = u32::from_be_bytes(datagram[..4].try_into().expect("four bytes")) as usize;
            assert!(
                Self::datagram(number, self.size).eq(datagram.iter().copied()),
                "intact"
            );
            assert!(!std::mem::replace(&mut self.returned[number], true), "once");
            self.back += 1;
        }
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.seen = Some(now);
    }

    fn poll_transmit(&mut self, buf: &mut [u8], _: Instant) -> Option<Transmit> {
        let mut len = 0;
        while self.may_send() && len + self.size <= buf.len() && len < 64 * self.size {
            for (to, from) in buf[len..].iter_mut().zip(Self::datagram(self.sent, self.size)) {
                *to = from;
            }
            len += self.size;
            self.sent += 1;
        }
        let local = SocketAddr::from(([0, 0, 0, 0], 0));
        let path = FourTuple {
            local,
            remote: self.target,
        };
        (len > 0).then_some(Transmit {
            path,
            ecn: Ecn::NotEct,
            len,
            segment_size: NonZeroUsize::new(self.size).filter(|size| size.get() < len),
        })
    }

    fn poll_event(&mut self) -> Option<&'static str> {
        let news = self.back == self.returned.len() && !self.done;
        self.done |= news;
        news.then_some("all came back")
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.seen.filter(|_| self.may_send()).map(|at| Deadline {
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

/// Fires at given offsets from its start, an event for each; says farewell to a peer at the end.
#[derive(Debug, Default)]
pub(crate) struct Clockwork {
    due: VecDeque<(Instant, Wake)>,
    fired: VecDeque<(Wake, bool)>,
    farewell: Option<SocketAddr>,
    queue: Queue,
    stubborn: bool,
    ending: bool,
}

impl Clockwork {
    pub(crate) fn with_timers(start: Instant, timers: &[(u64, Wake)]) -> Self {
        let due = timers
            .iter()
            .map(|(ms, wake)| (start + Duration::from_millis(*ms), *wake))
            .collect();
        Self {
            due,
            ..Self::default()
        }
    }

    pub(crate) fn with_farewell(peer: SocketAddr) -> Self {
        Self {
            farewell: Some(peer),
            ..Self::default()
        }
    }

    /// Never drained.
    pub(crate) fn stubborn() -> Self {
        Self {
            stubborn: true,
            ..Self::default()
        }
    }
}

impl Machine for Clockwork {
    /// Which timer fired, and whether it was due.
    type Event = (Wake, bool);

    fn handle_datagram(&mut self, _: Received<'_>, _: Instant) -> Forward {
        Forward::NONE
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, wake)) = self.due.front().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_front();
            self.fired.push_back((wake, at <= now));
        }
    }

    fn poll_transmit(&mut self, buf: &mut [u8], _: Instant) -> Option<Transmit> {
        self.queue.transmit(buf)
    }

    fn poll_event(&mut self) -> Option<(Wake, bool)> {
        self.fired.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let timer = self
            .due
            .front()
            .map(|(at, wake)| Deadline { at: *at, wake: *wake });
        Deadline::earliest(self.queue.deadline(), timer)
    }

    fn shut_down(&mut self, now: Instant) {
        self.ending = true;
        if let Some(remote) = self.farewell.take() {
            let path = FourTuple {
                local: SocketAddr::from(([0, 0, 0, 0], 0)),
                remote,
            };
            self.queue
                .push(path, NonZeroUsize::new(3), b"byebyeb".to_vec(), now);
        }
    }

    fn is_drained(&self) -> bool {
        self.ending && !self.stubborn && self.queue.batches.is_empty()
    }
}
