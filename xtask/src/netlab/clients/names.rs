//! dig with a DNS server behind a UDP service.

use anyhow::{Result, ensure};

use super::{NAMES, client, instrument};
use crate::lab::world::World;
use crate::netlab::Test;

pub(super) const TESTS: &[Test] = &[("dig_through_a_udp_service", dig)];

fn dig(world: &mut World) -> Result<()> {
    let bind = format!("{}:{}", NAMES.backend, NAMES.port);
    let _server = instrument(world, &["dns", "--bind", &bind])?;
    let (server, port) = (format!("@{}", NAMES.address), NAMES.port.to_string());
    let ask = |more: &[&str]| {
        let words = ["dig", &server, "-p", &port, "+tries=1", "+time=5"];
        client(world, 30, &[&words[..], more].concat())
    };
    let said = ask(&["+short", "host.lab", "A"])?;
    ensure!(said.trim() == "192.0.2.53", "{said}");
    let said = ask(&["+short", "host.lab", "AAAA"])?;
    ensure!(said.trim() == "2001:db8::53", "{said}");
    let said = ask(&["elsewhere.example", "A"])?;
    ensure!(said.contains("NXDOMAIN"), "{said}");
    // An answer as large as fits, the largest that EDNS clients ask for today.
    let said = ask(&["+short", "+bufsize=1232", "large.lab", "TXT"])?;
    ensure!(said.matches('x').count() == 4 * 250, "{said}");
    // 200 questions from one process, each from a socket of its own: no answer may reach another's.
    let names: String = (0..200).map(|number| format!("n{number}.lab A\n")).collect();
    let file = world.write_text("questions", &names)?;
    let said = ask(&["+short", "-f", &file.display().to_string()])?;
    let right = said.lines().filter(|line| *line == "192.0.2.53").count();
    ensure!(right == 200, "{right} of 200 answers");
    Ok(())
}
