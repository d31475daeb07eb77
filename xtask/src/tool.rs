//! The laboratory's instruments: small programs that run inside a namespace, one process each.
//!
//! They are part of this executable so that the laboratory needs no interpreter and no package. They judge nothing: they
//! send, count and report in lines that the tests read.

pub(crate) mod cannon;
pub(crate) mod content;
mod dns;
mod echo;
pub(crate) mod flow;
mod forget;
mod http;
mod knock;
mod latency;
mod loris;
mod nat;
pub(crate) mod pace;
pub(crate) mod payload;
mod proxied;
mod sizes;
mod tcp;
pub(crate) mod wire;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Args;

/// `xtask tool NAME …`.
pub(crate) fn main(args: &mut Args) -> Result<ExitCode> {
    let name = args.word().unwrap_or_default();
    match name.as_str() {
        "udp-echo" => echo::main(args)?,
        "udp-sizes" => sizes::main(args)?,
        "udp-flow" => flow::main(args)?,
        "udp-pace" => pace::main(args)?,
        "udp-latency" => latency::main(args)?,
        "http" => http::main(args)?,
        "proxied" => proxied::main(args)?,
        "wire" => wire::main(args)?,
        "tcp-server" => tcp::serve(args)?,
        "tcp-sessions" => tcp::many(args)?,
        "tcp-idle" => tcp::idle(args)?,
        "tcp-latency" => tcp::latency(args)?,
        "dns" => dns::main(args)?,
        "tcp-loris" => loris::main(args)?,
        "cannon" => cannon::main(args)?,
        "nat-reflector" => nat::reflector::main(args)?,
        "nat-classify" => nat::classify::main(args)?,
        "nat-meet" => nat::meet::main(args)?,
        "nat-watch" => nat::watch::main(args)?,
        "forget-connections" => forget::main(args)?,
        "knock" => knock::main(args)?,
        _ => {
            eprintln!("no such tool: {name}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
