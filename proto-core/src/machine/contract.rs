//! The contract of [`machine`](super), tested for any machine with arbitrary inputs.
//!
//! Two instances are driven side by side with the same inputs: datagrams from a live peer that are delivered, lost,
//! reordered, repeated and falsified; bytes from strangers; time that passes, stands, jumps for hours or runs backwards;
//! timeouts that come early, late and twice. After every input both are drained, must have announced what they gave
//! (rule 2), must be at rest afterwards (rule 3), must have stayed within their size (rule 5) and must agree (rule 6).
//! Whatever the inputs are, nothing panics.
//!
//! One generator serves all sources of inputs: [`inputs`] turns bytes, from proptest or a fuzzer, into a script.
//!
//! ```text
//! proptest! {
//!     #[test]
//!     fn keeps_the_contract(bytes in vec(any::<u8>(), 0..4000)) {
//!         Subject::new(|now| MachineHost::new(agent(now)))
//!             .with_peer(|now| MachineHost::new(relay(now)))
//!             .bounded(|host| host.machine.memory(), 100_000)
//!             .check(&contract::inputs(&bytes));
//!     }
//! }
//! ```

mod script;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

pub use script::{Input, inputs};

use super::{Deadline, Ecn, FourTuple, Received, Transmit, Wake};
use crate::sim::{Clock, Digest, Host, ManualClock};

/// Most datagrams kept for delivery or repetition.
const KEPT: usize = 64;

/// More than this out of one drain is a machine that never stops.
const MAX_DRAIN: usize = 10_000;

/// Makes a host at a time; called twice, it must make two that are alike.
type Make<H> = Box<dyn Fn(Instant) -> H>;

/// Applies an application's input: which one, with which bytes, when.
type Apply<H> = Box<dyn Fn(&mut H, u8, &[u8], Instant)>;

/// A probe of the memory a host uses, and the most it may be.
type Bound<H> = (Box<dyn Fn(&H) -> usize>, usize);

/// A machine under test and what surrounds it.
pub struct Subject<H> {
    make: Make<H>,
    make_peer: Option<Make<Box<dyn Host>>>,
    local: SocketAddr,
    remote: SocketAddr,
    apply: Option<Apply<H>>,
    bound: Option<Bound<H>>,
}

impl<H> std::fmt::Debug for Subject<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

impl<H: Host> Subject<H> {
    /// Tests what `make` makes at a given time; it is called twice and must give two equal machines.
    ///
    /// The subject lives at 192.0.2.1:4433, its peer at 192.0.2.2:4433.
    pub fn new(make: impl Fn(Instant) -> H + 'static) -> Self {
        Self {
            make: Box::new(make),
            make_peer: None,
            local: SocketAddr::from(([192, 0, 2, 1], 4433)),
            remote: SocketAddr::from(([192, 0, 2, 2], 4433)),
            apply: None,
            bound: None,
        }
    }

    /// Lets a live peer answer, which gives the inputs genuine datagrams to deliver, repeat and falsify.
    #[must_use]
    pub fn with_peer<P: Host>(mut self, make: impl Fn(Instant) -> P + 'static) -> Self {
        self.make_peer = Some(Box::new(move |now| Box::new(make(now))));
        self
    }

    /// Puts the subject and its peer at other addresses.
    #[must_use]
    pub fn at(mut self, local: SocketAddr, remote: SocketAddr) -> Self {
        (self.local, self.remote) = (local, remote);
        self
    }

    /// Lets the inputs call the application's side: a number that chooses what, bytes, and the time.
    #[must_use]
    pub fn with_application(mut self, apply: impl Fn(&mut H, u8, &[u8], Instant) + 'static) -> Self {
        self.apply = Some(Box::new(apply));
        self
    }

    /// Asserts after every input that `size` is at most `most`.
    #[must_use]
    pub fn bounded(mut self, size: impl Fn(&H) -> usize + 'static, most: usize) -> Self {
        self.bound = Some((Box::new(size), most));
        self
    }

    /// Drives two instances through the inputs.
    ///
    /// # Panics
    /// If they break the contract, with the rule and the input.
    pub fn check(&self, inputs: &[Input]) {
        let start = ManualClock::new().now();
        let mut twins = [self.instance(start), self.instance(start)];
        for (number, input) in std::iter::once(&Input::Rest).chain(inputs).enumerate() {
            let digests = twins.each_mut().map(|twin| {
                self.step(twin, input)
                    .unwrap_or_else(|broken| panic!("{broken}, at input {number}: {input:?}"))
            });
            assert_eq!(
                digests[0], digests[1],
                "rule 6: twins differ, at input {number}: {input:?}"
            );
        }
    }

    fn instance(&self, now: Instant) -> Instance<H> {
        Instance {
            host: (self.make)(now),
            peer: self.make_peer.as_ref().map(|make| make(now)),
            now,
            latest: now,
            arriving: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Applies one input and drains; the hash of all that came out.
    fn step(&self, twin: &mut Instance<H>, input: &Input) -> Result<u64, String> {
        let genuine = FourTuple {
            local: self.local,
            remote: self.remote,
        };
        let foreign = FourTuple {
            local: self.local,
            remote: SocketAddr::from(([203, 0, 113, 9], 999)),
        };
        match input {
            Input::Rest => {}
            Input::Deliver { index } => {
                if let Some(bytes) = take(&mut twin.arriving, *index) {
                    twin.remember(bytes.clone());
                    twin.receive(bytes, None, genuine)?;
                }
            }
            Input::Lose { index } => drop(take(&mut twin.arriving, *index)),
            Input::Repeat {
                index,
                foreign: elsewhere,
            } => {
                if let Some(bytes) = peek(&twin.seen, *index) {
                    twin.receive(bytes, None, if *elsewhere { foreign } else { genuine })?;
                }
            }
            Input::Falsify { index, at, with, cut } => {
                let known = peek(&twin.seen, *index).or_else(|| peek(&twin.arriving, *index));
                if let Some(mut bytes) = known {
                    let place = usize::from(*at) % bytes.len();
                    bytes[place] ^= with;
                    bytes.truncate(bytes.len() - usize::from(*cut) % bytes.len());
                    twin.receive(bytes, None, genuine)?;
                }
            }
            Input::Junk {
                bytes,
                stride,
                foreign: elsewhere,
            } => {
                let path = if *elsewhere { foreign } else { genuine };
                twin.receive(bytes.clone(), NonZeroUsize::new(usize::from(*stride)), path)?;
            }
            Input::Pass(time) => {
                twin.now = twin.latest + *time;
                twin.latest = twin.now;
            }
            Input::Backwards(time) => twin.now = twin.now.checked_sub(*time).unwrap_or(twin.now),
            Input::Timeout => {
                twin.host.handle_timeout(twin.now);
                twin.host.handle_timeout(twin.now);
            }
            Input::Sleep { late } => {
                if let Some(deadline) = twin.host.poll_timeout() {
                    twin.latest = twin.latest.max(deadline.at) + *late;
                    twin.now = twin.latest;
                    twin.host.handle_timeout(twin.now);
                }
            }
            Input::Application { choice, bytes } => {
                if let Some(apply) = &self.apply {
                    apply(&mut twin.host, *choice, bytes, twin.now);
                }
            }
        }
        let digest = twin.settle()?;
        if let Some((size, most)) = &self.bound {
            let size = size(&twin.host);
            if size > *most {
                return Err(format!("rule 5: {size} used, {most} allowed"));
            }
        }
        Ok(digest)
    }
}

/// One of the two instances under test, with a peer of its own.
struct Instance<H> {
    host: H,
    peer: Option<Box<dyn Host>>,
    /// What the subject is told the time is; may run backwards.
    now: Instant,
    /// The latest time it was ever told: what a clamping machine goes by.
    latest: Instant,
    /// Datagrams of the peer on their way.
    arriving: Vec<Vec<u8>>,
    /// Datagrams that have been delivered.
    seen: Vec<Vec<u8>>,
}

impl<H: Host> Instance<H> {
    fn remember(&mut self, bytes: Vec<u8>) {
        if self.seen.len() == KEPT {
            self.seen.remove(0);
        }
        self.seen.push(bytes);
    }

    fn receive(
        &mut self,
        mut payload: Vec<u8>,
        stride: Option<NonZeroUsize>,
        path: FourTuple,
    ) -> Result<(), String> {
        let received = Received {
            path,
            ecn: Ecn::NotEct,
            stride,
            payload: &mut payload,
        };
        let forward = self.host.handle_datagram(received, self.now);
        let inside = forward
            .runs()
            .all(|run| run.start < run.end && run.end <= payload.len());
        if inside {
            Ok(())
        } else {
            Err("the rules: a run beyond the received bytes".to_owned())
        }
    }

    /// Drains as a shell does, checks rules 2 and 3, and lets the peer answer; the hash of all that came out.
    fn settle(&mut self) -> Result<u64, String> {
        let mut digest = Digest::new();
        let (mut rounds, mut timeouts) = (0, 0);
        let mut sent = Vec::new();
        loop {
            let announced = self.due().is_some();
            if drain(&mut self.host, &mut digest, &mut sent, self.now)? {
                if !announced {
                    return Err("rule 2: it gave something and had not asked to be woken now".to_owned());
                }
                rounds += 1;
                if rounds > MAX_DRAIN {
                    return Err("the rules: it never comes to rest".to_owned());
                }
                continue;
            }
            let Some(deadline) = self.due() else { break };
            if deadline.wake == Wake::QueuedOutput {
                return Err("rule 3: drained, it still claims to have something queued".to_owned());
            }
            // A timer that falls due at the very time of another input: handled like by any shell, but only once.
            timeouts += 1;
            if timeouts > 2 {
                return Err(format!(
                    "rule 3: still due after its timeout was handled: {deadline:?}"
                ));
            }
            self.host.handle_timeout(self.now);
        }
        digest.debug(&self.host.poll_timeout());
        self.let_peer_answer(sent)?;
        Ok(digest.value())
    }

    fn due(&self) -> Option<Deadline> {
        self.host
            .poll_timeout()
            .filter(|deadline| deadline.at <= self.latest)
    }

    /// The peer lives in honest time and gets everything at once; its answers wait for the inputs to decide.
    fn let_peer_answer(&mut self, sent: Vec<(FourTuple, Vec<u8>)>) -> Result<(), String> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        if peer
            .poll_timeout()
            .is_some_and(|deadline| deadline.at <= self.latest)
        {
            peer.handle_timeout(self.latest);
        }
        for (path, mut payload) in sent {
            let path = FourTuple {
                local: path.remote,
                remote: path.local,
            };
            let received = Received {
                path,
                ecn: Ecn::NotEct,
                stride: None,
                payload: &mut payload,
            };
            // The peer is scenery: what it would forward goes nowhere.
            let _ = peer.handle_datagram(received, self.latest);
        }
        let mut answers = Vec::new();
        while drain(peer.as_mut(), &mut Digest::new(), &mut answers, self.latest)? {}
        self.arriving
            .extend(answers.into_iter().map(|(_, payload)| payload));
        let excess = self.arriving.len().saturating_sub(KEPT);
        self.arriving.drain(..excess);
        Ok(())
    }
}

/// Takes everything out of a host once; whether there was anything.
fn drain(
    host: &mut dyn Host,
    digest: &mut Digest,
    sent: &mut Vec<(FourTuple, Vec<u8>)>,
    now: Instant,
) -> Result<bool, String> {
    let mut buffer = vec![0; 65_507];
    let mut count = 0;
    while let Some(transmit) = host.poll_transmit(&mut buffer, now) {
        let Transmit {
            len,
            segment_size,
            path,
            ..
        } = transmit;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return Err("the rules: a transmit is empty or longer than its buffer".to_owned());
        };
        digest.debug(&path);
        for datagram in bytes.chunks(segment_size.map_or(len, NonZeroUsize::get)) {
            digest.bytes(datagram);
            sent.push((path, datagram.to_vec()));
        }
        count += 1;
        if count > MAX_DRAIN {
            return Err("the rules: it never stops sending".to_owned());
        }
    }
    while host.poll_local(digest, now) {
        count += 1;
        if count > MAX_DRAIN {
            return Err("the rules: it never stops talking to its own side".to_owned());
        }
    }
    Ok(count > 0)
}

/// Removes the entry that an arbitrary number names.
fn take(from: &mut Vec<Vec<u8>>, index: u8) -> Option<Vec<u8>> {
    (!from.is_empty()).then(|| from.remove(usize::from(index) % from.len()))
}

/// Copies the entry that an arbitrary number names.
fn peek(from: &[Vec<u8>], index: u8) -> Option<Vec<u8>> {
    from.get(usize::from(index) % from.len().max(1))
        .filter(|bytes| !bytes.is_empty())
        .cloned()
}
