//! OpenSSH through `ztna connect`, where it is installed.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::process::PATIENCE;
use super::stage::{EXE, Stage, dial, local, pattern};

const SSHD: &str = "/usr/sbin/sshd";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A server of this user, on a port that was free a moment ago; `None` where there can be none.
fn server(folder: &str) -> Option<(Server, SocketAddr)> {
    for key in ["host", "user"] {
        let file = format!("{folder}/ssh-{key}");
        if !succeeds(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file])) {
            return None;
        }
    }
    let address = TcpListener::bind((local(), 0)).unwrap().local_addr().unwrap();
    let config = format!(
        "ListenAddress {address}\nHostKey {folder}/ssh-host\nAuthorizedKeysFile {folder}/ssh-user.pub\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
    );
    let file = format!("{folder}/sshd.conf");
    std::fs::write(&file, config).unwrap();
    if !succeeds(Command::new(SSHD).args(["-t", "-f", &file])) {
        return None;
    }
    let mut command = Command::new(SSHD);
    command
        .args(["-D", "-f", &file])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let server = Server(command.spawn().ok()?);
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "sshd does not listen");
        std::thread::yield_now();
    }
    Some((server, address))
}

fn ssh(folder: &str, proxy: Option<&str>, address: SocketAddr) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
    ])
    .args([
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "ConnectTimeout=20",
    ])
    .args(["-i", &format!("{folder}/ssh-user")]);
    match proxy {
        Some(proxy) => ssh.args(["-o", &format!("ProxyCommand={proxy}"), "-p", "22", "box.ztna"]),
        None => ssh.args(["-p", &address.port().to_string(), &address.ip().to_string()]),
    };
    ssh
}

#[test]
fn ssh_reaches_a_host_by_its_name() {
    let site = super::process::Site::new("ssh");
    let folder = site.path("");
    let Some((server, address)) = server(folder.trim_end_matches('/')) else {
        return;
    };
    // An account that may not log in here says nothing about us.
    if !succeeds(ssh(&folder, None, address).arg("true")) {
        return;
    }
    drop(dial(address));
    let stage = Stage::new("ssh-tunnel", &[("box", address, "")]);
    let proxy = format!("{EXE} connect %h:%p {}", stage.flags.join(" "));
    let bytes = pattern(1_000_000);
    let mut child = ssh(&folder, Some(&proxy), address)
        .arg("echo inside >&2; cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let said = bytes.clone();
    let speaker = std::thread::spawn(move || stdin.write_all(&said));
    let output = child.wait_with_output().unwrap();
    let _ = speaker.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "inside\n");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == bytes);
    drop(server);
    stage.end();
}
