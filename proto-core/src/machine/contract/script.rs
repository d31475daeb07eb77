//! Scripts of inputs, read out of arbitrary bytes so that property tests shrink them and fuzzers mutate them.

use std::time::Duration;

/// One input to a machine under test. Indices are taken modulo what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing but a drain.
    Rest,
    /// A datagram of the peer arrives; not necessarily the oldest.
    Deliver {
        /// Which.
        index: u8,
    },
    /// A datagram of the peer is lost.
    Lose {
        /// Which.
        index: u8,
    },
    /// A datagram arrives that has arrived before.
    Repeat {
        /// Which.
        index: u8,
        /// From a stranger's address.
        foreign: bool,
    },
    /// A datagram of the peer arrives with one byte changed, cut short, or both.
    Falsify {
        /// Which.
        index: u8,
        /// The byte that is changed.
        at: u16,
        /// The bits that are flipped.
        with: u8,
        /// How many bytes are missing at the end.
        cut: u16,
    },
    /// Bytes of no meaning arrive.
    Junk {
        /// The bytes, possibly none.
        bytes: Vec<u8>,
        /// The size of the datagrams in them; zero for one datagram.
        stride: u8,
        /// From a stranger's address.
        foreign: bool,
    },
    /// Time passes, and no timeout is handled: possibly none, possibly hours.
    Pass(Duration),
    /// The time that the machine is told runs backwards.
    Backwards(Duration),
    /// The timeout is handled, due or not, twice.
    Timeout,
    /// The shell sleeps until the deadline and handles it, possibly late.
    Sleep {
        /// How late.
        late: Duration,
    },
    /// The application does something.
    Application {
        /// What.
        choice: u8,
        /// With what.
        bytes: Vec<u8>,
    },
}

/// Reads a script out of any bytes. Delivery and the passing of time are the most frequent, so that machines get
/// somewhere before they are disturbed.
pub fn inputs(bytes: &[u8]) -> Vec<Input> {
    let mut source = Source { rest: bytes };
    let mut script = Vec::new();
    while let Some(kind) = source.byte() {
        script.push(source.input(kind));
    }
    script
}

/// The bytes not yet read; past the end it gives zeros.
struct Source<'a> {
    rest: &'a [u8],
}

impl Source<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn u8(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.u8() {
            len @ 0..200 => usize::from(len),
            len => usize::from(len - 200) * 30,
        };
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        let mut bytes = head.to_vec();
        // Long ones need not be spelled out.
        bytes.resize(len, bytes.first().copied().unwrap_or(0));
        bytes
    }

    fn duration(&mut self) -> Duration {
        let amount = u64::from(self.u8());
        match self.u8() % 8 {
            0 => Duration::from_nanos(amount),
            1 => Duration::from_micros(amount * 10),
            2..5 => Duration::from_millis(amount),
            5 | 6 => Duration::from_millis(amount * 100),
            _ => Duration::from_secs(amount * 120),
        }
    }

    fn input(&mut self, kind: u8) -> Input {
        match kind {
            0..70 => Input::Deliver { index: 0 },
            70..90 => Input::Deliver { index: self.u8() },
            90..130 => Input::Sleep { late: Duration::ZERO },
            130..150 => Input::Pass(Duration::from_millis(u64::from(kind - 130))),
            150..160 => Input::Pass(self.duration()),
            160..170 => Input::Sleep {
                late: self.duration(),
            },
            170..176 => Input::Backwards(self.duration()),
            176..186 => Input::Timeout,
            186..196 => Input::Lose { index: self.u8() },
            196..206 => Input::Repeat {
                index: self.u8(),
                foreign: kind.is_multiple_of(4),
            },
            206..218 => Input::Falsify {
                index: self.u8(),
                at: self.u16(),
                with: self.u8(),
                cut: self.u16() % 64,
            },
            218..228 => Input::Junk {
                stride: self.u8() % 64,
                foreign: kind.is_multiple_of(2),
                bytes: self.bytes(),
            },
            228..252 => Input::Application {
                choice: self.u8(),
                bytes: self.bytes(),
            },
            252..=255 => Input::Rest,
        }
    }
}
