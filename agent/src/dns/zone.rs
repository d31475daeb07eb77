//! The zone `.ztna` and the reverse names of its addresses: which question is ours, and what the answer is.
//!
//! A pure function of the question's bytes. Ours is every name at or below `ztna.`, in any case of letters, known or not,
//! and every reverse name at or below one of a virtual address; nothing else is, so `web.ztna.example.com` is not. What
//! does not exist is answered with our SOA, so that resolvers remember it for a moment (RFC 2308). Bytes that are no
//! question are answered or dropped, but never sent on: what cannot be read could hide a private name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proto_core::id::ServiceId;

/// The top of all our names.
const TOP: &str = "ztna";

/// How long an answer may be remembered, in seconds: a reload may change it.
const TTL: u32 = 30;

/// How long it may be remembered that there is none.
const NEGATIVE_TTL: u32 = 10;

/// The largest answer over UDP without EDNS (RFC 1035 §4.2.1), and with it (what passes everywhere, unfragmented).
const PLAIN_UDP: usize = 512;
const MAX_UDP: u16 = 1232;

/// The length of a message's header.
pub(crate) const HEADER: usize = 12;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// An answer may have to be cut, and is then asked for over TCP.
    Udp,
    /// Any length.
    Tcp,
}

/// What to do with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send this back.
    Answer(Vec<u8>),
    /// Send this back: the question is not ours and is not to be sent on.
    Refuse(Vec<u8>),
    /// Send the question on as it is.
    Forward,
    /// It deserves nothing.
    Drop,
}

/// A name as it is compared: its labels in small letters, the top first.
type Key = Vec<Box<[u8]>>;

/// All names of the configured services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    names: BTreeMap<Key, Vec<IpAddr>>,
    reverse: BTreeMap<Key, Name>,
}

/// What there is for a question.
enum Found {
    Records(Vec<RData>),
    /// The name exists and has nothing of that type.
    NoData,
    /// Nor does the name.
    Nothing,
}

/// The name of a service in DNS, if its id can be one: letters, digits, hyphens and underscores between dots, not more
/// than names may have.
pub(crate) fn name_of(id: &ServiceId) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let text = id.as_str().to_ascii_lowercase();
    let fits = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(is_plain);
    // A name has 255 bytes at most with its lengths (RFC 1035 §2.3.4): one per label, and the root's.
    let room = 255 - (TOP.len() + 1) - 2;
    (text.len() <= room && text.split('.').all(fits)).then(|| format!("{text}.{TOP}"))
}

impl Zone {
    /// The names of services; those whose id cannot be a name have none.
    pub(crate) fn new<'a>(services: impl IntoIterator<Item = (&'a ServiceId, &'a [IpAddr])>) -> Self {
        let mut zone = Self::default();
        for (id, addresses) in services {
            let Some(name) = name_of(id).and_then(|text| absolute(&text)) else {
                continue;
            };
            for address in addresses {
                zone.reverse.insert(key(&Name::from(*address)), name.clone());
            }
            zone.names.insert(key(&name), addresses.to_vec());
        }
        zone
    }

    /// Decides about one message. `forwarding` says whether there is anybody to send other questions to.
    pub(crate) fn decide(&self, bytes: &[u8], transport: Transport, forwarding: bool) -> Decision {
        // Two octets of id, then the bit that tells answers from questions: answering an answer makes loops.
        if bytes.len() < HEADER || bytes.get(2).is_none_or(|flags| flags & 0x80 != 0) {
            return Decision::Drop;
        }
        let Ok(message) = Message::from_vec(bytes) else {
            return error(bytes, ResponseCode::FormErr);
        };
        if message.metadata.op_code != OpCode::Query {
            return error(bytes, ResponseCode::NotImp);
        }
        let [query] = message.queries.as_slice() else {
            return error(bytes, ResponseCode::FormErr);
        };
        let name = key(query.name());
        let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
        if !self.is_ours(&name) && forwarding && !is_transfer {
            return Decision::Forward;
        }
        let is_class = matches!(query.query_class(), DNSClass::IN | DNSClass::ANY);
        let mut answer = reply(&message, query, forwarding);
        let is_refused = !self.is_ours(&name) || is_transfer || !is_class;
        if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            // RFC 6891 §6.1.3.
            answer.metadata.response_code = ResponseCode::BADVERS;
        } else if is_refused {
            answer.metadata.response_code = ResponseCode::Refused;
        } else {
            self.fill(&mut answer, query, &name);
        }
        let Some(answer) = encode(answer, &message, transport) else {
            return error(bytes, ResponseCode::ServFail);
        };
        if is_refused {
            Decision::Refuse(answer)
        } else {
            Decision::Answer(answer)
        }
    }

    fn is_ours(&self, name: &[Box<[u8]>]) -> bool {
        let is_below = |own: &[Box<[u8]>]| self.reverse.contains_key(own);
        name.first().is_some_and(|top| **top == *TOP.as_bytes())
            || (1..=name.len()).any(|len| name.get(..len).is_some_and(is_below))
    }

    fn fill(&self, answer: &mut Message, query: &Query, name: &Key) {
        answer.metadata.authoritative = true;
        match self.find(name, query.query_type()) {
            Found::Records(records) => {
                // The name as it was written in the question: some clients check that its case comes back.
                let record = |data| Record::from_rdata(query.name().clone(), TTL, data);
                answer.answers = records.into_iter().map(record).collect();
            }
            Found::NoData => answer.authorities = self.authority(name),
            Found::Nothing => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities = self.authority(name);
            }
        }
    }

    fn find(&self, name: &Key, kind: RecordType) -> Found {
        let wants = |other| kind == other || kind == RecordType::ANY;
        if let Some(target) = self.reverse.get(name) {
            return if wants(RecordType::PTR) {
                Found::Records(vec![RData::PTR(PTR(target.clone()))])
            } else {
                Found::NoData
            };
        }
        if name.len() == 1 && name.first().is_some_and(|top| **top == *TOP.as_bytes()) {
            return match soa() {
                Some(soa) if wants(RecordType::SOA) => Found::Records(vec![RData::SOA(soa)]),
                _ => Found::NoData,
            };
        }
        if let Some(addresses) = self.names.get(name) {
            let records: Vec<RData> = addresses
                .iter()
                .filter_map(|address| match address {
                    IpAddr::V4(v4) => wants(RecordType::A).then_some(RData::A(A(*v4))),
                    IpAddr::V6(v6) => wants(RecordType::AAAA).then_some(RData::AAAA(AAAA(*v6))),
                })
                .collect();
            return if records.is_empty() {
                Found::NoData
            } else {
                Found::Records(records)
            };
        }
        // A name between the top and a service with dots in its id exists, although it has nothing (RFC 8020 §2).
        let mut below = self.names.range(name.clone()..);
        if below.next().is_some_and(|(next, _)| next.starts_with(name)) {
            return Found::NoData;
        }
        Found::Nothing
    }

    /// What says for how long there is nothing: the SOA of the zone that the name is in.
    fn authority(&self, name: &Key) -> Vec<Record> {
        let reverse = (1..=name.len())
            .filter_map(|len| name.get(..len))
            .find(|own| self.reverse.contains_key(*own));
        let apex = match reverse {
            Some(own) => Name::from_labels(own.iter().rev().map(AsRef::as_ref)).ok(),
            None => absolute(TOP),
        };
        let record = apex
            .zip(soa())
            .map(|(apex, soa)| Record::from_rdata(apex, NEGATIVE_TTL, RData::SOA(soa)));
        record.into_iter().collect()
    }
}

fn soa() -> Option<SOA> {
    let (server, person) = (absolute("localhost")?, absolute("nobody.invalid")?);
    Some(SOA::new(server, person, 1, 3_600, 600, 86_400, NEGATIVE_TTL))
}

fn absolute(text: &str) -> Option<Name> {
    Name::from_ascii(format!("{text}.")).ok()
}

fn key(name: &Name) -> Key {
    let mut labels: Key = name
        .iter()
        .map(|label| label.to_ascii_lowercase().into())
        .collect();
    labels.reverse();
    labels
}

/// The head of an answer: id, question and what was asked for, as the question had them.
fn reply(message: &Message, query: &Query, forwarding: bool) -> Message {
    let mut answer = Message::response(message.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = message.metadata.recursion_desired;
    answer.metadata.recursion_available = forwarding;
    answer.metadata.checking_disabled = message.metadata.checking_disabled;
    answer.add_query(query.clone());
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP).set_version(0);
        answer.set_edns(edns);
    }
    answer
}

fn encode(answer: Message, question: &Message, transport: Transport) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let limit = match (transport, &question.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload().min(MAX_UDP)).max(PLAIN_UDP),
        (Transport::Udp, None) => PLAIN_UDP,
    };
    if bytes.len() <= limit {
        return Some(bytes);
    }
    answer.truncate().to_vec().ok()
}

/// The shortest answer to a message that could not be read: its header, nothing else.
pub(crate) fn error(bytes: &[u8], code: ResponseCode) -> Decision {
    let Some(id) = bytes.first_chunk::<2>() else {
        return Decision::Drop;
    };
    let op_code = bytes
        .get(2)
        .map_or(OpCode::Query, |flags| OpCode::from_u8((flags >> 3) & 0x0f));
    let mut answer = Message::new(u16::from_be_bytes(*id), MessageType::Response, op_code);
    answer.metadata.response_code = code;
    match answer.to_vec() {
        Ok(bytes) => Decision::Answer(bytes),
        Err(_) => Decision::Drop,
    }
}

#[cfg(test)]
mod tests;
