//! `ztna socks`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use super::process::PATIENCE;
use super::stage::{SIX, Stage, ask, dial, echo, local, nobody, serve, udp_echo};

fn request(command: u8, host: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, command, 0];
    match host.parse() {
        Ok(std::net::IpAddr::V4(ip)) => {
            bytes.push(1);
            bytes.extend_from_slice(&ip.octets());
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        Err(_) => {
            bytes.extend_from_slice(&[3, host.len() as u8]);
            bytes.extend_from_slice(host.as_bytes());
        }
    }
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// Asks a proxy; returns the reply's code and the stream behind it.
fn negotiate(proxy: SocketAddr, command: u8, host: &str, port: u16) -> (u8, TcpStream, SocketAddr) {
    let mut stream = dial(proxy);
    // All at once: what is behind the greeting waits.
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.write_all(&request(command, host, port)).unwrap();
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, [5, 0]);
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!((reply[0], reply[2]), (5, 0));
    let bound = match reply[3] {
        1 => {
            let mut rest = [0; 6];
            stream.read_exact(&mut rest).unwrap();
            let [a, b, c, d, high, low] = rest;
            SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))
        }
        _ => {
            let mut rest = [0; 18];
            stream.read_exact(&mut rest).unwrap();
            let address: [u8; 16] = rest[..16].try_into().unwrap();
            SocketAddr::from((address, u16::from_be_bytes([rest[16], rest[17]])))
        }
    };
    (reply[1], stream, bound)
}

fn services() -> Vec<(&'static str, SocketAddr, String)> {
    vec![
        (
            "web-app",
            serve(echo),
            r#", "virtualIp": "10.100.0.2""#.to_owned(),
        ),
        ("six", serve(echo), format!(r#", "virtualIp": "{SIX}""#)),
        ("closed", nobody(), String::new()),
        ("dns", udp_echo(), r#", "protocol": "udp""#.to_owned()),
    ]
}

fn stage(name: &str) -> Stage {
    let services = services();
    let listed: Vec<(&str, SocketAddr, &str)> = services
        .iter()
        .map(|(id, backend, extra)| (*id, *backend, extra.as_str()))
        .collect();
    Stage::new(name, &listed)
}

const WORDS: [&str; 9] = [
    "socks",
    "--listen",
    "127.0.0.1:0",
    "--service",
    "web-app=10.100.0.2",
    "--service",
    "closed",
    "--service",
    "dns",
];

#[test]
fn names_and_addresses_of_services_are_reached_and_nothing_else() {
    let stage = stage("socks");
    let six = format!("six={SIX}");
    let words: Vec<&str> = WORDS.iter().copied().chain(["--service", &six]).collect();
    let (agent, at) = stage.agent(&words, 1);
    let proxy = at[0];
    for host in [
        "web-app",
        "WEB-APP.ztna",
        "web-app.ztna.",
        "10.100.0.2",
        SIX,
        "six",
    ] {
        let (code, stream, _) = negotiate(proxy, 1, host, 8080);
        assert_eq!(code, 0, "{host}");
        assert_eq!(ask(stream, host.as_bytes()), host.as_bytes());
    }
    for (host, port, expected) in [
        // Connection refused.
        ("closed", 80, 5),
        // Not allowed: names and addresses that are no service's.
        ("example.com", 80, 2),
        ("127.0.0.1", 80, 2),
        ("web-app", 0, 2),
    ] {
        let (code, mut stream, _) = negotiate(proxy, 1, host, port);
        assert_eq!(code, expected, "{host}");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }
    // BIND is not offered, and other protocols are not spoken to.
    assert_eq!(negotiate(proxy, 2, "web-app", 80).0, 7);
    let mut stream = dial(proxy);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    // What nobody has read makes the close a reset.
    let _ = stream.read_to_end(&mut heard);
    assert_eq!(heard, b"");
    drop(agent);
    stage.end();
}

#[test]
fn a_relay_carries_datagrams_while_its_stream_lives() {
    let stage = stage("socks-udp");
    let (agent, at) = stage.agent(&WORDS, 1);
    let (code, stream, relay) = negotiate(at[0], 3, "0.0.0.0", 0);
    assert_eq!(code, 0);
    let program = UdpSocket::bind((local(), 0)).unwrap();
    program.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut datagram = vec![0, 0];
    // The header is a request without version and command.
    datagram.extend_from_slice(&request(0, "dns", 53)[2..]);
    datagram.extend_from_slice(b"question");
    program.send_to(&datagram, relay).unwrap();
    let mut heard = [0; 2000];
    let (len, from) = program.recv_from(&mut heard).unwrap();
    assert_eq!(from, relay);
    assert_eq!(&heard[..4], [0, 0, 0, 1]);
    assert_eq!(&heard[10..len], b"question");
    drop(stream);
    drop(agent);
    stage.end();
}

#[test]
fn a_service_that_the_certificate_does_not_name_is_not_allowed() {
    let stage = stage("socks-denied");
    let files = stage.site.issue(
        "guest",
        &program::pki::Grants {
            agents: vec!["web-app".to_owned()],
            ..program::pki::Grants::default()
        },
    );
    let file = stage.site.write(
        "guest.json",
        &format!(
            r#"{{{files}, "intermediate_server": {{"host": "{}", "port": {}, "server_name": "relay.test"}},
                "services": [{{"id": "web-app"}}, {{"id": "closed"}}]}}"#,
            stage.server.ip(),
            stage.server.port(),
        ),
    );
    let mut command = super::process::command(super::stage::EXE);
    command.args(["socks", "--config", &file, "--listen", "127.0.0.1:0"]);
    let mut agent = super::process::Running::start(&mut command);
    let proxy = agent.expect("ztna socks: proxy on ").parse().unwrap();
    assert_eq!(negotiate(proxy, 1, "closed", 80).0, 2);
    let (code, stream, _) = negotiate(proxy, 1, "web-app", 80);
    assert_eq!(code, 0);
    assert_eq!(ask(stream, b"guest"), b"guest");
    drop(agent);
    stage.end();
}

#[test]
fn curl_finds_a_service_by_its_name() {
    let curl = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !curl.is_ok_and(|status| status.success()) {
        return;
    }
    let web = serve(|mut stream| {
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ninside");
    });
    let stage = Stage::new("curl", &[("web-app", web, "")]);
    let (agent, at) = stage.agent(&["socks", "--listen", "127.0.0.1:0", "--service", "web-app"], 1);
    let page = |host: &str| {
        Command::new("curl")
            .args(["-sS", "--noproxy", "", "--max-time", "30", "--socks5-hostname"])
            .arg(at[0].to_string())
            .arg(format!("http://{host}/"))
            .output()
            .unwrap()
    };
    assert_eq!(page("web-app.ztna").stdout, b"inside");
    // 97: the proxy said no.
    assert_eq!(page("example.com").status.code(), Some(97));
    drop(agent);
    stage.end();
}
