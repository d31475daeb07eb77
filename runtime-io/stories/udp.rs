//! Datagrams in batches.

use std::net::{SocketAddr, UdpSocket};

use runtime_io::{BindError, Notice, Outcome, Shell, UdpConfig, UdpDrop, UdpEndpoint};
use socket2::{Domain, Protocol, Socket, Type};

use super::machines::{Echo, Pump, Relay};
use super::{PATIENCE, Running, Runtime, bind, in_own_namespace, loopback, skipped, succeeds};

/// Pumps through an echo and back, and checks that nothing was lost.
fn pump_through<R: Runtime>(
    echo: UdpEndpoint,
    target: SocketAddr,
    pump: UdpEndpoint,
    total: usize,
) -> [u64; 2] {
    let echo = Running::quietly::<R, ()>(Shell::new(Echo::default(), echo, ()));
    let machine = Pump::new(target, total, 1_200, 400);
    let pump = Running::quietly::<R, ()>(Shell::new(machine, pump, ()));
    assert_eq!(pump.notice(), Notice::Event("all came back"));
    let (pump, echo) = (pump.stop(), echo.stop());
    assert_eq!((pump.outcome, echo.outcome), (Outcome::Drained, Outcome::Drained));
    assert_eq!(echo.stats.udp.received_datagrams, total as u64);
    assert_eq!(pump.stats.udp.received_datagrams, total as u64);
    assert_eq!(pump.stats.udp.sent_bytes, total as u64 * 1_200);
    assert!(pump.stats.udp.drops.is_empty() && echo.stats.udp.drops.is_empty());
    [pump.stats.udp.sent_batches, pump.stats.udp.blocked]
}

pub(crate) fn echoes_thousands_in_batches<R: Runtime>() {
    let echo = loopback();
    let target = echo.local_addr();
    let [batches, _] = pump_through::<R>(echo, target, loopback(), 5_000);
    assert!(batches < 2_500, "{batches} calls for 5000 datagrams");
}

pub(crate) fn echoes_over_a_dual_stack_socket<R: Runtime>() {
    let echo = bind("[::]:0");
    let port = echo.local_addr().port();
    // From an IPv6 socket to an IPv4 address, as an agent on a dual-stack socket does it.
    pump_through::<R>(
        echo,
        SocketAddr::from(([127, 0, 0, 1], port)),
        bind("[::]:0"),
        500,
    );
    let echo = bind("[::]:0");
    let port = echo.local_addr().port();
    pump_through::<R>(
        echo,
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
        bind("[::]:0"),
        500,
    );
}

pub(crate) fn forwards_runs_in_place<R: Runtime>() {
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    receiver.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let next = receiver.local_addr().expect("an address");
    let relay = loopback();
    let target = relay.local_addr();
    let relay = Running::quietly::<R, ()>(Shell::new(Relay { next, ending: false }, relay, ()));
    // One call, one batch: 13 datagrams.
    let pump = Running::quietly::<R, ()>(Shell::new(Pump::new(target, 13, 700, 13), loopback(), ()));
    let mut bytes = [0; 2_000];
    for number in 0..13_u8 {
        let (len, from) = receiver.recv_from(&mut bytes).expect("a forwarded datagram");
        assert_eq!((len, from), (700, target));
        assert_eq!(&bytes[..4], &[b'R', 0, 0, number]);
    }
    pump.stop();
    let report = relay.stop();
    assert_eq!(report.stats.udp.forwarded_datagrams, 13);
    assert_eq!(report.stats.udp.sent_datagrams, 13);
}

pub(crate) fn survives_source_port_zero<R: Runtime>() {
    let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else {
        return skipped("survives_source_port_zero", "a raw socket needs root");
    };
    let echo = loopback();
    let target = echo.local_addr();
    let running = Running::quietly::<R, ()>(Shell::new(Echo::default(), echo, ()));
    let mut header = [0, 0, 0, 0, 0, 12, 0, 0, b'z', b'e', b'r', b'o'];
    header[2..4].copy_from_slice(&target.port().to_be_bytes());
    raw.send_to(&header, &target.into()).expect("a raw datagram");
    // An empty datagram is nothing to a machine either.
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    peer.send_to(b"", target).expect("a datagram");
    peer.send_to(b"still there?", target).expect("a datagram");
    let mut bytes = [0; 64];
    let len = peer.recv(&mut bytes).expect("an echo");
    assert_eq!(&bytes[..len], b"still there?");
    let stats = running.stop().stats.udp;
    assert_eq!(
        (stats.dropped(UdpDrop::Source), stats.dropped(UdpDrop::Empty)),
        (1, 1)
    );
    assert_eq!((stats.received_datagrams, stats.sent_datagrams), (1, 1));
}

/// Loopback alone never fills a send buffer: packets leave it at once. A shaped queue holds them, and so fills it.
pub(crate) fn keeps_what_a_full_socket_refuses<R: Runtime>() {
    in_own_namespace("keeps_what_a_full_socket_refuses", || {
        let shaped = "tc qdisc add dev lo root tbf rate 400mbit burst 128kb limit 50mb";
        if !succeeds(shaped) {
            return skipped(
                "keeps_what_a_full_socket_refuses",
                "needs the tc command and the tbf queue",
            );
        }
        let tiny = UdpEndpoint::bind(&UdpConfig {
            send_buffer: 4_096,
            ..UdpConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))
        });
        let echo = loopback();
        let target = echo.local_addr();
        let [_, blocked] = pump_through::<R>(echo, target, tiny.expect("a socket"), 3_000);
        assert!(blocked > 0, "the socket was never full");
    });
}

pub(crate) fn names_an_address_in_use<R: Runtime>() {
    let first = loopback();
    let error = UdpEndpoint::bind(&UdpConfig::new(first.local_addr())).expect_err("a taken address");
    assert!(matches!(error, BindError::AddressInUse(_)));
    assert_eq!(
        error.to_string(),
        format!("cannot bind UDP {}: address in use", first.local_addr())
    );
}
