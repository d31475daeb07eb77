//! Which numbers were seen: a sliding window, as IPsec has it (RFC 4303 §3.4.3), and what travels twice taken once.

#[cfg(test)]
mod tests;

/// How far back the window reaches.
const BITS: u64 = 1024;
const WORDS: usize = (BITS / 64) as usize;

/// What a window says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Not seen before.
    Fresh,
    /// Seen before.
    Seen,
    /// So old that nobody knows; treat it as seen.
    TooOld,
}

/// Remembers the last 1,024 numbers below the highest.
#[derive(Clone, Debug)]
pub struct SequenceWindow {
    /// One more than the highest number seen.
    end: u64,
    /// A ring: the bit of number n is n mod 1024.
    seen: [u64; WORDS],
}

impl Default for SequenceWindow {
    fn default() -> Self {
        Self {
            end: 0,
            seen: [0; WORDS],
        }
    }
}

impl SequenceWindow {
    /// Notes a number, and says whether it is new.
    pub fn note(&mut self, number: u64) -> Freshness {
        if number == u64::MAX {
            // Nothing could follow it.
            return Freshness::TooOld;
        }
        if number >= self.end {
            let skipped = number - self.end;
            if skipped >= BITS {
                self.seen = [0; WORDS];
            } else {
                for gap in self.end..number {
                    self.clear(gap);
                }
            }
            self.end = number + 1;
            self.clear(number);
        } else if self.end - number > BITS {
            return Freshness::TooOld;
        }
        let (word, bit) = Self::place(number);
        let Some(word) = self.seen.get_mut(word) else {
            return Freshness::TooOld;
        };
        if *word & bit != 0 {
            return Freshness::Seen;
        }
        *word |= bit;
        Freshness::Fresh
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        if let Some(word) = self.seen.get_mut(word) {
            *word &= !bit;
        }
    }

    fn place(number: u64) -> (usize, u64) {
        let index = number % BITS;
        ((index / 64) as usize, 1 << (index % 64))
    }
}

/// The receiver of packets that are sent on two paths: it takes the first of each number.
#[derive(Clone, Debug, Default)]
pub struct Once {
    window: SequenceWindow,
    /// The highest number so far, continued beyond 32 bits.
    highest: Option<u64>,
}

/// Where the first number is put, so that lower ones that were overtaken have a place.
const START: u64 = 1 << 32;

impl Once {
    /// Whether this number is the first of its kind.
    pub fn take(&mut self, number: u32) -> bool {
        let full = match self.highest {
            None => START + u64::from(number),
            // The one of all that end in these 32 bits that is nearest to the highest.
            Some(highest) => {
                let ahead = number.wrapping_sub(highest as u32) as i32;
                highest.saturating_add_signed(i64::from(ahead))
            }
        };
        self.highest = Some(self.highest.map_or(full, |highest| highest.max(full)));
        self.window.note(full) == Freshness::Fresh
    }
}
