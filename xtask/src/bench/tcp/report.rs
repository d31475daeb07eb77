//! The table of TCP, and what must hold.

use super::{LEAST_LOSSY, MOST_BESIDE, MOST_CPU, MOST_IDLE};
use crate::bench::figures::Figures;
use crate::bench::report::Table;

/// The table.
pub(super) const ROWS: Table = &[
    (
        "one TCP stream, agent TUN → relay → connector → backend",
        &[
            ("up", "up", "Mbit/s", 0),
            ("… all our processes, CPU per 1,300 bytes", "up_us", "µs", 2),
            ("… boringtun-cli past the relay", "wg_up", "Mbit/s", 0),
            ("… its processes, CPU per 1,300 bytes", "wg_up_us", "µs", 2),
            ("… the one divided by the other", "up_ratio", "×", 2),
            ("down", "down", "Mbit/s", 0),
            ("… all our processes, CPU per 1,300 bytes", "down_us", "µs", 2),
            ("… boringtun-cli past the relay", "wg_down", "Mbit/s", 0),
            ("… its processes, CPU per 1,300 bytes", "wg_down_us", "µs", 2),
            ("… the one divided by the other", "down_ratio", "×", 2),
        ],
    ),
    (
        "one TCP stream and datagrams over the wire between client and relay",
        &[
            ("60 Mbit/s of datagrams, up, arrive", "udp_up", "Mbit/s", 2),
            ("… down, arrive", "udp_down", "Mbit/s", 2),
            ("up", "lossy_up", "Mbit/s", 2),
            ("… without the product", "plain_up", "Mbit/s", 2),
            ("down", "lossy_down", "Mbit/s", 2),
            ("… without the product", "plain_down", "Mbit/s", 2),
        ],
    ),
    (
        "round trip beside one TCP stream, 20 ms, 20 Mbit/s, 50 ms of queue, p50 / p99",
        &[
            ("up", "loaded_up", "rtt", 0),
            ("… without the product", "plain_loaded_up", "rtt", 0),
            ("down", "loaded_down", "rtt", 0),
            ("… without the product", "plain_loaded_down", "rtt", 0),
        ],
    ),
    (
        "sessions",
        &[
            (
                "connector with 10,000 idle sessions, resident",
                "idle_resident",
                "B",
                0,
            ),
            ("… each", "idle_each", "B", 0),
            ("short session, p50 / p99", "fast_alone", "rtt", 0),
            ("… beside 32 callers of a silent backend", "fast_beside", "rtt", 0),
            ("… the one divided by the other (p50)", "fast_ratio", "×", 2),
        ],
    ),
];

/// Each condition in words, whether it holds, and the figure; of what was measured only.
pub(super) fn conditions(figures: &Figures) -> Vec<(&'static str, bool, String)> {
    let mut conditions = Vec::new();
    let mut at_least = |name, what, least: f64| {
        let ratio = figures.median(name);
        if !ratio.is_nan() {
            conditions.push((what, ratio >= least, format!("{ratio:.2} ×")));
        }
    };
    at_least("up_ratio", "up: at least the goodput of boringtun-cli", 1.0);
    at_least("down_ratio", "down: at least the goodput of boringtun-cli", 1.0);
    let lossy = [
        (
            "lossy_up",
            "plain_up",
            "up over the lossy wire: at least 0.9 of plain TCP",
        ),
        (
            "lossy_down",
            "plain_down",
            "down over the lossy wire: at least 0.9 of plain TCP",
        ),
    ];
    for (ours, plain, what) in lossy {
        // Of all seeds together: each is one draw of chance.
        let ratio = figures.sum(ours) / figures.sum(plain);
        if !ratio.is_nan() {
            conditions.push((what, ratio >= LEAST_LOSSY, format!("{ratio:.2} ×")));
        }
    }
    let at_most = [
        (
            "up_us",
            "up: at most 12 µs of CPU per 1,300 bytes",
            MOST_CPU,
            "µs",
            1.0,
        ),
        (
            "down_us",
            "down: at most 12 µs of CPU per 1,300 bytes",
            MOST_CPU,
            "µs",
            1.0,
        ),
        (
            "idle_resident",
            "10,000 idle sessions in one connector: under 400 MB",
            MOST_IDLE,
            "MB",
            1e6,
        ),
        (
            "fast_ratio",
            "a silent backend beside it delays nobody (p50 at most 1.5 ×)",
            MOST_BESIDE,
            "×",
            1.0,
        ),
    ];
    for (name, what, most, unit, divisor) in at_most {
        let figure = figures.median(name);
        if !figure.is_nan() {
            conditions.push((what, figure <= most, format!("{:.2} {unit}", figure / divisor)));
        }
    }
    conditions
}
