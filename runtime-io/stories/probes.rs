//! Checks of real backends' health.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::thread;

use proto_core::backend::{Refusal, Transport};
use proto_core::service::health::{ANSWER, Awaited};

use super::backends::{accept, listen, usual};
use super::caller::{Caller, Heard};
use super::{PATIENCE, Running, Runtime};

/// Asks, and expects this answer.
#[track_caller]
fn check(
    running: &Running<Caller>,
    what: (Transport, SocketAddr, &'static [u8], Awaited),
    expected: Result<&[u8], Refusal>,
) {
    let (transport, address, send, awaited) = what;
    running.tell(move |caller| caller.probe(transport, address, send, awaited));
    running.expect(Heard::Probed(expected.map(<[u8]>::to_vec)));
}

pub(crate) fn checks_end_with_the_first_answer<R: Runtime>() {
    let running = usual::<R>();
    let (listener, address) = listen();
    check(
        &running,
        (Transport::Tcp, address, b"", Awaited::Connection),
        Ok(b""),
    );
    accept(&listener);

    // A status line in two pieces, and more behind it that nobody waits for.
    let server = thread::spawn(move || {
        let mut stream = accept(&listener);
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).expect("a question");
        assert_eq!(&asked, b"GET /");
        stream.set_nodelay(true).expect("no delay");
        stream.write_all(b"HTTP/1.1 ").expect("room");
        stream.write_all(b"204 No Content\r\n").expect("room");
        // Until the check hangs up.
        let _ = stream.read(&mut asked);
        // Ends without a line.
        let mut stream = accept(&listener);
        stream.write_all(b"half a").expect("room");
        drop(stream);
        // Never ends.
        let mut stream = accept(&listener);
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let line = b"HTTP/1.1 204 No Content\r\n";
    check(
        &running,
        (Transport::Tcp, address, b"GET /", Awaited::Line),
        Ok(line),
    );
    check(
        &running,
        (Transport::Tcp, address, b"", Awaited::Line),
        Ok(b"half a"),
    );
    let endless = [b'x'; ANSWER];
    check(
        &running,
        (Transport::Tcp, address, b"", Awaited::Line),
        Ok(&endless),
    );
    server.join().expect("no panic in the server");

    let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let address = server.local_addr().expect("an address");
    let answering = thread::spawn(move || {
        let mut asked = [0; 16];
        let (len, from) = server.recv_from(&mut asked).expect("a question");
        assert_eq!(&asked[..len], b"ping");
        server.send_to(b"pong", from).expect("an answer");
    });
    check(
        &running,
        (Transport::Udp, address, b"ping", Awaited::Datagram),
        Ok(b"pong"),
    );
    answering.join().expect("no panic in the server");
    assert_eq!(running.stats().open, 0);
    running.stop();
}

pub(crate) fn checks_of_nobody_are_refused<R: Runtime>() {
    let running = usual::<R>();
    let (listener, address) = listen();
    drop(listener);
    let refused = Err(Refusal::Refused);
    check(
        &running,
        (Transport::Tcp, address, b"", Awaited::Connection),
        refused,
    );
    check(
        &running,
        (Transport::Tcp, address, b"GET /", Awaited::Line),
        refused,
    );
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    check(
        &running,
        (Transport::Udp, address, b"ping", Awaited::Datagram),
        refused,
    );
    let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
    let unreachable = Err(Refusal::Unreachable);
    check(
        &running,
        (Transport::Tcp, nowhere, b"", Awaited::Connection),
        unreachable,
    );
    running.stop();
}

pub(crate) fn a_check_that_is_given_up_closes_its_socket<R: Runtime>() {
    let running = usual::<R>();
    let (listener, address) = listen();
    running.tell(move |caller| caller.probe(Transport::Tcp, address, b"", Awaited::Line));
    let mut silent = accept(&listener);
    running.tell(Caller::end_probe);
    match silent.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    // Nothing was heard of it; the next one has the place.
    check(
        &running,
        (Transport::Tcp, address, b"", Awaited::Connection),
        Ok(b""),
    );
    running.stop();
}
