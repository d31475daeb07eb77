//! `ztna forward`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use rustix::process::Signal;

use super::process::{PATIENCE, Running};
use super::stage::{SIX, Stage, ask, count, dial, echo, local, nobody, pattern, serve, udp_echo};

#[test]
fn bytes_ends_and_datagrams_pass_on_both_runtimes() {
    let stage = Stage::new(
        "forward",
        &[
            ("web-app", serve(echo), ""),
            // The agent knows no address of it; the connector has one.
            ("counter", serve(count), r#", "virtualIp": "10.100.0.7""#),
            ("six", serve(echo), &format!(r#", "virtualIp": "{SIX}""#)),
            ("dns", udp_echo(), r#", "protocol": "udp""#),
        ],
    );
    for runtime in ["mio", "tokio"] {
        let (agent, at) = stage.agent(
            &[
                "forward",
                "web-app:8080",
                "--listen",
                "127.0.0.1:0",
                "counter.ztna:1",
                "--listen",
                "[::1]:0",
                "--service",
                &format!("six={SIX}"),
                "--forward",
                &format!("127.0.0.1:0=[{SIX}]:80"),
                "--forward",
                "127.0.0.1:0=dns:53/udp",
                "--runtime",
                runtime,
            ],
            4,
        );
        assert!(at[1].is_ipv6());
        let bytes = pattern(3_000_000);
        assert_eq!(ask(dial(at[0]), b"hello"), b"hello");
        assert!(ask(dial(at[0]), &bytes) == bytes);
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        // The answer comes after our end: the halves close apart.
        assert_eq!(ask(dial(at[1]), &bytes), format!("3000000 {sum}").as_bytes());
        assert!(ask(dial(at[2]), &bytes[..100_000]) == bytes[..100_000]);

        for len in [0, 1, 1200, 9000] {
            let program = UdpSocket::bind((local(), 0)).unwrap();
            program.set_read_timeout(Some(PATIENCE)).unwrap();
            program.send_to(&bytes[..len], at[3]).unwrap();
            let mut heard = [0; 65_535];
            let (count, from) = program.recv_from(&mut heard).unwrap();
            assert_eq!(from, at[3]);
            assert!(heard[..count] == bytes[..len], "{len}");
        }
        let (status, log) = agent.end(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{log}");
    }
    stage.end();
}

#[test]
fn a_refused_service_is_a_reset_and_so_is_one_that_breaks() {
    let stage = Stage::new(
        "refused",
        &[
            ("closed", nobody(), ""),
            (
                "rude",
                serve(|stream| {
                    // Bytes that nobody has read make a close a reset.
                    let mut byte = [0];
                    let _ = stream.peek(&mut byte);
                }),
                "",
            ),
        ],
    );
    let (agent, at) = stage.agent(
        &[
            "forward",
            "closed:1",
            "--listen",
            "127.0.0.1:0",
            "rude:1",
            "--listen",
            "127.0.0.1:0",
        ],
        2,
    );
    for address in at {
        let mut stream = dial(address);
        // The reset may be faster than these words.
        let _ = stream.write_all(b"words");
        let mut heard = Vec::new();
        let error = stream.read_to_end(&mut heard).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    drop(agent);
    stage.end();
}

#[test]
fn a_program_that_is_early_is_served_as_soon_as_the_service_is_registered() {
    let stage = Stage::new("early", &[("web-app", serve(echo), "")]);
    let mut running = Running::start(&mut stage.command(&["forward", "--forward", "127.0.0.1:0=web-app:80"]));
    // Nothing is registered yet: the first thing it does is to listen.
    let line = running.expect("ztna forward: ");
    let address = line.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(ask(dial(address), b"early"), b"early");
    drop(running);
    stage.end();
}

/// An agent that waits for its connections as long as it is told, and one connection that has reached the service.
fn running(stage: &Stage, words: &[&str]) -> (Running, SocketAddr, TcpStream) {
    let words: Vec<&str> = ["forward", "--forward", "127.0.0.1:0=web-app:80"]
        .into_iter()
        .chain(words.iter().copied())
        .collect();
    let (agent, at) = stage.agent(&words, 1);
    let mut stream = dial(at[0]);
    stream.write_all(b"first").unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"first");
    (agent, at[0], stream)
}

#[test]
fn a_signal_ends_the_listening_and_lets_connections_end_by_themselves() {
    let stage = Stage::new("drain", &[("web-app", serve(echo), "")]);
    for (signal, runtime) in [(Signal::TERM, "mio"), (Signal::INT, "tokio")] {
        let (mut agent, at, stream) = running(&stage, &["--drain", "10m", "--runtime", runtime]);
        agent.signal(signal);
        agent.expect("lets 1 connections end, for 600s at most");
        let error = TcpStream::connect(at).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let bytes = pattern(1_000_000);
        assert!(ask(stream, &bytes) == bytes);
        let (status, log) = agent.wait();
        assert_eq!(status.code(), Some(0), "{log}");
    }
    stage.end();
}

#[test]
fn a_second_signal_and_the_end_of_patience_reset_what_still_runs() {
    let stage = Stage::new("undrained", &[("web-app", serve(echo), "")]);
    let reset = |mut stream: TcpStream| {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    };
    for drain in ["0", "200ms"] {
        let (agent, _, stream) = running(&stage, &["--drain", drain]);
        let (status, log) = agent.end(Signal::TERM);
        reset(stream);
        assert_eq!(status.code(), Some(0), "{log}");
    }
    let (mut agent, _, _stream) = running(&stage, &["--drain", "10m"]);
    agent.signal(Signal::TERM);
    agent.expect("lets 1 connections end");
    let (status, log) = agent.end(Signal::TERM);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("a second signal did not wait"), "{log}");
    stage.end();
}
