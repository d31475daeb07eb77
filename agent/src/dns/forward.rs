//! A question that is not ours goes on unchanged, but for its id; a reply is believed only if it answers it.
//!
//! What makes a forged reply hard (RFC 5452): a socket of its own per question, so a port that the kernel draws; an id
//! drawn by us; the address that was asked (the socket is connected); and the question repeated. The first two bytes are
//! the only ones that are ever changed.

use ring::rand::SecureRandom;

use super::zone::HEADER;

/// The last four bytes of a question: type and class.
const KIND: usize = 4;

/// The longest name.
const NAME: usize = 255;

/// A question on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// As it is sent.
    bytes: Vec<u8>,
    /// The id of whoever asked.
    asked_as: [u8; 2],
    /// Where its question ends.
    end: usize,
}

impl Pending {
    /// A question, to be sent with `id`; `None` if it is none, or has more than one.
    pub(crate) fn new(mut bytes: Vec<u8>, id: [u8; 2]) -> Option<Self> {
        let end = end_of_question(&bytes)?;
        let place = bytes.first_chunk_mut::<2>()?;
        let asked_as = std::mem::replace(place, id);
        Some(Self { bytes, asked_as, end })
    }

    /// What is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The question alone: its name as it was written, type and class.
    pub(crate) fn question(&self) -> &[u8] {
        self.bytes.get(HEADER..self.end).unwrap_or_default()
    }

    /// The reply as it goes back to whoever asked, or `None` if it is not one to this question.
    pub(crate) fn accept(&self, reply: &[u8]) -> Option<Vec<u8>> {
        let same_id = reply.first_chunk::<2>() == self.bytes.first_chunk::<2>();
        let is_reply = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
        if !same_id || !is_reply || !self.is_about(reply) {
            return None;
        }
        let mut reply = reply.to_vec();
        *reply.first_chunk_mut::<2>()? = self.asked_as;
        Some(reply)
    }

    /// Whether the question is repeated. A server that could not even read it says so without.
    fn is_about(&self, reply: &[u8]) -> bool {
        let Some(end) = end_of_question(reply) else {
            let is_bare = reply.len() == HEADER && reply.get(4..6) == Some(&[0, 0]);
            return is_bare && code(reply) != Some(NO_ERROR);
        };
        let theirs = reply.get(HEADER..end).unwrap_or_default();
        let ours = self.question();
        let split = ours.len().saturating_sub(KIND);
        // Some servers answer in small letters; lengths of labels are below any letter.
        theirs.len() == ours.len()
            && theirs
                .get(..split)
                .zip(ours.get(..split))
                .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
            && theirs.get(split..) == ours.get(split..)
    }

    /// "The server failed", in place of a reply that never came.
    pub(crate) fn failed(&self) -> Vec<u8> {
        let mut answer = self.bytes.get(..self.end).unwrap_or_default().to_vec();
        if let Some(header) = answer.first_chunk_mut::<HEADER>() {
            let [a, b] = self.asked_as;
            let asked = header[2] & 0x79;
            *header = [a, b, 0x80 | asked, 0x80 | SERVER_FAILURE, 0, 1, 0, 0, 0, 0, 0, 0];
        }
        answer
    }
}

const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// The code of a reply.
fn code(reply: &[u8]) -> Option<u8> {
    reply.get(3).map(|flags| flags & 0x0f)
}

/// Whether another server should be asked, as the C library does: this one cannot or will not.
pub(crate) fn is_no_help(reply: &[u8]) -> bool {
    matches!(code(reply), Some(SERVER_FAILURE | NOT_IMPLEMENTED | REFUSED))
}

/// An id that nobody can guess; `None` without entropy, and then nothing is sent.
pub(crate) fn random_id() -> Option<[u8; 2]> {
    let mut id = [0; 2];
    ring::rand::SystemRandom::new().fill(&mut id).ok()?;
    Some(id)
}

/// Where the one question of a message ends; `None` if it has none, more, or a name that is not written out.
fn end_of_question(bytes: &[u8]) -> Option<usize> {
    if bytes.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = usize::from(*bytes.get(at)?);
        // The two highest bits would make it a pointer, for which a first name has no use.
        if length > 63 || at - HEADER + length + 1 > NAME {
            return None;
        }
        at += 1 + length;
        if length == 0 {
            break;
        }
    }
    (bytes.len() >= at + KIND).then_some(at + KIND)
}

#[cfg(test)]
mod tests;
