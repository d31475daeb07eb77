//! What every shell must do, told once: real sockets on loopback, real time, small machines.
//!
//! A runtime includes this file, implements [`Runtime`] and calls `all!` with it. No story sleeps: each waits for what it expects, with
//! a deadline only so that a failure ends.

pub(crate) mod backends;
mod caller;
pub(crate) mod lifecycle;
mod machines;
pub(crate) mod udp;

use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use proto_core::machine::Machine;
use runtime_io::{
    CommandSender, ExitReport, Notice, RunConfig, RunError, Shell, Side, Signals, UdpConfig, UdpEndpoint,
    command_channel,
};

/// How long a story waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The entry of the shell under test.
pub(crate) trait Runtime {
    fn run<M: Machine, S: Side<M>>(config: RunConfig<M, S>) -> Result<ExitReport<M>, RunError>;
}

/// A shell on a thread of its own.
struct Running<M: Machine> {
    commands: CommandSender<M>,
    notices: Receiver<Notice<M::Event>>,
    thread: JoinHandle<Result<ExitReport<M>, RunError>>,
}

impl<M> Running<M>
where
    M: Machine + Send + 'static,
    M::Event: Send + 'static,
{
    fn start<R: Runtime, S: Side<M> + Send + 'static>(
        shell: Shell<M, S>,
        signals: Signals,
        grace: Duration,
    ) -> Self {
        let (commands, receiver) = command_channel(16).expect("a channel");
        let (sender, notices) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut config = RunConfig::new(shell);
            config.signals = signals;
            config.grace = grace;
            config.commands = Some(receiver);
            config.handler = Box::new(move |notice, _| {
                // The story may have seen enough.
                let _ = sender.send(notice);
            });
            R::run(config)
        });
        Self {
            commands,
            notices,
            thread,
        }
    }

    fn quietly<R: Runtime, S: Side<M> + Send + 'static>(shell: Shell<M, S>) -> Self {
        Self::start::<R, S>(shell, Signals::Ignore, PATIENCE)
    }

    fn notice(&self) -> Notice<M::Event> {
        self.notices.recv_timeout(PATIENCE).expect("a notice in time")
    }

    fn join(self) -> ExitReport<M> {
        self.thread
            .join()
            .expect("no panic in the shell")
            .expect("a run without error")
    }

    fn stop(self) -> ExitReport<M> {
        self.commands.shut_down().expect("a running shell");
        self.join()
    }
}

fn loopback() -> UdpEndpoint {
    bind("127.0.0.1:0")
}

fn bind(address: &str) -> UdpEndpoint {
    UdpEndpoint::bind(&UdpConfig::new(address.parse().expect("an address"))).expect("a socket")
}

#[expect(
    clippy::print_stderr,
    reason = "a skipped story must be seen in the output of the test run"
)]
fn skipped(story: &str, why: &str) {
    eprintln!("SKIPPED: {story}: {why}");
}

/// Makes one test per story for a [`Runtime`].
macro_rules! all {
    ($runtime:ty) => {
        $crate::stories::tests! { $runtime;
            udp: echoes_thousands_in_batches, echoes_over_a_dual_stack_socket, forwards_runs_in_place,
                survives_source_port_zero, keeps_what_a_full_socket_refuses, names_an_address_in_use;
            lifecycle: fires_timers_in_order, drains_on_command, gives_up_after_the_grace,
                answers_questions, obeys_signals;
            backends: carries_megabytes_both_ways, holds_back_a_backend_while_there_is_no_room,
                reports_refusals, gives_up_on_a_silent_backend, passes_resets_on, carries_datagrams,
                survives_an_unreachable_port, refuses_more_than_its_limit;
        }
    };
}

macro_rules! tests {
    ($runtime:ty; $($module:ident: $($story:ident),+;)+) => {
        $($(#[test] fn $story() { $crate::stories::$module::$story::<$runtime>() })+)+
    };
}

pub(crate) use {all, tests};
