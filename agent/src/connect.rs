//! `ztna connect`: standard input and output joined to a port of a service, for `ssh -o ProxyCommand`.

use std::process::ExitCode;

use program::exit::Failure;
use program::settings::SettingsError;
use proto_core::forward::Listens;
use runtime_io::LocalListener;

use crate::rootless::{self, Config, Ending, RootlessArgs, Target, Transport};

/// Flags of `ztna connect`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 both ends closed in order; 1 the connection broke; 2 something in the settings has to be put \
                  right; 3 the service refused; 4 it was not reached; 5 it is not permitted."
)]
pub struct ConnectArgs {
    /// A port of a service: web-app:22
    #[arg(value_name = "TARGET")]
    pub target: String,

    #[expect(missing_docs, reason = "a doc comment would become the program's help")]
    #[command(flatten)]
    pub rootless: RootlessArgs,
}

pub(crate) fn run(args: &ConnectArgs) -> Result<ExitCode, Failure> {
    let target = Target::parse(&args.target, "TARGET")?;
    if target.transport != Transport::Tcp {
        let fix = "name a TCP port; `ztna forward` carries UDP";
        return Err(SettingsError::new("TARGET", "datagrams have no place in a pipe", fix).into());
    }
    let (settings, mut config) = args.rootless.load()?;
    let id = config.service(&target.host)?;
    config.keep(std::slice::from_ref(&id));
    let ending = Ending::default();
    let listeners = move |config: &Config| {
        let index = config.index(&id);
        let index = index.ok_or_else(|| Failure::Run(format!("service {} has gone", id.as_str())))?;
        Ok(vec![(
            Listens::Stream(index, target.port),
            LocalListener::Standard,
        )])
    };
    let check = args.rootless.common.check;
    rootless::run(&settings, config, check, listeners, Some(ending.clone()))?;
    Ok(ExitCode::from(ending.code()))
}
