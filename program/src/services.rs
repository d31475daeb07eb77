//! What agents and connectors say about services in the same words: ids and virtual addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto_core::id::{InvalidServiceId, ServiceId};

use crate::settings::{Input, Settings, SettingsError};

/// Most services of one program: their position fits `proto_core::id::ServiceIndex`.
const MAX_SERVICES: usize = 1024;

/// The keys of a service's addresses: the first is the documented one.
const ADDRESS_KEYS: [&str; 2] = ["virtualIp", "virtual_ip"];

/// A service of the file with what both roles need.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// Where it stands.
    pub input: Input<'a>,
    /// Its name.
    pub id: ServiceId,
    /// Its virtual addresses; may be empty.
    pub virtual_addresses: Vec<IpAddr>,
}

/// Reads `services[]`: at least one, and no id or address twice.
///
/// # Errors
/// For the first thing that is wrong.
pub fn read(settings: &Settings) -> Result<Vec<Service<'_>>, SettingsError> {
    let Some(list) = settings.from_file("services") else {
        return Err(SettingsError::new(
            settings
                .file_name()
                .map_or_else(|| "services".to_owned(), |file| format!("{file}: services")),
            "missing",
            "list at least one service in the configuration file",
        ));
    };
    let elements = list.list()?;
    if elements.is_empty() {
        return Err(list.error("empty", "list at least one service"));
    }
    if elements.len() > MAX_SERVICES {
        return Err(list.error(
            format!("{} services", elements.len()),
            format!("list at most {MAX_SERVICES}"),
        ));
    }
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, String> = BTreeMap::new();
    elements
        .into_iter()
        .map(|input| read_one(input, &mut ids, &mut addresses))
        .collect()
}

fn read_one<'a>(
    input: Input<'a>,
    ids: &mut BTreeMap<String, String>,
    addresses: &mut BTreeMap<IpAddr, String>,
) -> Result<Service<'a>, SettingsError> {
    let field = input.member("id", "the name of the service")?;
    let id = service_id(&field)?;
    // Certificates are compared without regard to case, so ids that differ only there are one to every check.
    if let Some(first) = ids.insert(id.as_str().to_lowercase(), field.place().to_owned()) {
        return Err(field.error(
            format!(
                "{} is the id of another service too ({})",
                field.shown(),
                key(&first)
            ),
            "give each service its own id",
        ));
    }
    let mut virtual_addresses = Vec::new();
    for value in address_values(&input)? {
        let address = virtual_address(&value)?;
        if let Some(first) = addresses.insert(address, value.place().to_owned()) {
            return Err(value.error(
                format!(
                    "{address} is the address of another service too ({})",
                    key(&first)
                ),
                "give each service its own virtual address",
            ));
        }
        virtual_addresses.push(address);
    }
    Ok(Service {
        input,
        id,
        virtual_addresses,
    })
}

/// The part of a place after the file's name.
fn key(place: &str) -> &str {
    place.rsplit_once(": ").map_or(place, |(_, key)| key)
}

/// The name of a service.
///
/// # Errors
/// If it is empty or longer than 255 bytes.
pub fn service_id(input: &Input<'_>) -> Result<ServiceId, SettingsError> {
    let text = input.text("web-app")?;
    ServiceId::parse(text.as_bytes()).map_err(|error| match error {
        InvalidServiceId::TooLong => input.error(
            format!("{} bytes", text.len()),
            "shorten the id to 255 bytes at most",
        ),
        InvalidServiceId::Empty | InvalidServiceId::NotUtf8 => {
            input.error(error.to_string(), "write for example \"web-app\"")
        }
    })
}

fn address_values<'a>(service: &Input<'a>) -> Result<Vec<Input<'a>>, SettingsError> {
    let [documented, alias] = ADDRESS_KEYS.map(|key| service.get(key));
    match (documented, alias) {
        (Some(_), Some(alias)) => {
            Err(alias.error("given twice, also as \"virtualIp\"", "remove one of the two"))
        }
        (one, other) => Ok(one.or(other).map_or_else(Vec::new, |value| value.one_or_many())),
    }
}

/// An address that a host can have.
///
/// # Errors
/// If it is not one.
pub fn virtual_address(input: &Input<'_>) -> Result<IpAddr, SettingsError> {
    let address = input.ip("10.100.0.1")?.to_canonical();
    let unusable = match address {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => {
            ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local()
        }
    };
    if unusable {
        return Err(input.error(
            format!("{address} cannot be reached through a tunnel"),
            "choose an address such as 10.100.0.1 or fd7a:746e:6100::1:1",
        ));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
