//! `ztna connect`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Output, Stdio};
use std::thread;

use super::stage::{Stage, count, echo, nobody, pattern, serve};

fn stage(name: &str) -> Stage {
    Stage::new(
        name,
        &[
            ("web-app", serve(echo), ""),
            ("counter", serve(count), ""),
            ("closed", nobody(), ""),
            (
                "rude",
                serve(|stream| {
                    let _ = stream.peek(&mut [0]);
                }),
                "",
            ),
        ],
    )
}

/// Starts it with pipes.
fn start(stage: &Stage, words: &[&str]) -> Child {
    let words: Vec<&str> = ["connect"].into_iter().chain(words.iter().copied()).collect();
    stage
        .command(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Says `words`, ends, and waits for the end.
fn converse(stage: &Stage, words: &[&str], said: &[u8]) -> Output {
    let mut child = start(stage, words);
    let mut stdin = child.stdin.take().unwrap();
    let said = said.to_vec();
    let speaker = thread::spawn(move || {
        // It may be gone before it has heard all.
        let _ = stdin.write_all(&said);
    });
    let output = child.wait_with_output().unwrap();
    speaker.join().unwrap();
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn pipes_carry_every_byte_and_both_ends_on_both_runtimes() {
    let stage = stage("connect");
    let bytes = pattern(2_000_000);
    for runtime in ["mio", "tokio"] {
        let output = converse(&stage, &["web-app:22", "--runtime", runtime], &bytes);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        assert!(output.stdout == bytes);
    }
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    let output = converse(&stage, &["counter.ztna:22"], &bytes);
    assert_eq!(output.stdout, format!("2000000 {sum}").as_bytes());

    // As a person does it: an answer comes while we may still speak.
    let mut child = start(&stage, &["web-app:22"]);
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for words in [b"one", b"two"] {
        stdin.write_all(words).unwrap();
        let mut heard = [0; 3];
        stdout.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, words);
    }
    drop(stdin);
    assert_eq!(stdout.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    stage.end();
}

#[test]
fn files_are_read_and_written_like_pipes() {
    let stage = stage("connect-files");
    let bytes = pattern(700_000);
    let (said, heard) = (stage.site.path("said"), stage.site.path("heard"));
    std::fs::write(&said, &bytes).unwrap();
    let status = stage
        .command(&["connect", "web-app:22"])
        .stdin(File::open(&said).unwrap())
        .stdout(File::create(&heard).unwrap())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(std::fs::read(&heard).unwrap() == bytes);
    // Nothing to say at all.
    let output = stage
        .command(&["connect", "counter:22"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), b"0 0".as_slice())
    );
    stage.end();
}

#[test]
fn the_exit_code_tells_what_became_of_it() {
    let stage = stage("connect-codes");
    let output = converse(&stage, &["closed:22"], b"");
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(3), "ztna: closed: connection refused\n")
    );
    let output = converse(&stage, &["rude:22"], b"words");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), ""));
    let output = converse(&stage, &["web-app:0"], b"");
    assert_eq!(output.status.code(), Some(2));
    // Nobody answers there; the patience for a registration ends it.
    let output = converse(
        &stage,
        &["web-app:22", "--intermediate-server", "127.0.0.1:9"],
        b"",
    );
    assert_eq!(
        output.status.code(),
        Some(2),
        "a flag given twice: {}",
        stderr(&output)
    );
    let mut command = super::process::command(super::stage::EXE);
    command.args([
        "connect",
        "web-app:22",
        "--intermediate-server",
        "127.0.0.1:9",
        "--server-name",
        "relay.test",
    ]);
    for (flag, file) in [
        ("--cert-path", "laptop.pem"),
        ("--key-path", "laptop.key"),
        ("--ca-cert", "ca.pem"),
    ] {
        command.args([flag, &stage.site.path(file)]);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    stage.end();
}
