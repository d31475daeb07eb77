//! The agent in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use program::client::{ServiceState, Standing};
use program::metrics::{Exposition, Reasons, pool_drops, session_drops, shell_drops};
use program::reload;
use program::station::Snapshot;
use proto_core::agent::{AgentStats, AgentStatus, ServicePath};
use proto_core::link::LinkStats;
use proto_core::quic::PoolStats;
use proto_core::session::SessionStats;
use runtime_io::ShellStats;

use crate::report::{Interface, Intermediate, Report, Service, Traffic};
use crate::up::Machine;

/// A copy of all counters.
pub(crate) struct AgentSnapshot {
    stats: AgentStats,
    link: LinkStats,
    pool: PoolStats,
    shell: ShellStats,
    sessions: SessionStats,
    status: AgentStatus,
    path_mtu: Option<usize>,
}

/// How an agent stands towards its intermediate.
pub(crate) fn standing(status: &AgentStatus) -> Standing<'_> {
    let services = status.services.iter();
    Standing {
        services: services
            .map(|service| (service.id.as_str(), ServiceState::of(service.registered)))
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
            sessions,
            status,
            path_mtu,
        } = self;
        let reasons = [
            drops(stats, link),
            session_drops(sessions),
            pool_drops(pool),
            shell_drops(shell),
        ]
        .concat();
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
                .map(|service| Service {
                    id: service.id.as_str().to_owned(),
                    registered: service.registered,
                    path: path_name(service.path).to_owned(),
                    peer: peer(service.path),
                    rtt_ms: service.rtt.map(milliseconds),
                    time_to_direct_ms: service.time_to_direct.map(milliseconds),
                    search_ms: service.search_time.map(milliseconds),
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
            sessions: machine.session_stats(),
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
            sessions,
            status,
            path_mtu: _,
        } = self;
        let registered = status.services.iter().filter(|service| service.registered);
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
        write_paths(text, status);
        text.sessions(sessions);
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
            [
                drops(stats, link),
                session_drops(sessions),
                pool_drops(pool),
                shell_drops(shell),
            ]
            .concat(),
        );
        reload::write(text);
        text.shell(shell);
        text.seconds("ztna_agent_uptime_seconds", "Seconds since the start.", uptime);
    }
}

/// What a way is called where people and programs read of it.
pub(crate) fn path_name(path: ServicePath) -> &'static str {
    match path {
        ServicePath::None => "none",
        ServicePath::Opening => "opening",
        ServicePath::Wrapped => "wrapped",
        ServicePath::Relayed => "relayed",
        ServicePath::Direct(_) => "direct",
    }
}

fn peer(path: ServicePath) -> Option<String> {
    match path {
        ServicePath::Direct(address) => Some(address.to_string()),
        ServicePath::None | ServicePath::Opening | ServicePath::Wrapped | ServicePath::Relayed => None,
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// How packets of each service travel now, and how long the last search took.
pub(crate) fn write_paths(text: &mut Exposition, status: &AgentStatus) {
    let samples: Vec<(Vec<(&str, &str)>, u64)> = status
        .services
        .iter()
        .map(|service| {
            let labels = vec![
                ("service", service.id.as_str()),
                ("path", path_name(service.path)),
            ];
            (labels, 1)
        })
        .collect();
    text.labelled(
        "ztna_agent_service_path",
        "How packets reach each service: direct, relayed, wrapped, opening or none.",
        &samples,
    );
    let last = status
        .services
        .iter()
        .filter_map(|service| service.time_to_direct)
        .next_back();
    text.fraction(
        "ztna_agent_time_to_direct_seconds",
        "From the first packet to the first direct connection, of a session; 0 while there was none.",
        last.unwrap_or_default(),
    );
    let last = status
        .services
        .iter()
        .filter_map(|service| service.search_time)
        .next_back();
    text.fraction(
        "ztna_agent_search_seconds",
        "From the word that sets the beginning of a search to the direct connection, the last time; 0 while there was none.",
        last.unwrap_or_default(),
    );
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
