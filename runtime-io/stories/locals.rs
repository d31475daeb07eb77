//! Programs of this host at listeners of ours.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use proto_core::backend::FlowId;
use proto_core::local::{DatagramSocket, ListenerIndex};
use runtime_io::{LocalListener, LocalSide, Notice, Outcome, Shell, bind_datagrams};
use socket2::SockRef;

use super::backends::bytes;
use super::parrot::{Noticed, Parrot};
use super::{PATIENCE, Running, Runtime, loopback};

/// A parrot with one listener of each kind.
fn start<R: Runtime>(machine: Parrot) -> (Running<Parrot>, SocketAddr, SocketAddr) {
    let streams = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let datagrams = bind_datagrams("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let at = streams.local_addr().expect("an address");
    let datagrams_at = datagrams.local_addr().expect("an address");
    let side = LocalSide::new(vec![
        LocalListener::Stream(streams),
        LocalListener::Datagram(datagrams),
    ]);
    let shell = Shell::new(machine, loopback(), side.expect("listeners"));
    (Running::quietly::<R, _>(shell), at, datagrams_at)
}

fn dial(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn accepted(running: &Running<Parrot>) -> FlowId {
    let notice = running.notice();
    let Notice::Event(Noticed::Accepted(flow)) = notice else {
        panic!("{notice:?}");
    };
    flow
}

/// Says something and ends; what comes back until the other side has ended.
fn converse(mut stream: TcpStream, words: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(words).expect("room");
            writer.shutdown(Shutdown::Write).expect("an end");
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("an orderly end");
        heard
    })
}

pub(crate) fn programs_hear_their_own_bytes_and_ends<R: Runtime>() {
    let (running, at, _) = start::<R>(Parrot::default());
    // The first reads nothing until the others have been served.
    let mut slow = dial(at);
    let sent = bytes(100_000);
    let mut writer = slow.try_clone().expect("a descriptor");
    let slow_words = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&slow_words).expect("room in the end");
        writer.shutdown(Shutdown::Write).expect("an end");
    });
    let talks: Vec<_> = (0..8)
        .map(|number| {
            thread::spawn(move || {
                let words = bytes(number * 150_000);
                assert!(converse(dial(at), &words) == words, "{number}");
            })
        })
        .collect();
    talks
        .into_iter()
        .for_each(|talk| talk.join().expect("the same bytes"));
    let mut heard = Vec::new();
    slow.read_to_end(&mut heard).expect("an orderly end");
    assert!(heard == sent);
    writing.join().expect("no panic in the writer");
    let stats = running.stop().stats.locals;
    let total = 100_000 + (0..8).map(|number| number * 150_000).sum::<u64>();
    assert_eq!(
        (stats.accepted, stats.bytes_read, stats.bytes_written),
        (9, total, total)
    );
    assert_eq!((stats.refused, stats.resets), (0, 0));
}

pub(crate) fn resets_pass_between_machine_and_program<R: Runtime>() {
    let mut machine = Parrot::default();
    machine.room = 1;
    let (running, at, _) = start::<R>(machine);
    let mut first = dial(at);
    let flow = accepted(&running);
    // There is no room for another, who learns that.
    let mut second = dial(at);
    assert_eq!(running.notice(), Notice::Event(Noticed::Refused));
    let error = second.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let reset = move |machine: &mut Parrot| machine.reset(flow);
    running
        .commands
        .send(move |context| reset(context.machine))
        .expect("a running shell");
    let error = first.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The other way round.
    let third = dial(at);
    let flow = accepted(&running);
    SockRef::from(&third)
        .set_linger(Some(Duration::ZERO))
        .expect("a linger");
    drop(third);
    assert_eq!(running.notice(), Notice::Event(Noticed::Reset(flow)));
    let stats = running.stop().stats.locals;
    assert_eq!((stats.accepted, stats.refused, stats.resets), (2, 1, 1));
}

pub(crate) fn datagrams_go_back_to_who_sent_them<R: Runtime>() {
    let (running, at, datagrams_at) = start::<R>(Parrot::default());
    let program = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    program.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let asks = |to: SocketAddr| {
        let mut heard = [0; 65_535];
        for len in [0, 1, 1_400, 60_000] {
            program.send_to(&bytes(len), to).expect("a datagram out");
            let (count, from) = program.recv_from(&mut heard).expect("an answer");
            assert_eq!((from, &heard[..count]), (to, &bytes(len)[..]));
        }
    };
    asks(datagrams_at);
    for _ in 0..4 {
        let listener = DatagramSocket::Listener(ListenerIndex(1));
        assert_eq!(running.notice(), Notice::Event(Noticed::Datagram(listener)));
    }
    // A relay beside a stream goes with it.
    let stream = dial(at);
    let flow = accepted(&running);
    running
        .commands
        .send(move |context| context.machine.relay(flow))
        .expect("a running shell");
    let Notice::Event(Noticed::Relaying(Some(relay))) = running.notice() else {
        panic!("no relay");
    };
    asks(relay);
    for _ in 0..4 {
        let relay = DatagramSocket::Relay(flow);
        assert_eq!(running.notice(), Notice::Event(Noticed::Datagram(relay)));
    }
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a linger");
    drop(stream);
    assert_eq!(running.notice(), Notice::Event(Noticed::Reset(flow)));
    program.connect(relay).expect("an address");
    // The port is closed: the kernel says so to whoever asks.
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    let mut asked = program.send(b"?").map(drop);
    if asked.is_ok() {
        asked = program.recv(&mut [0; 16]).map(drop);
    }
    assert!(asked.is_err_and(refused));
    let stats = running.stop().stats.locals;
    assert_eq!(
        (
            stats.datagrams_received,
            stats.datagrams_sent,
            stats.datagrams_dropped
        ),
        (8, 8, 0)
    );
}

pub(crate) fn nobody_comes_in_once_the_end_has_begun<R: Runtime>() {
    let mut machine = Parrot::default();
    machine.patient = true;
    let (running, at, _) = start::<R>(machine);
    let mut stream = dial(at);
    let flow = accepted(&running);
    running.commands.shut_down().expect("a running shell");
    assert_eq!(running.notice(), Notice::Ending);
    let error = TcpStream::connect(at).expect_err("a refusal");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // Who was in before is served.
    stream.write_all(b"still here").expect("room");
    let mut heard = [0; 10];
    stream.read_exact(&mut heard).expect("an answer");
    assert_eq!(&heard, b"still here");
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a linger");
    drop(stream);
    assert_eq!(running.notice(), Notice::Event(Noticed::Reset(flow)));
    assert_eq!(running.join().outcome, Outcome::Drained);
}
