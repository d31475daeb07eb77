//! TCP options as a peer might send them: right ones, right ones with wrong contents, and bytes that are none.

use super::{Conversation, Script};

/// The most that a header holds (RFC 9293 §3.1).
const MOST: usize = 40;

const END: u8 = 0;
const MAXIMUM_SEGMENT: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// What the script wants, padded to whole words.
pub(super) fn draw(conversation: &Conversation, script: &mut Script<'_>) -> Vec<u8> {
    let mut options = Vec::new();
    let kinds = script.u8();
    if kinds & 1 != 0 {
        let [high, low] = [script.u8(), script.u8()];
        options.extend([MAXIMUM_SEGMENT, 4, high, low]);
    }
    if kinds & 2 != 0 {
        // Beyond 14 it is to be taken for 14 (RFC 7323 §2.3).
        options.extend([WINDOW_SCALE, 3, script.u8() % 20]);
    }
    if kinds & 4 != 0 {
        options.extend([SACK_PERMITTED, 2]);
    }
    if kinds & 8 != 0 {
        let (ours, echo) = (script.u8(), script.u8());
        // Mostly an echo of what was sent, a little ago; sometimes one of the future.
        let echo = conversation.stamp.wrapping_sub(u32::from(echo)).wrapping_add(16);
        options.extend([TIMESTAMPS, 10]);
        options.extend(u32::from(ours).wrapping_mul(0x0101_0101).to_be_bytes());
        options.extend(echo.to_be_bytes());
    }
    if kinds & 16 != 0 {
        let count = 1 + script.u8() % 4;
        options.extend([SACK, 2 + 8 * count]);
        for _ in 0..count {
            // Around what is acknowledged: below it (RFC 2883), beyond it, and the wrong way round.
            let (left, right) = (u32::from(script.u8()) * 64, u32::from(script.u8()) * 64);
            let base = conversation.acknowledged.wrapping_sub(2048);
            options.extend(base.wrapping_add(left).to_be_bytes());
            options.extend(base.wrapping_add(right).to_be_bytes());
        }
    }
    if kinds & 32 != 0 {
        options.extend(script.bytes());
    }
    options.truncate(MOST);
    options.resize(options.len().next_multiple_of(4), END);
    options
}

/// The timestamp in a header of the stack's, if there is one.
pub(super) fn stamp(header: &[u8]) -> Option<u32> {
    let mut options = header.get(20..)?;
    loop {
        match *options {
            [TIMESTAMPS, 10, a, b, c, d, ..] => return Some(u32::from_be_bytes([a, b, c, d])),
            // An end, or a filler.
            [END, ..] | [] => return None,
            [1, ref rest @ ..] => options = rest,
            [_, length, ..] => options = options.get(usize::from(length).max(2)..)?,
            [_] => return None,
        }
    }
}
