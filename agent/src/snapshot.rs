//! The agent in numbers.

use std::time::Duration;

use program::client::all_registered;
use program::metrics::{Exposition, Reasons, pool_drops, shell_drops};
use program::station::Snapshot;
use proto_core::agent::{AgentStats, AgentStatus};
use proto_core::link::LinkStats;
use proto_core::quic::PoolStats;
use runtime_io::ShellStats;

use crate::up::Machine;

/// A copy of all counters.
pub(crate) struct AgentSnapshot {
    stats: AgentStats,
    link: LinkStats,
    pool: PoolStats,
    shell: ShellStats,
    status: AgentStatus,
}

impl Snapshot for AgentSnapshot {
    type Machine = Machine;

    const ROLE: &'static str = "agent";

    fn take(machine: &Machine, shell: &ShellStats) -> Self {
        Self {
            stats: machine.stats(),
            link: machine.link_stats(),
            pool: machine.pool_stats(),
            shell: shell.clone(),
            status: machine.status(),
        }
    }

    fn health(&self) -> Result<(), String> {
        all_registered(&self.status.services, self.status.connected)
    }

    fn write(&self, uptime: Duration, text: &mut Exposition) {
        let Self {
            stats,
            link,
            pool,
            shell,
            status,
        } = self;
        let registered = status.services.iter().filter(|(_, registered)| *registered);
        text.gauge(
            "ztna_services",
            "Services configured.",
            status.services.len() as u64,
        );
        text.gauge(
            "ztna_services_registered",
            "Services registered now.",
            registered.count() as u64,
        );
        text.gauge(
            "ztna_connected",
            "1 while connected to the intermediate.",
            u64::from(status.connected),
        );
        text.counter(
            "ztna_agent_sent_packets_total",
            "Packets sent to services.",
            stats.sent,
        );
        text.counter("ztna_agent_sent_bytes_total", "Their bytes.", stats.sent_bytes);
        text.counter(
            "ztna_agent_received_packets_total",
            "Packets from services.",
            stats.received,
        );
        text.counter(
            "ztna_agent_received_bytes_total",
            "Their bytes.",
            stats.received_bytes,
        );
        text.counter(
            "ztna_agent_reconnections_total",
            "Connections to the intermediate after the first.",
            link.reconnections,
        );
        text.counter(
            "ztna_tun_read_errors_total",
            "Reads from the interface that failed.",
            shell.tun.read_errors,
        );
        text.by_reason(
            "ztna_dropped_total",
            "What was dropped, by reason.",
            [drops(stats, link), pool_drops(pool), shell_drops(shell)].concat(),
        );
        text.shell(shell);
        text.seconds("ztna_agent_uptime_seconds", "Seconds since the start.", uptime);
    }
}

fn drops(stats: &AgentStats, link: &LinkStats) -> Reasons {
    vec![
        ("malformed", stats.malformed),
        ("no_route", stats.no_route),
        ("not_ready", stats.not_ready),
        ("too_large", stats.too_large),
        ("queue_full", stats.queue_full),
        ("spoofed", stats.spoofed),
        ("inbound_full", stats.inbound_full),
        ("control_malformed", link.malformed),
        ("event", link.events_dropped),
    ]
}

#[cfg(test)]
mod tests;
