use std::path::PathBuf;

use clap::{CommandFactory as _, Parser as _};
use program::settings::Environment;

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
    let services = config.resolve_backends().unwrap();
    let parts: Vec<_> = services
        .iter()
        .map(|service| (service.id.as_str(), service.backend.to_string(), service.protocol))
        .collect();
    assert_eq!(
        parts,
        [
            ("echo-service", "127.0.0.1:9999".to_owned(), Protocol::Udp),
            ("web-app", "127.0.0.1:8080".to_owned(), Protocol::Tcp),
        ]
    );
    let machine = config.machine(services, Vec::new(), "0.0.0.0:4434".parse().unwrap());
    assert_eq!(machine.intermediate.server_name.as_deref(), Some("203.0.113.9"));
}

#[test]
fn a_file_without_extras_gets_the_defaults() {
    let config = with_service("plain", r#"{"id": "db", "backend": "localhost:5432"}"#).unwrap();
    assert_eq!((config.port, config.p2p), (0, false));
    assert_eq!(config.services[0].protocol, Protocol::Both);
    assert!(config.services[0].virtual_addresses.is_empty());
    assert!(config.resolve_backends().unwrap()[0].backend.ip().is_loopback());
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
            "FILE: services[0].backend: missing; add \"backend\": where the service listens, as \"127.0.0.1:8080\"",
        ),
        (
            "port",
            r#"{"id": "a", "backend": "127.0.0.1"}"#,
            "FILE: services[0].backend: \"127.0.0.1\" has no port; write for example \"127.0.0.1:8080\"",
        ),
        (
            "zero",
            r#"{"id": "a", "backend": "127.0.0.1:0"}"#,
            "FILE: services[0].backend: \"127.0.0.1:0\" has no port from 1 to 65535; write for example \"127.0.0.1:8080\"",
        ),
        (
            "number",
            r#"{"id": "a", "backend": 8080}"#,
            "FILE: services[0].backend: 8080 is not a text; write for example \"127.0.0.1:8080\"",
        ),
        (
            "protocol",
            r#"{"id": "a", "backend": "127.0.0.1:1", "protocol": "tpc"}"#,
            "FILE: services[0].protocol: \"tpc\" is not known here; did you mean \"tcp\"?",
        ),
        (
            "icmp",
            r#"{"id": "a", "backend": "127.0.0.1:1", "protocol": "icmp"}"#,
            "FILE: services[0].protocol: \"icmp\" is not known here; give one of tcp, udp, both",
        ),
        (
            "typo",
            r#"{"id": "a", "backnd": "127.0.0.1:1"}"#,
            "FILE: services[0].backnd: unknown key; did you mean \"backend\"?",
        ),
    ] {
        assert_eq!(with_service(name, service).unwrap_err(), expected);
    }
    // A label too long for the DNS: refused on this host, nothing is asked of a network.
    let host = format!("{}.test", "x".repeat(64));
    let unresolved = with_service("dns", &format!(r#"{{"id": "a", "backend": "{host}:1"}}"#)).unwrap();
    let error = unresolved.resolve_backends().unwrap_err().to_string();
    assert!(
        error.contains(&format!("services[0].backend: cannot resolve {host:?}: ")),
        "{error}"
    );
    assert!(
        error.ends_with("; correct the name, or give the address"),
        "{error}"
    );
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
