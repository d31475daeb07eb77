//! Pretend cryptography: a keyed checksum in place of an AEAD.
//!
//! It refuses what was corrupted, and what was made by someone who has not seen the handshake. It hides nothing and
//! withstands nobody who reads the wire: good for simulations, and for nothing else.

/// The length of the checksum, that of an AEAD tag.
pub(super) const TAG_LEN: usize = 16;

/// The key of one direction in one packet number space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key([u64; 2]);

impl Key {
    /// A key from a label and the secrets that both ends know.
    pub(super) fn derive(label: &[u8], secrets: &[&[u8]]) -> Self {
        let mut lanes = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
        absorb(&mut lanes, label);
        for secret in secrets {
            absorb(&mut lanes, secret);
        }
        Self(lanes)
    }

    /// The checksum over a packet number and the bytes of a packet.
    pub(super) fn tag(&self, number: u64, packet: &[u8]) -> [u8; TAG_LEN] {
        let mut lanes = self.0;
        absorb(&mut lanes, &number.to_be_bytes());
        absorb(&mut lanes, packet);
        absorb(&mut lanes, &self.0[1].to_be_bytes());
        let mut tag = [0; TAG_LEN];
        tag[..8].copy_from_slice(&lanes[0].to_be_bytes());
        tag[8..].copy_from_slice(&lanes[1].to_be_bytes());
        tag
    }
}

/// Mixes bytes into both lanes, with their length so that neighbouring fields cannot trade bytes.
fn absorb(lanes: &mut [u64; 2], bytes: &[u8]) {
    let mut step = |word: u64| {
        lanes[0] = (lanes[0] ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        lanes[0] ^= lanes[0] >> 29;
        lanes[1] = lanes[1]
            .wrapping_add(word)
            .wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            .rotate_left(31)
            ^ lanes[0];
    };
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        step(u64::from_le_bytes(word));
    }
    step(bytes.len() as u64);
    step(0);
}
