//! What may come out of a generated world, judged by what went in.
//!
//! Every payload says who sent it to whom; the oracle knows them all. Links lose, repeat and reorder; even so a payload
//! arrives at most once, unchanged, at the service it was sent to, and its answer at the very agent that asked, in the very
//! life in which it asked.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::rng::{Rng, Seed};
use crate::routing::packet::{self, Fragment, Kind};
use crate::routing::reassembly::{Reassembler, ReassemblyLimits};
use crate::sim::cast;

/// The inner address of every agent: all the same, so that flows collide.
const INNER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));

/// IPv4 and UDP headers before the payload of a packet that an ICMP error quotes.
const HEADERS: usize = 28;

/// Which agent, and which of its lives.
pub(super) type Asker = (usize, u32);

#[derive(Debug)]
struct Sent {
    asker: Asker,
    service: u8,
    port: u16,
    payload: Vec<u8>,
    arrived: bool,
    answered: bool,
}

/// Everything sent so far, by its number.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    sent: BTreeMap<u32, Sent>,
    /// What agents' hosts hold of packets that were cut.
    fragments: Option<Reassembler<Asker>>,
    pub(super) arrived: u64,
    pub(super) answered: u64,
    pub(super) errors: u64,
}

impl Oracle {
    /// Makes the next packet of an agent; it counts as sent only after [`Oracle::confirm`].
    pub(super) fn packet(&mut self, asker: Asker, service: u8, port: u8, filling: u16) -> (u32, Vec<u8>) {
        let number = self.sent.last_key_value().map_or(0, |(last, _)| last + 1);
        let port = 5000 + u16::from(port % 2);
        let filling = (0..filling).map(|index| (index as u32 ^ number) as u8);
        let payload: Vec<u8> = number.to_be_bytes().into_iter().chain(filling).collect();
        let mut packet = Vec::new();
        let destination = SocketAddr::new(cast::virtual_address(service), cast::SERVICE_PORT);
        assert!(packet::udp(
            SocketAddr::new(INNER, port),
            destination,
            &payload,
            &mut packet
        ));
        let sent = Sent {
            asker,
            service,
            port,
            payload,
            arrived: false,
            answered: false,
        };
        self.sent.insert(number, sent);
        (number, packet)
    }

    /// Whether the answer to this packet has come.
    pub(super) fn is_answered(&self, number: u32) -> bool {
        self.sent.get(&number).is_some_and(|sent| sent.answered)
    }

    /// A backend has got a payload.
    pub(super) fn at_backend(&mut self, backend: SocketAddr, payload: &[u8]) {
        let sent = self.find(payload);
        assert_eq!(sent.payload, payload, "a payload was changed");
        assert_eq!(
            backend,
            cast::backend(sent.service),
            "a packet reached the wrong service"
        );
        assert!(
            !std::mem::replace(&mut sent.arrived, true),
            "a packet arrived twice"
        );
        self.arrived += 1;
    }

    /// An agent's host has got a packet.
    pub(super) fn at_agent(&mut self, asker: Asker, bytes: &[u8], now: Instant) {
        let parsed = packet::parse(bytes).expect("an agent's host gets IP packets");
        if parsed.fragment == Fragment::No {
            return self.whole_at_agent(asker, bytes);
        }
        // As the host's own stack does; fragments of which one is lost come to nothing.
        let put_together = self.fragments.get_or_insert_with(|| {
            let mut rng = Rng::new(&Seed([0; 32]));
            Reassembler::new(ReassemblyLimits::default(), &mut rng)
        });
        while put_together.pop_expired(now).is_some() {}
        if let Some(whole) = put_together.take(asker, bytes, &parsed, now) {
            self.whole_at_agent(asker, &whole);
        }
    }

    fn whole_at_agent(&mut self, asker: Asker, bytes: &[u8]) {
        let parsed = packet::parse(bytes).expect("an agent's host gets IP packets");
        assert!(
            packet::verify_checksums(&parsed, bytes),
            "an agent's host gets a packet with a wrong checksum"
        );
        let is_error = parsed.kind == Kind::IcmpError;
        assert!(
            is_error || parsed.kind == Kind::Udp,
            "nobody sends {:?}",
            parsed.kind
        );
        let payload = &bytes[parsed.payload];
        let sent = self.find(if is_error { &payload[HEADERS..] } else { payload });
        assert_eq!(sent.asker, asker, "an agent gets what is another's");
        let service = (cast::virtual_address(sent.service), cast::SERVICE_PORT);
        assert_eq!((parsed.flow.source, parsed.flow.source_port), service);
        assert_eq!(
            (parsed.flow.destination, parsed.flow.destination_port),
            (INNER, sent.port)
        );
        if is_error {
            self.errors += 1;
            return;
        }
        assert_eq!(sent.payload, payload, "an answer was changed");
        assert!(sent.arrived, "an answer to what never arrived");
        assert!(
            !std::mem::replace(&mut sent.answered, true),
            "an answer came twice"
        );
        self.answered += 1;
    }

    fn find(&mut self, payload: &[u8]) -> &mut Sent {
        let number = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let known = number.and_then(|number| self.sent.get_mut(&number));
        known.expect("nobody sent this payload")
    }
}
