//! Everything that touches a file descriptor, written once for both shells.
//!
//! A machine of `proto_core` decides; this crate moves its bytes: a UDP socket with segmentation offload
//! ([`UdpEndpoint`]), and beside it what a role has ([`Side`]): nothing for the intermediate, a TUN interface, or the
//! backend sockets of a connector. All of it is non-blocking and knows the event loop only as a [`Reactor`]. The
//! crates `runtime-mio` and `runtime-tokio` are such event loops; both call [`Driver::turn`] and sleep as it says.
//!
//! # Map
//! * [`Reactor`], [`Ready`]: the seam to an event loop; states which readiness semantics hold.
//! * [`UdpEndpoint`]: receive, forward and send in batches.
//! * [`Side`], [`Shell`]: one machine with its descriptors, and one turn around them.
//! * [`Tun`], [`TunSide`]: the tunnel interface of this host.
//! * [`BackendSide`]: the sockets towards a connector's services.
//! * [`LocalSide`]: local listeners and the standard streams of an agent without a tunnel interface.
//! * [`Driver`], [`RunConfig`]: signals, commands and the orderly end around a shell.
//! * [`ShellStats`]: what happened, in numbers.

mod backends;
mod command;
mod descriptors;
mod driver;
mod entropy;
mod interfaces;
mod locals;
mod reactor;
mod shell;
mod side;
mod signal;
mod stats;
mod stream;
mod tun;
mod udp;

pub use backends::{BackendLimits, BackendSide, Resolve};
pub use command::{AskError, CommandSender, Commands, Context, command_channel};
pub use descriptors::raise_descriptor_limit;
pub use driver::{Driver, ExitReport, Handler, Notice, Outcome, RunConfig, RunError, Step};
pub use entropy::{NoEntropy, seed};
pub use interfaces::interfaces;
pub use locals::{LocalListener, LocalSide, bind_datagrams};
pub use reactor::{Interest, Reactor, Ready, Token};
pub use shell::{Budget, Shell, Sleep};
pub use side::{Side, SideContext};
pub use signal::Signals;
pub use stats::{BackendStats, LocalStats, ShellStats, TunStats, UdpDrop, UdpStats};
pub use tun::{Prefix, Routes, Tun, TunConfig, TunError, TunSide};
pub use udp::{BindError, LocalAddress, UdpConfig, UdpEndpoint};
