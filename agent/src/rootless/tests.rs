use program::settings::Environment;
use proto_core::forward::is_internal;

use super::*;

fn config(services: &[&str]) -> Result<Config, SettingsError> {
    let environment: Environment = [("ZTNA_INTERMEDIATE_SERVER", "relay.example.com")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let settings = Settings::load(&SCHEMA, "/nonexistent", Flags::default(), environment)?;
    let services: Vec<String> = services.iter().map(|text| (*text).to_owned()).collect();
    Config::read(&settings, &services)
}

#[test]
fn no_file_is_needed_and_every_service_has_an_address() {
    let mut config = config(&["web", "db=10.100.0.9", "taken=100.127.0.1"]).unwrap();
    for (host, id) in [
        ("WEB", "web"),
        ("web.ztna", "web"),
        ("web.ztna.", "web"),
        ("10.100.0.9", "db"),
        ("new.ztna", "new"),
        ("new", "new"),
    ] {
        assert_eq!(config.service(host).unwrap().as_str(), id, "{host}");
    }
    assert!(config.service("10.100.0.8").is_err());
    let agent = config.agent(Vec::new(), "0.0.0.0:0".parse().unwrap());
    let addresses: Vec<IpAddr> = agent
        .services
        .iter()
        .flat_map(|service| service.virtual_addresses.clone())
        .collect();
    assert_eq!(addresses.len(), 4);
    assert!(is_internal(addresses[0]) && is_internal(addresses[3]));
    let different: BTreeSet<&IpAddr> = addresses.iter().collect();
    assert_eq!(different.len(), 4, "{addresses:?}");
    assert_eq!(config.tunnel_addresses().len(), 2);
}

#[test]
fn only_the_services_of_targets_stay() {
    let mut config = config(&["a", "b", "c"]).unwrap();
    let wanted = [config.service("c").unwrap(), config.service("d").unwrap()];
    config.keep(&wanted);
    let names: Vec<&str> = config
        .services()
        .iter()
        .map(|service| service.id.as_str())
        .collect();
    assert_eq!(names, ["c", "d"]);
    assert_eq!(config.index(&wanted[0]), Some(ServiceIndex(0)));
    assert_eq!(config.index(&wanted[1]), Some(ServiceIndex(1)));
}

#[test]
fn bad_services_are_refused() {
    for services in [
        &["a", "A"][..],
        &["a=x"],
        &["a=10.0.0.1", "b=10.0.0.1"],
        &["=10.0.0.1"],
    ] {
        assert!(config(services).is_err(), "{services:?}");
    }
}

#[test]
fn targets_are_read_as_people_and_ssh_write_them() {
    for (text, shown) in [
        ("web-app:8080", "web-app:8080"),
        ("web-app.ztna:22/tcp", "web-app.ztna:22"),
        ("dns:53/udp", "dns:53/udp"),
        ("10.100.0.1:80", "10.100.0.1:80"),
        ("[fd00::1]:80/udp", "[fd00::1]:80/udp"),
        ("fd00::1:80", "[fd00::1]:80"),
    ] {
        assert_eq!(Target::parse(text, "TARGET").unwrap().to_string(), shown);
    }
    for text in [
        "",
        "web",
        "web:",
        "web:0",
        "web:70000",
        ":80",
        "web:80/icmp",
        "[web]:80",
        "a:b:80",
    ] {
        assert!(Target::parse(text, "TARGET").is_err(), "{text}");
    }
}

#[test]
fn only_loopback_is_listened_on_unless_a_flag_says_otherwise() {
    for text in ["127.0.0.1:0", "127.9.8.7:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        assert!(check_listen(text, "--listen", false).is_ok(), "{text}");
    }
    for text in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[fe80::1]:80"] {
        assert!(check_listen(text, "--listen", false).is_err(), "{text}");
        assert!(check_listen(text, "--listen", true).is_ok(), "{text}");
    }
    for text in ["8080", "localhost:80", "127.0.0.1"] {
        assert!(check_listen(text, "--listen", true).is_err(), "{text}");
    }
}
