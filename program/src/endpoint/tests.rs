use super::*;
use crate::settings::{Environment, Flags, Schema, Settings};

const SCHEMA: Schema = Schema::new(&[&["intermediate_server", "server_name"]], &[]);

fn read(value: &str) -> Result<IntermediateServer, String> {
    let environment: Environment = [("ZTNA_INTERMEDIATE_SERVER".to_owned(), value.to_owned())]
        .into_iter()
        .collect();
    let settings = Settings::load(&SCHEMA, "/nonexistent/x.json", Flags::default(), environment).unwrap();
    IntermediateServer::read(&settings).map_err(|error| error.to_string())
}

fn parts(value: &str) -> (String, u16) {
    let server = read(value).unwrap();
    assert_eq!(server.server_name, server.endpoint.host);
    (server.endpoint.host, server.endpoint.port)
}

#[test]
fn hosts_and_ports_are_read_as_people_write_them() {
    assert_eq!(
        parts("relay.example.com:5000"),
        ("relay.example.com".into(), 5000)
    );
    assert_eq!(parts("relay"), ("relay".into(), 4433));
    assert_eq!(parts("192.0.2.1:1"), ("192.0.2.1".into(), 1));
    assert_eq!(parts("[2001:db8::1]:99"), ("2001:db8::1".into(), 99));
    assert_eq!(parts("[2001:db8::1]"), ("2001:db8::1".into(), 4433));
    assert_eq!(parts("2001:db8::1"), ("2001:db8::1".into(), 4433));
}

#[test]
fn what_is_no_host_is_refused_with_an_example() {
    let place = "ZTNA_INTERMEDIATE_SERVER";
    let fix = r#"write for example "relay.example.com:4433""#;
    for (value, problem) in [
        ("relay:port", "has no port from 1 to 65535"),
        ("relay:0", "has no port from 1 to 65535"),
        ("relay:70000", "has no port from 1 to 65535"),
        ("a:b:c", "is not a host with a port"),
        ("[relay]:1", "is not a host with a port"),
        ("[::1]1", "is not a host with a port"),
        (":4433", "has no host name and no address in it"),
        ("https://relay:1", "is not a host with a port"),
        ("300.1.2.3:1", "has no host name and no address in it"),
        ("a b:1", "has no host name and no address in it"),
    ] {
        assert_eq!(
            read(value).unwrap_err(),
            format!("{place}: {value:?} {problem}; {fix}")
        );
    }
}
