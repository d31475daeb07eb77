//! Programs as their users meet them: started, watched by what they log, asked over HTTP, and ended by signals.
//!
//! Included by the tests of every program. Nothing here sleeps: each step waits for what it expects, with a deadline
//! only so that a failure ends. Every test has loopback addresses of its own, so that fixed ports never collide.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use program::pki::{self, Authority, Grants};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

static NEXT: AtomicU8 = AtomicU8::new(1);

/// A loopback address that no other test uses: from the process and a counter.
pub(crate) fn loopback() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory with a CA and certificates, removed in the end.
pub(crate) struct Site {
    dir: PathBuf,
    authority: Authority,
}

impl Site {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ztna-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let authority = Authority::create(&dir, 2).expect("an authority");
        Self { dir, authority }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.dir.join(name), content).expect("a file");
        self.path(name)
    }

    /// Makes `NAME.pem` and `NAME.key` and returns the members of a configuration that name them.
    pub(crate) fn issue(&self, name: &str, grants: &Grants) -> String {
        let issued = self.authority.issue(name, grants, 2).expect("a certificate");
        pki::write(&self.dir, name, &issued).expect("files");
        format!(
            r#""cert_path": {:?}, "key_path": {:?}, "ca_cert": {:?}"#,
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
            self.path("ca.pem"),
        )
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A command without any variable that it would heed, unless the test sets one.
pub(crate) fn command(executable: &str) -> Command {
    let mut command = Command::new(Path::new(executable));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ZTNA_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// What a command that ends by itself had to say.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn finish(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().expect("a process");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that runs until it is told to end; killed if the test fails first.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        let stderr = child.stderr.take().expect("its stderr");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            log: Vec::new(),
        }
    }

    /// Waits for a line that contains `text`, and returns what follows the text.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {text:?} in:\n{}", self.log.join("\n"));
            };
            self.log.push(line.clone());
            if let Some((_, rest)) = line.split_once(text) {
                return rest.to_owned();
            }
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("a signal");
    }

    /// Sends a signal and waits for the end; also returns what was logged.
    pub(crate) fn end(self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end; also returns what was logged.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        // The log ends when the process does.
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.log.push(line);
        }
        let log = self.log.join("\n");
        assert!(Instant::now() < deadline, "still running; it said:\n{log}");
        (self.child.wait().expect("its end"), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of a page.
pub(crate) fn page(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let status = response.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.expect("a status"), body.to_owned())
}

/// The value of a series without labels, or with exactly these.
pub(crate) fn value(metrics: &str, series: &str) -> u64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in:\n{metrics}"))
        .parse()
        .expect("a number")
}
