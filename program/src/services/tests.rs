use super::*;
use crate::settings::{Environment, Flags, Schema};

const SCHEMA: Schema = Schema::new(
    &[&["services[].id", "services[].virtualIp", "services[].virtual_ip"]],
    &[],
);

fn with<T>(name: &str, content: &str, then: impl FnOnce(&Settings) -> T) -> T {
    let path = std::env::temp_dir().join(format!("ztna-services-{}-{name}.json", std::process::id()));
    std::fs::write(&path, content).unwrap();
    let mut flags = Flags::default();
    flags.set("config", Some(&path.display().to_string()));
    let settings = Settings::load(&SCHEMA, "/nonexistent/x.json", flags, Environment::default()).unwrap();
    let result = then(&settings);
    std::fs::remove_file(&path).unwrap();
    result
}

fn refusal(name: &str, content: &str) -> String {
    with(name, content, |settings| {
        let file = settings.file_name().unwrap();
        read(settings).unwrap_err().to_string().replace(file, "FILE")
    })
}

#[test]
fn addresses_may_be_one_or_many_or_none() {
    let content = r#"{"services": [
        {"id": "a", "virtualIp": "10.100.0.1"},
        {"id": "b", "virtual_ip": ["10.100.0.2", "fd7a:746e:6100::1:2"]},
        {"id": "c"}]}"#;
    with("many", content, |settings| {
        let services = read(settings).unwrap();
        let counts: Vec<usize> = services.iter().map(|s| s.virtual_addresses.len()).collect();
        assert_eq!(counts, [1, 2, 0]);
        assert_eq!(services[1].id.as_str(), "b");
    });
}

#[test]
fn what_is_wrong_is_said_with_its_key() {
    let long = "x".repeat(256);
    for (name, content, expected) in [
        (
            "none",
            "{}",
            "FILE: services: missing; list at least one service in the configuration file",
        ),
        (
            "empty",
            r#"{"services": []}"#,
            "FILE: services: empty; list at least one service",
        ),
        (
            "noid",
            r#"{"services": [{}]}"#,
            "FILE: services[0].id: missing; add \"id\": the name of the service",
        ),
        (
            "text",
            r#"{"services": ["web"]}"#,
            "FILE: services[0]: \"web\" is not an object; write {\"id\": …}",
        ),
        (
            "emptyid",
            r#"{"services": [{"id": ""}]}"#,
            "FILE: services[0].id: empty; write for example \"web-app\", or remove the key",
        ),
        (
            "long",
            &format!(r#"{{"services": [{{"id": "{long}"}}]}}"#),
            "FILE: services[0].id: 256 bytes; shorten the id to 255 bytes at most",
        ),
        (
            "twice",
            r#"{"services": [{"id": "web"}, {"id": "Web"}]}"#,
            "FILE: services[1].id: \"Web\" is the id of another service too (services[0].id); give each service its own id",
        ),
        (
            "address",
            r#"{"services": [{"id": "web", "virtualIp": "10.100.0"}]}"#,
            "FILE: services[0].virtualIp: \"10.100.0\" is not an IP address; write for example \"10.100.0.1\"",
        ),
        (
            "shared",
            r#"{"services": [{"id": "a", "virtualIp": ["10.100.0.1", "10.100.0.2"]}, {"id": "b", "virtualIp": "10.100.0.2"}]}"#,
            "FILE: services[1].virtualIp: 10.100.0.2 is the address of another service too (services[0].virtualIp[1]); give each service its own virtual address",
        ),
        (
            "loopback",
            r#"{"services": [{"id": "a", "virtualIp": "127.0.0.1"}]}"#,
            "FILE: services[0].virtualIp: 127.0.0.1 cannot be reached through a tunnel; choose an address such as 10.100.0.1 or fd7a:746e:6100::1:1",
        ),
        (
            "both",
            r#"{"services": [{"id": "a", "virtualIp": "10.0.0.1", "virtual_ip": "10.0.0.1"}]}"#,
            "FILE: services[0].virtual_ip: given twice, also as \"virtualIp\"; remove one of the two",
        ),
    ] {
        assert_eq!(refusal(name, content), expected);
    }
}
