//! The laboratory itself, without the product: instruments that lie would make every other result worthless.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Test;
use crate::lab::leftovers::runtime_folder;
use crate::lab::namespace::Namespace;
use crate::lab::programs::{ECHO, WEB};
use crate::lab::site::{CABLE, WALL};
use crate::lab::world::{World, finish_flow};
use crate::tool::content;

pub(super) const TESTS: &[Test] = &[
    ("echo_and_files_over_a_cable", cable),
    ("the_firewall_lets_nothing_in", firewall),
    ("a_namespace_takes_what_its_agents_kept_along", runtime_folders),
];

const FILE: u64 = 5_000_000;

fn cable(world: &mut World) -> Result<()> {
    world.site.lay_comparison_cable()?;
    let echo = SocketAddr::from((CABLE, ECHO.port));
    let to = echo.to_string();
    let (good, said) = world.run_tool(
        1,
        &["udp-sizes", "--to", &to, "--sizes", "0,1,11,12,1472"],
        Duration::from_secs(20),
    )?;
    ensure!(good, "{said}");
    let mut flow = world.start_flow(1, echo, 500)?;
    flow.say("mark 1")?;
    flow.wait_for("answered mark 1", Duration::from_secs(5))?;
    let account = finish_flow(flow)?;
    ensure!(
        account.lost() == 0 && account.foreign + account.corrupt + account.duplicate == 0,
        "{account:?}"
    );

    let expected = content::digest(FILE);
    let down = world.download(1, &format!("http://{CABLE}:{}/bytes/{FILE}", WEB.port))?;
    ensure!(down.digest == expected && down.bytes == FILE, "{down:?}");
    let file = world.make_file(FILE)?;
    let up = world.upload(1, &format!("http://{CABLE}:{}/", WEB.port), &file)?;
    ensure!(up.digest == expected, "{up:?}");
    world.site.cut_comparison_cable()
}

fn firewall(world: &mut World) -> Result<()> {
    let refused = world.site.refused()?;
    let doors = format!("{},{}", ECHO.port, WEB.port);
    for target in [WALL, ECHO.backend] {
        let target = target.to_string();
        let (_, said) = world.run_tool(
            1,
            &["knock", "--to", &target, "--ports", &doors],
            Duration::from_secs(20),
        )?;
        ensure!(said.contains("knocked 4 doors, 0 open"), "{said}");
    }
    let refused = world.site.refused()? - refused;
    ensure!(refused >= 8, "only {refused} refusals were counted");
    ensure!(
        world.site.outbound()? == 0,
        "the private network called out by itself"
    );
    Ok(())
}

fn runtime_folders(_: &mut World) -> Result<()> {
    let namespace = Namespace::new("kept")?;
    let folder = runtime_folder(namespace.name()).context("the namespace has no number")?;
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("ztna0.lock"), "1")?;
    drop(namespace);
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}
