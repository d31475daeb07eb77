//! Counters as text: the exposition format 0.0.4 that Prometheus and its kin read.
//!
//! Each role writes its own families; those that come from the shell and from the pool of connections have the same
//! names everywhere and are written here.

use std::fmt::Write as _;
use std::time::Duration;

use proto_core::quic::PoolStats;
use proto_core::session::SessionStats;
use runtime_io::ShellStats;

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and starts at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A text under construction.
#[derive(Clone, Debug, Default)]
pub struct Exposition(String);

/// Counts by reason.
pub type Reasons = Vec<(&'static str, u64)>;

impl Exposition {
    /// One counter.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, Kind::Counter);
        self.sample(name, &[], value);
    }

    /// One gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, Kind::Gauge);
        self.sample(name, &[], value);
    }

    /// Whole seconds, as a gauge.
    pub fn seconds(&mut self, name: &str, help: &str, value: Duration) {
        self.gauge(name, help, value.as_secs());
    }

    /// One gauge per set of labels.
    pub fn labelled(&mut self, name: &str, help: &str, samples: &[(Vec<(&str, &str)>, u64)]) {
        self.family(name, help, Kind::Gauge);
        for (labels, value) in samples {
            self.sample(name, labels, *value);
        }
    }

    /// One counter per set of labels.
    pub fn labelled_counter(&mut self, name: &str, help: &str, samples: &[(Vec<(&str, &str)>, u64)]) {
        self.family(name, help, Kind::Counter);
        for (labels, value) in samples {
            self.sample(name, labels, *value);
        }
    }

    /// Seconds and parts of them, as a gauge.
    pub fn fraction(&mut self, name: &str, help: &str, value: Duration) {
        self.family(name, help, Kind::Gauge);
        let _ = writeln!(self.0, "{name} {:.6}", value.as_secs_f64());
    }

    /// One counter per kind of what is counted.
    pub fn by_kind(&mut self, name: &str, help: &str, kinds: &[(&str, u64)]) {
        self.family(name, help, Kind::Counter);
        for (kind, value) in kinds {
            self.sample(name, &[("kind", kind)], *value);
        }
    }

    /// One counter per reason. A reason that comes twice is added up.
    pub fn by_reason(&mut self, name: &str, help: &str, mut reasons: Reasons) {
        self.family(name, help, Kind::Counter);
        reasons.sort_unstable();
        for group in reasons.chunk_by(|a, b| a.0 == b.0) {
            let Some((reason, _)) = group.first() else {
                continue;
            };
            let sum = group
                .iter()
                .fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
            self.sample(name, &[("reason", reason)], sum);
        }
    }

    /// One counter per result.
    pub fn by_result(&mut self, name: &str, help: &str, results: &[(&str, u64)]) {
        self.family(name, help, Kind::Counter);
        for (result, count) in results {
            self.sample(name, &[("result", result)], *count);
        }
    }

    /// What is running: a gauge that is always 1.
    pub fn build_info(&mut self, role: &str, runtime: &str) {
        let name = "ztna_build_info";
        self.family(name, "What is running, in its labels.", Kind::Gauge);
        let version = env!("CARGO_PKG_VERSION");
        self.sample(
            name,
            &[("role", role), ("runtime", runtime), ("version", version)],
            1,
        );
    }

    /// What the shell did with its UDP socket.
    pub fn shell(&mut self, stats: &ShellStats) {
        let udp = &stats.udp;
        let mut counter = |name: &str, help: &str, value| self.counter(name, help, value);
        counter(
            "ztna_udp_received_datagrams_total",
            "UDP datagrams received.",
            udp.received_datagrams,
        );
        counter(
            "ztna_udp_received_batches_total",
            "Batches they came in.",
            udp.received_batches,
        );
        counter(
            "ztna_udp_received_bytes_total",
            "Payload bytes received.",
            udp.received_bytes,
        );
        counter(
            "ztna_udp_sent_datagrams_total",
            "UDP datagrams sent.",
            udp.sent_datagrams,
        );
        counter(
            "ztna_udp_sent_batches_total",
            "Send calls they left in.",
            udp.sent_batches,
        );
        counter("ztna_udp_sent_bytes_total", "Payload bytes sent.", udp.sent_bytes);
        counter(
            "ztna_udp_send_blocked_total",
            "Times the socket had no room; what was to be sent was kept.",
            udp.blocked,
        );
        counter(
            "ztna_udp_segmentation_refused_total",
            "Times the kernel refused to segment a batch.",
            udp.segmentation_refused,
        );
        counter(
            "ztna_udp_receive_errors_total",
            "Errors of receive calls.",
            udp.receive_errors,
        );
        counter("ztna_loop_turns_total", "Turns of the event loop.", stats.turns);
    }

    /// What sessions did.
    pub fn sessions(&mut self, stats: &SessionStats) {
        self.labelled_counter(
            "ztna_session_packets_total",
            "Packets in sessions, by way and direction.",
            &[
                (vec![("path", "direct"), ("direction", "sent")], stats.direct_sent),
                (
                    vec![("path", "direct"), ("direction", "received")],
                    stats.direct_received,
                ),
                (
                    vec![("path", "relayed"), ("direction", "sent")],
                    stats.relayed_sent,
                ),
                (
                    vec![("path", "relayed"), ("direction", "received")],
                    stats.relayed_received,
                ),
            ],
        );
        self.counter(
            "ztna_session_direct_established_total",
            "Direct connections established.",
            stats.direct_established,
        );
        self.counter(
            "ztna_session_direct_lost_total",
            "Direct connections that were lost.",
            stats.direct_lost,
        );
        self.counter(
            "ztna_session_searches_failed_total",
            "Searches for a direct way that found none.",
            stats.searches_failed,
        );
    }

    /// The names of the families so far.
    pub fn families(&self) -> Vec<&str> {
        let headers = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        headers.filter_map(|line| line.split(' ').next()).collect()
    }

    /// The reasons of a family so far.
    pub fn reasons(&self, family: &str) -> Vec<&str> {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(family));
        samples
            .filter_map(|rest| rest.strip_prefix("{reason=\"")?.split('"').next())
            .collect()
    }

    /// The text so far.
    pub fn finish(self) -> String {
        self.0
    }

    fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let _ = match labels.as_slice() {
            [] => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What the shell dropped or refused, by reason.
pub fn shell_drops(stats: &ShellStats) -> Reasons {
    use runtime_io::UdpDrop;
    let all = [
        (UdpDrop::Source, "udp_source"),
        (UdpDrop::Empty, "udp_empty"),
        (UdpDrop::Destination, "udp_destination"),
        (UdpDrop::Shape, "udp_shape"),
        (UdpDrop::Unreachable, "udp_unreachable"),
        (UdpDrop::Denied, "udp_denied"),
        (UdpDrop::TooLarge, "udp_too_large"),
        (UdpDrop::Refused, "udp_refused"),
        (UdpDrop::Other, "udp_other"),
    ];
    all.iter()
        .map(|(drop, reason)| (*reason, stats.udp.dropped(*drop)))
        .collect()
}

/// What sessions did not take, by reason.
pub fn session_drops(stats: &SessionStats) -> Reasons {
    vec![
        ("duplicate", stats.duplicates),
        ("check_refused", stats.checks_refused),
        ("session_malformed", stats.malformed),
    ]
}

/// What the pool of connections did not take, by reason.
pub fn pool_drops(stats: &PoolStats) -> Reasons {
    vec![
        ("not_quic", stats.not_quic),
        ("unknown_connection", stats.unknown_connection),
        ("short_initial", stats.short_initial),
        ("retry_token_invalid", stats.tokens_invalid),
        ("pool_full", stats.refused_full),
        ("stateless_answer", stats.stateless_dropped),
        ("outgrown", stats.outgrown),
        ("uninvited", stats.uninvited),
        ("unknown_channel", stats.unknown_channel),
        ("wrong_way", stats.wrong_way),
        ("beside_quic", stats.raw_dropped),
    ]
}

#[cfg(test)]
mod tests;
