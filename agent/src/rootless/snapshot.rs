//! An agent without a tunnel interface in numbers.

use std::time::Duration;

use program::metrics::{Exposition, Reasons, pool_drops, session_drops, shell_drops};
use program::station::Snapshot;
use proto_core::agent::{AgentStats, AgentStatus};
use proto_core::forward::ForwardStats;
use proto_core::link::LinkStats;
use proto_core::quic::PoolStats;
use proto_core::session::SessionStats;
use runtime_io::ShellStats;

use super::run::Machine;
use crate::snapshot::{standing, write_paths};

/// A copy of all counters.
pub(crate) struct ForwardSnapshot {
    stats: ForwardStats,
    streams: usize,
    udp_flows: usize,
    buffered: usize,
    agent: AgentStats,
    link: LinkStats,
    pool: PoolStats,
    shell: ShellStats,
    status: AgentStatus,
    sessions: SessionStats,
}

impl Snapshot for ForwardSnapshot {
    type Machine = Machine;

    const ROLE: &'static str = "agent";

    fn take(machine: &Machine, shell: &ShellStats) -> Self {
        Self {
            stats: machine.stats(),
            streams: machine.streams(),
            udp_flows: machine.udp_flows(),
            buffered: machine.buffered(),
            agent: machine.agent_stats(),
            link: machine.link_stats(),
            pool: machine.pool_stats(),
            shell: shell.clone(),
            status: machine.status(),
            sessions: machine.session_stats(),
        }
    }

    fn health(&self) -> Result<String, String> {
        standing(&self.status).health()
    }

    fn ready(&self) -> Result<String, String> {
        standing(&self.status).ready()
    }

    fn write(&self, uptime: Duration, text: &mut Exposition) {
        let Self {
            stats,
            agent,
            link,
            pool,
            shell,
            ..
        } = self;
        self.gauges(text);
        write_paths(text, &self.status);
        text.sessions(&self.sessions);
        self.counters(text);
        text.by_reason(
            "ztna_forward_not_reached_total",
            "Local connections that did not reach their service, by reason.",
            not_reached(stats),
        );
        text.by_reason(
            "ztna_dropped_total",
            "What was dropped, by reason.",
            [
                drops(stats, agent, link, shell),
                session_drops(&self.sessions),
                pool_drops(pool),
                shell_drops(shell),
            ]
            .concat(),
        );
        text.shell(shell);
        text.seconds("ztna_agent_uptime_seconds", "Seconds since the start.", uptime);
    }
}

impl ForwardSnapshot {
    fn gauges(&self, text: &mut Exposition) {
        let status = &self.status;
        let registered = status.services.iter().filter(|service| service.registered);
        let gauges = [
            ("ztna_services", "Services in use.", status.services.len() as u64),
            (
                "ztna_services_registered",
                "Services registered now.",
                registered.count() as u64,
            ),
            (
                "ztna_connected",
                "1 while connected to the intermediate.",
                u64::from(status.connected),
            ),
            (
                "ztna_path_payload_bytes",
                "The largest UDP payload that the path to the intermediate carries, 0 while not connected.",
                status.path_payload.map_or(0, |bytes| bytes as u64),
            ),
            (
                "ztna_forward_streams",
                "Local connections now.",
                self.streams as u64,
            ),
            ("ztna_forward_udp_flows", "UDP flows now.", self.udp_flows as u64),
            (
                "ztna_forward_buffer_bytes",
                "Memory of all connections' buffers.",
                self.buffered as u64,
            ),
        ];
        for (name, help, value) in gauges {
            text.gauge(name, help, value);
        }
    }

    fn counters(&self, text: &mut Exposition) {
        let Self {
            stats,
            agent,
            link,
            shell,
            ..
        } = self;
        let counters = [
            (
                "ztna_agent_sent_packets_total",
                "Packets sent to services.",
                agent.sent,
            ),
            ("ztna_agent_sent_bytes_total", "Their bytes.", agent.sent_bytes),
            (
                "ztna_agent_received_packets_total",
                "Packets from services.",
                agent.received,
            ),
            (
                "ztna_agent_received_bytes_total",
                "Their bytes.",
                agent.received_bytes,
            ),
            (
                "ztna_agent_reconnections_total",
                "Connections to the intermediate after the first.",
                link.reconnections,
            ),
            (
                "ztna_forward_streams_total",
                "Local connections taken.",
                stats.streams,
            ),
            (
                "ztna_forward_established_total",
                "Local connections that reached their service.",
                stats.established,
            ),
            (
                "ztna_forward_broken_total",
                "Connections that broke after that.",
                stats.broken,
            ),
            (
                "ztna_forward_sent_bytes_total",
                "Stream bytes from local programs.",
                stats.bytes_sent,
            ),
            (
                "ztna_forward_received_bytes_total",
                "Stream bytes to local programs.",
                stats.bytes_received,
            ),
            (
                "ztna_forward_udp_flows_total",
                "UDP flows begun.",
                stats.udp_flows,
            ),
            (
                "ztna_forward_udp_sent_total",
                "Datagrams from local programs.",
                stats.datagrams_sent,
            ),
            (
                "ztna_forward_udp_received_total",
                "Datagrams to local programs.",
                stats.datagrams_received,
            ),
            (
                "ztna_forward_accept_errors_total",
                "Times a listener could not accept.",
                shell.locals.accept_errors,
            ),
        ];
        for (name, help, value) in counters {
            text.counter(name, help, value);
        }
    }
}

fn not_reached(stats: &ForwardStats) -> Reasons {
    vec![
        ("refused", stats.refused),
        ("unreachable", stats.unreachable),
        ("timed_out", stats.timed_out),
        ("not_registered", stats.not_registered),
        ("not_allowed", stats.not_allowed),
        ("full", stats.streams_full),
        ("socks", stats.socks_malformed),
    ]
}

fn drops(stats: &ForwardStats, agent: &AgentStats, link: &LinkStats, shell: &ShellStats) -> Reasons {
    vec![
        ("malformed", stats.malformed + agent.malformed),
        ("bad_checksum", stats.bad_checksum),
        ("stray", stats.stray),
        ("spoofed", agent.spoofed),
        ("inbound_full", agent.inbound_full),
        ("not_ready", agent.not_ready),
        ("queue_full", agent.queue_full),
        ("too_large", agent.too_large + stats.datagrams_too_large),
        ("udp_full", stats.datagrams_full),
        ("udp_early", stats.datagrams_early),
        ("udp_evicted", stats.udp_evicted),
        ("udp_no_service", stats.datagrams_unroutable),
        ("udp_malformed", stats.datagrams_malformed),
        ("udp_nobody_listens", stats.datagrams_refused),
        ("udp_local", shell.locals.datagrams_dropped),
        ("control_malformed", link.malformed),
        ("event", link.events_dropped + stats.events_dropped),
    ]
}

#[cfg(test)]
mod tests;
