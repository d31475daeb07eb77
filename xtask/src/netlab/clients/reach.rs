//! ping and traceroute: what people type first when something does not work, so it has to tell the truth.

use anyhow::{Context as _, Result, ensure};

use super::{FILES, IPERF, SERVICES, client};
use crate::lab::programs::six;
use crate::lab::world::World;
use crate::netlab::Test;

pub(super) const TESTS: &[Test] = &[
    ("ping_v4_and_v6_of_several_sizes", ping),
    ("traceroute_by_udp_icmp_and_tcp", traceroute),
];

fn ping(world: &mut World) -> Result<()> {
    for service in [FILES, IPERF] {
        for address in [service.address.to_string(), six(service.address).to_string()] {
            for size in ["0", "56", "1000", "1200"] {
                let words = [
                    "ping", "-n", "-c", "3", "-i", "0.05", "-W", "5", "-s", size, &address,
                ];
                let said = client(world, 30, &words).with_context(|| format!("{address}, {size} bytes"))?;
                ensure!(
                    said.contains(" 0% packet loss"),
                    "{address}, {size} bytes: {said}"
                );
            }
        }
    }
    Ok(())
}

/// The service answers for itself, one hop away, whichever packets ask.
fn traceroute(world: &mut World) -> Result<()> {
    let port = FILES.port.to_string();
    for service in SERVICES.iter().take(1) {
        for address in [service.address.to_string(), six(service.address).to_string()] {
            for way in [&["-U"][..], &["-I"], &["-T", "-p", &port]] {
                let common = ["traceroute", "-n", "-q", "1", "-w", "3", "-m", "5"];
                let words = [&common[..], way, &[address.as_str()]].concat();
                let said = client(world, 60, &words)?;
                let last = said.lines().last().unwrap_or_default();
                ensure!(
                    last.split_whitespace().nth(1) == Some(&address),
                    "{way:?}: {said}"
                );
            }
        }
    }
    Ok(())
}
