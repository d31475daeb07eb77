//! The three programs under test: where they are, how they are configured, what they say when they are ready.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::scratch::Scratch;
use super::site::{INTERMEDIATE, PRIVATE, PRIVATE_TOO};
use crate::command::output;

/// The port of the intermediate.
pub(crate) const PORT: u16 = 4433;
/// The health port of the intermediate.
pub(crate) const INTERMEDIATE_HEALTH: u16 = 9090;
/// The health port of the connector.
pub(crate) const CONNECTOR_HEALTH: u16 = 9091;
/// The address of every device inside the tunnel: the same for all, because nobody hands them out.
pub(crate) const INNER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);

/// Which shell the programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// One thread per shard.
    Mio,
    /// On tokio.
    Tokio,
}

impl Runtime {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Mio, Self::Tokio];
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mio => "mio",
            Self::Tokio => "tokio",
        })
    }
}

impl FromStr for Runtime {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|runtime| runtime.to_string() == text)
            .context("mio or tokio")
    }
}

/// A service of the laboratory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) id: &'static str,
    /// Under which address devices reach it.
    pub(crate) address: Ipv4Addr,
    /// Where it really is.
    pub(crate) backend: Ipv4Addr,
    /// Its port, on both sides.
    pub(crate) port: u16,
    /// What it speaks.
    pub(crate) protocol: &'static str,
}

/// A UDP echo server.
pub(crate) const ECHO: Service = Service {
    id: "echo",
    address: Ipv4Addr::new(10, 99, 0, 1),
    backend: PRIVATE,
    port: 7007,
    protocol: "udp",
};
/// An HTTP server.
pub(crate) const WEB: Service = Service {
    id: "web",
    address: Ipv4Addr::new(10, 99, 0, 2),
    backend: PRIVATE,
    port: 8080,
    protocol: "tcp",
};
/// Another UDP echo server, at another address of the private network.
pub(crate) const OTHER: Service = Service {
    id: "other",
    address: Ipv4Addr::new(10, 99, 0, 3),
    backend: PRIVATE_TOO,
    port: 7008,
    protocol: "udp",
};
/// A service that everybody may use and nobody publishes.
pub(crate) const GHOST: Service = Service {
    id: "ghost",
    address: Ipv4Addr::new(10, 99, 0, 4),
    backend: PRIVATE,
    port: 7009,
    protocol: "udp",
};

/// The IPv6 address of a service with this IPv4 address, where services have both.
pub(crate) fn six(address: Ipv4Addr) -> Ipv6Addr {
    let [_, _, group, member] = address.octets();
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, u16::from(group), u16::from(member))
}

/// What the connector publishes.
pub(crate) const PUBLISHED: [Service; 3] = [ECHO, WEB, OTHER];
/// What an ordinary device asks for.
pub(crate) const ALL: [Service; 4] = [ECHO, WEB, OTHER, GHOST];

/// The executables, and this one's copy for the instruments.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    folder: PathBuf,
    instruments: PathBuf,
    runtime: Runtime,
    verbose: bool,
}

impl Programs {
    /// The programs in `folder`, on `runtime`. The instruments are copied, because a build may replace this executable.
    pub(crate) fn new(folder: &Path, runtime: Runtime, verbose: bool, scratch: &Scratch) -> Result<Self> {
        let instruments = scratch.path().join("instruments");
        std::fs::copy("/proc/self/exe", &instruments).context("cannot copy the instruments")?;
        Ok(Self {
            folder: folder.to_path_buf(),
            instruments,
            runtime,
            verbose,
        })
    }

    /// Fails if one of the programs was not built.
    pub(crate) fn check(&self) -> Result<()> {
        for name in ["ztna-intermediate", "ztna-connector", "ztna"] {
            let path = self.folder.join(name);
            if !path.is_file() {
                bail!("{} is not built; run cargo build --release", path.display());
            }
        }
        Ok(())
    }

    /// The executable that has the instruments in it.
    pub(crate) fn instruments(&self) -> &Path {
        &self.instruments
    }

    /// The words that start the intermediate.
    pub(crate) fn intermediate(&self, config: &Path) -> Vec<String> {
        self.words("ztna-intermediate", &[], config)
    }

    /// The words that start the connector.
    pub(crate) fn connector(&self, config: &Path) -> Vec<String> {
        self.words("ztna-connector", &[], config)
    }

    /// The agent's executable, for its other commands.
    pub(crate) fn executable(&self) -> String {
        self.folder.join("ztna").display().to_string()
    }

    /// The words that start an agent.
    pub(crate) fn agent(&self, config: &Path) -> Vec<String> {
        self.words("ztna", &["up"], config)
    }

    /// The words that start an agent in another way.
    pub(crate) fn ztna(&self, way: &[&str], config: &Path) -> Vec<String> {
        self.words("ztna", way, config)
    }

    fn words(&self, program: &str, before: &[&str], config: &Path) -> Vec<String> {
        let mut words = vec![self.folder.join(program).display().to_string()];
        words.extend(before.iter().map(ToString::to_string));
        words.extend(["--config".to_owned(), config.display().to_string()]);
        words.extend(["--runtime".to_owned(), self.runtime.to_string()]);
        if self.verbose {
            words.push("--verbose".to_owned());
        }
        words
    }

    /// Makes an authority in `folder`.
    pub(crate) fn make_authority(&self, folder: &Path) -> Result<()> {
        output(
            Command::new(self.folder.join("ztna"))
                .args(["pki", "init", "--dir"])
                .arg(folder),
        )
        .map(drop)
    }

    /// Issues a certificate; `claims` are the words that say for what.
    pub(crate) fn issue(&self, folder: &Path, name: &str, claims: &[String]) -> Result<()> {
        let mut command = Command::new(self.folder.join("ztna"));
        command
            .args(["pki", "issue", "--dir"])
            .arg(folder)
            .args(["--name", name])
            .args(claims);
        output(&mut command).map(drop)
    }
}

/// The keys every program has: certificate, key and authority of `name` in `folder`.
fn with_identity(mut config: Value, folder: &Path, name: &str) -> Value {
    for (key, file) in [
        ("cert_path", format!("{name}.pem")),
        ("key_path", format!("{name}.key")),
        ("ca_cert", "ca.pem".to_owned()),
    ] {
        if let Some(members) = config.as_object_mut() {
            members.insert(key.to_owned(), json!(folder.join(file)));
        }
    }
    config
}

/// The intermediate's configuration.
pub(crate) fn intermediate_config(pki: &Path) -> Value {
    let config = json!({
        "port": PORT,
        "bind_addr": "0.0.0.0",
        "metrics_addr": "127.0.0.1",
        "metrics_port": INTERMEDIATE_HEALTH,
    });
    with_identity(config, pki, "intermediate")
}

/// The connector's configuration.
pub(crate) fn connector_config(pki: &Path, services: &[Service]) -> Value {
    let services: Vec<Value> = services
        .iter()
        .map(|service| {
            json!({
                "id": service.id,
                "backend": format!("{}:{}", service.backend, service.port),
                "protocol": service.protocol,
                "virtualIp": service.address,
            })
        })
        .collect();
    let config = json!({
        "intermediate_server": { "host": INTERMEDIATE, "port": PORT },
        "services": services,
        "metrics_port": CONNECTOR_HEALTH,
    });
    with_identity(config, pki, "connector")
}

/// An agent's configuration, with the certificate `name`.
pub(crate) fn agent_config(pki: &Path, name: &str, services: &[Service]) -> Value {
    let services: Vec<Value> = services
        .iter()
        .map(|service| json!({ "id": service.id, "virtualIp": service.address }))
        .collect();
    let config = json!({
        "intermediate_server": { "host": INTERMEDIATE, "port": PORT },
        "services": services,
        "tun_name": "ztna0",
        "tunnel_address": INNER,
        // Devices share the files of this machine; the tests of names give theirs a resolv.conf of its own.
        "dns": { "mode": "off" },
    });
    with_identity(config, pki, name)
}
