//! Log lines on stderr, with the time: one level for our own crates, warnings only of the libraries.

use std::io::Write as _;

use log::{Level, LevelFilter};

/// Our crates, as log targets begin.
const OURS: [&str; 10] = [
    "agent",
    "connector",
    "intermediate",
    "program",
    "proto_core",
    "runtime_io",
    "runtime_mio",
    "runtime_tokio",
    "ztna",
    "ztna_connector",
];

/// The words for levels.
pub const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
    ("off", LevelFilter::Off),
];

/// Starts logging: at a level that was asked for, else as `RUST_LOG` says in its own notation, else at INFO. A second
/// call changes nothing.
pub fn start(level: Option<LevelFilter>) {
    let mut builder = env_logger::Builder::new();
    match (level, std::env::var("RUST_LOG")) {
        (None, Ok(filters)) => {
            builder.parse_filters(&filters);
        }
        (level, _) => {
            let level = level.unwrap_or(LevelFilter::Info);
            builder.filter_level(level.min(LevelFilter::Warn));
            for target in OURS {
                builder.filter_module(target, level);
            }
        }
    }
    builder.format(|out, record| {
        let time = out.timestamp_millis();
        let level = record.level();
        // Where a line comes from helps only those who asked for details.
        if level > Level::Info {
            writeln!(out, "{time} {level:5} {}: {}", record.target(), record.args())
        } else {
            writeln!(out, "{time} {level:5} {}", record.args())
        }
    });
    let _ = builder.try_init();
}
