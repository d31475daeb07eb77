//! One host of the laboratory: a network namespace with its interfaces, addresses and rules.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::leftovers;
use super::scratch::PREFIX;
use crate::command::output;

/// A network namespace; it goes, with every process in it, when this goes.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with loopback up.
    pub(crate) fn new(host: &str) -> Result<Self> {
        leftovers::still_running()?;
        let name = format!("{PREFIX}{}-{host}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// What `ip netns` knows it by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to be run inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// `ip …` inside; the words are separated by blanks.
    pub(crate) fn ip(&self, words: &str) -> Result<String> {
        output(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(words.split_whitespace()),
        )
    }

    /// `tc …` inside.
    pub(crate) fn tc(&self, words: &str) -> Result<String> {
        output(
            Command::new("tc")
                .args(["-n", &self.name])
                .args(words.split_whitespace()),
        )
    }

    /// Sets a kernel parameter of this namespace.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // A minimal machine has no sysctl(8), but always a shell.
        let set = format!("echo '{value}' > /proc/sys/{}", key.replace('.', "/"));
        output(self.command("sh").args(["-c", &set])).map(drop)
    }

    /// Loads nftables rules.
    pub(crate) fn nft(&self, rules: &str) -> Result<()> {
        let mut command = self.command("nft");
        let mut child = command
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("nft takes no rules")?
            .write_all(rules.as_bytes())?;
        let done = child.wait_with_output()?;
        if !done.status.success() {
            bail!("nft: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    /// The packets counted by the named counter of a table.
    pub(crate) fn counter(&self, table: &str, name: &str) -> Result<u64> {
        let text = output(self.command("nft").args(["list", "counter", "ip", table, name]))?;
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "packets")
            .skip(1);
        words
            .next()
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no counter in {text}"))
    }

    /// Lays a cable: interface `here` in this namespace, `there` in the other.
    pub(crate) fn cable(&self, here: &str, other: &Self, there: &str) -> Result<()> {
        self.ip(&format!(
            "link add {here} type veth peer name {there} netns {}",
            other.name
        ))?;
        self.ip(&format!("link set {here} up"))?;
        other.ip(&format!("link set {there} up")).map(drop)
    }

    /// Moves the interface `port` to another namespace; a process that holds it open keeps it.
    pub(crate) fn give(&self, port: &str, other: &Self) -> Result<()> {
        self.ip(&format!("link set {port} netns {}", other.name))
            .map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        leftovers::delete_namespace(&self.name);
    }
}
