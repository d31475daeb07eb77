//! The flags, variables and keys that all programs have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use log::LevelFilter;

use crate::logging::{self, LEVELS};
use crate::settings::{Environment, Flags, Schema, Settings, SettingsError};

/// Keys of every configuration file.
pub const KEYS: &[&str] = &[
    "bind_addr",
    "ca_cert",
    "cert_path",
    "key_path",
    "log_level",
    "metrics_addr",
    "metrics_port",
    "runtime",
];

/// What is never set in a file.
pub const OUTSIDE: &[&str] = &["config", "insecure_dev"];

/// What is never set in a file of a client.
pub const CLIENT_OUTSIDE: &[&str] = &["config", "insecure_dev", "server_name"];

/// Flags of every program. Every value may also come from the environment or the file; flags win.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CommonArgs {
    /// Configuration file, JSON [env: ZTNA_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,

    /// Check the configuration and the files it names, then exit
    #[arg(long)]
    pub check: bool,

    /// Log more: -v debug (shows addresses), -vv trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Log level: error, warn, info, debug, trace, off [default: info] [env: ZTNA_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Event loop: mio or tokio [default: mio] [env: ZTNA_RUNTIME]
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,

    /// This program's certificate, PEM [env: ZTNA_CERT_PATH]
    #[arg(long, value_name = "FILE")]
    pub cert_path: Option<String>,

    /// Its private key, PEM, mode 0600 [env: ZTNA_KEY_PATH]
    #[arg(long, value_name = "FILE")]
    pub key_path: Option<String>,

    /// The CA whose certificates are accepted from the other side, PEM [env: ZTNA_CA_CERT]
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<String>,

    /// Local address of the UDP socket [env: ZTNA_BIND_ADDR]
    #[arg(long, value_name = "ADDRESS")]
    pub bind_addr: Option<String>,

    /// TCP port of /healthz and /metrics, 0 for none [env: ZTNA_METRICS_PORT]
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<String>,

    /// Local address of /healthz and /metrics [default: 127.0.0.1] [env: ZTNA_METRICS_ADDR]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_addr: Option<String>,

    /// DEVELOPMENT ONLY: check no certificate and let anybody in [env: ZTNA_INSECURE_DEV]
    #[arg(long)]
    pub insecure_dev: bool,
}

impl CommonArgs {
    /// The values that were given.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.set("config", self.config.as_ref());
        match self.verbose {
            0 => {}
            1 => flags.set("log_level", Some(&"debug".to_owned())),
            _ => flags.set("log_level", Some(&"trace".to_owned())),
        }
        flags.set("log_level", self.log_level.as_ref());
        flags.set("runtime", self.runtime.as_ref());
        flags.set("cert_path", self.cert_path.as_ref());
        flags.set("key_path", self.key_path.as_ref());
        flags.set("ca_cert", self.ca_cert.as_ref());
        flags.set("bind_addr", self.bind_addr.as_ref());
        flags.set("metrics_port", self.metrics_port.as_ref());
        flags.set("metrics_addr", self.metrics_addr.as_ref());
        flags.switch("insecure_dev", self.insecure_dev);
        flags
    }
}

/// Which event loop drives the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// `runtime-mio`.
    Mio,
    /// `runtime-tokio`.
    Tokio,
}

impl Runtime {
    /// Its name, as in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mio => "mio",
            Self::Tokio => "tokio",
        }
    }
}

/// The settings that all programs have, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// What is logged, if anything was said about it.
    pub log_level: Option<LevelFilter>,
    /// The event loop.
    pub runtime: Runtime,
    /// Where `/healthz` and `/metrics` are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// The local address, if one is given.
    pub bind: Option<IpAddr>,
    /// Whether checks are off.
    pub insecure_dev: bool,
}

impl Common {
    /// Parses them.
    ///
    /// # Errors
    /// For the first one that is wrong.
    pub fn read(settings: &Settings, default_metrics_port: u16) -> Result<Self, SettingsError> {
        let log_level = settings.optional("log_level", |input| input.choice(&LEVELS))?;
        let runtimes = [("mio", Runtime::Mio), ("tokio", Runtime::Tokio)];
        let runtime = settings.or("runtime", Runtime::Mio, |input| input.choice(&runtimes))?;
        let port = settings.or("metrics_port", default_metrics_port, |input| input.port())?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let address = settings.or("metrics_addr", loopback, |input| input.ip("127.0.0.1"))?;
        Ok(Self {
            log_level,
            runtime,
            metrics: (port != 0).then(|| SocketAddr::new(address, port)),
            bind: settings.optional("bind_addr", |input| input.ip("0.0.0.0"))?,
            insecure_dev: settings.or("insecure_dev", false, |input| input.switch())?,
        })
    }

    /// Starts logging, and says what should not be overlooked.
    pub fn start_logging(&self, settings: &Settings, schema: &Schema) {
        logging::start(self.log_level);
        for name in settings.strange_variables(&[schema, &Schema::new(&[EVERYWHERE], &[])]) {
            log::warn!("{name} is set in the environment and means nothing to this program");
        }
        if self.insecure_dev {
            log::warn!(
                "INSECURE: --insecure-dev is on. No certificate is checked and anybody may connect. Never use it outside \
                 a development machine"
            );
        }
    }
}

/// Keys of the other programs, whose variables may be set beside ours.
const EVERYWHERE: &[&str] = &[
    "allow_unnamed_clients",
    "control",
    "congestion_control",
    "external_ip",
    "dns.listen",
    "dns.mode",
    "drain",
    "external_ip",
    "intermediate_server",
    "limits.connections",
    "limits.flows",
    "limits.flows_per_agent",
    "limits.handshakes",
    "limits.registrations",
    "limits.services_per_connection",
    "mtu",
    "p2p.cert",
    "p2p.enabled",
    "p2p.key",
    "p2p.port",
    "paths",
    "port",
    "require_client_cert",
    "server_name",
    "tun_name",
    "tunnel_address",
];

/// Loads a program's settings from the layers of this process.
///
/// # Errors
/// As [`Settings::load`].
pub fn load(schema: &Schema, default_path: &'static str, flags: Flags) -> Result<Settings, SettingsError> {
    Settings::load(schema, default_path, flags, Environment::of_process())
}

/// Whether a text names every key and every flag of a program; for a test that holds the manual to it.
///
/// # Errors
/// The first one that is missing.
pub fn documented(text: &str, schema: &Schema, command: &clap::Command) -> Result<(), String> {
    let flags = command.get_arguments().filter_map(|argument| argument.get_long());
    let names = schema
        .keys()
        .map(str::to_owned)
        .chain(flags.map(|flag| format!("--{flag}")));
    // `--port` is named by "`--port`" and by "`--port PORT`", not by "`--port-range`".
    let is_named = |name: &String| {
        text.contains(&format!("`{name}`"))
            || text.contains(&format!("`{name} "))
            || text.contains(&format!(" {name}`"))
    };
    match names.into_iter().find(|name| !is_named(name)) {
        Some(name) => Err(format!("{name} is not documented")),
        None => Ok(()),
    }
}
