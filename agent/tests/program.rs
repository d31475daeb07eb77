//! `ztna` as its users meet it, except for the tunnel itself, which needs a network namespace.

#[path = "../../program/stories/process.rs"]
#[expect(dead_code, reason = "a tunnel is not brought up here")]
mod process;

use std::os::unix::fs::PermissionsExt as _;

use process::{Site, command, finish};

const EXE: &str = env!("CARGO_BIN_EXE_ztna");

#[test]
fn help_and_version_are_no_errors() {
    for (words, text) in [
        (["--help", ""], "Exit codes"),
        (["up", "--help"], "--tunnel-address"),
        (["pki", "--help"], "issue"),
    ] {
        let ended = finish(command(EXE).args(words.iter().filter(|word| !word.is_empty())));
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains(text), "{text} is not in:\n{}", ended.stdout);
    }
    assert_eq!(
        finish(command(EXE).arg("--version")).stdout,
        format!("ztna {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(finish(&mut command(EXE)).code, Some(2));
}

#[test]
fn certificates_made_by_hand_are_taken_by_up() {
    let site = Site::new("by-hand");
    let dir = site.path("pki");
    let made = finish(command(EXE).args(["pki", "init", "--dir", &dir]));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let made = finish(command(EXE).args([
        "pki", "issue", "--dir", &dir, "--name", "laptop", "--agent", "web-app", "echo", "--days", "7",
    ]));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(!made.stdout.contains("PRIVATE") && !made.stderr.contains("PRIVATE"));
    let key = site.path("pki/laptop.key");
    let mode = std::fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let config = site.write(
        "agent.json",
        &format!(
            r#"{{"intermediate_server": "relay.example.com", "cert_path": {:?}, "key_path": {key:?}, "ca_cert": {:?},
                "services": [{{"id": "web-app", "virtualIp": "10.100.0.2"}}]}}"#,
            site.path("pki/laptop.pem"),
            site.path("pki/ca.pem"),
        ),
    );
    let check = finish(command(EXE).args(["up", "--check", "--config", &config]));
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    assert_eq!(check.stdout, "ztna: the configuration is good\n");
}

#[test]
fn pki_says_in_one_line_what_stands_in_the_way() {
    let site = Site::new("pki-errors");
    let dir = site.path("");
    let dir = dir.trim_end_matches('/');
    for (words, expected) in [
        (
            vec!["init", "--dir", dir],
            "exists already and is not overwritten",
        ),
        (
            vec!["issue", "--dir", dir, "--name", "x"],
            "the certificate would permit nothing",
        ),
        (
            vec!["issue", "--dir", "/nonexistent", "--name", "x", "--agent", "a"],
            "run `ztna pki init --dir /nonexistent` first",
        ),
        (
            vec!["issue", "--dir", dir, "--name", "../x", "--agent", "a"],
            "cannot stand in a certificate",
        ),
    ] {
        let ended = finish(command(EXE).arg("pki").args(&words));
        assert_eq!(ended.code, Some(2), "{words:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_code_two() {
    let site = Site::new("agent-bad");
    let file = site.write(
        "a.json",
        r#"{"intermediate_server": "relay", "services": [{"id": "a", "virtualIp": "x"}]}"#,
    );
    let ended = finish(command(EXE).args(["up", "--config", &file]));
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.stderr,
        format!(
            "ztna: {file}: services[0].virtualIp: \"x\" is not an IP address; write for example \"10.100.0.1\"\n"
        )
    );
}
