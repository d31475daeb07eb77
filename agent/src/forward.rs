//! `ztna forward`: local ports that lead to services, without a tunnel interface.

use program::exit::Failure;
use program::settings::SettingsError;
use proto_core::forward::Listens;
use proto_core::id::ServiceId;
use runtime_io::LocalListener;

use crate::NAME;
use crate::rootless::{
    self, Config, Listening, RootlessArgs, Target, Transport, listen_datagrams, listen_streams, warn_beyond,
};

/// Flags of `ztna forward`.
#[derive(Clone, Debug, clap::Args)]
pub struct ForwardArgs {
    /// A port of a service: web-app:8080, 10.100.0.1:80, dns:53/udp; the first --listen belongs to the first, and so on
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,

    /// Where programs of this host connect to it [default: 127.0.0.1 and the port of the target]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<String>,

    /// Both in one: where programs connect, and where that leads; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT=TARGET")]
    pub forward: Vec<String>,

    /// Let --listen name an address that other hosts can reach
    #[arg(long)]
    pub allow_remote_clients: bool,

    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub rootless: RootlessArgs,
}

/// One local port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) listen: String,
    pub(crate) place: &'static str,
    pub(crate) target: Target,
}

impl ForwardArgs {
    /// What listens where, in the order of the command line.
    pub(crate) fn pairs(&self) -> Result<Vec<Pair>, SettingsError> {
        let targets: Vec<Target> = self
            .targets
            .iter()
            .map(|text| Target::parse(text, "TARGET"))
            .collect::<Result<_, _>>()?;
        let mut listen: Vec<String> = self.listen.clone();
        if listen.is_empty() {
            listen = targets
                .iter()
                .map(|target| format!("127.0.0.1:{}", target.port))
                .collect();
        }
        if listen.len() != targets.len() {
            return Err(SettingsError::new(
                "--listen",
                format!("given {} times for {} targets", listen.len(), targets.len()),
                "give one for each target, or none, or use --forward ADDRESS:PORT=TARGET",
            ));
        }
        let mut pairs: Vec<Pair> = listen
            .into_iter()
            .zip(targets)
            .map(|(listen, target)| Pair {
                listen,
                place: "--listen",
                target,
            })
            .collect();
        for text in &self.forward {
            let (listen, target) = text.split_once('=').ok_or_else(|| {
                SettingsError::new(
                    "--forward",
                    format!("\"{text}\" has no ="),
                    "write for example 127.0.0.1:8080=web-app:8080",
                )
            })?;
            pairs.push(Pair {
                listen: listen.to_owned(),
                place: "--forward",
                target: Target::parse(target, "--forward")?,
            });
        }
        if pairs.is_empty() {
            return Err(SettingsError::new(
                "TARGET",
                "missing",
                "say where to, for example web-app:8080 --listen 127.0.0.1:8080",
            ));
        }
        Ok(pairs)
    }
}

pub(crate) fn run(args: &ForwardArgs) -> Result<(), Failure> {
    let pairs = args.pairs()?;
    let (settings, mut config) = args.rootless.load()?;
    let ids: Vec<ServiceId> = pairs
        .iter()
        .map(|pair| config.service(&pair.target.host))
        .collect::<Result<_, _>>()?;
    config.keep(&ids);
    let beyond = args.allow_remote_clients;
    for pair in &pairs {
        rootless::check_listen(&pair.listen, pair.place, beyond)?;
    }
    let listeners = move |config: &Config| {
        pairs
            .iter()
            .zip(&ids)
            .map(|(pair, id)| open(pair, id, config, beyond))
            .collect()
    };
    rootless::run(&settings, config, args.rootless.common.check, listeners, None)
}

fn open(
    pair: &Pair,
    id: &ServiceId,
    config: &Config,
    beyond: bool,
) -> Result<(Listens, LocalListener), Failure> {
    let Pair {
        listen,
        place,
        target,
    } = pair;
    let index = config
        .index(id)
        .ok_or_else(|| Failure::Run(format!("service {id} has gone", id = id.as_str())))?;
    let (listens, Listening { listener, address }) = match target.transport {
        Transport::Tcp => (
            Listens::Stream(index, target.port),
            listen_streams(listen, place, beyond)?,
        ),
        Transport::Udp => (
            Listens::Datagram(index, target.port),
            listen_datagrams(listen, place, beyond)?,
        ),
    };
    warn_beyond(address);
    log::info!("{NAME} forward: {address} leads to {target}");
    Ok((listens, listener))
}

#[cfg(test)]
mod tests;
