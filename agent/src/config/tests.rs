use std::path::PathBuf;

use clap::{CommandFactory as _, Parser as _};
use program::settings::Environment;

use super::*;
use crate::{Args, Command};

/// The configuration of a file and flags, or the error with the file's name taken out.
fn read(name: &str, content: &str, flags: &[&str]) -> Result<Config, String> {
    let path: PathBuf = std::env::temp_dir().join(format!("ztna-agent-{}-{name}.json", std::process::id()));
    std::fs::write(&path, content).unwrap();
    let file = path.display().to_string();
    let arguments = ["ztna", "up", "--config", &file];
    let Command::Up(args) = Args::parse_from(arguments.iter().chain(flags)).command else {
        panic!("not up");
    };
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

/// As [`read`], for a list of services.
fn with_services(name: &str, services: &str, flags: &[&str]) -> Result<Config, String> {
    let content = format!(r#"{{"intermediate_server": "relay:1", "services": {services}}}"#);
    read(name, &content, flags)
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn every_setting_is_documented() {
    let text = include_str!("../../../docs/operations.md");
    let mut command = Args::command();
    command.build();
    program::args::documented(text, &SCHEMA, command.find_subcommand("up").unwrap()).unwrap();
    for tool in ["forward", "socks", "connect", "status", "down"] {
        let subcommand = command.find_subcommand(tool).unwrap();
        program::args::documented(text, &Schema::new(&[], &[]), subcommand).unwrap();
    }
    let pki = command.find_subcommand("pki").unwrap();
    for tool in pki.get_subcommands().filter(|tool| tool.get_name() != "help") {
        program::args::documented(text, &Schema::new(&[], &[]), tool).unwrap();
    }
}

#[test]
fn an_existing_file_is_read() {
    let content = r#"{
        "intermediate_server": {"host": "203.0.113.9", "port": 4433, "_comment": "relay"},
        "services": [
            {"id": "echo-service", "virtualIp": "10.100.0.1"},
            {"id": "web-app", "virtualIp": "10.100.0.2"}]}"#;
    let config = read("existing", content, &[]).unwrap();
    assert_eq!(config.server.endpoint.host, "203.0.113.9");
    assert_eq!(config.server.server_name, "203.0.113.9");
    assert_eq!(config.services.len(), 2);
    assert_eq!((config.tun_name.as_str(), config.mtu), ("ztna0", 1406));
    assert_eq!(
        config.tunnel_addresses,
        ["10.100.255.1".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(config.common.metrics, None);
    let machine = config.machine(Vec::new(), "0.0.0.0:0".parse().unwrap());
    assert_eq!(machine.intermediate.server_name.as_deref(), Some("203.0.113.9"));
}

#[test]
fn flags_win_and_ipv6_brings_its_own_address() {
    let services = r#"[{"id": "web", "virtualIp": ["10.100.0.2", "fd7a:746e:6100::1:2"]}]"#;
    let flags = [
        "--intermediate-server",
        "other:2",
        "--server-name",
        "relay.example.com",
        "--tun-name",
        "t1",
        "--tunnel-address",
        "10.9.9.9",
        "--insecure-dev",
    ];
    let config = with_services("flags", services, &flags).unwrap();
    assert_eq!(
        (config.server.endpoint.host.as_str(), config.server.endpoint.port),
        ("other", 2)
    );
    assert_eq!(config.server.server_name, "relay.example.com");
    assert_eq!(config.tun_name, "t1");
    let expected: [IpAddr; 2] = ["10.9.9.9".parse().unwrap(), DEFAULT_V6.into()];
    assert_eq!(config.tunnel_addresses, expected);
    let machine = config.machine(Vec::new(), "0.0.0.0:0".parse().unwrap());
    assert_eq!(
        machine.intermediate.server_name, None,
        "nothing is checked in development"
    );
}

#[test]
fn the_mtu_leaves_room_for_the_longest_id() {
    let with_id = |name: &str, length: usize, flags: &[&str]| {
        let id = "x".repeat(length);
        with_services(
            name,
            &format!(r#"[{{"id": "{id}", "virtualIp": "10.0.0.1"}}]"#),
            flags,
        )
    };
    assert_eq!(with_id("fits", 138, &[]).unwrap().mtu, 1280);
    assert_eq!(with_id("long", 139, &[]).unwrap().mtu, 1279);
    assert_eq!(with_id("longest", 255, &[]).unwrap().mtu, 1163);
    assert_eq!(with_id("given", 4, &["--mtu", "1300"]).unwrap().mtu, 1300);
    assert_eq!(
        with_id("large", 4, &["--mtu", "1415"]).unwrap_err(),
        "--mtu: \"1415\" is not a number from 576 to 1414; give a whole number from 576 to 1414"
    );
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let long = "x".repeat(139);
    for (name, services, flags, expected) in [
        (
            "none",
            r#"[{"id": "web"}]"#,
            [].as_slice(),
            "FILE: services[0].virtualIp: missing; add \"virtualIp\": the address under which this host reaches the service",
        ),
        (
            "empty",
            r#"[{"id": "web", "virtualIp": []}]"#,
            &[],
            "FILE: services[0].virtualIp: empty; give the address under which this host reaches the service",
        ),
        (
            "own",
            r#"[{"id": "web", "virtualIp": "10.100.255.1"}]"#,
            &[],
            "FILE: services[0].virtualIp: 10.100.255.1 is this host's own address in the tunnel; choose another virtual address, or another tunnel_address",
        ),
        (
            "loop",
            r#"[{"id": "web", "virtualIp": "192.0.2.1"}]"#,
            &["--intermediate-server", "192.0.2.1"],
            "FILE: services[0].virtualIp: 192.0.2.1 is the address of the intermediate; choose another virtual address, or the tunnel would run through itself",
        ),
        (
            "backend",
            r#"[{"id": "web", "virtualIp": "10.0.0.1", "backend": "127.0.0.1:80"}]"#,
            &[],
            "FILE: services[0].backend (service \"web\"): unknown key; known keys here: id, virtualIp, virtual_ip",
        ),
        (
            "tun",
            r#"[{"id": "web", "virtualIp": "10.0.0.1"}]"#,
            &["--tun-name", "a/b"],
            "--tun-name: \"a/b\" is not the name of an interface; give 1 to 15 letters, digits, hyphens, dots or underscores",
        ),
        (
            "family",
            r#"[{"id": "web", "virtualIp": "10.0.0.1"}]"#,
            &["--tunnel-address", "10.1.0.1,10.1.0.2"],
            "--tunnel-address: 10.1.0.2 is a second address of its family; give at most one IPv4 and one IPv6 address",
        ),
        (
            "v6",
            &format!(r#"[{{"id": "{long}", "virtualIp": "fd00::1"}}]"#),
            &[],
            "FILE: services[0].id: 139 bytes leave 1279 for a packet, and IPv6 needs 1280; shorten the id to 138 bytes",
        ),
    ] {
        assert_eq!(with_services(name, services, flags).unwrap_err(), expected);
    }
    assert_eq!(
        read("server", "{}", &[]).unwrap_err(),
        "FILE: intermediate_server: missing; give the intermediate as \"host:port\" with --intermediate-server or ZTNA_INTERMEDIATE_SERVER, or in the file"
    );
}
