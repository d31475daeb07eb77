//! Each component taken away during traffic, rudely and politely, and the traffic coming back by itself.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::Test;
use crate::lab::process::Process;
use crate::lab::programs::{CONNECTOR_HEALTH, ECHO};
use crate::lab::world::{PATIENCE, World, finish_flow};

pub(super) const TESTS: &[Test] = &[
    ("restart_intermediate_killed", |world| {
        restart(world, Component::Intermediate, Signal::KILL)
    }),
    ("restart_intermediate_terminated", |world| {
        restart(world, Component::Intermediate, Signal::TERM)
    }),
    ("restart_connector_killed", |world| {
        restart(world, Component::Connector, Signal::KILL)
    }),
    ("restart_connector_terminated", |world| {
        restart(world, Component::Connector, Signal::TERM)
    }),
    ("restart_agent_killed", |world| {
        restart(world, Component::Agent, Signal::KILL)
    }),
    ("restart_agent_terminated", |world| {
        restart(world, Component::Agent, Signal::TERM)
    }),
    ("everybody_leaves_politely", leave),
];

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Component {
    Intermediate,
    Connector,
    Agent,
}

impl Component {
    fn take(self, world: &mut World) -> Result<Process> {
        let process = match self {
            Self::Intermediate => world.intermediate.take(),
            Self::Connector => world.connector.take(),
            Self::Agent => world.agents.remove(&1),
        };
        process.with_context(|| format!("{self:?} is not running"))
    }

    fn start(self, world: &mut World) -> Result<()> {
        match self {
            Self::Intermediate => world.start_intermediate(),
            Self::Connector => world.start_connector(),
            Self::Agent => world.start_agent(1),
        }
        .map(drop)
    }
}

fn restart(world: &mut World, component: Component, signal: Signal) -> Result<()> {
    let mut flow = world.start_flow(1, (ECHO.address, ECHO.port).into(), 100)?;
    let mut process = component.take(world)?;
    process.signal(signal)?;
    let status = process.wait(PATIENCE)?;
    ensure!(
        signal == Signal::KILL || status.code() == Some(0),
        "it ended with {status}{}",
        process.last_words()
    );
    component.start(world)?;
    flow.say("mark 1")?;
    flow.wait_for("answered mark 1", PATIENCE)?;
    World::wait_health(&world.site.private, CONNECTOR_HEALTH, 200)?;
    let account = finish_flow(flow)?;
    ensure!(account.foreign + account.corrupt == 0, "{account:?}");
    world.note(format!(
        "lost {} of {}, silent for {} ms",
        account.lost(),
        account.sent,
        account.silence_ms
    ));
    Ok(())
}

fn leave(world: &mut World) -> Result<()> {
    for component in [Component::Agent, Component::Connector, Component::Intermediate] {
        let mut process = component.take(world)?;
        process.signal(Signal::INT)?;
        let status = process.wait(PATIENCE)?;
        ensure!(
            status.code() == Some(0),
            "{component:?} ended with {status}{}",
            process.last_words()
        );
    }
    let links = world.device(1)?.ip("link show")?;
    ensure!(
        !links.contains("ztna0"),
        "the agent left its interface behind: {links}"
    );
    Ok(())
}
