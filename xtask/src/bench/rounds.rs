//! What one round measures. Everything that is compared is measured in every round, close together, so that a slow phase
//! of the machine meets all of it.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::account::{cpu, pin, resident};
use super::figures::{Figures, number};
use super::stage::{Channels, Forwarded, Held, Relayed, Stage};
use super::talk::Talk;

/// The length of every IP packet.
const SIZE: usize = 1_200;
/// The rate of the paced measurements.
const RATE: u32 = 20_000;
/// Clients that only stay.
const IDLE: u32 = 1_000;
/// The share of the rate that a sender must offer for a measurement to count as one at that rate.
const KEPT_UP: f64 = 0.99;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Rounds.
    pub(super) rounds: u32,
    /// Seconds of one measurement.
    pub(super) seconds: f64,
    /// Milliseconds of one relay in memory.
    pub(super) memory: u32,
    /// Round trips of one measurement.
    pub(super) pings: u32,
    /// Comparisons with and without idle clients in one round; even.
    pub(super) pairs: u32,
}

/// One look at the relay in memory.
struct InMemory {
    bare: f64,
    reference: f64,
}

/// Measures.
pub(super) struct Rounds<'a> {
    stage: &'a mut Stage,
    extent: Extent,
    cpus: usize,
    pub(super) figures: Figures,
}

impl<'a> Rounds<'a> {
    /// Over a stage.
    pub(super) fn new(stage: &'a mut Stage, extent: Extent) -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self {
            stage,
            extent,
            cpus,
            figures: Figures::default(),
        }
    }

    /// All rounds; `tell` hears of each.
    pub(super) fn run(&mut self, mut tell: impl FnMut(String)) -> Result<()> {
        self.settle_idle()?;
        for round in 1..=self.extent.rounds {
            tell(format!("round {round} of {}", self.extent.rounds));
            self.saturated()?;
            self.paced()?;
            self.burdened()?;
            self.round_trips()?;
            self.handshakes()?;
        }
        Ok(())
    }

    /// Gives the middle a processor of its own, or everyone all of them. Alone on a processor the relay and what it is
    /// compared with share that processor's speed; together the scheduler places them as it would anywhere.
    fn place(&self, apart: bool) -> Result<()> {
        let all: Vec<usize> = (0..self.cpus).collect();
        let (middle, ends) = if apart && self.cpus > 1 {
            all.split_at(1)
        } else {
            (&all[..], &all[..])
        };
        for pid in self.stage.middles() {
            pin(pid, middle)?;
        }
        for pid in self.stage.ends() {
            pin(pid, ends)?;
        }
        Ok(())
    }

    /// The idle clients arrive, after some traffic has shown how large the relay is without them.
    fn settle_idle(&mut self) -> Result<()> {
        let Relayed { relay, agents, sink } = &mut self.stage.burdened;
        agents.ask(&format!("run 0 0.3 {SIZE}"))?;
        sink.ask("take")?;
        let before = resident(relay.id())?;
        agents.ask(&format!("idle {IDLE}"))?;
        let added = resident(relay.id())?.saturating_sub(before);
        self.figures.add("idle_bytes", added as f64 / f64::from(IDLE));
        let Held {
            relay,
            channels,
            idle,
        } = &mut self.stage.held;
        channels.agents.ask(&format!("run 0 0.3 {SIZE}"))?;
        channels.sink.ask("take")?;
        let before = resident(relay.id())?;
        idle.ask(&format!("idle {IDLE}"))?;
        let added = resident(relay.id())?.saturating_sub(before);
        self.figures.add("idle_v2_bytes", added as f64 / f64::from(IDLE));
        Ok(())
    }

    /// As much as goes, with the relay in memory before and after.
    fn saturated(&mut self) -> Result<()> {
        self.place(true)?;
        let command = format!("run 0 {} {SIZE}", self.extent.seconds);
        let before = self.in_memory()?;
        let (rate, micros, lost) = one_way_relayed(&mut self.stage.relayed, &command)?;
        let after = self.in_memory()?;
        let bare = f64::midpoint(before.bare, after.bare);
        self.figures.add("sat_rate", rate);
        self.figures.add("sat_us", micros);
        self.figures.add("sat_lost", lost * 100.0);
        self.figures.add("memory_bare_us", bare);
        self.figures.add("sat_ratio", micros / bare);
        self.figures.add("aead_us", before.reference);
        self.figures.add("aead_us", after.reference);
        let (rate, micros, _) =
            one_way_forwarded(&mut self.stage.batches, &mut self.stage.counting, &command)?;
        self.figures.add("fwd_batches_rate", rate);
        self.figures.add("fwd_batches_us", micros);
        let (rate, micros, _) =
            one_way_forwarded(&mut self.stage.singles, &mut self.stage.counting, &command)?;
        self.figures.add("fwd_singles_rate", rate);
        self.figures.add("fwd_singles_us", micros);
        self.channels(&command)?;
        self.place(false)
    }

    /// Frames of channels between two looks at the plain forwarder, because the machine changes its speed.
    fn channels(&mut self, command: &str) -> Result<()> {
        let Stage {
            relayed,
            channels,
            batches,
            counting,
            ..
        } = &mut *self.stage;
        let before = one_way_forwarded(batches, counting, command)?.1;
        let Channels { agents, sink } = channels;
        sink.ask("take")?;
        let (rate, micros, lost) = one_way(relayed.relay.id(), agents, sink, command)?;
        let after = one_way_forwarded(batches, counting, command)?.1;
        self.figures.add("chan_rate", rate);
        self.figures.add("chan_lost", lost * 100.0);
        self.figures.add("chan_us", micros);
        self.figures
            .add("chan_ratio", micros / f64::midpoint(before, after));
        Ok(())
    }

    fn in_memory(&mut self) -> Result<InMemory> {
        let answer = self
            .stage
            .memory
            .ask(&format!("measure {}", self.extent.memory))?;
        let bare = f64::midpoint(number(&answer, "/bare/us"), number(&answer, "/bare_again/us"));
        for (name, path) in [
            ("memory_relay_us", "/relay/us"),
            ("memory_spread_us", "/relay_8_agents/us"),
            ("memory_fake_us", "/fake/us"),
            ("memory_channel_us", "/channel/us"),
            ("allocations_channel", "/channel/allocations_ours"),
            ("allocations_ours", "/apart/allocations_ours"),
            ("allocations_relay", "/relay/allocations"),
            ("allocations_bare", "/bare/allocations"),
        ] {
            self.figures.add(name, number(&answer, path));
        }
        let reference = f64::midpoint(number(&answer, "/aead_us/0"), number(&answer, "/aead_us/1"));
        Ok(InMemory { bare, reference })
    }

    /// At the fixed rate: the whole path and back, in bursts and evenly, and beside it the path without backend, the
    /// path with the tunnel, and a forwarder.
    fn paced(&mut self) -> Result<()> {
        let seconds = self.extent.seconds;
        let bursts = format!("run {RATE} {seconds} {SIZE}");
        let evenly = format!("run {RATE} {seconds} {SIZE} 0");
        let stage = &mut *self.stage;
        let (relay, connector, agent) = (stage.relayed.relay.id(), stage.connector.id(), stage.agent.id());
        let both = there_and_back(&mut stage.whole, &[relay, connector], &bursts)?;
        self.figures.add("whole_lost", both.lost);
        self.figures.add("whole_kept_up", both.kept_up);
        self.figures.add("whole_relay_us", both.micros[0]);
        self.figures.add("whole_connector_us", both.micros[1]);
        let even = there_and_back(&mut stage.whole, &[relay], &evenly)?;
        self.figures.add("even_lost", even.lost);
        self.figures.add("even_relay_us", even.micros[0]);
        let mirrored = there_and_back(&mut stage.mirrored, &[relay], &bursts)?;
        self.figures.add("mirror_lost", mirrored.lost);
        self.figures.add("mirror_relay_us", mirrored.micros[0]);
        let tunnelled = there_and_back(&mut stage.tunnelled, &[relay, agent], &bursts)?;
        self.figures.add("tun_lost", tunnelled.lost);
        self.figures.add("tun_agent_us", tunnelled.micros[1]);
        let forwarder = stage.returned.forwarder.id();
        let returned = there_and_back(&mut stage.returned.sender, &[forwarder], &bursts)?;
        self.figures.add("fwd_paced_lost", returned.lost);
        self.figures.add("fwd_paced_us", returned.micros[0]);
        Ok(())
    }

    /// The same load on two relays, one of which has idle clients; turn by turn, each first as often as the other.
    fn burdened(&mut self) -> Result<()> {
        let command = format!("run {RATE} {} {SIZE}", self.extent.seconds / 2.0);
        for pair in 0..self.extent.pairs {
            let Stage {
                relayed, burdened, ..
            } = &mut *self.stage;
            let (alone, with) = if pair % 2 == 0 {
                let alone = one_way_relayed(relayed, &command)?.1;
                (alone, one_way_relayed(burdened, &command)?.1)
            } else {
                let with = one_way_relayed(burdened, &command)?.1;
                (one_way_relayed(relayed, &command)?.1, with)
            };
            self.figures.add("alone_us", alone);
            self.figures.add("burdened_us", with);
            self.figures.add("burdened_ratio", with / alone);
        }
        Ok(())
    }

    fn round_trips(&mut self) -> Result<()> {
        let command = format!("ping {} {SIZE}", self.extent.pings);
        let stage = &mut *self.stage;
        let ways: [(&mut Talk, [&'static str; 2]); 5] = [
            (&mut stage.direct, ["rtt_direct_p50", "rtt_direct_p99"]),
            (&mut stage.returned.sender, ["rtt_fwd_p50", "rtt_fwd_p99"]),
            (&mut stage.mirrored, ["rtt_relayed_p50", "rtt_relayed_p99"]),
            (&mut stage.whole, ["rtt_whole_p50", "rtt_whole_p99"]),
            (&mut stage.tunnelled, ["rtt_tun_p50", "rtt_tun_p99"]),
        ];
        let mut medians = Vec::new();
        for (talk, [p50, p99]) in ways {
            let answer = talk.ask(&command)?;
            self.figures.add(p50, number(&answer, "/rtt/p50_us"));
            self.figures.add(p99, number(&answer, "/rtt/p99_us"));
            medians.push(number(&answer, "/rtt/p50_us"));
        }
        // The whole path, connector and backend included, beside the plain forwarder in the same round.
        if let [_, forwarded, _, whole, _] = medians[..] {
            self.figures.add("rtt_ratio", whole / forwarded);
        }
        Ok(())
    }

    fn handshakes(&mut self) -> Result<()> {
        let Relayed { relay, agents, .. } = &mut self.stage.relayed;
        let before = cpu(relay.id())?;
        let answer = agents.ask(&format!("handshakes {}", self.extent.seconds))?;
        let spent = cpu(relay.id())?.saturating_sub(before);
        let done = number(&answer, "/handshakes");
        self.figures
            .add("handshakes_rate", done / number(&answer, "/seconds"));
        self.figures
            .add("handshakes_ms", spent.as_secs_f64() * 1e3 / done);
        Ok(())
    }
}

/// A measurement there and back.
struct Both {
    lost: f64,
    /// The share of the wanted rate that was offered.
    kept_up: f64,
    /// CPU of each process, in microseconds per packet that passed it: every packet passes twice.
    micros: Vec<f64>,
}

fn there_and_back(talk: &mut Talk, pids: &[u32], command: &str) -> Result<Both> {
    let before = pids
        .iter()
        .map(|pid| cpu(*pid))
        .collect::<Result<Vec<Duration>>>()?;
    let answer = talk.ask(command)?;
    let offered = number(&answer, "/offered");
    let returned = number(&answer, "/returned/arrived");
    let wanted = f64::from(RATE) * number(&answer, "/seconds");
    let mut micros = Vec::new();
    for (pid, before) in pids.iter().zip(before) {
        let spent = cpu(*pid)?.saturating_sub(before);
        micros.push(spent.as_secs_f64() * 1e6 / (offered + returned));
    }
    Ok(Both {
        lost: offered - returned,
        kept_up: f64::from(u8::from(offered / wanted >= KEPT_UP)),
        micros,
    })
}

/// Packets per second that arrive, the relay's CPU for each of them, and the share of what was sent that did not arrive.
fn one_way_relayed(relayed: &mut Relayed, command: &str) -> Result<(f64, f64, f64)> {
    let Relayed { relay, agents, sink } = relayed;
    sink.ask("take")?;
    one_way(relay.id(), agents, sink, command)
}

fn one_way_forwarded(
    forwarded: &mut Forwarded,
    counting: &mut Talk,
    command: &str,
) -> Result<(f64, f64, f64)> {
    let Forwarded { forwarder, sender } = forwarded;
    counting.ask("take")?;
    one_way(forwarder.id(), sender, counting, command)
}

fn one_way(middle: u32, sender: &mut Talk, receiver: &mut Talk, command: &str) -> Result<(f64, f64, f64)> {
    let before = cpu(middle)?;
    let sent: Value = sender.ask(command)?;
    let spent = cpu(middle)?.saturating_sub(before);
    let arrived = number(&receiver.ask("take")?, "/arrived");
    Ok((
        arrived / number(&sent, "/seconds"),
        spent.as_secs_f64() * 1e6 / arrived,
        1.0 - arrived / number(&sent, "/sent"),
    ))
}
