//! `ztna-connector` as its users meet it, with a real intermediate beside it.

#[path = "../../program/stories/process.rs"]
mod process;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use process::{Running, Site, command, finish, loopback, page, value};
use program::pki::Grants;
use rustix::process::Signal;

const EXE: &str = env!("CARGO_BIN_EXE_ztna-connector");

/// In this variable the test executable finds the configuration with which it is to be an intermediate.
const BE_INTERMEDIATE: &str = "TEST_BE_INTERMEDIATE";

/// Not a story: the executable of another package cannot be named here, so this test, started by others as a process of
/// its own, is that program.
#[test]
fn intermediate() {
    let Some(config) = std::env::var_os(BE_INTERMEDIATE) else {
        return;
    };
    let arguments = ["ztna-intermediate", "--config"].map(OsString::from);
    let _ = intermediate::main(arguments.into_iter().chain([config]));
}

fn start_intermediate(config: &str) -> (Running, SocketAddr) {
    let this = std::env::current_exe().expect("this executable");
    let mut command = command(&this.display().to_string());
    command
        .args(["--exact", "intermediate", "--nocapture"])
        .env(BE_INTERMEDIATE, config);
    let mut running = Running::start(&mut command);
    let address = running.expect("ztna-intermediate ready on ");
    (running, address.parse().expect("an address"))
}

fn start_connector(config: &str, runtime: &str) -> Running {
    Running::start(command(EXE).args(["--config", config, "--runtime", runtime]))
}

/// Two services for a connector on `host`.
fn connector_config(site: &Site, host: Ipv4Addr, files: &str, server: SocketAddr) -> String {
    site.write(
        "connector.json",
        &format!(
            r#"{{{files}, "metrics_addr": "{host}", "bind_addr": "{host}",
                "intermediate_server": {{"host": "{}", "port": {}, "server_name": "relay.test"}},
                "services": [{{"id": "web-app", "backend": "{host}:8080", "protocol": "tcp"}},
                             {{"id": "echo", "backend": "{host}:7", "protocol": "udp", "virtualIp": "10.100.0.1"}}]}}"#,
            server.ip(),
            server.port(),
        ),
    )
}

fn intermediate_config(site: &Site, host: Ipv4Addr, port: u16) -> String {
    let name = format!("relay-{port}");
    let files = site.issue(
        &name,
        &Grants {
            servers: vec!["relay.test".to_owned()],
            ..Grants::default()
        },
    );
    site.write(
        &format!("{name}.json"),
        &format!(r#"{{{files}, "bind_addr": "{host}", "port": {port}, "metrics_addr": "{host}"}}"#),
    )
}

fn connector(services: &[&str]) -> Grants {
    Grants {
        connectors: services.iter().map(|service| (*service).to_owned()).collect(),
        ..Grants::default()
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let help = finish(command(EXE).arg("--help"));
    assert_eq!(help.code, Some(0));
    for text in [
        "--intermediate-server",
        "--p2p-port",
        "ZTNA_SERVER_NAME",
        "Exit codes",
    ] {
        assert!(help.stdout.contains(text), "{text} is not in:\n{}", help.stdout);
    }
    assert_eq!(
        finish(command(EXE).arg("--version")).stdout,
        format!("ztna-connector {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_two() {
    let site = Site::new("connector-bad");
    let file = site.write(
        "c.json",
        r#"{"intermediate_server": "relay", "services": [{"id": "a", "backend": "localhost"}]}"#,
    );
    let ended = finish(command(EXE).args(["--config", &file]));
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.stderr,
        format!(
            "ztna-connector: {file}: services[0].backend (service \"a\"): \"localhost\" has no port; write for example \
             \"127.0.0.1:8080\"\n"
        )
    );
    let ended = finish(
        command(EXE)
            .args(["--config", &file])
            .env("ZTNA_METRICS_PORT", "x"),
    );
    assert!(
        ended.stderr.starts_with("ztna-connector: ZTNA_METRICS_PORT: "),
        "{}",
        ended.stderr
    );
}

#[test]
fn it_registers_heals_and_ends_in_order_on_both_runtimes() {
    for runtime in ["mio", "tokio"] {
        let site = Site::new(&format!("registers-{runtime}"));
        let (relay_host, host) = (loopback(), loopback());
        let (relay, server) = start_intermediate(&intermediate_config(&site, relay_host, 0));
        let files = site.issue("connector", &connector(&["*"]));
        let config = connector_config(&site, host, &files, server);
        let mut running = start_connector(&config, runtime);
        running.expect("ztna-connector registered 2 of 2 services");

        let monitor = SocketAddr::from((host, 9091));
        assert_eq!(page(monitor, "/healthz"), (200, "ok\n".to_owned()));
        let (status, metrics) = page(monitor, "/metrics");
        assert_eq!(status, 200);
        for series in [
            "ztna_connector_forwarded_packets_total",
            "ztna_connector_forwarded_bytes_total",
            "ztna_connector_tcp_sessions_total",
            "ztna_connector_tcp_errors_total",
            "ztna_connector_reconnections_total",
        ] {
            assert_eq!(value(&metrics, series), 0, "{series}");
        }
        value(&metrics, "ztna_connector_uptime_seconds");
        let build = format!(r#"ztna_build_info{{role="connector",runtime="{runtime}",version="0.1.0"}}"#);
        assert_eq!(value(&metrics, &build), 1);
        let (_, metrics) = page(SocketAddr::from((relay_host, 9090)), "/metrics");
        assert_eq!(value(&metrics, "ztna_registrations_total"), 2);

        // The intermediate goes and comes back at its address: the connector is told, and returns by itself.
        let (status, log) = relay.end(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{log}");
        running.expect("ztna-connector registered 0 of 2 services");
        let (status, reason) = page(monitor, "/healthz");
        assert_eq!(status, 503);
        assert_eq!(
            reason,
            "not connected to the intermediate; not registered: web-app, echo\n"
        );
        let (relay, again) = start_intermediate(&intermediate_config(&site, relay_host, server.port()));
        assert_eq!(again, server);
        running.expect("ztna-connector registered 2 of 2 services");
        let (_, metrics) = page(monitor, "/metrics");
        assert_eq!(value(&metrics, "ztna_connector_reconnections_total"), 1);

        let (status, log) = running.end(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{log}");
        drop(relay);
    }
}

#[test]
fn a_certificate_without_the_name_is_denied_and_one_of_another_authority_refused() {
    let site = Site::new("denied");
    let strangers = Site::new("strangers");
    let (relay, server) = start_intermediate(&intermediate_config(&site, loopback(), 0));

    let host = loopback();
    let files = site.issue("connector", &connector(&["web-app"]));
    let mut running = start_connector(&connector_config(&site, host, &files, server), "mio");
    running.expect("service echo is refused: the certificate does not name it");
    let (status, reason) = page(SocketAddr::from((host, 9091)), "/healthz");
    assert_eq!(status, 503);
    assert!(reason.contains("echo"), "{reason}");
    drop(running);

    // A certificate of another authority; the relay's own is trusted, so that only the client is refused.
    let host = loopback();
    let files = strangers
        .issue("connector", &connector(&["*"]))
        .replace(&strangers.path("ca.pem"), &site.path("ca.pem"));
    let mut running = start_connector(&connector_config(&strangers, host, &files, server), "mio");
    running.expect("the intermediate refused our certificate (unknown_ca)");
    assert_eq!(page(SocketAddr::from((host, 9091)), "/healthz").0, 503);
    drop(running);

    // The other way round: a relay that this connector has no reason to trust.
    let host = loopback();
    let files = strangers.issue("other", &connector(&["*"]));
    let mut running = start_connector(&connector_config(&strangers, host, &files, server), "mio");
    running.expect("the certificate of the intermediate is not accepted");
    assert_eq!(page(SocketAddr::from((host, 9091)), "/healthz").0, 503);
    let (status, log) = running.end(Signal::INT);
    assert_eq!(status.code(), Some(0), "{log}");
    let (status, log) = relay.end(Signal::INT);
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_name_that_does_not_resolve_is_a_warning() {
    let site = Site::new("unresolved");
    let host = loopback();
    let files = site.issue("connector", &connector(&["*"]));
    let server = "192.0.2.1:4433".parse().expect("an address");
    let config = connector_config(&site, host, &files, server);
    // A label too long for the DNS: refused on this host, nothing is asked of a network.
    let name = format!("{}.test", "x".repeat(64));
    let mut command: Command = command(EXE);
    command.args(["--config", &config, "--intermediate-server", &name]);
    let mut running = Running::start(&mut command);
    running.expect("cannot resolve xxx");
    running.expect("ztna-connector started with 2 services");
    assert_eq!(page(SocketAddr::from((host, 9091)), "/healthz").0, 503);
    let (status, log) = running.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_dead_backend_is_told_to_probes_and_leaves_the_other_services_in_use() {
    let site = Site::new("withdrawn");
    let (relay, server) = start_intermediate(&intermediate_config(&site, loopback(), 0));
    let host = loopback();
    let files = site.issue("connector", &connector(&["*"]));
    let config = connector_config(&site, host, &files, server);
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let health = r#""health": {"check": "tcp", "interval": "1s", "healthy": 1, "unhealthy": 1}"#;
    let text = text.replace(r#""protocol": "tcp""#, &format!(r#""protocol": "tcp", {health}"#));
    std::fs::write(&config, text).expect("a configuration");
    let mut running = start_connector(&config, "mio");
    running.expect("registered 1 of 2 services");
    let monitor = SocketAddr::from((host, 9091));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(page(monitor, path), (200, "ok; withdrawn: web-app\n".to_owned()));
    }
    let backend = std::net::TcpListener::bind((host, 8080)).expect("a backend");
    running.expect("registered 2 of 2 services");
    assert_eq!(page(monitor, "/healthz"), (200, "ok\n".to_owned()));
    drop(backend);
    running.expect("registered 1 of 2 services");

    // Without the intermediate neither page is good.
    let (status, log) = relay.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
    running.expect("registered 0 of 2 services");
    let reason = "not connected to the intermediate; not registered: echo; withdrawn: web-app\n";
    for path in ["/healthz", "/readyz"] {
        assert_eq!(page(monitor, path), (503, reason.to_owned()));
    }
    let (status, log) = running.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{log}");
}
