use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use program::settings::Environment;
use proto_core::config::Protocol;
use proto_core::quic::identity::Fingerprint;
use proto_core::service::access::{AllowList, Allowed};
use proto_core::service::health::Question;

use super::*;

/// The configuration of a file and flags, or the error with the file's name taken out.
fn read(name: &str, content: &str, flags: &[&str]) -> Result<Config, String> {
    let path: PathBuf =
        std::env::temp_dir().join(format!("ztna-connector-{}-{name}.json", std::process::id()));
    std::fs::write(&path, content).unwrap();
    let file = path.display().to_string();
    let arguments = ["ztna-connector", "--config", &file];
    let args = Args::parse_from(arguments.iter().chain(flags));
    let config = Settings::load(
        &SCHEMA,
        "/nonexistent/x.json",
        args.flags(),
        Environment::default(),
    )
    .and_then(|settings| Config::read(&settings))
    .map_err(|error| error.to_string().replace(&file, "FILE"));
    std::fs::remove_file(&path).unwrap();
    config
}

fn with_service(name: &str, service: &str) -> Result<Config, String> {
    let content = format!(r#"{{"intermediate_server": "relay:1", "services": [{service}]}}"#);
    read(name, &content, &[])
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn every_setting_is_documented() {
    let text = include_str!("../../../docs/operations.md");
    program::args::documented(text, &SCHEMA, &Args::command()).unwrap();
}

#[test]
fn an_existing_file_is_read() {
    let content = r#"{
        "intermediate_server": {"_comment_host": "the relay", "host": "203.0.113.9", "port": 4433},
        "services": [
            {"id": "echo-service", "backend": "127.0.0.1:9999", "protocol": "udp", "virtualIp": "10.100.0.1"},
            {"id": "web-app", "backend": "127.0.0.1:8080", "protocol": "tcp", "virtualIp": "10.100.0.2"}],
        "p2p": {"cert": "certs/cert.pem", "key": "certs/key.pem", "port": 4434}}"#;
    let config = read("existing", content, &[]).unwrap();
    assert_eq!(config.server.endpoint.host, "203.0.113.9");
    assert_eq!((config.port, config.p2p), (4434, true));
    assert_eq!(config.common.metrics, Some("127.0.0.1:9091".parse().unwrap()));
    let parts: Vec<_> = config
        .services
        .iter()
        .map(|service| {
            let listener = &service.offer.listeners[0];
            (
                service.id.as_str(),
                listener.backends[0].to_string(),
                listener.protocol,
            )
        })
        .collect();
    assert_eq!(
        parts,
        [
            ("echo-service", "127.0.0.1:9999".to_owned(), Protocol::Udp),
            ("web-app", "127.0.0.1:8080".to_owned(), Protocol::Tcp),
        ]
    );
    let machine = config.machine(Vec::new(), "0.0.0.0:4434".parse().unwrap());
    assert_eq!(machine.intermediate.server_name.as_deref(), Some("203.0.113.9"));
}

#[test]
fn a_file_without_extras_gets_the_defaults() {
    let config = with_service("plain", r#"{"id": "db", "backend": "localhost:5432"}"#).unwrap();
    assert_eq!((config.port, config.p2p), (0, true));
    let [service] = &config.services[..] else {
        panic!("one service")
    };
    assert!(service.virtual_addresses.is_empty());
    let listener = &service.offer.listeners[0];
    assert_eq!(
        (listener.protocol, listener.ports.clone()),
        (Protocol::Both, 0..=u16::MAX)
    );
    assert_eq!(listener.backends[0].to_string(), "localhost:5432");
    assert!(service.offer.health.is_none() && service.offer.allow.is_none() && !service.offer.proxy_protocol);
    let content = r#"{"intermediate_server": "r", "services": [{"id": "a", "backend": "[::1]:1"}], "p2p": {"enabled": false}}"#;
    assert_eq!(read("off", content, &[]).unwrap().port, 0);
    assert_eq!(read("flag", content, &["--p2p-port", "5"]).unwrap().port, 5);
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    for (name, service, expected) in [
        (
            "none",
            r#"{"id": "a"}"#,
            "FILE: services[0].backend (service \"a\"): missing; add \"backend\": where the service listens, as \"127.0.0.1:8080\"",
        ),
        (
            "port",
            r#"{"id": "a", "backend": "127.0.0.1"}"#,
            "FILE: services[0].backend (service \"a\"): \"127.0.0.1\" has no port; write for example \"127.0.0.1:8080\"",
        ),
        (
            "zero",
            r#"{"id": "a", "backend": "127.0.0.1:0"}"#,
            "FILE: services[0].backend (service \"a\"): \"127.0.0.1:0\" has no port from 1 to 65535; write for example \"127.0.0.1:8080\"",
        ),
        (
            "number",
            r#"{"id": "a", "backend": 8080}"#,
            "FILE: services[0].backend (service \"a\"): 8080 is not a text; write for example \"127.0.0.1:8080\"",
        ),
        (
            "protocol",
            r#"{"id": "a", "backend": "127.0.0.1:1", "protocol": "tpc"}"#,
            "FILE: services[0].protocol (service \"a\"): \"tpc\" is not known here; did you mean \"tcp\"?",
        ),
        (
            "icmp",
            r#"{"id": "a", "backend": "127.0.0.1:1", "protocol": "icmp"}"#,
            "FILE: services[0].protocol (service \"a\"): \"icmp\" is not known here; give one of tcp, udp, both",
        ),
        (
            "typo",
            r#"{"id": "a", "backnd": "127.0.0.1:1"}"#,
            "FILE: services[0].backnd (service \"a\"): unknown key; did you mean \"backend\"?",
        ),
    ] {
        assert_eq!(with_service(name, service).unwrap_err(), expected);
    }
    assert_eq!(
        read(
            "p2p",
            r#"{"intermediate_server": "r", "services": [{"id": "a", "backend": "[::1]:1"}], "p2p": 4434}"#,
            &[]
        )
        .unwrap_err(),
        "FILE: p2p: 4434 is not an object; write {\"port\": 4434}"
    );
    assert_eq!(
        read("server", r#"{"intermediate_server": {"port": 1}}"#, &[]).unwrap_err(),
        "FILE: intermediate_server.host: missing; add \"host\": the host name or address of the intermediate"
    );
}

#[test]
fn a_service_may_have_ports_checks_a_header_and_a_list() {
    let fingerprint = "ab:".repeat(31) + "CD";
    let service = format!(
        r#"{{"id": "web", "proxy_protocol": "v2", "allow": ["alice", "sha256:{fingerprint}"],
        "ports": [
            {{"listen": "80", "protocol": "tcp", "backends": ["10.0.0.5:8080", "[fd00::5]:8080"]}},
            {{"listen": "8000-8100", "backends": ["DB.internal"]}},
            {{"listen": 53, "protocol": "udp", "backends": ["10.0.0.5"]}}],
        "health": {{"check": "http", "path": "/up", "expect_status": "200-204", "interval": "1m", "timeout": "500ms",
            "healthy": 1, "unhealthy": 5}}}}"#
    );
    let config = with_service("full", &service).unwrap();
    let offer = &config.services[0].offer;
    let ports: Vec<_> = offer
        .listeners
        .iter()
        .map(|listener| {
            let backends: Vec<String> = listener.backends.iter().map(ToString::to_string).collect();
            (listener.ports.clone(), listener.protocol, backends.join(" "))
        })
        .collect();
    assert_eq!(
        ports,
        [
            (80..=80, Protocol::Tcp, "10.0.0.5:8080 [fd00::5]:8080".to_owned()),
            (8000..=8100, Protocol::Both, "db.internal".to_owned()),
            (53..=53, Protocol::Udp, "10.0.0.5".to_owned()),
        ]
    );
    assert!(offer.proxy_protocol);
    let health = offer.health.as_ref().unwrap();
    let http = Question::Http {
        path: "/up".into(),
        status: 200..=204,
    };
    assert_eq!(health.question, http);
    assert_eq!(
        (health.interval, health.timeout),
        (Duration::from_secs(60), Duration::from_millis(500))
    );
    assert_eq!((health.healthy, health.unhealthy), (1, 5));
    let mut certificate = [0xab; 32];
    certificate[31] = 0xcd;
    let expected = AllowList::new([
        Allowed::Name("alice".into()),
        Allowed::Certificate(Fingerprint(certificate)),
    ]);
    assert_eq!(offer.allow.as_ref(), Some(&expected));
}

#[test]
fn what_is_wrong_with_ports_checks_and_lists_names_the_service() {
    let port = |ports: &str| format!(r#""ports": [{ports}]"#);
    let health = |health: &str| format!(r#""backend": "[::1]:1", "health": {health}"#);
    for (name, rest, expected) in [
        (
            "nobackend",
            r#""backends": []"#.to_owned(),
            "backends (service \"a\"): empty; list at least one backend, as \"127.0.0.1:8080\"",
        ),
        (
            "twice",
            r#""backends": ["[::1]:1", "[::1]:1"]"#.to_owned(),
            "backends[1] (service \"a\"): \"[::1]:1\" is listed twice; remove one of them",
        ),
        (
            "two",
            r#""backend": "[::1]:1", "backends": ["[::1]:2"]"#.to_owned(),
            "backends (service \"a\"): given beside another of \"backend\", \"backends\" and \"ports\"; keep one of them",
        ),
        (
            "overlap",
            port(
                r#"{"listen": "80-90", "backends": ["[::1]"]}, {"listen": "90", "protocol": "udp", "backends": ["[::1]"]}"#,
            ),
            "ports[1].listen (service \"a\"): \"90\" overlaps services[0].ports[0].listen; give every port of one protocol to one entry only",
        ),
        (
            "range",
            port(r#"{"listen": "90-80", "backends": ["[::1]"]}"#),
            "ports[0].listen (service \"a\"): \"90-80\" is neither a port nor a range of ports; write for example \"80\" or \"8000-8100\"",
        ),
        (
            "noback",
            port(r#"{"listen": "80"}"#),
            "ports[0].backends (service \"a\"): missing; add \"backends\": where it leads, as [\"10.0.0.5:8080\"]",
        ),
        (
            "kind",
            health(r#"{"check": "icmp"}"#),
            "health.check (service \"a\"): \"icmp\" is not known here; give one of tcp, http, udp",
        ),
        (
            "nokind",
            health(r#"{"interval": "5s"}"#),
            "health.check (service \"a\"): missing; add \"check\": \"tcp\", \"http\" or \"udp\"",
        ),
        (
            "interval",
            health(r#"{"check": "tcp", "interval": "5 parsecs"}"#),
            "health.interval (service \"a\"): \"5 parsecs\" is not a time from 1s to 3600s; write for example \"5s\" or \"500ms\"",
        ),
        (
            "path",
            health(r#"{"check": "http", "path": "a b"}"#),
            "health.path (service \"a\"): \"a b\" is not the path of a URL; write for example \"/healthz\"",
        ),
        (
            "other",
            health(r#"{"check": "tcp", "path": "/"}"#),
            "health.path (service \"a\"): not of this kind of check; remove it, or change \"check\"",
        ),
        (
            "helth",
            health(r#"{"chek": "tcp"}"#),
            "health.chek (service \"a\"): unknown key; did you mean \"check\"?",
        ),
        (
            "nobody",
            r#""backend": "[::1]:1", "allow": []"#.to_owned(),
            "allow (service \"a\"): empty: nobody could use the service; list agents by the names of their certificates, or remove it",
        ),
        (
            "udp",
            r#""backend": "[::1]:1", "protocol": "udp", "proxy_protocol": "v2""#.to_owned(),
            "proxy_protocol (service \"a\"): the service has no TCP port; remove it: UDP carries no header",
        ),
    ] {
        let service = format!(r#"{{"id": "a", {rest}}}"#);
        let error = with_service(name, &service).unwrap_err();
        assert_eq!(error, format!("FILE: services[0].{expected}"));
    }
}
