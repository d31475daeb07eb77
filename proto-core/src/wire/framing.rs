//! Frames on a stream: `[len u32][payload]`, len at most 65,536, back to back.
//!
//! [`Frames`] is the reassembly buffer of one stream; keep one per stream. It holds at most one frame that is not yet
//! complete and grows only with bytes that really arrived, whatever a length field promises. An over-long frame is
//! skipped by its length without being kept, so a bad frame costs itself and never the stream. What a payload means is
//! decided in [`super::control`].

/// The largest payload of a frame in bytes.
pub const MAX_FRAME_LEN: usize = 65_536;

const HEADER_LEN: usize = 4;

/// A buffer that grew beyond this for one large frame is given back.
const KEPT_CAPACITY: usize = 4096;

/// Prefixes a payload with its length; `None` if it is longer than a frame may be.
pub fn write_frame(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > MAX_FRAME_LEN {
        return None;
    }
    let len = u32::try_from(payload.len()).ok()?;
    let mut frame = Vec::with_capacity(HEADER_LEN + payload.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(payload);
    Some(frame)
}

/// Where the reader stands between two chunks of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The length field; this many of its bytes have come.
    Header { have: usize, bytes: [u8; HEADER_LEN] },
    /// This many more bytes of a payload to be kept.
    Payload { missing: usize },
    /// This many more bytes of a payload to be dropped.
    Skip { missing: usize },
}

impl Expect {
    const NEXT_FRAME: Self = Self::Header {
        have: 0,
        bytes: [0; HEADER_LEN],
    };
}

/// The reassembly buffer of one stream.
#[derive(Clone, Debug)]
pub struct Frames {
    expect: Expect,
    payload: Vec<u8>,
    /// Whether `payload` is a frame that was handed out by the last call.
    delivered: bool,
    skipped: u64,
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// A buffer for a stream that begins with a frame.
    pub fn new() -> Self {
        Self {
            expect: Expect::NEXT_FRAME,
            payload: Vec::new(),
            delivered: false,
            skipped: 0,
        }
    }

    /// Takes bytes from the front of `input` until a frame is complete, and returns its payload.
    ///
    /// `None` means that `input` is used up. Call it again with the same `input` until then.
    pub fn read(&mut self, input: &mut &[u8]) -> Option<&[u8]> {
        if self.delivered {
            self.delivered = false;
            self.payload.clear();
            if self.payload.capacity() > KEPT_CAPACITY {
                self.payload = Vec::new();
            }
        }
        loop {
            match self.expect {
                // An empty payload is complete before any further byte comes.
                Expect::Payload { missing: 0 } => {
                    self.expect = Expect::NEXT_FRAME;
                    self.delivered = true;
                    return Some(&self.payload);
                }
                Expect::Skip { missing: 0 } => self.expect = Expect::NEXT_FRAME,
                Expect::Header { have, bytes } => self.read_header(have, bytes, input)?,
                Expect::Payload { missing } => {
                    let chunk = take(input, missing)?;
                    self.payload.extend_from_slice(chunk);
                    self.expect = Expect::Payload {
                        missing: missing - chunk.len(),
                    };
                }
                Expect::Skip { missing } => {
                    let chunk = take(input, missing)?;
                    self.expect = Expect::Skip {
                        missing: missing - chunk.len(),
                    };
                }
            }
        }
    }

    fn read_header(&mut self, have: usize, mut bytes: [u8; HEADER_LEN], input: &mut &[u8]) -> Option<()> {
        let chunk = take(input, HEADER_LEN - have)?;
        for (slot, byte) in bytes.iter_mut().skip(have).zip(chunk) {
            *slot = *byte;
        }
        let have = have + chunk.len();
        self.expect = if have < HEADER_LEN {
            Expect::Header { have, bytes }
        } else {
            let missing = u32::from_be_bytes(bytes) as usize;
            if missing <= MAX_FRAME_LEN {
                Expect::Payload { missing }
            } else {
                self.skipped += 1;
                Expect::Skip { missing }
            }
        };
        Some(())
    }

    /// How many over-long frames were skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How many payload bytes wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        if self.delivered { 0 } else { self.payload.len() }
    }
}

/// The first `count` bytes of `input`, or all if there are fewer; `None` if there is none.
fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    if input.is_empty() {
        return None;
    }
    let (head, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
    *input = rest;
    Some(head)
}
