//! Names of a `ztna up`: answered from its start, and asked for by this host as far as the settings let it.

use std::net::SocketAddr;
use std::sync::Arc;

use program::exit::Failure;
use program::settings::describe;

use crate::config::{Config, DnsMode};
use crate::dns::Shared;
use crate::dns::server::Sockets;
use crate::dns::zone::{self, Zone};
use crate::system::Changes;

/// Who asks for names, where, and what for.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// How the host came to ask.
    pub(super) mode: DnsMode,
    /// Where it asks.
    pub(super) listen: SocketAddr,
    /// The answers.
    pub(super) shared: Arc<Shared>,
}

impl Names {
    /// Answers, and then has the host ask.
    pub(super) fn start(config: &Config, changes: &mut Changes) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::new(zone(config)));
        let mut names = Self {
            mode: DnsMode::Off,
            listen: config.dns.listen,
            shared,
        };
        if config.dns.mode == DnsMode::Off {
            return Ok(names);
        }
        for service in &config.services {
            if zone::name_of(&service.id).is_none() {
                log::warn!(
                    "service {:?} has no name: its id cannot be one in DNS",
                    service.id.as_str()
                );
            }
        }
        let served = Sockets::bind(config.dns.listen).and_then(|sockets| {
            names.listen = sockets.address();
            sockets.serve(Arc::clone(&names.shared))
        });
        if let Err(error) = served {
            let why = format!(
                "dns.listen: cannot answer at {}: {}",
                config.dns.listen,
                describe(&error)
            );
            if config.dns.mode == DnsMode::Auto {
                log::warn!("no names: {why}");
                return Ok(names);
            }
            return Err(Failure::Start(format!(
                "{why}; choose another address, or dns.mode \"off\""
            )));
        }
        names.mode = changes.ask_us(config.dns.mode, names.listen, &names.shared)?;
        if names.mode != DnsMode::Off {
            log::info!(
                "names below .ztna are answered at {}, through {}",
                names.listen,
                names.mode.word()
            );
        }
        Ok(names)
    }
}

pub(super) fn zone(config: &Config) -> Zone {
    let services = config.services.iter();
    Zone::new(services.map(|service| (&service.id, service.virtual_addresses.as_slice())))
}
