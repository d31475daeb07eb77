//! A client and a server with a wire between them that can be made to misbehave.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Harness, SERVER_NAME, Setup, Side};
use crate::machine::FourTuple;
use crate::quic::{Accept, Cid, Connect, Connection, Provider, Purpose, RetryIds, State};
use crate::sim::Clock;

/// One way through the wire.
pub(super) const DELAY: Duration = Duration::from_millis(10);

/// The reset token of the server.
pub(super) const RESET_TOKEN: [u8; 16] = *b"reset-token-0123";

/// The connection that a harness's provider makes.
pub(super) type Conn<H> = <<H as Harness>::Provider as Provider>::Connection;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Deliver,
    Drop,
    /// Twice, the second time a little later.
    Twice,
    /// Later than those sent after it.
    Late,
}

/// Decides the fate of the n-th packet sent by a side.
pub(super) type Judge = Box<dyn FnMut(Side, usize) -> Fate>;

struct Flight {
    from: Side,
    source: SocketAddr,
    bytes: Vec<u8>,
}

/// A client and, once its first packet has arrived, a server.
pub(super) struct Pair<H: Harness> {
    pub(super) client: Conn<H>,
    pub(super) server: Option<Conn<H>>,
    pub(super) acceptor: H::Provider,
    /// Ids of a Retry that the server is to be accepted with.
    pub(super) retry: Option<RetryIds>,
    pub(super) client_address: SocketAddr,
    pub(super) judge: Judge,
    /// Every packet sent, oldest first.
    pub(super) log: Vec<(Side, Vec<u8>)>,
    counts: [usize; 2],
    flights: BTreeMap<(Instant, usize), Flight>,
    /// Last, so that nothing outlives the time it lives in.
    pub(super) clock: H::Clock,
}

impl<H: Harness> Pair<H> {
    /// A pair about to shake hands, with the usual setup.
    pub(super) fn new(harness: &mut H) -> Self {
        Self::with(
            harness,
            &Setup::new(Side::Client),
            &Setup::new(Side::Server),
            Some(SERVER_NAME),
        )
    }

    pub(super) fn with(harness: &mut H, client: &Setup, server: &Setup, name: Option<&str>) -> Self {
        let clock = harness.clock();
        let mut connector = harness.provider(client);
        let acceptor = harness.provider(server);
        let client_address = address(1);
        let path = FourTuple {
            local: client_address,
            remote: address(2),
        };
        let connect = Connect {
            server_name: name,
            scid: client_cid(),
            path,
            purpose: Purpose::Control,
        };
        let client = connector
            .connect(connect, clock.now())
            .expect("the setup is usable");
        Self {
            client,
            server: None,
            acceptor,
            retry: None,
            client_address,
            judge: Box::new(|_, _| Fate::Deliver),
            log: Vec::new(),
            counts: [0; 2],
            flights: BTreeMap::new(),
            clock,
        }
    }

    /// A pair that has shaken hands and gone quiet.
    pub(super) fn established(harness: &mut H) -> Self {
        let mut pair = Self::new(harness);
        pair.establish();
        pair
    }

    /// Runs until both ends are established, and a little longer so that the wire is quiet.
    pub(super) fn establish(&mut self) {
        let done = self.run_until(Duration::from_secs(20), Self::is_established);
        assert!(
            done,
            "no handshake: client {:?} {:?}",
            self.client.state(),
            self.client.close_reason()
        );
        self.run(Duration::from_secs(1));
    }

    pub(super) fn is_established(&self) -> bool {
        let server = self.server.as_ref().map(Connection::state);
        self.client.state() == State::Established && server == Some(State::Established)
    }

    /// The server's connection.
    pub(super) fn server(&mut self) -> &mut Conn<H> {
        self.server.as_mut().expect("the server has been reached")
    }

    pub(super) fn end(&mut self, side: Side) -> &mut Conn<H> {
        match side {
            Side::Client => &mut self.client,
            Side::Server => self.server(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(super) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done` or `time` is over; whether `done`.
    pub(super) fn run_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now() + time;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let arrival = self.flights.keys().next().map(|key| key.0);
            let next = [arrival, self.client.poll_timeout(), self.server_timeout()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.clock.advance_to(end);
                return false;
            };
            self.clock.advance_to(next);
            self.deliver();
        }
    }

    fn server_timeout(&self) -> Option<Instant> {
        self.server.as_ref().and_then(Connection::poll_timeout)
    }

    /// Handles what is due now and sends what wants to be sent, until nothing is left for this instant.
    pub(super) fn settle(&mut self) {
        let now = self.now();
        for round in 0.. {
            assert!(round < 32, "an end is due again and again at the same instant");
            self.send(Side::Client);
            self.send(Side::Server);
            let mut due = false;
            for side in [Side::Client, Side::Server] {
                if side == Side::Server && self.server.is_none() {
                    continue;
                }
                let end = self.end(side);
                if end.poll_timeout().is_some_and(|at| at <= now) {
                    end.handle_timeout(now);
                    due = true;
                }
            }
            if !due {
                return;
            }
        }
    }

    /// Puts all packets of a side on the wire.
    fn send(&mut self, side: Side) {
        let now = self.now();
        let mut buf = [0; 1500];
        for count in 0.. {
            assert!(count < 10_000, "an end never stops sending");
            if side == Side::Server && self.server.is_none() {
                return;
            }
            let Some(out) = self.end(side).poll_packet(&mut buf, now) else {
                return;
            };
            let bytes = buf[..out.len].to_vec();
            self.log.push((side, bytes.clone()));
            // A packet to where the client no longer is is lost.
            if side == Side::Server && out.path.remote != self.client_address {
                continue;
            }
            let index = self.counts[side as usize];
            self.counts[side as usize] += 1;
            match (self.judge)(side, index) {
                Fate::Deliver => self.post(side, bytes, DELAY),
                Fate::Drop => {}
                Fate::Twice => {
                    self.post(side, bytes.clone(), DELAY);
                    self.post(side, bytes, DELAY * 2);
                }
                Fate::Late => self.post(side, bytes, DELAY * 3),
            }
        }
    }

    /// Puts bytes on the wire as if `from` had sent them.
    pub(super) fn post(&mut self, from: Side, bytes: Vec<u8>, delay: Duration) {
        let source = match from {
            Side::Client => self.client_address,
            Side::Server => address(2),
        };
        let key = (self.now() + delay, self.log.len() * 4 + self.flights.len());
        self.flights.insert(key, Flight { from, source, bytes });
    }

    /// Hands over everything that has arrived.
    fn deliver(&mut self) {
        let now = self.now();
        let mut arrived = VecDeque::new();
        while let Some(first) = self.flights.first_entry().filter(|first| first.key().0 <= now) {
            arrived.push_back(first.remove());
        }
        for Flight {
            from,
            source,
            mut bytes,
        } in arrived
        {
            match from {
                Side::Server => {
                    let path = FourTuple {
                        local: address(1),
                        remote: source,
                    };
                    self.client.handle_packet(&mut bytes, path, now);
                }
                Side::Client => {
                    let path = FourTuple {
                        local: address(2),
                        remote: source,
                    };
                    self.accept(path);
                    self.server().handle_packet(&mut bytes, path, now);
                }
            }
        }
    }

    fn accept(&mut self, path: FourTuple) {
        if self.server.is_none() {
            let accept = Accept {
                scid: server_cid(),
                retry: self.retry,
                reset_token: RESET_TOKEN,
                path,
                purpose: Purpose::Control,
            };
            let server = self.acceptor.accept(accept, self.clock.now());
            self.server = Some(server.expect("the setup is usable"));
        }
    }

    /// How many packets a side has sent so far.
    pub(super) fn sent(&self, side: Side) -> usize {
        self.log.iter().filter(|(from, _)| *from == side).count()
    }
}

pub(super) fn address(host: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), 4433))
}

pub(super) fn client_cid() -> Cid {
    Cid::new(b"client-1").expect("it is short enough")
}

pub(super) fn server_cid() -> Cid {
    Cid::new(b"server-1").expect("it is short enough")
}

/// Destination and source id of a long header (RFC 8999 §5.1).
pub(super) fn long_header_ids(packet: &[u8]) -> Option<(Cid, Cid)> {
    let (&dcid_len, rest) = packet.get(5..)?.split_first()?;
    let (dcid, rest) = rest.split_at_checked(usize::from(dcid_len))?;
    let (&scid_len, rest) = rest.split_first()?;
    Some((Cid::new(dcid)?, Cid::new(rest.get(..usize::from(scid_len))?)?))
}
