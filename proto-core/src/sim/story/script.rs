//! Scripts of what happens in a generated world, read out of arbitrary bytes.

use std::time::Duration;

use crate::sim::LinkConfig;

/// Who takes part. Every agent uses every service; the services are shared out among the connectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// 1 to 3.
    pub agents: u8,
    /// 1 or 2.
    pub connectors: u8,
    /// 1 to 3.
    pub services: u8,
    /// Whether the intermediate speaks `ztna-v2` at first.
    pub modern: bool,
    /// The seed of everything random.
    pub seed: u64,
}

/// One thing that happens. Numbers of participants are taken modulo how many there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An agent's host sends a UDP packet to a service.
    Send {
        /// Which agent.
        agent: u8,
        /// Which service.
        service: u8,
        /// Which of two source ports.
        port: u8,
        /// Bytes of filling.
        filling: u16,
    },
    /// Time passes.
    Pass(Duration),
    /// All links change.
    Weather(LinkConfig),
    /// Nothing passes between a client and the intermediate any more.
    Cut {
        /// Which client.
        client: u8,
    },
    /// It does again.
    Mend {
        /// Which client.
        client: u8,
    },
    /// A client appears at another public address.
    Rebind {
        /// Which client.
        client: u8,
    },
    /// A client falls asleep: not even time reaches it.
    Sleep {
        /// Which client.
        client: u8,
    },
    /// It wakes up.
    Wake {
        /// Which client.
        client: u8,
    },
    /// The intermediate is restarted.
    RestartIntermediate {
        /// With the key by which it can say so.
        keyed: bool,
        /// As one that speaks `ztna-v2`, or as one that does not.
        modern: bool,
    },
    /// A client is restarted, with the same certificate.
    Restart {
        /// Which client.
        client: u8,
    },
    /// A client shuts down in order, and is started again at the end.
    Leave {
        /// Which client.
        client: u8,
    },
}

/// Longer scripts are cut, so that no input runs for long.
const MAX_EVENTS: usize = 200;

/// Reads a cast and a script out of any bytes; past the end there are only zeros.
pub fn read(bytes: &[u8]) -> (Cast, Vec<Event>) {
    let mut source = Source(bytes);
    let (agents, connectors) = (source.u8(), source.u8());
    let cast = Cast {
        agents: 1 + agents % 3,
        connectors: 1 + connectors % 2,
        modern: connectors / 2 % 2 == 0,
        services: 1 + source.u8() % 3,
        seed: u64::from(source.u16()),
    };
    let mut script = Vec::new();
    while let (Some(kind), true) = (source.byte(), script.len() < MAX_EVENTS) {
        script.push(source.event(kind));
    }
    (cast, script)
}

struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn u8(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn duration(&mut self) -> Duration {
        let amount = u64::from(self.u8());
        match self.u8() {
            0..150 => Duration::from_millis(amount),
            150..230 => Duration::from_millis(amount * 20),
            230..250 => Duration::from_millis(amount * 200),
            250..=255 => Duration::from_secs(amount * 20),
        }
    }

    fn weather(&mut self) -> LinkConfig {
        let millis = |amount: u8| Duration::from_millis(u64::from(amount));
        LinkConfig::new(millis(1 + self.u8() % 100))
            .with_loss(u32::from(self.u8() % 60))
            .with_jitter(millis(self.u8() % 50))
            .with_reordering(u32::from(self.u8() % 40), millis(50))
            .with_duplicates(u32::from(self.u8() % 40))
    }

    fn event(&mut self, kind: u8) -> Event {
        match kind {
            0..120 => Event::Send {
                agent: self.u8(),
                service: self.u8(),
                port: self.u8(),
                filling: match self.u8() {
                    few @ 0..200 => u16::from(few),
                    many => 1200 + u16::from(many - 200) * 3,
                },
            },
            120..190 => Event::Pass(self.duration()),
            190..202 => Event::Weather(self.weather()),
            202..210 => Event::Weather(LinkConfig::default()),
            210..214 => Event::Cut { client: self.u8() },
            214..222 => Event::Mend { client: self.u8() },
            222..232 => Event::Rebind { client: self.u8() },
            232..235 => Event::Sleep { client: self.u8() },
            235..241 => Event::Wake { client: self.u8() },
            241..245 => Event::RestartIntermediate {
                keyed: kind.is_multiple_of(2),
                modern: kind < 243,
            },
            245..252 => Event::Restart { client: self.u8() },
            252..=255 => Event::Leave { client: self.u8() },
        }
    }
}
