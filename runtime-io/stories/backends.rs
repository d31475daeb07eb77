//! Flows towards real servers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use proto_core::backend::{BackendUnreachable, Refusal, Transport};
use runtime_io::{BackendLimits, BackendSide, BackendStats, Notice, Shell};
use socket2::{Domain, SockRef, Socket, Type};

use super::caller::{Caller, Heard};
use super::{PATIENCE, Running, Runtime, loopback};

fn start<R: Runtime>(limits: BackendLimits) -> Running<Caller> {
    Running::quietly::<R, _>(Shell::new(
        Caller::default(),
        loopback(),
        BackendSide::new(limits),
    ))
}

pub(super) fn usual<R: Runtime>() -> Running<Caller> {
    start::<R>(BackendLimits::default())
}

impl Running<Caller> {
    pub(super) fn tell(&self, what: impl FnOnce(&mut Caller) + Send + 'static) {
        self.commands
            .send(move |context| what(context.machine))
            .expect("a running shell");
    }

    pub(super) fn expect(&self, heard: Heard) {
        assert_eq!(self.notice(), Notice::Event(heard));
    }

    pub(super) fn stats(&self) -> BackendStats {
        let ask = || {
            let answer = self.commands.ask(PATIENCE, |context| context.stats.clone());
            answer.expect("an answer")
        };
        // What was told before shows when the turn in which it was told is over.
        let first = ask();
        loop {
            let later = ask();
            if later.turns > first.turns {
                return later.backends;
            }
        }
    }
}

/// A shell with nothing to do turns for questions only.
fn rests(running: &Running<Caller>) {
    let turns = || {
        running
            .commands
            .ask(PATIENCE, |context| context.stats.turns)
            .expect("an answer")
    };
    let before = turns();
    let after = (0..50).fold(before, |_, _| turns());
    assert!(
        after < before + 150,
        "{before} turns before 50 questions, {after} after"
    );
}

pub(super) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

pub(super) fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Bytes without a period, so that a lost or repeated stretch shows.
pub(super) fn bytes(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn carries_megabytes_both_ways<R: Runtime>() {
    let (listener, address) = listen();
    let server = std::thread::spawn(move || {
        let mut stream = accept(&listener);
        let mut buffer = vec![0; 50_000];
        loop {
            match stream.read(&mut buffer).expect("bytes") {
                0 => return,
                count => stream.write_all(&buffer[..count]).expect("room"),
            }
        }
    });
    let running = usual::<R>();
    running.tell(move |caller| caller.open(3, Transport::Tcp, address));
    running.expect(Heard::Opened(3));
    running.tell(|caller| {
        caller.resume(usize::MAX / 2);
        caller.write(bytes(5 << 20));
        caller.half_close();
    });
    // The server closes only after the half-close has reached it, and so after the last byte.
    running.expect(Heard::HalfClosed);
    server.join().expect("no panic in the server");
    let stats = running.stats();
    assert_eq!(
        (stats.bytes_sent, stats.bytes_received, stats.open),
        (5 << 20, 5 << 20, 1)
    );
    running.tell(Caller::close);
    assert_eq!(running.stats().open, 0);
    let report = running.stop();
    assert!(report.machine.incoming == bytes(5 << 20), "the same bytes");
    assert_eq!(report.stats.backends.resets, 0);
}

pub(crate) fn holds_back_a_backend_while_there_is_no_room<R: Runtime>() {
    let (listener, address) = listen();
    let server = std::thread::spawn(move || {
        accept(&listener).write_all(&bytes(1 << 20)).expect("room");
    });
    let running = usual::<R>();
    running.tell(move |caller| {
        caller.open(0, Transport::Tcp, address);
        caller.resume(100_000);
    });
    running.expect(Heard::Opened(0));
    running.expect(Heard::Full);
    assert_eq!(running.stats().bytes_received, 100_000);
    rests(&running);
    running.tell(|caller| caller.resume(200_000));
    running.expect(Heard::Full);
    assert_eq!(running.stats().bytes_received, 300_000);
    running.tell(|caller| caller.resume(1 << 20));
    running.expect(Heard::HalfClosed);
    server.join().expect("no panic in the server");
    rests(&running);
    assert!(running.stop().machine.incoming == bytes(1 << 20));
}

pub(crate) fn reports_refusals<R: Runtime>() {
    let running = usual::<R>();
    let (listener, address) = listen();
    drop(listener);
    running.tell(move |caller| caller.open(0, Transport::Tcp, address));
    running.expect(Heard::Refused(0, Refusal::Refused));
    running.tell(|caller| caller.open(0, Transport::Tcp, SocketAddr::from(([255, 255, 255, 255], 9))));
    running.expect(Heard::Refused(0, Refusal::Unreachable));
    let stats = running.stats();
    assert_eq!((stats.open, stats.opened, stats.refused.len()), (0, 0, 2));
    running.stop();
}

pub(crate) fn gives_up_on_a_silent_backend<R: Runtime>() {
    // A listener whose queue is full answers nobody.
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    silent
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("an address");
    silent.listen(0).expect("a listener");
    let address = silent
        .local_addr()
        .ok()
        .and_then(|address| address.as_socket())
        .expect("an address");
    let fillers: Vec<Socket> = (0..3)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("a non-blocking socket");
            // Under way, or established: either way it takes a place.
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let running = start::<R>(BackendLimits {
        connect: Duration::from_millis(30),
        ..BackendLimits::default()
    });
    running.tell(move |caller| caller.open(7, Transport::Tcp, address));
    running.expect(Heard::Refused(7, Refusal::TimedOut));
    assert_eq!(running.stats().open, 0);
    drop(fillers);
    running.stop();
}

pub(crate) fn passes_resets_on<R: Runtime>() {
    let running = usual::<R>();
    let (listener, address) = listen();
    running.tell(move |caller| caller.open(0, Transport::Tcp, address));
    let stream = accept(&listener);
    running.expect(Heard::Opened(0));
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a linger");
    running.tell(|caller| caller.resume(10));
    drop(stream);
    running.expect(Heard::Reset);

    running.tell(move |caller| caller.open(0, Transport::Tcp, address));
    let mut stream = accept(&listener);
    running.expect(Heard::Opened(0));
    running.tell(Caller::reset);
    let error = stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(running.stats().open, 0);
    running.stop();
}

pub(crate) fn carries_datagrams<R: Runtime>() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = server.local_addr().expect("an address");
    let running = usual::<R>();
    running.tell(move |caller| caller.open(1, Transport::Udp, address));
    running.expect(Heard::Opened(1));
    let mut buffer = vec![0; 70_000];
    for size in [0, 1, 1_200, 9_000, 60_000] {
        running.tell(move |caller| caller.send(&bytes(size)));
        let (len, from) = server.recv_from(&mut buffer).expect("a datagram");
        assert_eq!(buffer[..len], bytes(size));
        server.send_to(&buffer[..len], from).expect("an answer");
        running.expect(Heard::Datagram(bytes(size)));
    }
    running.tell(Caller::close);
    assert_eq!(running.stats().open, 0);
    running.stop();
}

pub(crate) fn survives_an_unreachable_port<R: Runtime>() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = server.local_addr().expect("an address");
    drop(server);
    let running = usual::<R>();
    running.tell(move |caller| caller.open(0, Transport::Udp, address));
    running.expect(Heard::Opened(0));
    running.tell(|caller| caller.send(b"anybody?"));
    running.expect(Heard::Unreachable(BackendUnreachable::Port));
    rests(&running);
    // The flow lives on, for a service that comes back.
    let server = UdpSocket::bind(address).expect("the same port again");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    running.tell(|caller| caller.send(b"and now?"));
    let mut buffer = [0; 64];
    let (len, from) = server.recv_from(&mut buffer).expect("a datagram");
    server.send_to(&buffer[..len], from).expect("an answer");
    running.expect(Heard::Datagram(b"and now?".to_vec()));
    running.stop();
}

pub(crate) fn refuses_more_than_its_limit<R: Runtime>() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = server.local_addr().expect("an address");
    let running = start::<R>(BackendLimits {
        sockets: 1,
        ..BackendLimits::default()
    });
    running.tell(move |caller| caller.open(0, Transport::Udp, address));
    running.expect(Heard::Opened(0));
    running.tell(move |caller| caller.open(1, Transport::Udp, address));
    running.expect(Heard::Refused(1, Refusal::Exhausted));
    // A slot named again gives its first socket up.
    running.tell(move |caller| caller.open(0, Transport::Udp, address));
    running.expect(Heard::Opened(0));
    assert_eq!(running.stats().open, 1);
    running.stop();
}
