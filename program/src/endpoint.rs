//! Hosts and ports as people write them.

use std::fmt;
use std::net::IpAddr;

use crate::settings::{Input, Settings, SettingsError};

/// The port of an intermediate.
pub const INTERMEDIATE_PORT: u16 = 4433;

/// A host that is an address or has to be resolved, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, or an address without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl Endpoint {
    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Reads `host:port`, `address:port` or `[address]:port`; `host` alone if there is a default port.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(input: &Input<'_>, example: &str, default_port: Option<u16>) -> Result<Self, SettingsError> {
        let text = input.text(example)?.trim();
        let wrong = |problem: &str| {
            input.error(
                format!("{} {problem}", input.shown()),
                format!("write for example {example:?}"),
            )
        };
        let (host, port) = split(text).ok_or_else(|| wrong("is not a host with a port"))?;
        let port = match (port, default_port) {
            (None, None) => return Err(wrong("has no port")),
            (None, Some(port)) => port,
            (Some(port), _) => match port.parse() {
                Ok(0) | Err(_) => return Err(wrong("has no port from 1 to 65535")),
                Ok(port) => port,
            },
        };
        let host = host.to_owned();
        if !is_host(&host) {
            return Err(wrong("has no host name and no address in it"));
        }
        Ok(Self { host, port })
    }
}

/// Splits off the port. An IPv6 address without brackets has none.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
    }
}

/// An address, or what may be looked up (RFC 1123 §2.1, with the underscore that container networks use).
fn is_host(host: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // A name of digits and dots is an address with a slip in it.
    let slip = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    host.parse::<IpAddr>().is_ok()
        || (!host.is_empty() && host.len() <= 253 && host.chars().all(name) && !slip)
}

/// The intermediate that a client connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntermediateServer {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What its certificate must say: the host, if nothing else is configured.
    pub server_name: String,
}

impl IntermediateServer {
    /// Reads `intermediate_server`: `"host:port"`, or an object with `host`, `port` and `server_name`; the flag and
    /// variable of `server_name` alone overrides the latter.
    ///
    /// # Errors
    /// If it is missing or none of these.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        const EXAMPLE: &str = "relay.example.com:4433";
        let Some(input) = settings.input("intermediate_server") else {
            return Err(settings.missing("intermediate_server", "the intermediate as \"host:port\""));
        };
        let endpoint = if input.is_object() {
            let host = input.member("host", "the host name or address of the intermediate")?;
            let mut endpoint = Endpoint::parse(&host, "relay.example.com", Some(INTERMEDIATE_PORT))?;
            if let Some(port) = input.get("port") {
                endpoint.port = nonzero(&port)?;
            }
            endpoint
        } else {
            Endpoint::parse(&input, EXAMPLE, Some(INTERMEDIATE_PORT))?
        };
        let name = settings.input("server_name").or_else(|| input.get("server_name"));
        let server_name = match name {
            None => endpoint.host.clone(),
            Some(name) => {
                let text = name.text("relay.example.com")?;
                if !is_host(text) {
                    return Err(name.error(
                        format!("{} is neither a host name nor an address", name.shown()),
                        "give the name that the server's certificate carries",
                    ));
                }
                text.to_owned()
            }
        };
        Ok(Self {
            endpoint,
            server_name,
        })
    }
}

/// A port that is not 0.
///
/// # Errors
/// If it is not one.
pub fn nonzero(input: &Input<'_>) -> Result<u16, SettingsError> {
    Ok(u16::try_from(input.number(1, u64::from(u16::MAX))?).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests;
