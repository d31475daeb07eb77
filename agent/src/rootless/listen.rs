//! Local addresses: where programs find us. Loopback only, unless a flag says otherwise.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::net::TcpListener;

use program::exit::Failure;
use program::settings::{SettingsError, describe};
use runtime_io::{LocalListener, bind_datagrams};

/// A flag that opens listeners to others.
const BEYOND: &str = "--allow-remote-clients";

/// A socket that listens, and where.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: LocalListener,
    pub(crate) address: SocketAddr,
}

/// Reads the address of a listener.
pub(crate) fn address(text: &str, place: &str, beyond: bool) -> Result<SocketAddr, SettingsError> {
    let address: SocketAddr = text.parse().map_err(|_| {
        SettingsError::new(
            place,
            format!("\"{text}\" is not an address with a port"),
            "write for example 127.0.0.1:8080 or [::1]:8080",
        )
    })?;
    if !beyond && !address.ip().to_canonical().is_loopback() {
        return Err(SettingsError::new(
            place,
            format!("{address} can be reached from other hosts, which nobody would ask for a certificate"),
            format!("listen on 127.0.0.1 or [::1], or add {BEYOND} if that is wanted"),
        ));
    }
    Ok(address)
}

/// Says at every start what others may do.
pub(crate) fn warn_beyond(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        log::warn!(
            "{address} can be reached from other hosts: whoever can connect to it uses this host's certificate, without \
             being asked for anything"
        );
    }
}

/// Listens for connections.
pub(crate) fn listen_streams(text: &str, place: &str, beyond: bool) -> Result<Listening, Failure> {
    let address = address(text, place, beyond)?;
    let listener = TcpListener::bind(address).map_err(|error| cannot(place, address, &error))?;
    let bound = listener
        .local_addr()
        .map_err(|error| cannot(place, address, &error))?;
    Ok(Listening {
        listener: LocalListener::Stream(listener),
        address: bound,
    })
}

/// Listens for datagrams.
pub(crate) fn listen_datagrams(text: &str, place: &str, beyond: bool) -> Result<Listening, Failure> {
    let address = address(text, place, beyond)?;
    let socket = bind_datagrams(address).map_err(|error| cannot(place, address, &error))?;
    let bound = socket
        .local_addr()
        .map_err(|error| cannot(place, address, &error))?;
    Ok(Listening {
        listener: LocalListener::Datagram(socket),
        address: bound,
    })
}

fn cannot(place: &str, address: SocketAddr, error: &std::io::Error) -> Failure {
    let fixes = [
        (
            ErrorKind::AddrInUse,
            "stop the other program or choose another port",
        ),
        (ErrorKind::AddrNotAvailable, "choose an address of this host"),
        (ErrorKind::PermissionDenied, "choose a port from 1024"),
    ];
    let fix = fixes.iter().find(|(kind, _)| *kind == error.kind());
    let fix = fix.map_or("choose another address", |(_, fix)| *fix);
    SettingsError::new(
        place,
        format!("cannot listen on {address}: {}", describe(error)),
        fix,
    )
    .into()
}
