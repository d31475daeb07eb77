//! The connector in numbers.

use std::time::Duration;

use program::client::{ServiceState, Standing};
use program::metrics::{Exposition, Reasons, pool_drops, session_drops, shell_drops};
use program::reload;
use program::station::Snapshot;
use proto_core::backend::Refusal;
use proto_core::connector::{ConnectorStats, ServiceStatus, SessionCounts};
use proto_core::link::LinkStats;
use proto_core::netstack::NetstackStats;
use proto_core::quic::PoolStats;
use proto_core::session::SessionStats;
use proto_core::v1peer::V1PeerStats;
use runtime_io::{BackendStats, ShellStats};

use crate::Machine;

/// A copy of all counters.
pub(crate) struct ConnectorSnapshot {
    stats: ConnectorStats,
    netstack: NetstackStats,
    link: LinkStats,
    pool: PoolStats,
    shell: ShellStats,
    services: Vec<ServiceStatus>,
    connected: bool,
    sessions: SessionStats,
    session_counts: SessionCounts,
    v1: V1PeerStats,
    v1_agents: usize,
}

impl ConnectorSnapshot {
    fn standing(&self) -> Standing<'_> {
        let state = |service: &ServiceStatus| match (service.registered, service.available) {
            (true, _) => ServiceState::Registered,
            (false, true) => ServiceState::Missing,
            (false, false) => ServiceState::Withdrawn,
        };
        let services = self.services.iter();
        Standing {
            services: services
                .map(|service| (service.id.as_str(), state(service)))
                .collect(),
            connected: self.connected,
        }
    }
}

impl Snapshot for ConnectorSnapshot {
    type Machine = Machine;

    const ROLE: &'static str = "connector";
    const RELOADS: bool = true;

    fn take(machine: &Machine, shell: &ShellStats) -> Self {
        Self {
            stats: machine.stats(),
            netstack: machine.netstack_stats(),
            link: machine.link_stats(),
            pool: machine.pool_stats(),
            shell: shell.clone(),
            services: machine.status(),
            connected: machine.is_connected(),
            sessions: machine.session_stats(),
            session_counts: machine.sessions(),
            v1: machine.v1_stats(),
            v1_agents: machine.v1_agents(),
        }
    }

    fn health(&self) -> Result<String, String> {
        self.standing().health()
    }

    fn ready(&self) -> Result<String, String> {
        self.standing().ready()
    }

    fn write(&self, uptime: Duration, text: &mut Exposition) {
        let Self {
            stats,
            netstack,
            link,
            pool,
            shell,
            services,
            connected: _,
            sessions,
            session_counts,
            v1,
            v1_agents,
        } = self;
        let registered = services.iter().filter(|service| service.registered);
        text.gauge("ztna_services", "Services configured.", services.len() as u64);
        text.gauge(
            "ztna_services_registered",
            "Services registered now.",
            registered.count() as u64,
        );
        backends(services, text);
        flows(netstack, text);
        let mut counter = |name: &str, help: &str, value| text.counter(name, help, value);
        counter(
            "ztna_connector_received_packets_total",
            "Packets from agents.",
            stats.received,
        );
        counter(
            "ztna_connector_sent_packets_total",
            "Packets to agents.",
            stats.sent,
        );
        counter(
            "ztna_connector_reconnections_total",
            "Connections to the intermediate after the first, of all services.",
            link.reconnections,
        );
        text.gauge(
            "ztna_connector_backend_sockets",
            "Sockets towards backends open now.",
            shell.backends.open,
        );
        text.labelled(
            "ztna_connector_sessions",
            "Sessions of agents now, by the way that their packets take.",
            &[
                (vec![("path", "direct")], session_counts.direct as u64),
                (vec![("path", "relayed")], session_counts.relayed as u64),
            ],
        );
        text.sessions(sessions);
        text.gauge(
            "ztna_connector_v1_agents",
            "v1 agents that are connected directly now.",
            *v1_agents as u64,
        );
        text.by_result(
            "ztna_connector_v1_total",
            "Direct paths of v1 agents, by result.",
            &v1_results(v1),
        );
        text.by_reason(
            "ztna_connector_backend_refused_total",
            "Backend flows that could not be opened, by reason.",
            refusals(&shell.backends),
        );
        text.by_reason(
            "ztna_dropped_total",
            "What was dropped, by reason.",
            [
                drops(stats, netstack, link, &shell.backends),
                session_drops(sessions),
                pool_drops(pool),
                shell_drops(shell),
            ]
            .concat(),
        );
        text.shell(shell);
        reload::write(text);
        text.seconds(
            "ztna_connector_uptime_seconds",
            "Seconds since the start.",
            uptime,
        );
    }
}

/// What the network stack carries.
fn flows(netstack: &NetstackStats, text: &mut Exposition) {
    text.gauge(
        "ztna_connector_tcp_buffered_bytes",
        "Memory that the buffers of TCP sessions hold now.",
        netstack.tcp_buffered,
    );
    let mut counter = |name: &str, help: &str, value| text.counter(name, help, value);
    counter(
        "ztna_connector_tcp_retransmits_total",
        "TCP segments sent to agents again.",
        netstack.tcp_retransmits,
    );
    counter(
        "ztna_connector_tcp_timeouts_total",
        "TCP retransmission timeouts.",
        netstack.tcp_timeouts,
    );
    counter(
        "ztna_connector_backend_retries_total",
        "Flows that were tried over with another backend.",
        netstack.retried,
    );
    counter(
        "ztna_connector_ended_flows_total",
        "Flows ended because their service, its list or their agent changed.",
        netstack.ended,
    );
    counter(
        "ztna_connector_forwarded_packets_total",
        "UDP payloads and TCP segments with payload taken from agents.",
        netstack.forwarded_packets,
    );
    counter(
        "ztna_connector_forwarded_bytes_total",
        "Payload bytes handed to backends.",
        netstack.forwarded_bytes,
    );
    counter(
        "ztna_connector_returned_bytes_total",
        "Payload bytes taken from backends.",
        netstack.returned_bytes,
    );
    counter(
        "ztna_connector_tcp_sessions_total",
        "TCP sessions begun.",
        netstack.tcp_sessions,
    );
    counter(
        "ztna_connector_tcp_errors_total",
        "TCP sessions whose backend could not be reached or that broke.",
        netstack.tcp_errors,
    );
    counter(
        "ztna_connector_udp_flows_total",
        "UDP flows begun.",
        netstack.udp_flows,
    );
    counter(
        "ztna_connector_echoes_total",
        "ICMP echo requests answered.",
        netstack.echoes,
    );
}

/// Exhaustive, so that a new counter cannot be forgotten.
fn v1_results(stats: &V1PeerStats) -> [(&'static str, u64); 8] {
    let V1PeerStats {
        answered,
        refused,
        met,
        admitted,
        rejected,
        requests_sent,
        answers_sent,
        unanswered,
        // Told with what else comes beside QUIC and is dropped.
        unnamed: _,
        malformed: _,
    } = *stats;
    [
        ("offer_answered", answered),
        ("offer_refused", refused),
        ("met", met),
        ("admitted", admitted),
        ("rejected", rejected),
        ("request_sent", requests_sent),
        ("request_answered", answers_sent),
        ("request_unanswered", unanswered),
    ]
}

/// Which services are published, and which backends take sessions.
fn backends(services: &[ServiceStatus], text: &mut Exposition) {
    let mut up = Vec::new();
    let mut flows = Vec::new();
    let mut published = Vec::new();
    let mut paths = Vec::new();
    for service in services {
        let id = service.id.as_str();
        published.push((vec![("service", id)], u64::from(service.available)));
        paths.push((
            vec![("service", id)],
            service.path_payload.map_or(0, |bytes| bytes as u64),
        ));
        for backend in &service.backends {
            let labels = vec![("service", id), ("backend", backend.backend.as_str())];
            up.push((labels.clone(), u64::from(backend.up)));
            flows.push((labels, u64::from(backend.flows)));
        }
    }
    text.labelled(
        "ztna_connector_service_up",
        "Whether a backend of the service is well.",
        &published,
    );
    text.labelled(
        "ztna_path_payload_bytes",
        "The largest UDP payload that the service's path to the intermediate carries, 0 while not connected.",
        &paths,
    );
    text.labelled(
        "ztna_connector_backend_up",
        "Whether the backend takes new sessions.",
        &up,
    );
    text.labelled(
        "ztna_connector_backend_flows",
        "Flows of the backend now.",
        &flows,
    );
}

fn refusals(stats: &BackendStats) -> Reasons {
    let all = [
        (Refusal::Refused, "refused"),
        (Refusal::TimedOut, "timed_out"),
        (Refusal::Unreachable, "unreachable"),
        (Refusal::Exhausted, "exhausted"),
    ];
    all.iter()
        .map(|(refusal, reason)| (*reason, stats.refused.get(refusal).copied().unwrap_or(0)))
        .collect()
}

fn drops(
    stats: &ConnectorStats,
    netstack: &NetstackStats,
    link: &LinkStats,
    backends: &BackendStats,
) -> Reasons {
    vec![
        ("stray", stats.stray),
        ("session_refused", stats.sessions_refused),
        ("beside_quic", stats.beside),
        ("not_ready", stats.not_ready),
        ("too_large", stats.too_large),
        ("queue_full", stats.queue_full),
        ("event", stats.events_dropped),
        ("malformed", netstack.malformed),
        ("bad_checksum", netstack.bad_checksum),
        ("wrong_address", netstack.wrong_address),
        ("fragment", netstack.fragments),
        ("hop_limit", netstack.hop_limit),
        ("icmp_limited", netstack.icmp_limited),
        ("unsupported", netstack.unsupported),
        ("no_backend", netstack.no_backend),
        ("denied", netstack.denied),
        ("tcp_full", netstack.tcp_full),
        ("tcp_backlog", netstack.tcp_backlog),
        ("tcp_memory", netstack.tcp_dropped),
        ("udp_evicted", netstack.udp_evicted),
        ("tunnel_full", netstack.tunnel_full),
        ("backend_full", netstack.backend_full),
        ("reply_too_large", netstack.too_large),
        ("backend_datagram", backends.datagrams_dropped),
        ("control_malformed", link.malformed),
        ("event", link.events_dropped),
    ]
}

#[cfg(test)]
mod tests;
