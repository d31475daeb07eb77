//! Packets through a real TUN interface, in a network namespace of the story's own.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use runtime_io::{Notice, Prefix, Shell, Tun, TunConfig, TunError, TunSide, TunStats};

use super::machines::Pump;
use super::mirror::Mirror;
use super::{Running, Runtime, bind, in_own_namespace, loopback, skipped, succeeds};

fn prefix(address: &str, len: u8) -> Prefix {
    Prefix {
        address: address.parse().expect("an address"),
        len,
    }
}

fn config() -> TunConfig {
    TunConfig {
        addresses: vec![prefix("10.9.0.1", 24), prefix("fd00:9::1", 64)],
        ..TunConfig::new("mirror0", 1_400)
    }
}

fn create(story: &str) -> Option<Tun> {
    match Tun::create(&config()) {
        Ok(tun) => Some(tun),
        Err(error @ (TunError::NoDriver(_) | TunError::NotPermitted(_))) => {
            skipped(story, &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn ping(address: &str) {
    let output = Command::new("ping")
        .args(["-n", "-c", "3", "-i", "0.01", "-W", "10", address])
        .output();
    let output = output.expect("the ping of iputils");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("3 received") && !text.contains("wrong data"),
        "{text}"
    );
}

pub(crate) fn answers_pings_through_tun<R: Runtime>() {
    in_own_namespace("answers_pings_through_tun", || {
        let Some(mut tun) = create("answers_pings_through_tun") else {
            return;
        };
        tun.add_route(prefix("10.20.30.40", 16))
            .expect("a route whose host bits are ignored");
        tun.add_route(prefix("fd00:20::", 32)).expect("a route");
        tun.add_route(prefix("fd00:20::", 32))
            .expect("the same route again");
        let running = Running::quietly::<R, _>(Shell::new(Mirror::default(), loopback(), TunSide::new(tun)));
        for address in ["10.9.0.77", "10.20.1.2", "fd00:9::77", "fd00:20::1"] {
            ping(address);
        }
        let stats = running.stop().stats.tun;
        assert!(stats.packets_written >= 12, "{stats:?}");
        assert_eq!((stats.read_errors, stats.write_errors), (0, 0), "{stats:?}");
    });
}

/// UDP in segmentation batches: the kernel hands over super-packets, which are split here and coalesced on return.
pub(crate) fn carries_super_packets_through_tun<R: Runtime>() {
    in_own_namespace("carries_super_packets_through_tun", || {
        let Some(tun) = create("carries_super_packets_through_tun") else {
            return;
        };
        let running = Running::quietly::<R, _>(Shell::new(Mirror::default(), loopback(), TunSide::new(tun)));
        for (source, mirrored) in [("10.9.0.1:0", "10.9.0.2"), ("[fd00:9::1]:0", "fd00:9::2")] {
            let mirrored: IpAddr = mirrored.parse().expect("an address");
            let machine = Pump::new(SocketAddr::new(mirrored, 7), 4_000, 1_200, 200);
            let pump = Running::quietly::<R, ()>(Shell::new(machine, bind(source), ()));
            assert_eq!(pump.notice(), Notice::Event("all came back"));
            pump.stop();
        }
        let stats: TunStats = running.stop().stats.tun;
        assert!(stats.packets_written >= 8_000, "{stats:?}");
        assert!(
            stats.reads < 4_000 && stats.writes < 4_000,
            "in batches: {stats:?}"
        );
        assert_eq!((stats.read_errors, stats.write_errors), (0, 0), "{stats:?}");
    });
}

pub(crate) fn says_why_there_is_no_tun<R: Runtime>() {
    let error = Tun::create(&TunConfig::new("a name too long for one", 1_400)).expect_err("a bad name");
    assert!(matches!(error, TunError::BadName(_)), "{error}");
    in_own_namespace("says_why_there_is_no_tun", || {
        let Some(_first) = create("says_why_there_is_no_tun") else {
            return;
        };
        let error = Tun::create(&config()).expect_err("a name in use");
        assert!(matches!(error, TunError::NameInUse(_)), "{error}");
        let error = Tun::create(&TunConfig::new("lo", 1_400)).expect_err("a name of another kind");
        assert!(matches!(error, TunError::NameInUse(_)), "{error}");
    });
}

/// The interface disappears under a running shell: an error, neither a panic nor a spin.
pub(crate) fn ends_when_the_interface_is_deleted<R: Runtime>() {
    in_own_namespace("ends_when_the_interface_is_deleted", || {
        let Some(tun) = create("ends_when_the_interface_is_deleted") else {
            return;
        };
        let running = Running::quietly::<R, _>(Shell::new(Mirror::default(), loopback(), TunSide::new(tun)));
        ping("10.9.0.77");
        assert!(succeeds("ip link delete mirror0"));
        let error = running
            .thread
            .join()
            .expect("no panic in the shell")
            .expect_err("a lost interface");
        assert!(
            error.to_string().starts_with("the tunnel interface is gone"),
            "{error}"
        );
    });
}
