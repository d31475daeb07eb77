//! Where a forward leads: `web-app:8080`, `web-app.ztna:22`, `10.100.0.1:80`, `[fd00::1]:80`, `dns:53/udp`.

use std::fmt;

use program::settings::SettingsError;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// A name or a virtual address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
}

impl Target {
    /// Reads a target given at `place`.
    pub(crate) fn parse(text: &str, place: &str) -> Result<Self, SettingsError> {
        let wrong = |problem: &str| {
            SettingsError::new(
                place,
                format!("\"{text}\" {problem}"),
                "write for example web-app:8080, [fd7a:746e:6100::1:1]:80 or dns:53/udp",
            )
        };
        let (rest, transport) = match text.rsplit_once('/') {
            None => (text, Transport::Tcp),
            Some((rest, "tcp")) => (rest, Transport::Tcp),
            Some((rest, "udp")) => (rest, Transport::Udp),
            Some(_) => return Err(wrong("ends neither in /tcp nor in /udp")),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_bare_v6 = bare.is_none() && host.parse::<std::net::Ipv6Addr>().is_ok();
        // ssh gives %h:%p without brackets; what is in front of the last colon is an address then, and not a cut one.
        let host = match bare {
            Some(bare) if bare.parse::<std::net::Ipv6Addr>().is_ok() => bare,
            Some(_) => return Err(wrong("has no IPv6 address between its brackets")),
            None if host.contains(':') && !is_bare_v6 => return Err(wrong("is no service with a port")),
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| wrong("has no port from 1 to 65535"))?;
        if host.is_empty() {
            return Err(wrong("names no service"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            transport,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            transport,
        } = self;
        let suffix = match transport {
            Transport::Tcp => "",
            Transport::Udp => "/udp",
        };
        if host.contains(':') {
            write!(f, "[{host}]:{port}{suffix}")
        } else {
            write!(f, "{host}:{port}{suffix}")
        }
    }
}
