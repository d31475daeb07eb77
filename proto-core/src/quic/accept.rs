//! The front door of a server: what is decided about an Initial before any state exists.
//!
//! A client first proves that it receives at the address it sends from, by bringing back a token (RFC 9000 §8.1.2). The
//! token is sealed with AES-256-GCM under a key of this process, bound to the client's address, to the id it chose first
//! and to the id that the Retry gave it, and lives 60 seconds. Nothing is remembered in between.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use super::{Cid, RetryIds};
use crate::rng::Rng;

/// How long a Retry token is good.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// The largest token that [`FrontDoor::seal`] writes: nonce, issue time, two ids with lengths, tag.
pub const MAX_TOKEN_LEN: usize = NONCE_LEN + 8 + 2 * 21 + 16;

/// Seals and opens Retry tokens, and derives stateless reset tokens.
#[derive(Debug)]
pub struct FrontDoor {
    tokens: LessSafeKey,
    resets: hmac::Key,
    nonce: [u8; NONCE_LEN],
    start: Instant,
}

impl FrontDoor {
    /// Makes the keys. `reset_key` should survive a restart, so that peers of the previous process learn at once that
    /// it is gone; without one a key is drawn and they wait for their own timeouts.
    pub fn new(reset_key: Option<[u8; 32]>, rng: &mut Rng, now: Instant) -> Self {
        let mut key = [0; 32];
        rng.fill(&mut key);
        let mut drawn = [0; 32];
        rng.fill(&mut drawn);
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce);
        let unbound = UnboundKey::new(&AES_256_GCM, &key).expect("AES-256 takes 32 bytes");
        Self {
            tokens: LessSafeKey::new(unbound),
            resets: hmac::Key::new(hmac::HMAC_SHA256, &reset_key.unwrap_or(drawn)),
            nonce,
            start: now,
        }
    }

    /// Writes a token for a client at `from` and returns its length.
    pub fn seal(
        &mut self,
        ids: RetryIds,
        from: SocketAddr,
        out: &mut [u8; MAX_TOKEN_LEN],
        now: Instant,
    ) -> usize {
        self.next_nonce();
        out[..NONCE_LEN].copy_from_slice(&self.nonce);
        let mut end = NONCE_LEN;
        let issued = now.saturating_duration_since(self.start).as_millis() as u64;
        for field in [
            &issued.to_be_bytes()[..],
            &length_of(&ids.original),
            ids.original.as_bytes(),
            &length_of(&ids.retry),
            ids.retry.as_bytes(),
        ] {
            out[end..end + field.len()].copy_from_slice(field);
            end += field.len();
        }
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let sealed =
            self.tokens
                .seal_in_place_separate_tag(nonce, Aad::from(address(from)), &mut out[NONCE_LEN..end]);
        let Ok(tag) = sealed else { return 0 };
        out[end..end + 16].copy_from_slice(tag.as_ref());
        end + 16
    }

    /// Opens a token brought by a client at `from` in an Initial to `dcid`; `None` if it is not ours, not for this
    /// address and id, or too old.
    pub fn open(&self, token: &[u8], from: SocketAddr, dcid: &Cid, now: Instant) -> Option<RetryIds> {
        if token.len() > MAX_TOKEN_LEN {
            return None;
        }
        let (nonce, sealed) = token.split_at_checked(NONCE_LEN)?;
        let mut buffer = [0; MAX_TOKEN_LEN];
        let buffer = buffer.get_mut(..sealed.len())?;
        buffer.copy_from_slice(sealed);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self
            .tokens
            .open_in_place(nonce, Aad::from(address(from)), buffer)
            .ok()?;
        let (issued, rest) = plain.split_first_chunk::<8>()?;
        let (original, rest) = take_cid(rest)?;
        let (retry, _) = take_cid(rest)?;
        let issued = self.start + Duration::from_millis(u64::from_be_bytes(*issued));
        if now.saturating_duration_since(issued) > TOKEN_LIFETIME || retry != *dcid {
            return None;
        }
        Some(RetryIds { original, retry })
    }

    /// The stateless reset token of one of our ids (RFC 9000 §10.3.2).
    pub fn reset_token(&self, cid: &Cid) -> [u8; 16] {
        let tag = hmac::sign(&self.resets, cid.as_bytes());
        let mut token = [0; 16];
        token.copy_from_slice(&tag.as_ref()[..16]);
        token
    }

    /// A counter over a random start: no nonce is used twice under the key of this process.
    fn next_nonce(&mut self) {
        for byte in self.nonce.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return;
            }
        }
    }
}

fn length_of(cid: &Cid) -> [u8; 1] {
    [cid.as_bytes().len() as u8]
}

fn take_cid(bytes: &[u8]) -> Option<(Cid, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((Cid::new(id)?, rest))
}

/// The address as associated data: v4-mapped, so that one client looks the same on a dual-stack socket.
fn address(from: SocketAddr) -> [u8; 18] {
    let ip = match from.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&from.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests;
