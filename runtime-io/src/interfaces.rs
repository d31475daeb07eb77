//! The addresses of this host, as the system tells them.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use proto_core::punch::Interface;

/// The addresses of interfaces that are up, without loopback; none if the system does not tell.
pub fn interfaces() -> Vec<Interface> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    all.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    })
    .filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        Some(Interface {
            name: interface.interface_name,
            address: v4.or(v6)?,
        })
    })
    .collect()
}
