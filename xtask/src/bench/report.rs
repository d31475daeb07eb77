//! The table, and what must hold.

use super::figures::Figures;

/// At most this many times the CPU of a bare QUIC relay in memory.
const MOST_RATIO: f64 = 1.6;
/// At most this share more CPU with idle clients.
const MOST_BURDEN: f64 = 1.10;

/// A frame of a channel costs at most this many times the CPU of a plain forwarder.
const MOST_CHANNEL: f64 = 2.0;

/// At most this much memory for a client of v2 that only stays.
const MOST_IDLE: f64 = 32.0 * 1024.0;

/// At most this many times the round trip of a plain forwarder.
const MOST_ROUND_TRIP: f64 = 3.0;

/// One line: what, which figure, in which unit, with how many decimals.
pub(super) type Row = (&'static str, &'static str, &'static str, usize);

/// Titles, each with its lines.
pub(super) type Table = &'static [(&'static str, &'static [Row])];

/// The table of the relay.
pub(super) const ROWS: Table = &[
    (
        "as much as goes, one way, 4 agents, relay on a processor of its own",
        &[
            ("relayed datagrams that arrive", "sat_rate", "/s", 0),
            (
                "… lost on the way, for want of a faster receiver",
                "sat_lost",
                "%",
                1,
            ),
            ("relay, CPU per datagram", "sat_us", "µs", 2),
            (
                "bare quiche relay in memory, CPU per datagram",
                "memory_bare_us",
                "µs",
                2,
            ),
            ("the one divided by the other", "sat_ratio", "×", 2),
            (
                "the relay machine in memory, CPU per datagram",
                "memory_relay_us",
                "µs",
                2,
            ),
            ("… 8 agents, 4 datagrams each a turn", "memory_spread_us", "µs", 2),
            ("… without cryptography (stand-in)", "memory_fake_us", "µs", 2),
            (
                "plain forwarder, GRO in, GSO out, arrive",
                "fwd_batches_rate",
                "/s",
                0,
            ),
            ("… CPU per datagram", "fwd_batches_us", "µs", 2),
            ("frames of relay channels that arrive", "chan_rate", "/s", 0),
            (
                "… lost on the way, for want of a faster receiver",
                "chan_lost",
                "%",
                1,
            ),
            ("relay, CPU per frame", "chan_us", "µs", 2),
            (
                "… divided by the plain forwarder's (GRO, GSO)",
                "chan_ratio",
                "×",
                2,
            ),
            (
                "… the relay machine in memory, CPU per frame",
                "memory_channel_us",
                "µs",
                3,
            ),
            (
                "plain forwarder, one datagram a call, arrive",
                "fwd_singles_rate",
                "/s",
                0,
            ),
            ("… CPU per datagram", "fwd_singles_us", "µs", 2),
        ],
    ),
    (
        "20,000/s of 1,200 bytes there and back, CPU per datagram and direction",
        &[
            (
                "agents, relay, connector, backend: lost, all rounds",
                "whole_lost",
                "sum",
                0,
            ),
            ("relay", "whole_relay_us", "µs", 2),
            ("connector", "whole_connector_us", "µs", 2),
            (
                "evenly spaced instead of every ms: lost, all rounds",
                "even_lost",
                "sum",
                0,
            ),
            ("relay", "even_relay_us", "µs", 2),
            (
                "without connector and backend: lost, all rounds",
                "mirror_lost",
                "sum",
                0,
            ),
            ("relay", "mirror_relay_us", "µs", 2),
            (
                "through the tunnel of `ztna up`: lost, all rounds",
                "tun_lost",
                "sum",
                0,
            ),
            ("agent", "tun_agent_us", "µs", 2),
            ("plain forwarder: lost, all rounds", "fwd_paced_lost", "sum", 0),
            ("forwarder", "fwd_paced_us", "µs", 2),
        ],
    ),
    (
        "round trip of one packet, p50 / p99",
        &[
            ("past everything (veth)", "rtt_direct", "rtt", 0),
            ("through a plain forwarder", "rtt_fwd", "rtt", 0),
            ("through the relay, ends without tunnel", "rtt_relayed", "rtt", 0),
            ("… and the connector to its backend", "rtt_whole", "rtt", 0),
            ("… and the tunnel of `ztna up`", "rtt_tun", "rtt", 0),
            (
                "to the backend and back, divided by the plain forwarder's",
                "rtt_ratio",
                "×",
                2,
            ),
        ],
    ),
    (
        "clients",
        &[
            ("handshakes with client certificate", "handshakes_rate", "/s", 0),
            ("relay, CPU per handshake", "handshakes_ms", "ms", 2),
            ("resident memory per idle client, at 1,000", "idle_bytes", "B", 0),
            ("… of v2, registered", "idle_v2_bytes", "B", 0),
            ("relay, CPU per datagram at 20,000/s one way", "alone_us", "µs", 2),
            ("… with 1,000 idle clients", "burdened_us", "µs", 2),
            ("the one divided by the other", "burdened_ratio", "×", 2),
        ],
    ),
    (
        "allocations per relayed datagram, in memory",
        &[
            ("our code", "allocations_ours", "", 2),
            ("the whole relay", "allocations_relay", "", 2),
            ("bare quiche", "allocations_bare", "", 2),
            ("per frame of a relay channel", "allocations_channel", "", 2),
        ],
    ),
    (
        "the machine",
        &[(
            "AES-128-GCM, seal and open 1,200 bytes (ring)",
            "aead_us",
            "µs",
            2,
        )],
    ),
];

/// A table as text.
pub(super) fn table(rows: Table, figures: &Figures) -> String {
    let mut text = String::new();
    for (title, rows) in rows {
        text.push_str(&format!("\n{title}\n"));
        for (what, name, unit, decimals) in *rows {
            let (figure, range) = match *unit {
                "sum" => (format!("{:.0}", figures.sum(name)), String::new()),
                "rtt" => {
                    let [p50, p99] = ["p50", "p99"].map(|part| figures.median(&format!("{name}_{part}")));
                    (format!("{p50:.0} / {p99:.0} µs"), String::new())
                }
                unit => {
                    let (least, greatest) = figures.range(name);
                    let figure = format!("{} {unit}", grouped(figures.median(name), *decimals));
                    let range = format!(
                        "{} to {}",
                        grouped(least, *decimals),
                        grouped(greatest, *decimals)
                    );
                    (figure, range)
                }
            };
            text.push_str(&format!("  {what:<54} {figure:>16}   {range}\n"));
        }
    }
    text
}

/// A number with its thousands set apart.
fn grouped(number: f64, decimals: usize) -> String {
    let text = format!("{number:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// Each condition in words, whether it holds, and the figure.
pub(super) fn conditions(figures: &Figures) -> Vec<(&'static str, bool, String)> {
    let ratio = figures.median("sat_ratio");
    let (lost, kept_up) = (figures.sum("whole_lost"), figures.range("whole_kept_up").0);
    let ours = figures.range("allocations_ours").1;
    let burden = figures.median("burdened_ratio");
    let round_trip = figures.median("rtt_ratio");
    let channel = figures.median("chan_ratio");
    let per_frame = figures.range("allocations_channel").1;
    let idle = figures.median("idle_v2_bytes");
    vec![
        (
            "relay CPU per datagram at most 1.6 × the bare quiche relay in memory",
            ratio <= MOST_RATIO,
            format!("{ratio:.2} ×"),
        ),
        (
            "nothing lost at 20,000 datagrams/s, agent to service and back",
            lost == 0.0 && kept_up >= 1.0,
            if kept_up >= 1.0 {
                format!("{lost:.0} lost")
            } else {
                format!("{lost:.0} lost, and the rate was not reached in every round")
            },
        ),
        (
            "our code allocates nothing per relayed datagram",
            ours == 0.0,
            format!("{ours:.4} at most"),
        ),
        (
            "1,000 idle clients add at most 10 % CPU per datagram",
            burden <= MOST_BURDEN,
            format!("{:+.1} %", (burden - 1.0) * 100.0),
        ),
        (
            "a round trip through relay and connector at most 3 × that through a plain forwarder",
            round_trip <= MOST_ROUND_TRIP,
            format!("{round_trip:.2} ×"),
        ),
        (
            "a frame of a relay channel at most 2 × the CPU of a plain forwarder with GRO and GSO",
            channel <= MOST_CHANNEL,
            format!("{channel:.2} ×"),
        ),
        (
            "nothing is allocated per frame of a relay channel",
            per_frame == 0.0,
            format!("{per_frame:.4} at most"),
        ),
        (
            "at most 32 KiB of resident memory per idle client of v2",
            idle <= MOST_IDLE,
            format!("{:.1} KiB", idle / 1024.0),
        ),
    ]
}
