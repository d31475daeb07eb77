//! An intermediate, a connector with backends, and agents in front of them.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;

use program::pki::Grants;
use rustix::process::Signal;

use super::process::{PATIENCE, Running, Site, command, loopback};

pub(crate) const EXE: &str = env!("CARGO_BIN_EXE_ztna");

const BE: &str = "TEST_BE";
const CONFIG: &str = "TEST_CONFIG";

/// A service with an IPv6 address inside, known to both sides.
pub(crate) const SIX: &str = "fd7a:746e:6100::1:6";

pub(crate) fn be_another() {
    let (Some(which), Some(config)) = (std::env::var_os(BE), std::env::var_os(CONFIG)) else {
        return;
    };
    let arguments = [OsString::from("program"), OsString::from("--config"), config];
    let _ = match which.to_str() {
        Some("intermediate") => intermediate::main(arguments),
        _ => connector::main(arguments),
    };
}

fn another(which: &str, config: &str) -> Running {
    let this = std::env::current_exe().unwrap();
    let mut command = command(&this.display().to_string());
    command
        .args(["--exact", "other_program", "--nocapture"])
        .env(BE, which)
        .env(CONFIG, config);
    Running::start(&mut command)
}

pub(crate) struct Stage {
    pub(crate) site: Site,
    pub(crate) server: SocketAddr,
    /// The flags that make an agent a member of this stage.
    pub(crate) flags: Vec<String>,
    relay: Running,
    connector: Running,
}

/// What answers behind the connector.
pub(crate) type Backend = fn(TcpStream);

impl Stage {
    /// `services` are names with the backend of each; `virtual_ip` is a member of the connector's configuration.
    pub(crate) fn new(name: &str, services: &[(&str, SocketAddr, &str)]) -> Self {
        let site = Site::new(&format!("rootless-{name}"));
        let files = site.issue(
            "relay",
            &Grants {
                servers: vec!["relay.test".to_owned()],
                ..Grants::default()
            },
        );
        let config = site.write(
            "relay.json",
            &format!(
                r#"{{{files}, "bind_addr": "{}", "port": 0, "metrics_port": 0}}"#,
                loopback()
            ),
        );
        let mut relay = another("intermediate", &config);
        let server: SocketAddr = relay.expect("ztna-intermediate ready on ").parse().unwrap();
        let connector = start_connector(&site, server, services);
        site.issue(
            "laptop",
            &Grants {
                agents: vec!["*".to_owned()],
                ..Grants::default()
            },
        );
        let flags = [
            ("--intermediate-server", server.to_string()),
            ("--server-name", "relay.test".to_owned()),
            ("--cert-path", site.path("laptop.pem")),
            ("--key-path", site.path("laptop.key")),
            ("--ca-cert", site.path("ca.pem")),
        ];
        let flags = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);
        Self {
            flags: flags.collect(),
            site,
            server,
            relay,
            connector,
        }
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = command(EXE);
        command.args(words).args(&self.flags);
        command
    }

    /// Starts an agent and returns the addresses where it listens, in order, as soon as its services are registered.
    pub(crate) fn agent(&self, words: &[&str], listeners: usize) -> (Running, Vec<SocketAddr>) {
        let mut running = Running::start(&mut self.command(words));
        let addresses = (0..listeners)
            .map(|_| {
                let line = match words[0] {
                    "socks" => running.expect("ztna socks: proxy on "),
                    _ => running.expect("ztna forward: "),
                };
                line.split(' ').next().unwrap().parse().unwrap()
            })
            .collect();
        running.expect("ztna registered ");
        (running, addresses)
    }

    pub(crate) fn end(self) {
        for running in [self.connector, self.relay] {
            let (status, log) = running.end(Signal::TERM);
            assert_eq!(status.code(), Some(0), "{log}");
        }
    }
}

fn start_connector(site: &Site, server: SocketAddr, services: &[(&str, SocketAddr, &str)]) -> Running {
    let files = site.issue(
        "connector",
        &Grants {
            connectors: vec!["*".to_owned()],
            ..Grants::default()
        },
    );
    let listed: Vec<String> = services
        .iter()
        .map(|(id, backend, extra)| format!(r#"{{"id": "{id}", "backend": "{backend}"{extra}}}"#))
        .collect();
    let config = site.write(
        "connector.json",
        &format!(
            r#"{{{files}, "metrics_port": 0, "bind_addr": "{}", "services": [{}],
                "intermediate_server": {{"host": "{}", "port": {}, "server_name": "relay.test"}}}}"#,
            loopback(),
            listed.join(", "),
            server.ip(),
            server.port(),
        ),
    );
    let mut running = another("connector", &config);
    let count = services.len();
    running.expect(&format!("ztna-connector registered {count} of {count} services"));
    running
}

/// A TCP server with a thread for each connection.
pub(crate) fn serve(backend: Backend) -> SocketAddr {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || backend(stream));
        }
    });
    address
}

/// Gives back what it hears, and ends when the caller has ended.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut reader = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut reader, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}

/// Hears all there is, and then says how much it was, and the sum of all bytes.
pub(crate) fn count(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    if stream.read_to_end(&mut bytes).is_ok() {
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        let _ = write!(stream, "{} {sum}", bytes.len());
    }
}

/// A port at which nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A UDP server that gives back what it hears.
pub(crate) fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind((loopback(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = vec![0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..len], from);
        }
    });
    address
}

pub(crate) fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Says something, ends, and hears everything that comes back.
pub(crate) fn ask(mut stream: TcpStream, words: &[u8]) -> Vec<u8> {
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(words).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    })
}

/// Bytes that tell where they are.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

pub(crate) fn local() -> Ipv4Addr {
    Ipv4Addr::LOCALHOST
}
