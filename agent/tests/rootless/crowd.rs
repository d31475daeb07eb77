//! Many programs at once, and slow ones.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::process::{PATIENCE, Running, command, loopback, page, value};
use super::stage::{Stage, ask, dial, echo, pattern, serve};

/// Programs at one time.
const CROWD: usize = 600;

#[test]
fn hundreds_of_connections_at_once_each_hear_their_own_bytes() {
    let stage = Stage::new("crowd", &[("web-app", serve(echo), "")]);
    let host = loopback();
    let (agent, at) = stage.agent(
        &[
            "forward",
            "--forward",
            "127.0.0.1:0=web-app:80",
            "--metrics-port",
            "9092",
            "--metrics-addr",
            &host.to_string(),
        ],
        1,
    );
    let mut programs: Vec<TcpStream> = (0..CROWD).map(|_| dial(at[0])).collect();
    // All are open before the first is closed.
    for round in 0..2 {
        for (number, program) in programs.iter_mut().enumerate() {
            let words = format!("{round} {number:05} ").repeat(64);
            program.write_all(words.as_bytes()).unwrap();
        }
        for (number, program) in programs.iter_mut().enumerate() {
            let words = format!("{round} {number:05} ").repeat(64);
            let mut heard = vec![0; words.len()];
            program.read_exact(&mut heard).unwrap();
            assert!(heard == words.as_bytes(), "{number}");
        }
    }
    let (_, metrics) = page((host, 9092).into(), "/metrics");
    assert_eq!(value(&metrics, "ztna_forward_streams"), CROWD as u64);
    assert_eq!(value(&metrics, "ztna_forward_established_total"), CROWD as u64);
    for program in programs {
        assert_eq!(ask(program, b"end"), b"end");
    }
    drop(agent);
    stage.end();
}

/// Writes until the other side takes no more; returns how much it took.
fn stuff(stream: &mut TcpStream) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let bytes = pattern(1 << 16);
    let mut written = 0;
    // Far more than all buffers on the way hold.
    while written < 256 << 20 {
        match stream.write(&bytes) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    written
}

#[test]
fn a_slow_service_and_a_slow_program_hold_the_other_back_and_nobody_else() {
    let stage = Stage::new(
        "slow",
        &[
            (
                "deaf",
                serve(|stream| {
                    // Reads nothing until the program has gone.
                    std::mem::forget(stream);
                }),
                "",
            ),
            (
                "loud",
                serve(|mut stream| {
                    let _ = stream.write_all(&pattern(48 << 20));
                }),
                "",
            ),
            ("web-app", serve(echo), ""),
        ],
    );
    let (agent, at) = stage.agent(
        &[
            "forward",
            "--forward",
            "127.0.0.1:0=deaf:80",
            "--forward",
            "127.0.0.1:0=loud:80",
            "--forward",
            "127.0.0.1:0=web-app:80",
        ],
        3,
    );
    let mut to_deaf = dial(at[0]);
    let taken = stuff(&mut to_deaf);
    assert!(taken < 128 << 20, "{taken} bytes were taken by nobody");
    let mut from_loud = dial(at[1]);
    // It is not read; others are served all the same.
    for _ in 0..3 {
        assert_eq!(ask(dial(at[2]), b"others"), b"others");
    }
    // Late, but all of it.
    let mut heard = Vec::new();
    from_loud.set_read_timeout(Some(PATIENCE)).unwrap();
    from_loud.read_to_end(&mut heard).unwrap();
    assert!(heard == pattern(48 << 20));
    drop(agent);
    stage.end();
}

#[test]
fn too_few_descriptors_are_a_pause_and_not_the_end() {
    let stage = Stage::new("descriptors", &[("web-app", serve(echo), "")]);
    let agent = stage.command(&["forward", "--forward", "127.0.0.1:0=web-app:80"]);
    let mut limited = command("sh");
    limited
        .args(["-c", "ulimit -n 48; exec \"$@\"", "sh"])
        .arg(agent.get_program())
        .args(agent.get_args());
    let mut agent = Running::start(&mut limited);
    let line = agent.expect("ztna forward: ");
    let address = line.split(' ').next().unwrap().parse().unwrap();
    agent.expect("ztna registered ");
    let mut programs: Vec<TcpStream> = (0..64).map(|_| dial(address)).collect();
    agent.expect("cannot take local connections, resting");
    // Some go, and the others are served.
    let waiting = programs.split_off(40);
    drop(programs);
    for program in waiting {
        assert_eq!(ask(program, b"late"), b"late");
    }
    drop(agent);
    stage.end();
}
