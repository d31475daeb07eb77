//! Timers, commands, signals, and the end.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use proto_core::machine::Wake;
use runtime_io::{Notice, Outcome, Shell, Signals};
use rustix::process::{Signal, getpid, kill_process};

use super::machines::{Clockwork, Echo};
use super::{PATIENCE, Running, Runtime, loopback};

pub(crate) fn fires_timers_in_order<R: Runtime>() {
    let timers = [
        (0, Wake::Quic),
        (3, Wake::Registration),
        (3, Wake::Keepalive),
        (4, Wake::Reconnect),
        (11, Wake::Netstack),
        (30, Wake::Quic),
    ];
    let machine = Clockwork::with_timers(Instant::now(), &timers);
    let running = Running::quietly::<R, ()>(Shell::new(machine, loopback(), ()));
    for (_, wake) in timers {
        assert_eq!(
            running.notice(),
            Notice::Event((wake, true)),
            "the next timer, not early"
        );
    }
    let report = running.stop();
    assert_eq!(report.outcome, Outcome::Drained);
    // A host that stalls lets several fall due together; none wakes the loop without being due.
    let wakes = report.stats.wakes.values().sum::<u64>();
    assert!(
        (1..=timers.len() as u64).contains(&wakes),
        "{:?}",
        report.stats.wakes
    );
    assert_eq!(report.stats.restless, 0);
}

pub(crate) fn drains_on_command<R: Runtime>() {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let machine = Clockwork::with_farewell(peer.local_addr().expect("an address"));
    let running = Running::quietly::<R, ()>(Shell::new(machine, loopback(), ()));
    let report = running.stop();
    assert_eq!(report.outcome, Outcome::Drained);
    let mut bytes = [0; 16];
    for farewell in [&b"bye"[..], b"bye", b"b"] {
        let len = peer.recv(&mut bytes).expect("a farewell");
        assert_eq!(&bytes[..len], farewell);
    }
}

pub(crate) fn gives_up_after_the_grace<R: Runtime>() {
    let shell = Shell::new(Clockwork::stubborn(), loopback(), ());
    let running = Running::start::<R, ()>(shell, Signals::Ignore, Duration::from_millis(20));
    let report = running.stop();
    assert_eq!(report.outcome, Outcome::GraceExpired);
}

pub(crate) fn answers_questions<R: Runtime>() {
    let running = Running::quietly::<R, ()>(Shell::new(Echo::default(), loopback(), ()));
    let commands = running.commands.clone();
    for asked in 1..=100 {
        let seen = commands
            .ask(PATIENCE, |context| context.stats.commands)
            .expect("an answer");
        assert_eq!(seen, asked);
    }
    running.stop();
    assert!(
        commands.ask(PATIENCE, |_| ()).is_err(),
        "nobody is there any more"
    );
}

/// One story, so that the process has one shell at a time that takes its signals.
pub(crate) fn obeys_signals<R: Runtime>() {
    let started = |machine: Clockwork| {
        let shell = Shell::new(machine, loopback(), ());
        let running = Running::start::<R, ()>(shell, Signals::Handle, PATIENCE);
        running
            .commands
            .ask(PATIENCE, |_| ())
            .expect("a shell with its handlers installed");
        running
    };
    let raise = |signal| kill_process(getpid(), signal).expect("a signal");

    let running = started(Clockwork::default());
    raise(Signal::HUP);
    assert_eq!(running.notice(), Notice::Reload);
    raise(Signal::TERM);
    assert_eq!(running.notice(), Notice::Ending);
    assert_eq!(running.join().outcome, Outcome::Drained);

    let running = started(Clockwork::stubborn());
    raise(Signal::INT);
    assert_eq!(running.notice(), Notice::Ending);
    raise(Signal::TERM);
    assert_eq!(running.join().outcome, Outcome::Forced);
}
