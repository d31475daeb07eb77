//! How a service is served, as the file says it: backends, ports, health checks, and who may come.

use std::ops::RangeInclusive;
use std::time::Duration;

use program::endpoint::Endpoint;
use program::settings::{Input, SettingsError};
use proto_core::config::Protocol;
use proto_core::quic::identity::Fingerprint;
use proto_core::service::access::{AllowList, Allowed};
use proto_core::service::health::{HealthCheck, Question};
use proto_core::service::{Backend, Host, Listener, Offer};

/// Entries of one list: enough for people, and a bound for what is looked through at every new session.
const MAX_BACKENDS: usize = 64;
const MAX_LISTENERS: usize = 256;
const MAX_ALLOWED: usize = 1024;

const PROTOCOLS: [(&str, Protocol); 3] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("both", Protocol::Both),
];

/// Reads the whole of a service but its name and addresses.
///
/// # Errors
/// For the first thing that is wrong.
pub(super) fn read(service: &Input<'_>) -> Result<Offer, SettingsError> {
    let listeners = match (
        service.get("backend"),
        service.get("backends"),
        service.get("ports"),
    ) {
        (Some(one), None, None) => vec![everywhere(service, vec![backend(&one, true)?])?],
        (None, Some(many), None) => vec![everywhere(service, backends(&many, true)?)?],
        (None, None, Some(ports)) => {
            if let Some(protocol) = service.get("protocol") {
                return Err(protocol.error("given beside \"ports\"", "move it into the entries of \"ports\""));
            }
            listeners(&ports)?
        }
        (None, None, None) => {
            // Says what is missing, and what the service is if it is no object at all.
            service.member("backend", "where the service listens, as \"127.0.0.1:8080\"")?;
            Vec::new()
        }
        (_, Some(second), _) | (_, None, Some(second)) => {
            return Err(second.error(
                "given beside another of \"backend\", \"backends\" and \"ports\"",
                "keep one of them",
            ));
        }
    };
    let health = service.get("health").map(|input| health(&input)).transpose()?;
    let proxy_protocol = match service.get("proxy_protocol") {
        None => false,
        Some(input) => input.choice(&[("v2", true), ("off", false)])?,
    };
    if proxy_protocol
        && listeners
            .iter()
            .all(|listener| listener.protocol == Protocol::Udp)
    {
        let input = service.member("proxy_protocol", "")?;
        return Err(input.error("the service has no TCP port", "remove it: UDP carries no header"));
    }
    let allow = service.get("allow").map(|input| allow(&input)).transpose()?;
    Ok(Offer {
        listeners,
        health,
        proxy_protocol,
        allow,
    })
}

/// One set of backends for every port.
fn everywhere(service: &Input<'_>, backends: Vec<Backend>) -> Result<Listener, SettingsError> {
    Ok(Listener {
        ports: 0..=u16::MAX,
        protocol: protocol(service)?,
        backends,
    })
}

fn protocol(input: &Input<'_>) -> Result<Protocol, SettingsError> {
    input
        .get("protocol")
        .map_or(Ok(Protocol::Both), |input| input.choice(&PROTOCOLS))
}

fn backends(list: &Input<'_>, with_port: bool) -> Result<Vec<Backend>, SettingsError> {
    let elements = list.list()?;
    if elements.is_empty() {
        return Err(list.error("empty", "list at least one backend, as \"127.0.0.1:8080\""));
    }
    bounded(list, elements.len(), MAX_BACKENDS)?;
    let mut found: Vec<Backend> = Vec::with_capacity(elements.len());
    for element in elements {
        let backend = backend(&element, with_port)?;
        if found.contains(&backend) {
            return Err(element.error(
                format!("{} is listed twice", element.shown()),
                "remove one of them",
            ));
        }
        found.push(backend);
    }
    Ok(found)
}

fn bounded(input: &Input<'_>, count: usize, most: usize) -> Result<(), SettingsError> {
    if count <= most {
        return Ok(());
    }
    Err(input.error(format!("{count} entries"), format!("list at most {most}")))
}

fn backend(input: &Input<'_>, with_port: bool) -> Result<Backend, SettingsError> {
    // Port 0 cannot be given, so it can stand for none.
    let default = if with_port { None } else { Some(0) };
    let endpoint = Endpoint::parse(input, "127.0.0.1:8080", default)?;
    Ok(Backend {
        port: Some(endpoint.port).filter(|port| *port != 0),
        host: match endpoint.ip() {
            Some(ip) => Host::Address(ip.to_canonical()),
            None => Host::Name(endpoint.host.to_ascii_lowercase().into()),
        },
    })
}

fn listeners(ports: &Input<'_>) -> Result<Vec<Listener>, SettingsError> {
    let elements = ports.list()?;
    if elements.is_empty() {
        return Err(ports.error("empty", "list at least one port with its backends"));
    }
    bounded(ports, elements.len(), MAX_LISTENERS)?;
    let mut found: Vec<(Listener, String)> = Vec::with_capacity(elements.len());
    for element in elements {
        let listen = element.member("listen", "the port, as \"80\" or \"8000-8100\"")?;
        let list = element.member("backends", "where it leads, as [\"10.0.0.5:8080\"]")?;
        let listener = Listener {
            ports: range(&listen)?,
            protocol: protocol(&element)?,
            backends: backends(&list, false)?,
        };
        let other = found.iter().find(|(other, _)| overlap(other, &listener));
        if let Some((_, place)) = other {
            return Err(listen.error(
                format!("{} overlaps {place}", listen.shown()),
                "give every port of one protocol to one entry only",
            ));
        }
        let place = listen.place().rsplit_once(": ").map_or("another", |(_, key)| key);
        found.push((listener, place.to_owned()));
    }
    Ok(found.into_iter().map(|(listener, _)| listener).collect())
}

fn overlap(a: &Listener, b: &Listener) -> bool {
    let share = a.protocol == b.protocol || a.protocol == Protocol::Both || b.protocol == Protocol::Both;
    share && a.ports.start() <= b.ports.end() && b.ports.start() <= a.ports.end()
}

fn range(input: &Input<'_>) -> Result<RangeInclusive<u16>, SettingsError> {
    if let Ok(port) = input.number(1, u64::from(u16::MAX)) {
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        return Ok(port..=port);
    }
    let text = input.text("8000-8100")?;
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if 0 < low && low <= high => Ok(low..=high),
        (_, _) => Err(input.error(
            format!("{} is neither a port nor a range of ports", input.shown()),
            "write for example \"80\" or \"8000-8100\"",
        )),
    }
}

fn health(input: &Input<'_>) -> Result<HealthCheck, SettingsError> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Tcp,
        Http,
        Udp,
    }
    let kinds = [("tcp", Kind::Tcp), ("http", Kind::Http), ("udp", Kind::Udp)];
    let kind = input
        .member("check", "\"tcp\", \"http\" or \"udp\"")?
        .choice(&kinds)?;
    for (key, of) in [
        ("path", Kind::Http),
        ("expect_status", Kind::Http),
        ("send", Kind::Udp),
        ("expect", Kind::Udp),
    ] {
        if let Some(input) = input.get(key)
            && kind != of
        {
            return Err(input.error("not of this kind of check", "remove it, or change \"check\""));
        }
    }
    let question = match kind {
        Kind::Tcp => Question::Connect,
        Kind::Http => Question::Http {
            path: path(input)?,
            status: status(input)?,
        },
        Kind::Udp => Question::Udp {
            send: text(input, "send", "ping")?.unwrap_or_default(),
            expect: text(input, "expect", "pong")?,
        },
    };
    let length = |key, default, low, high| match input.get(key) {
        None => Ok(default),
        Some(input) => input.duration(low, high),
    };
    let second = Duration::from_secs(1);
    let interval = length("interval", 5 * second, second, 3600 * second)?;
    let timeout = length("timeout", (2 * second).min(interval), second / 10, 60 * second)?;
    let count = |key, default| match input.get(key) {
        None => Ok(default),
        Some(input) => input.number(1, 100).map(|number| number as u32),
    };
    Ok(HealthCheck {
        question,
        interval,
        timeout,
        healthy: count("healthy", 2)?,
        unhealthy: count("unhealthy", 3)?,
    })
}

fn path(health: &Input<'_>) -> Result<Box<str>, SettingsError> {
    let Some(input) = health.get("path") else {
        return Ok("/".into());
    };
    let path = input.text("/healthz")?;
    if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(path.into());
    }
    Err(input.error(
        format!("{} is not the path of a URL", input.shown()),
        "write for example \"/healthz\"",
    ))
}

fn status(health: &Input<'_>) -> Result<RangeInclusive<u16>, SettingsError> {
    let Some(input) = health.get("expect_status") else {
        return Ok(200..=399);
    };
    let found = range(&input)?;
    if *found.start() >= 100 && *found.end() <= 599 {
        return Ok(found);
    }
    Err(input.error(
        format!("{} is not an HTTP status", input.shown()),
        "write for example 200, or \"200-399\"",
    ))
}

/// Bytes of a datagram, as text.
fn text(health: &Input<'_>, key: &str, example: &str) -> Result<Option<Box<[u8]>>, SettingsError> {
    let Some(input) = health.get(key) else {
        return Ok(None);
    };
    let text = input.text(example)?;
    if text.len() > 512 {
        return Err(input.error(format!("{} bytes", text.len()), "shorten it to 512 bytes at most"));
    }
    Ok(Some(text.as_bytes().into()))
}

fn allow(list: &Input<'_>) -> Result<AllowList, SettingsError> {
    let elements = list.list()?;
    if elements.is_empty() {
        return Err(list.error(
            "empty: nobody could use the service",
            "list agents by the names of their certificates, or remove it",
        ));
    }
    bounded(list, elements.len(), MAX_ALLOWED)?;
    let entries: Vec<Allowed> = elements.iter().map(allowed).collect::<Result<_, _>>()?;
    Ok(AllowList::new(entries))
}

fn allowed(input: &Input<'_>) -> Result<Allowed, SettingsError> {
    let text = input.text("alice-laptop")?.trim();
    let Some(digits) = text.strip_prefix("sha256:") else {
        return Ok(Allowed::Name(text.into()));
    };
    let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b':').collect();
    let mut fingerprint = [0; 32];
    let pairs = digits.chunks_exact(2);
    let whole = digits.len() == 64
        && pairs.zip(&mut fingerprint).all(|(pair, byte)| {
            let parsed = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok());
            parsed.map(|parsed| *byte = parsed).is_some()
        });
    if whole {
        return Ok(Allowed::Certificate(Fingerprint(fingerprint)));
    }
    Err(input.error(
        format!("{} is not the SHA-256 of a certificate", input.shown()),
        "write 64 hexadecimal digits behind \"sha256:\" (`openssl x509 -in cert.pem -noout -fingerprint -sha256`)",
    ))
}
