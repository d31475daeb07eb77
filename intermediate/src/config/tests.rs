use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use program::settings::Environment;

use super::*;

/// The configuration of a file and flags, or the error with the file's name taken out.
fn read(name: &str, content: &str, flags: &[&str]) -> Result<Config, String> {
    let path: PathBuf =
        std::env::temp_dir().join(format!("ztna-intermediate-{}-{name}.json", std::process::id()));
    std::fs::write(&path, content).unwrap();
    let file = path.display().to_string();
    let arguments = ["ztna-intermediate", "--config", &file];
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
    let content = r#"{"port": 4433, "bind_addr": "0.0.0.0", "external_ip": "203.0.113.9",
        "cert_path": "certs/cert.pem", "key_path": "certs/key.pem"}"#;
    let config = read("existing", content, &[]).unwrap();
    assert_eq!(config.bind, "0.0.0.0:4433".parse().unwrap());
    assert_eq!(config.external_ip, Some("203.0.113.9".parse().unwrap()));
    assert_eq!(config.common.metrics, Some("127.0.0.1:9090".parse().unwrap()));
    assert!(!config.disable_retry && !config.allow_unnamed_clients && !config.common.insecure_dev);
    let defaults = read("defaults", "{}", &[]).unwrap();
    assert_eq!((config.bind, config.limits), (defaults.bind, defaults.limits));
}

#[test]
fn every_key_has_its_effect() {
    let content = r#"{"port": 1, "bind_addr": "::", "metrics_port": 0, "disable_retry": true,
        "allow_unnamed_clients": true, "require_client_cert": true, "runtime": "tokio",
        "limits": {"connections": 1, "handshakes": 2, "services_per_connection": 3, "registrations": 4,
                   "flows_per_agent": 5, "flows": 6, "channels": 7, "channels_per_client": 8,
                   "channel_rate": 9, "channel_idle": "2m"}}"#;
    let config = read("all", content, &["--port", "7"]).unwrap();
    assert_eq!(config.bind, "[::]:7".parse().unwrap());
    assert_eq!(config.common.metrics, None);
    assert_eq!(config.common.runtime, program::args::Runtime::Tokio);
    assert!(config.disable_retry && config.allow_unnamed_clients);
    let expected = IntermediateLimits {
        connections: 1,
        handshakes: 2,
        services_per_connection: 3,
        registrations: 4,
        flows_per_agent: 5,
        flows: 6,
        channels: ChannelLimits {
            channels: 7,
            per_client: 8,
            rate: Some(9),
            idle: Duration::from_secs(120),
            ..ChannelLimits::default()
        },
    };
    assert_eq!(config.limits, expected);
    assert!(!config.machine(None).retry);
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    for (name, content, expected) in [
        (
            "anybody",
            r#"{"require_client_cert": false}"#,
            "FILE: require_client_cert: false lets anybody in; remove the key, or for development only start with --insecure-dev",
        ),
        (
            "zero",
            r#"{"limits": {"connections": 0}}"#,
            "FILE: limits.connections: 0 is not a number from 1 to 100000000; give a whole number from 1 to 100000000",
        ),
        (
            "limit",
            r#"{"limits": {"conections": 1}}"#,
            "FILE: limits.conections: unknown key; did you mean \"connections\"?",
        ),
        (
            "insecure",
            r#"{"insecure_dev": true}"#,
            "FILE: insecure_dev: cannot be set in a file; remove it, and use --insecure-dev or ZTNA_INSECURE_DEV",
        ),
        (
            "level",
            r#"{"log_level": "verbose"}"#,
            "FILE: log_level: \"verbose\" is not known here; give one of error, warn, info, debug, trace, off",
        ),
    ] {
        assert_eq!(read(name, content, &[]).unwrap_err(), expected);
    }
    let flag = read("flag", "{}", &["--runtime", "tokyo"]).unwrap_err();
    assert_eq!(
        flag,
        "--runtime: \"tokyo\" is not known here; did you mean \"tokio\"?"
    );
    assert!(read("dev", r#"{"require_client_cert": false}"#, &["--insecure-dev"]).is_ok());
}
