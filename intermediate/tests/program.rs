//! `ztna-intermediate` as its users meet it.

#[path = "../../program/stories/process.rs"]
mod process;

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;

use process::{Running, Site, command, finish, loopback, page, value};
use program::pki::Grants;
use rustix::process::Signal;

const EXE: &str = env!("CARGO_BIN_EXE_ztna-intermediate");

fn server() -> Grants {
    Grants {
        servers: vec!["localhost".to_owned()],
        ..Grants::default()
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let help = finish(command(EXE).arg("--help"));
    assert_eq!(help.code, Some(0));
    for text in [
        "--config",
        "--runtime",
        "--insecure-dev",
        "ZTNA_PORT",
        "Exit codes",
    ] {
        assert!(help.stdout.contains(text), "{text} is not in:\n{}", help.stdout);
    }
    let version = finish(command(EXE).arg("--version"));
    assert_eq!(version.code, Some(0));
    assert_eq!(
        version.stdout,
        format!("ztna-intermediate {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(finish(command(EXE).arg("--prot")).code, Some(2));
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_two() {
    let site = Site::new("bad-configuration");
    let file = site.write("i.json", r#"{"prot": 4433}"#);
    let ended = finish(command(EXE).args(["--config", &file]));
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.stderr,
        format!("ztna-intermediate: {file}: prot: unknown key; did you mean \"port\"?\n")
    );
    let ended = finish(command(EXE).env("ZTNA_CONFIG", "/nonexistent.json"));
    assert_eq!(ended.code, Some(2));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn keys_are_checked_before_anything_starts() {
    let site = Site::new("keys");
    let files = site.issue("relay", &server());
    let file = site.write("i.json", &format!(r#"{{{files}, "port": 0, "metrics_port": 0}}"#));
    let check = finish(command(EXE).args(["--config", &file, "--check"]));
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    let key = site.path("relay.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("permissions");
    let ended = finish(command(EXE).args(["--config", &file, "--check"]));
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains(&format!("chmod 600 {key}")),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn an_address_in_use_is_exit_code_two() {
    let site = Site::new("in-use");
    let files = site.issue("relay", &server());
    let host = loopback();
    let taken = UdpSocket::bind((host, 0)).expect("a socket");
    let address = taken.local_addr().expect("an address");
    let content = format!(
        r#"{{{files}, "bind_addr": "{host}", "port": {}, "metrics_port": 0}}"#,
        address.port()
    );
    let file = site.write("i.json", &content);
    let ended = finish(command(EXE).args(["--config", &file]));
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.stderr,
        format!(
            "ztna-intermediate: cannot bind UDP {address}: address in use; stop the other process or choose another port\n"
        )
    );
    let taken = std::net::TcpListener::bind((host, 0)).expect("a socket");
    let port = taken.local_addr().expect("an address").port().to_string();
    let ended = finish(command(EXE).args([
        "--config",
        &file,
        "--metrics-addr",
        &host.to_string(),
        "--metrics-port",
        &port,
    ]));
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("choose another metrics_port"),
        "{}",
        ended.stderr
    );
}

#[test]
fn it_listens_says_so_and_ends_in_order_on_both_runtimes() {
    for (runtime, signal) in [("mio", Signal::TERM), ("tokio", Signal::INT)] {
        let site = Site::new(&format!("runs-{runtime}"));
        let files = site.issue("relay", &server());
        let host = loopback();
        let file = site.write(
            "i.json",
            &format!(r#"{{{files}, "bind_addr": "{host}", "port": 0, "metrics_addr": "{host}"}}"#),
        );
        let mut running = Running::start(command(EXE).args(["--config", &file, "--runtime", runtime]));
        let address: SocketAddr = running
            .expect("ztna-intermediate ready on ")
            .parse()
            .expect("an address");
        assert_eq!(address.ip(), host);
        assert_ne!(address.port(), 0, "the real port");

        let monitor = SocketAddr::from((host, 9090));
        assert_eq!(page(monitor, "/healthz"), (200, "ok\n".to_owned()));
        let junk = UdpSocket::bind((host, 0)).expect("a socket");
        junk.send_to(b"junk", address).expect("a datagram");
        let metrics = loop {
            let (status, metrics) = page(monitor, "/metrics");
            assert_eq!(status, 200);
            if value(&metrics, "ztna_udp_received_datagrams_total") > 0 {
                break metrics;
            }
        };
        let build = format!(r#"ztna_build_info{{role="intermediate",runtime="{runtime}",version="0.1.0"}}"#);
        assert_eq!(value(&metrics, &build), 1);
        assert_eq!(value(&metrics, r#"ztna_dropped_total{reason="not_quic"}"#), 1);
        for series in [
            "ztna_active_connections",
            "ztna_relay_bytes_total",
            "ztna_registrations_total",
            "ztna_registration_rejections_total",
            "ztna_datagrams_relayed_total",
            "ztna_signaling_sessions_total",
            "ztna_retry_tokens_validated",
            "ztna_retry_token_failures",
        ] {
            assert_eq!(value(&metrics, series), 0, "{series}");
        }
        value(&metrics, "ztna_uptime_seconds");
        let (status, log) = running.end(signal);
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("shutting down"), "{log}");
    }
}

#[test]
fn insecure_development_needs_no_files_and_says_so() {
    let host = loopback();
    let mut running = Running::start(command(EXE).args([
        "--insecure-dev",
        "--bind-addr",
        &host.to_string(),
        "--port",
        "0",
        "--metrics-port",
        "0",
    ]));
    running.expect("INSECURE: --insecure-dev is on");
    running.expect("ztna-intermediate ready on ");
    let (status, log) = running.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
}
