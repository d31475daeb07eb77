//! iperf3 in every direction, with one stream and with sixteen, by TCP and by UDP.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{IPERF, backend, client};
use crate::lab::process::Process;
use crate::lab::world::World;
use crate::netlab::Test;

pub(super) const TESTS: &[Test] = &[("iperf3_tcp", tcp), ("iperf3_udp", udp)];

const DIRECTIONS: [(&str, &[&str]); 3] = [("up", &[]), ("down", &["--reverse"]), ("both ways", &["--bidir"])];

/// Kilobits per second of all streams of a UDP test together: far below what is possible, so that a loss is a fault.
const UDP_RATE: u32 = 16_000;

/// What iperf3 may lose of that, in percent: its first datagrams wait for the flow's first answer.
const LOST: f64 = 1.0;

/// A server for one run: between two, it has no listening socket for a moment.
fn server(world: &World) -> Result<Process> {
    let words = [
        "iperf3",
        "--server",
        "--one-off",
        "--forceflush",
        "--port",
        &IPERF.port.to_string(),
    ];
    backend(world, "iperf3", &words, "listening")
}

/// One run; the report.
fn run(world: &World, streams: u32, more: &[&str]) -> Result<Value> {
    let (to, port, streams) = (
        IPERF.address.to_string(),
        IPERF.port.to_string(),
        streams.to_string(),
    );
    let words = [
        "iperf3",
        "--json",
        "--client",
        &to,
        "--port",
        &port,
        "--time",
        "1",
        "--parallel",
        &streams,
    ];
    let _server = server(world)?;
    let text = client(world, 40, &[&words[..], more].concat())?;
    let report: Value = serde_json::from_str(&text)?;
    match report.get("error").and_then(Value::as_str) {
        None => Ok(report),
        Some(error) => bail!("{error}"),
    }
}

fn figure(report: &Value, path: &str) -> Result<f64> {
    let figure = report.pointer(path).and_then(Value::as_f64);
    figure.with_context(|| format!("nothing at {path} in {}", report.get("end").unwrap_or(report)))
}

fn tcp(world: &mut World) -> Result<()> {
    for streams in [1, 16] {
        for (name, words) in DIRECTIONS {
            let report = run(world, streams, words).with_context(|| format!("{name}, {streams} streams"))?;
            let mut sums = vec!["/end/sum_received"];
            if name == "both ways" {
                sums.push("/end/sum_received_bidir_reverse");
            }
            let mut rates = Vec::new();
            for sum in sums {
                let rate = figure(&report, &format!("{sum}/bits_per_second"))? / 1e6;
                ensure!(rate > 0.0, "{name}, {streams} streams: nothing arrived");
                rates.push(format!("{rate:.0}"));
            }
            world.note(format!(
                "{name}, {streams} streams: {} Mbit/s",
                rates.join(" and ")
            ));
        }
    }
    Ok(())
}

fn udp(world: &mut World) -> Result<()> {
    for streams in [1, 16] {
        let rate = format!("{}K", UDP_RATE / streams);
        for (name, words) in DIRECTIONS {
            let more = [&["--udp", "--length", "1000", "--bitrate", &rate], words].concat();
            let report = run(world, streams, &more).with_context(|| format!("{name}, {streams} streams"))?;
            let mut sums = vec!["/end/sum"];
            if name == "both ways" {
                sums.push("/end/sum_bidir_reverse");
            }
            for sum in sums {
                let packets = figure(&report, &format!("{sum}/packets"))?;
                let lost = figure(&report, &format!("{sum}/lost_percent"))?;
                ensure!(packets > 0.0, "{name}, {streams} streams: nothing arrived");
                ensure!(lost <= LOST, "{name}, {streams} streams: {lost} % lost");
            }
        }
    }
    Ok(())
}
