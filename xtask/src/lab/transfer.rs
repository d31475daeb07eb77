//! HTTP with the world's hosts: transfers through curl, and what the programs say of themselves.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::namespace::Namespace;
use super::programs::WEB;
use super::wait_until;
use super::world::{PATIENCE, World};
use crate::tool::content::{self, Hash};

/// What a transfer came to.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// SHA-256 of what arrived.
    pub(crate) digest: String,
    /// Bytes that arrived.
    pub(crate) bytes: u64,
    /// How long it took, curl's start included.
    pub(crate) took: Duration,
}

impl Transfer {
    /// Megabits per second.
    pub(crate) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "for people; 52 bits are plenty")]
        let bits = self.bytes as f64 * 8.0;
        bits / 1e6 / self.took.as_secs_f64().max(1e-9)
    }
}

impl World {
    /// Down from the web service and up to it; what arrives is what was sent.
    pub(crate) fn both_ways(&self, device: u8, length: u64) -> Result<[Transfer; 2]> {
        let expected = content::digest(length);
        let base = format!("http://{}:{}", WEB.address, WEB.port);
        let down = self
            .download(device, &format!("{base}/bytes/{length}"))
            .context("down")?;
        ensure!(down.digest == expected, "other bytes came down: {down:?}");
        let file = self.make_file(length)?;
        let up = self.upload(device, &format!("{base}/"), &file).context("up")?;
        ensure!(up.digest == expected, "other bytes went up: {up:?}");
        Ok([down, up])
    }

    /// Fetches `url` with curl on a device.
    pub(crate) fn download(&self, device: u8, url: &str) -> Result<Transfer> {
        self.curl(device, &["--max-time", "120", url])
    }

    /// Sends a file to `url` with curl; the transfer's digest is the server's answer.
    pub(crate) fn upload(&self, device: u8, url: &str, file: &Path) -> Result<Transfer> {
        let file_name = file.display().to_string();
        let started = Instant::now();
        let mut command = self.device(device)?.command("curl");
        command.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "120",
            "--upload-file",
            &file_name,
            url,
        ]);
        let digest = crate::command::output(&mut command)?;
        Ok(Transfer {
            digest,
            bytes: std::fs::metadata(file)?.len(),
            took: started.elapsed(),
        })
    }

    /// Runs curl on a device; the body is hashed as it arrives and kept nowhere.
    fn curl(&self, device: u8, arguments: &[&str]) -> Result<Transfer> {
        let started = Instant::now();
        let mut command = self.device(device)?.command("curl");
        command
            .args(["--silent", "--show-error", "--fail"])
            .args(arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("curl")?;
        let mut hash = Hash::default();
        let mut body = child.stdout.take().context("curl has no output")?;
        std::io::copy(&mut body, &mut hash)?;
        let done = child.wait_with_output()?;
        let took = started.elapsed();
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            bail!(
                "curl after {} bytes in {:.1} s: {said}",
                hash.length(),
                took.as_secs_f32()
            );
        }
        Ok(Transfer {
            bytes: hash.length(),
            digest: hash.finish(),
            took,
        })
    }

    /// A file for uploads.
    pub(crate) fn make_file(&self, length: u64) -> Result<PathBuf> {
        let path = self.folder().join("upload");
        content::write(&mut std::fs::File::create(&path)?, length)?;
        Ok(path)
    }

    /// The HTTP status of `/healthz` in a namespace, 0 if nobody listens.
    pub(crate) fn health(namespace: &Namespace, port: u16) -> Result<u16> {
        let url = format!("http://127.0.0.1:{port}/healthz");
        let words = [
            "--silent",
            "--max-time",
            "3",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            &url,
        ];
        let done = namespace
            .command("curl")
            .args(words)
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&done.stdout).trim().parse().unwrap_or(0))
    }

    /// A number from `/metrics` in a namespace; 0 if there is none of that name.
    pub(crate) fn metric(namespace: &Namespace, port: u16, name: &str) -> Result<u64> {
        let url = format!("http://127.0.0.1:{port}/metrics");
        let text =
            crate::command::output(
                namespace
                    .command("curl")
                    .args(["--silent", "--max-time", "3", &url]),
            )?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    /// Waits until `/healthz` answers `status`.
    pub(crate) fn wait_health(namespace: &Namespace, port: u16, status: u16) -> Result<Duration> {
        let what = format!("/healthz on port {port} to say {status}");
        let found = wait_until(&what, PATIENCE, || {
            Ok((Self::health(namespace, port)? == status).then_some(()))
        });
        found.map(|((), took)| took)
    }
}
