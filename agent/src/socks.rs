//! `ztna socks`: a SOCKS 5 proxy that leads to services, and nowhere else.

use program::exit::Failure;
use program::settings::SettingsError;
use proto_core::forward::Listens;

use crate::NAME;
use crate::rootless::{self, Config, Listening, RootlessArgs, listen_streams, warn_beyond};

/// Where programs expect a SOCKS proxy (IANA).
const DEFAULT: &str = "127.0.0.1:1080";

/// Flags of `ztna socks`.
#[derive(Clone, Debug, clap::Args)]
pub struct SocksArgs {
    /// Where programs of this host find the proxy; may be repeated [default: 127.0.0.1:1080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Vec<String>,

    /// Let --listen name an address that other hosts can reach
    #[arg(long)]
    pub allow_remote_clients: bool,

    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub rootless: RootlessArgs,
}

pub(crate) fn run(args: &SocksArgs) -> Result<(), Failure> {
    let (settings, config) = args.rootless.load()?;
    if config.services().is_empty() {
        return Err(SettingsError::new(
            "services",
            "missing",
            "list them in the configuration file, or name each with --service",
        )
        .into());
    }
    let listen = match args.listen.as_slice() {
        [] => vec![DEFAULT.to_owned()],
        given => given.to_vec(),
    };
    let beyond = args.allow_remote_clients;
    for text in &listen {
        rootless::check_listen(text, "--listen", beyond)?;
    }
    let listeners = move |_: &Config| {
        let open = |text: &String| {
            let Listening { listener, address } = listen_streams(text, "--listen", beyond)?;
            warn_beyond(address);
            log::info!("{NAME} socks: proxy on {address}");
            Ok((Listens::Socks, listener))
        };
        listen.iter().map(open).collect()
    };
    rootless::run(&settings, config, args.rootless.common.check, listeners, None)
}
