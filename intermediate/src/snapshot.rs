//! The intermediate in numbers.

use std::time::Duration;

use program::metrics::{Exposition, Reasons, pool_drops, shell_drops};
use program::station::Snapshot;
use proto_core::channel::ChannelStats;
use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::intermediate::{ChannelRefusals, ControlStats, Dropped, IntermediateStats, SignallingStats};
use proto_core::quic::PoolStats;
use proto_core::routing::flow::FlowStats;
use runtime_io::ShellStats;

use crate::Machine;

/// A copy of all counters.
pub(crate) struct IntermediateSnapshot {
    stats: IntermediateStats,
    signalling: SignallingStats,
    pool: PoolStats,
    shell: ShellStats,
    connections: usize,
    flows: usize,
    flow_stats: FlowStats,
    agents: usize,
    connectors: usize,
    channels: usize,
    channel_stats: ChannelStats,
    /// Established connections whose path carries at least as many bytes as each of [`PAYLOADS`].
    payloads: [u64; PAYLOADS.len()],
}

/// The sizes of UDP payload by which connections are counted: what every path of QUIC carries, what IPv6 needs inside, and all
/// that is tried.
const PAYLOADS: [(usize, &str); 3] = [(1_200, "1200"), (1_350, "1350"), (MAX_UDP_PAYLOAD, "1452")];

impl Snapshot for IntermediateSnapshot {
    type Machine = Machine;

    const ROLE: &'static str = "intermediate";

    fn take(machine: &Machine, shell: &ShellStats) -> Self {
        Self {
            stats: machine.stats(),
            signalling: machine.signalling_stats(),
            pool: machine.pool_stats(),
            shell: shell.clone(),
            connections: machine.connections(),
            flows: machine.flows(),
            flow_stats: machine.flow_stats(),
            agents: machine.registry().agents(),
            connectors: machine.registry().connectors(),
            channels: machine.channels(),
            channel_stats: machine.channel_stats(),
            payloads: machine
                .path_payloads()
                .fold([0; PAYLOADS.len()], |mut counts, carried| {
                    for (count, (least, _)) in counts.iter_mut().zip(PAYLOADS) {
                        *count += u64::from(carried >= least);
                    }
                    counts
                }),
        }
    }

    /// It listens, or it would not have answered.
    fn health(&self) -> Result<String, String> {
        Ok("ok".to_owned())
    }

    fn ready(&self) -> Result<String, String> {
        self.health()
    }

    fn write(&self, uptime: Duration, text: &mut Exposition) {
        let Self { stats, pool, .. } = self;
        let count = |number: usize| number as u64;
        text.gauge(
            "ztna_active_connections",
            "QUIC connections, handshakes included.",
            count(self.connections),
        );
        let payloads = PAYLOADS.iter().zip(self.payloads);
        text.labelled(
            "ztna_path_payload_connections",
            "Connections whose path carries UDP payloads of at least so many bytes.",
            &payloads
                .map(|((_, least), connections)| (vec![("least", *least)], connections))
                .collect::<Vec<_>>(),
        );
        text.gauge("ztna_agents", "Clients registered as agent.", count(self.agents));
        text.gauge(
            "ztna_connectors",
            "Clients registered as connector.",
            count(self.connectors),
        );
        text.gauge(
            "ztna_flows",
            "Flows whose replies are expected.",
            count(self.flows),
        );
        text.counter("ztna_flows_opened_total", "Flows opened.", self.flow_stats.opened);
        text.counter(
            "ztna_flows_translated_total",
            "Flows opened under an alias, because another agent's look the same.",
            self.flow_stats.translated,
        );
        text.counter(
            "ztna_flows_evicted_total",
            "Flows that gave way to newer ones of their agent.",
            self.flow_stats.evicted,
        );
        v1(stats, &self.signalling, text);
        control(&stats.control, text);
        channels(self.channels, &self.channel_stats, text);
        text.counter(
            "ztna_udp_forwarded_datagrams_total",
            "UDP datagrams sent out of the receive buffer: frames of relay channels.",
            self.shell.udp.forwarded_datagrams,
        );
        front_door(pool, text);
        text.counter(
            "ztna_stream_bytes_discarded_total",
            "Bytes on streams that nobody uses.",
            stats.dropped.stream_bytes,
        );
        text.by_reason(
            "ztna_dropped_total",
            "What was dropped, by reason.",
            [
                drops(&stats.dropped),
                flow_drops(&self.flow_stats),
                channel_drops(&self.channel_stats),
                pool_drops(pool),
                shell_drops(&self.shell),
            ]
            .concat(),
        );
        text.shell(&self.shell);
        text.seconds("ztna_uptime_seconds", "Seconds since the start.", uptime);
    }
}

/// What packets and signals of v1 peers came to.
fn v1(stats: &IntermediateStats, signals: &SignallingStats, text: &mut Exposition) {
    text.counter(
        "ztna_relay_bytes_total",
        "Bytes of DATAGRAMs relayed, as received.",
        stats.relayed_bytes,
    );
    text.counter(
        "ztna_datagrams_relayed_total",
        "DATAGRAMs relayed.",
        stats.relayed,
    );
    text.counter(
        "ztna_registrations_total",
        "Registrations accepted.",
        stats.registrations,
    );
    text.counter(
        "ztna_introductions_total",
        "Packets that told a connector who opens a flow.",
        stats.introductions,
    );
    text.counter(
        "ztna_registration_rejections_total",
        "Registrations refused.",
        stats.registrations_refused,
    );
    text.counter(
        "ztna_signaling_sessions_total",
        "Offers of v1 agents passed on to a connector.",
        signals.offers,
    );
    text.by_reason(
        "ztna_signaling_outcomes_total",
        "What became of v1 signalling, by outcome.",
        signalling(signals),
    );
    text.counter(
        "ztna_observed_addresses_total",
        "Observed addresses told to clients.",
        stats.observed_sent,
    );
}

/// What clients of v2 say on their control streams, and what comes of it. Exhaustive, so that a new counter cannot be
/// forgotten.
fn control(stats: &ControlStats, text: &mut Exposition) {
    let ControlStats {
        hello,
        register,
        renewed,
        unregister,
        open_channel,
        channel_closed,
        carriage,
        ping,
        pong,
        undecodable,
        unexpected,
        expired,
        revoked,
        flooded,
        deaf,
        refused,
    } = *stats;
    text.by_kind(
        "ztna_control_messages_total",
        "Messages on control streams of v2, by kind.",
        &[
            ("hello", hello),
            ("register", register),
            ("unregister", unregister),
            ("open_channel", open_channel),
            ("channel_closed", channel_closed),
            ("carriage", carriage),
            ("ping", ping),
            ("pong", pong),
            ("undecodable", undecodable),
            ("unexpected", unexpected),
        ],
    );
    text.counter("ztna_leases_renewed_total", "Leases renewed.", renewed);
    text.by_reason(
        "ztna_leases_ended_total",
        "Leases taken back, by reason.",
        vec![("expired", expired), ("revoked", revoked)],
    );
    text.by_reason(
        "ztna_control_closed_total",
        "Connections closed because of their control stream, by reason.",
        vec![("flooded", flooded), ("deaf", deaf)],
    );
    let ChannelRefusals {
        invalid_id,
        not_registered,
        not_authorised,
        no_connector,
        peer_is_v1,
        at_capacity,
    } = refused;
    text.by_reason(
        "ztna_channel_refusals_total",
        "Relay channels refused, by reason.",
        vec![
            ("invalid_id", invalid_id),
            ("not_registered", not_registered),
            ("not_authorised", not_authorised),
            ("no_connector", no_connector),
            ("peer_is_v1", peer_is_v1),
            ("at_capacity", at_capacity),
        ],
    );
}

fn channels(open: usize, stats: &ChannelStats, text: &mut Exposition) {
    text.gauge("ztna_channels", "Relay channels open.", open as u64);
    text.counter(
        "ztna_channels_opened_total",
        "Relay channels opened.",
        stats.opened,
    );
    text.counter(
        "ztna_channel_frames_total",
        "Frames forwarded in relay channels.",
        stats.forwarded,
    );
    text.counter(
        "ztna_channel_bytes_total",
        "Bytes of those frames.",
        stats.forwarded_bytes,
    );
}

/// Frames that were not forwarded.
fn channel_drops(stats: &ChannelStats) -> Reasons {
    let ChannelStats {
        opened: _,
        closed: _,
        forwarded: _,
        forwarded_bytes: _,
        unknown,
        foreign,
        over_quota,
        scattered,
    } = *stats;
    vec![
        ("channel_unknown", unknown),
        ("channel_foreign", foreign),
        ("channel_over_quota", over_quota),
        ("channel_scattered", scattered),
    ]
}

/// What happens before a client has a connection.
fn front_door(pool: &PoolStats, text: &mut Exposition) {
    text.counter(
        "ztna_connections_accepted_total",
        "Connections accepted.",
        pool.accepted,
    );
    text.counter("ztna_retries_total", "Retry packets sent.", pool.retries_sent);
    text.counter(
        "ztna_retry_tokens_validated",
        "Retry tokens that proved an address.",
        pool.tokens_valid,
    );
    text.counter(
        "ztna_retry_token_failures",
        "Retry tokens that did not.",
        pool.tokens_invalid,
    );
    text.counter(
        "ztna_stateless_resets_total",
        "Stateless resets sent.",
        pool.resets_sent,
    );
}

/// Exhaustive, so that a new counter cannot be forgotten.
fn signalling(stats: &SignallingStats) -> Reasons {
    let SignallingStats {
        // A counter of its own.
        offers: _,
        started,
        succeeded,
        failed,
        refused,
        expired,
        undecodable,
        unread,
    } = *stats;
    vec![
        ("started", started),
        ("succeeded", succeeded),
        ("failed", failed),
        ("refused", refused),
        ("expired", expired),
        ("undecodable", undecodable),
        ("unread", unread),
    ]
}

/// Exhaustive, so that a new counter cannot be forgotten.
fn drops(dropped: &Dropped) -> Reasons {
    let Dropped {
        malformed,
        not_ip,
        not_registered,
        no_connector,
        ambiguous,
        no_flow,
        // Told apart by the flow table's own counters.
        flow_refused: _,
        queue_full,
        too_large,
        receiver_gone,
        frame_queue_full,
        // Bytes, not packets: a counter of its own.
        stream_bytes: _,
        events,
    } = *dropped;
    vec![
        ("malformed", malformed),
        ("not_ip", not_ip),
        ("not_registered", not_registered),
        ("no_connector", no_connector),
        ("ambiguous", ambiguous),
        ("no_flow", no_flow),
        ("queue_full", queue_full),
        ("too_large", too_large),
        ("receiver_gone", receiver_gone),
        ("frame_queue_full", frame_queue_full),
        ("event", events),
    ]
}

#[cfg(test)]
mod tests;

/// Packets of agents that the flow table refused. What it says of replies is `no_flow` above.
fn flow_drops(stats: &FlowStats) -> Reasons {
    vec![
        ("flow_malformed", stats.malformed),
        ("flow_fragment", stats.fragments),
        ("flow_stray_error", stats.no_flow),
        ("flow_taken", stats.taken),
        ("flow_full", stats.full),
    ]
}
