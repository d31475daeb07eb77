//! Making the socket: options, buffers, and errors an operator can act on.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use quinn_udp::{UdpSockRef, UdpSocketState};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::canonical;
use super::send::Wire;

/// How the local address of a received batch is reported, and with it where replies leave from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalAddress {
    /// The address the peer wrote to. For servers: a reply leaves from the address the peer expects, on any host with
    /// several addresses.
    #[default]
    Destination,
    /// The address the socket is bound to, even if it is the wildcard. For clients: the kernel chooses the source by
    /// its routes, also after roaming, and a path keeps its name meanwhile.
    Bound,
}

/// Where and how to bind.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    /// The address; an unspecified IPv6 address takes IPv4 as well. Port 0 lets the system choose.
    pub bind: SocketAddr,
    /// The wish for `SO_RCVBUF` in bytes; the system may grant less.
    pub receive_buffer: usize,
    /// The wish for `SO_SNDBUF` in bytes; the system may grant less.
    pub send_buffer: usize,
    /// Whether several sockets may share the address, each taking a share of the peers.
    pub reuse_port: bool,
    /// How local addresses are reported.
    pub local: LocalAddress,
}

impl UdpConfig {
    /// The usual: buffers of 8 MiB, the address for this socket alone, destinations reported.
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            receive_buffer: 8 << 20,
            send_buffer: 8 << 20,
            reuse_port: false,
            local: LocalAddress::default(),
        }
    }
}

/// Why no socket could be bound; the text is fit for the operator.
#[derive(Debug)]
pub enum BindError {
    /// Another process, or another socket of this one, has the address: choose another port or stop the other.
    AddressInUse(SocketAddr),
    /// The port needs a privilege (below 1024: `CAP_NET_BIND_SERVICE` or root).
    NotPermitted(SocketAddr),
    /// No interface of this host has the address.
    NotLocal(SocketAddr),
    /// Anything else.
    Other(SocketAddr, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressInUse(address) => write!(f, "cannot bind UDP {address}: address in use"),
            Self::NotPermitted(address) => {
                write!(
                    f,
                    "cannot bind UDP {address}: permission denied (ports below 1024 need CAP_NET_BIND_SERVICE or root)"
                )
            }
            Self::NotLocal(address) => {
                write!(
                    f,
                    "cannot bind UDP {address}: no interface of this host has that address"
                )
            }
            Self::Other(address, error) => write!(f, "cannot bind UDP {address}: {error}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Other(_, error) => Some(error),
            Self::AddressInUse(_) | Self::NotPermitted(_) | Self::NotLocal(_) => None,
        }
    }
}

impl BindError {
    fn new(address: SocketAddr, error: io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(&error) {
            Some(Errno::ADDRINUSE) => Self::AddressInUse(address),
            Some(Errno::ACCESS | Errno::PERM) => Self::NotPermitted(address),
            Some(Errno::ADDRNOTAVAIL) => Self::NotLocal(address),
            Some(_) | None => Self::Other(address, error),
        }
    }
}

pub(super) fn bind(config: &UdpConfig) -> Result<Wire, BindError> {
    let address = config.bind;
    open(config).map_err(|error| BindError::new(address, error))
}

fn open(config: &UdpConfig) -> io::Result<Wire> {
    let socket = Socket::new(Domain::for_address(config.bind), Type::DGRAM, Some(Protocol::UDP))?;
    if config.bind.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if config.reuse_port {
        socket.set_reuse_port(true)?;
    }
    size_buffers(&socket, config);
    socket.bind(&config.bind.into())?;
    let local = socket.local_addr()?.as_socket().map_or(config.bind, canonical);
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    log::debug!(
        "bound UDP {local}: {} bytes to receive, {} to send, {} segments a call",
        socket.recv_buffer_size().unwrap_or(0),
        socket.send_buffer_size().unwrap_or(0),
        state.max_gso_segments(),
    );
    Ok(Wire {
        is_v6: config.bind.is_ipv6(),
        is_wildcard: config.bind.ip().is_unspecified(),
        report: config.local,
        socket,
        state,
        local,
        unsegmented_since: None,
        #[cfg(test)]
        script: std::collections::VecDeque::new(),
    })
}

/// As large as wished: the forced option needs root, the plain one is cut by `net.core.{r,w}mem_max`.
fn size_buffers(socket: &Socket, config: &UdpConfig) {
    if sockopt::set_socket_recv_buffer_size_force(socket, config.receive_buffer).is_err() {
        let _ = socket.set_recv_buffer_size(config.receive_buffer);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, config.send_buffer).is_err() {
        let _ = socket.set_send_buffer_size(config.send_buffer);
    }
}
