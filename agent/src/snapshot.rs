//! The agent in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use program::client::{ServiceState, Standing};
use program::metrics::{Exposition, Reasons, pool_drops, shell_drops};
use program::reload;
use program::station::Snapshot;
use proto_core::agent::{AgentStats, AgentStatus};
use proto_core::link::LinkStats;
use proto_core::quic::PoolStats;
use runtime_io::ShellStats;

use crate::report::{Interface, Intermediate, Report, Service, Traffic};
use crate::up::Machine;

/// A copy of all counters.
pub(crate) struct AgentSnapshot {
    stats: AgentStats,
    link: LinkStats,
    pool: PoolStats,
    shell: ShellStats,
    status: AgentStatus,
    path_mtu: Option<usize>,
}

/// How an agent stands towards its intermediate.
pub(crate) fn standing(status: &AgentStatus) -> Standing<'_> {
    let services = status.services.iter();
    Standing {
        services: services
            .map(|(id, registered)| (id.as_str(), ServiceState::of(*registered)))
            .collect(),
        connected: status.connected,
    }
}

impl AgentSnapshot {
    /// As far as the machine knows it; names and settings are added by whoever knows those.
    pub(crate) fn report(&self) -> Report {
        let Self {
            stats,
            link,
            pool,
            shell,
            status,
            path_mtu,
        } = self;
        let reasons = [drops(stats, link), pool_drops(pool), shell_drops(shell)].concat();
        let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in reasons.into_iter().filter(|(_, count)| *count > 0) {
            *dropped.entry(reason.to_owned()).or_default() += count;
        }
        Report {
            intermediate: Intermediate {
                connected: status.connected,
                observed: status.observed.map(|address| address.to_string()),
                reconnections: link.reconnections,
                ..Intermediate::default()
            },
            interface: Interface {
                mtu: shell.tun.mtu.into(),
                path_mtu: *path_mtu,
                tcp_offload: shell.tun.tcp_offload,
                udp_offload: shell.tun.udp_offload,
                ..Interface::default()
            },
            services: status
                .services
                .iter()
                .map(|(id, registered)| Service {
                    id: id.as_str().to_owned(),
                    registered: *registered,
                    ..Service::default()
                })
                .collect(),
            traffic: Traffic {
                sent_packets: stats.sent,
                sent_bytes: stats.sent_bytes,
                received_packets: stats.received,
                received_bytes: stats.received_bytes,
            },
            dropped,
            ..Report::default()
        }
    }
}

impl Snapshot for AgentSnapshot {
    type Machine = Machine;

    const ROLE: &'static str = "agent";
    const RELOADS: bool = true;

    fn take(machine: &Machine, shell: &ShellStats) -> Self {
        Self {
            stats: machine.stats(),
            link: machine.link_stats(),
            pool: machine.pool_stats(),
            shell: shell.clone(),
            status: machine.status(),
            path_mtu: machine.path_mtu(),
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
            link,
            pool,
            shell,
            status,
            path_mtu: _,
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
        text.gauge(
            "ztna_path_payload_bytes",
            "The largest UDP payload that the path to the intermediate carries, 0 while not connected.",
            status.path_payload.map_or(0, |bytes| bytes as u64),
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
        text.counter(
            "ztna_tun_super_packets_total",
            "Super-packets that the kernel handed over, to be split here.",
            shell.tun.super_packets_read,
        );
        text.gauge(
            "ztna_tun_mtu_bytes",
            "The largest packet that the interface takes now.",
            shell.tun.mtu.into(),
        );
        text.gauge(
            "ztna_tun_tcp_offload",
            "1 if the kernel hands over and takes TCP super-packets.",
            shell.tun.tcp_offload.into(),
        );
        text.gauge(
            "ztna_tun_udp_offload",
            "1 if the kernel hands over and takes UDP super-packets.",
            shell.tun.udp_offload.into(),
        );
        text.by_reason(
            "ztna_dropped_total",
            "What was dropped, by reason.",
            [drops(stats, link), pool_drops(pool), shell_drops(shell)].concat(),
        );
        reload::write(text);
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
