//! What every shell must do, told once: real sockets on loopback, real time, small machines.
//!
//! A runtime includes this file, implements [`Runtime`] and calls `all!` with it. No story sleeps: each waits for what it expects, with
//! a deadline only so that a failure ends.

pub(crate) mod backends;
mod caller;
pub(crate) mod lifecycle;
pub(crate) mod locals;
mod machines;
mod mirror;
mod parrot;
pub(crate) mod probes;
pub(crate) mod tunnel;
pub(crate) mod udp;

use std::io::Write as _;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use proto_core::machine::Machine;
use runtime_io::{
    CommandSender, ExitReport, Notice, RunConfig, RunError, Shell, Side, Signals, UdpConfig, UdpEndpoint,
    command_channel,
};
use rustix::thread::UnshareFlags;

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

/// Says so past the test harness, which keeps to itself what passing tests print.
fn skipped(story: &str, why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {story}: {why}").expect("a standard error stream");
}

/// Runs a command of words without blanks.
fn succeeds(command: &str) -> bool {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap_or_default())
        .args(words)
        .status();
    status.is_ok_and(|status| status.success())
}

/// Tells a story on a thread with a network of its own, which ends with it; threads it starts share that.
fn in_own_namespace(story: &'static str, tell: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        #[expect(deprecated, reason = "unsafe only with FILES, which is not asked for")]
        if rustix::thread::unshare(UnshareFlags::NEWNET).is_err() {
            return skipped(story, "a network namespace needs root");
        }
        if !succeeds("ip link set lo up") {
            return skipped(story, "needs the ip command of iproute2");
        }
        tell();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
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
            probes: checks_end_with_the_first_answer, checks_of_nobody_are_refused,
                a_check_that_is_given_up_closes_its_socket;
            locals: programs_hear_their_own_bytes_and_ends, resets_pass_between_machine_and_program,
                datagrams_go_back_to_who_sent_them, nobody_comes_in_once_the_end_has_begun;
            tunnel: answers_pings_through_tun, carries_super_packets_through_tun, says_why_there_is_no_tun,
                ends_when_the_interface_is_deleted;
        }
    };
}

macro_rules! tests {
    ($runtime:ty; $($module:ident: $($story:ident),+;)+) => {
        $($(#[test] fn $story() { $crate::stories::$module::$story::<$runtime>() })+)+
    };
}

pub(crate) use {all, tests};
