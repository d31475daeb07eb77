//! What a role has beside its UDP socket.

use std::io;
use std::time::Instant;

use proto_core::machine::Machine;

use crate::reactor::{Reactor, Ready};
use crate::stats::ShellStats;

/// What a side works with in one call.
pub struct SideContext<'a> {
    /// The event loop its descriptors are registered with.
    pub reactor: &'a mut dyn Reactor,
    /// The counters.
    pub stats: &'a mut ShellStats,
    /// The time of this turn.
    pub now: Instant,
}

impl std::fmt::Debug for SideContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideContext")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// The other side of a machine: a tunnel interface, backend sockets, or nothing (`()`).
///
/// Errors are only those that end the shell: the descriptor a role cannot live without is gone.
pub trait Side<M: Machine> {
    /// Registers what exists already, with tokens from [`crate::Token::of_side`].
    ///
    /// # Errors
    /// If the event loop refuses.
    fn start(&mut self, reactor: &mut dyn Reactor) -> io::Result<()>;

    /// Notes a hint about its descriptor `index`; the work follows in [`Side::input`].
    fn hint(&mut self, index: u32, ready: Ready);

    /// Moves what its descriptors have into the machine, within a budget of its own.
    ///
    /// # Errors
    /// If the shell has to end.
    fn input(&mut self, machine: &mut M, context: SideContext<'_>) -> io::Result<()>;

    /// Moves what the machine has for it to its descriptors, within a budget of its own; whether anything moved.
    ///
    /// # Errors
    /// If the shell has to end.
    fn output(&mut self, machine: &mut M, context: SideContext<'_>) -> io::Result<bool>;

    /// The orderly end begins: nothing new is to be let in.
    fn shut_down(&mut self, _reactor: &mut dyn Reactor) {}

    /// Whether [`Side::input`] would get on at once, without another hint.
    fn wants_turn(&self, machine: &M) -> bool;

    /// When it wants a turn at the latest.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// Nothing: a role that lives on its UDP socket alone.
impl<M: Machine> Side<M> for () {
    fn start(&mut self, _: &mut dyn Reactor) -> io::Result<()> {
        Ok(())
    }

    fn hint(&mut self, _: u32, _: Ready) {}

    fn input(&mut self, _: &mut M, _: SideContext<'_>) -> io::Result<()> {
        Ok(())
    }

    fn output(&mut self, _: &mut M, _: SideContext<'_>) -> io::Result<bool> {
        Ok(false)
    }

    fn wants_turn(&self, _: &M) -> bool {
        false
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
