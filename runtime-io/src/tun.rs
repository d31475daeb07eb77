//! The tunnel interface of this host: made, addressed and brought up, then read and written in super-packets.
//!
//! It decides how the interface is set up and what the operator reads when that fails. Offload (`IFF_VNET_HDR`) is
//! asked for always: the kernel then hands over TCP and UDP super-packets, which are split here, and takes coalesced
//! ones back. Which networks lead into the tunnel is the caller's to say. Everything goes with the process.

mod netlink;
mod side;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::io::Errno;
use tun_rs::{DeviceBuilder, SyncDevice};

pub use side::TunSide;

use netlink::{Found, Netlink};

/// The smallest MTU of IPv6 (RFC 8200 §5): below it the kernel takes the addresses away.
const LEAST_MTU_V6: u16 = 1280;

/// An address with the length of its network, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The address; of a network, its first.
    pub address: IpAddr,
    /// How many leading bits name the network: at most 32 or 128.
    pub len: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// What the interface shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Its name, 1 to 15 bytes.
    pub name: String,
    /// The largest IP packet it takes.
    pub mtu: u16,
    /// Addresses of this host on it, with their networks.
    pub addresses: Vec<Prefix>,
    /// How many packets, or super-packets, the kernel keeps for us.
    pub queue: u32,
}

impl TunConfig {
    /// A queue of 1,000, no address.
    pub fn new(name: impl Into<String>, mtu: u16) -> Self {
        Self {
            name: name.into(),
            mtu,
            addresses: Vec::new(),
            queue: 1_000,
        }
    }
}

/// Why the interface could not be set up; the text is fit for the operator.
#[derive(Debug)]
pub enum TunError {
    /// The process may not: it needs `CAP_NET_ADMIN` or root.
    NotPermitted(String),
    /// The kernel has no TUN driver, or the container hides it.
    NoDriver(io::Error),
    /// Another process has an interface of that name, or it is of another kind.
    NameInUse(String),
    /// Not a name of 1 to 15 bytes.
    BadName(String),
    /// The host has something else there: what.
    Conflict(String),
    /// Anything else: what was tried, and the system's answer.
    Other(String, io::Error),
}

impl fmt::Display for TunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted(what) => {
                write!(f, "cannot {what}: no permission (needs CAP_NET_ADMIN or root)")
            }
            Self::NoDriver(error) => write!(
                f,
                "cannot open /dev/net/tun: {error} (load the module with `modprobe tun`, or give the container the device)"
            ),
            Self::NameInUse(name) => {
                write!(
                    f,
                    "cannot create interface {name}: the name is in use; stop the other process or choose another name"
                )
            }
            Self::BadName(name) => {
                write!(
                    f,
                    "cannot create interface {name:?}: a name has 1 to 15 bytes, without '/' or blanks"
                )
            }
            Self::Conflict(what) => f.write_str(what),
            Self::Other(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for TunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoDriver(error) | Self::Other(_, error) => Some(error),
            Self::NotPermitted(_) | Self::NameInUse(_) | Self::BadName(_) | Self::Conflict(_) => None,
        }
    }
}

/// A TUN interface that is up.
pub struct Tun {
    device: SyncDevice,
    netlink: Netlink,
    name: String,
    index: u32,
    mtu: u16,
    least_mtu: Arc<AtomicU16>,
}

impl fmt::Debug for Tun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tun")
            .field("name", &self.name)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

impl Tun {
    /// Creates the interface, or takes over a persistent one of that name that nobody uses, and brings it up.
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn create(config: &TunConfig) -> Result<Self, TunError> {
        let name = config.name.clone();
        let is_odd = |byte: u8| byte == b'/' || byte == 0 || byte.is_ascii_whitespace();
        if name.is_empty() || name.len() > 15 || name.bytes().any(is_odd) {
            return Err(TunError::BadName(name));
        }
        let built = DeviceBuilder::new()
            .name(name.as_str())
            .mtu(config.mtu)
            .tx_queue_len(config.queue)
            .offload(true)
            .enable(true)
            .build_sync();
        let device = built.map_err(|error| creation_error(&name, error))?;
        let other = |what: &str, error| TunError::Other(format!("{what} interface {name}"), error);
        device
            .set_nonblocking(true)
            .map_err(|error| other("prepare", error))?;
        let index = device.if_index().map_err(|error| other("find", error))?;
        let netlink = Netlink::open().map_err(|error| other("configure", error))?;
        log::debug!(
            "interface {name}: TCP offload {}, UDP offload {}",
            device.tcp_gso(),
            device.udp_gso()
        );
        let mut tun = Self {
            device,
            netlink,
            index,
            mtu: config.mtu,
            least_mtu: Arc::default(),
            name,
        };
        for address in &config.addresses {
            tun.add_address(*address)?;
        }
        Ok(tun)
    }

    /// Gives this host an address on the interface; one that it has already is no error.
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn add_address(&mut self, address: Prefix) -> Result<(), TunError> {
        let result = self.netlink.add_address(self.index, address);
        result.map_err(|error| setting_error(format!("add address {address} to {}", self.name), error))
    }

    /// Takes an address of this host from the interface; one that it does not have is no error.
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn remove_address(&mut self, address: Prefix) -> Result<(), TunError> {
        let result = self.netlink.remove_address(self.index, address);
        result.map_err(|error| setting_error(format!("remove address {address} from {}", self.name), error))
    }

    /// As [`Routes::add`].
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn add_route(&mut self, network: Prefix) -> Result<(), TunError> {
        add_route(&mut self.netlink, self.index, &self.name, network)
    }

    /// A way to change routes and addresses from another thread, as long as the interface is there.
    ///
    /// # Errors
    /// If the system has no socket left.
    pub fn routes(&self) -> Result<Routes, TunError> {
        let netlink = Netlink::open();
        let name = self.name.clone();
        Ok(Routes {
            netlink: netlink
                .map_err(|error| TunError::Other(format!("configure interface {name}"), error))?,
            index: self.index,
            least_mtu: Arc::clone(&self.least_mtu),
            name,
        })
    }

    /// Makes `mtu` the largest packet that the interface takes.
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), TunError> {
        let result = self.device.set_mtu(mtu);
        result.map_err(|error| setting_error(format!("set the MTU of {} to {mtu}", self.name), error))?;
        self.mtu = mtu;
        Ok(())
    }

    /// The name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The largest IP packet it takes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }
}

/// The routes into a tunnel, and this host's addresses on its interface.
#[derive(Debug)]
pub struct Routes {
    netlink: Netlink,
    index: u32,
    /// What the interface's MTU must not fall below from now on.
    least_mtu: Arc<AtomicU16>,
    name: String,
}

impl Routes {
    /// Gives this host another address on the interface; one that it has already is no error. With the first of IPv6
    /// the interface no longer follows the path below the least MTU of that.
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn add_address(&mut self, address: Prefix) -> Result<(), TunError> {
        let before = self.least_mtu.load(Ordering::Relaxed);
        if address.address.is_ipv6() {
            self.least_mtu.store(LEAST_MTU_V6, Ordering::Relaxed);
        }
        let result = self.netlink.add_address(self.index, address);
        result.map_err(|error| {
            self.least_mtu.store(before, Ordering::Relaxed);
            setting_error(format!("add address {address} to {}", self.name), error)
        })
    }

    /// As [`Tun::remove_address`].
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn remove_address(&mut self, address: Prefix) -> Result<(), TunError> {
        let result = self.netlink.remove_address(self.index, address);
        result.map_err(|error| setting_error(format!("remove address {address} from {}", self.name), error))
    }

    /// Leads packets for `network` into the tunnel.
    ///
    /// # Errors
    /// If the host has that very network, or address, elsewhere; or with another text fit for the operator.
    pub fn add(&mut self, network: Prefix) -> Result<(), TunError> {
        add_route(&mut self.netlink, self.index, &self.name, network)
    }

    /// Leads packets for `network` into the tunnel no longer; a route that is not there is no error.
    ///
    /// # Errors
    /// With a text fit for the operator.
    pub fn remove(&mut self, network: Prefix) -> Result<(), TunError> {
        let result = self.netlink.remove_route(self.index, network);
        result.map_err(|error| setting_error(format!("remove route {network} via {}", self.name), error))
    }
}

fn add_route(netlink: &mut Netlink, index: u32, name: &str, network: Prefix) -> Result<(), TunError> {
    let what = || format!("add route {network} via {name}");
    match netlink.find_route(network) {
        Ok(Some(Found::Local)) => {
            let text = format!("{} is an address of this host already", network.address);
            return Err(TunError::Conflict(text));
        }
        Ok(Some(Found::Interface(other, len))) if len == network.len && other != index => {
            let other = netlink
                .name_of(other)
                .unwrap_or_else(|| format!("interface {other}"));
            return Err(TunError::Conflict(format!(
                "a route to {network} exists already, through {other}"
            )));
        }
        // A wider network is what a route of our own is there to override.
        Ok(_) => {}
        Err(error) => return Err(setting_error(what(), error)),
    }
    let result = netlink.add_route(index, network);
    result.map_err(|error| setting_error(what(), error))
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn creation_error(name: &str, error: io::Error) -> TunError {
    match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => TunError::NotPermitted(format!("create interface {name}")),
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => TunError::NoDriver(error),
        // Busy: another process has it. Invalid: an interface of that name is not a TUN interface.
        Some(Errno::BUSY | Errno::INVAL | Errno::EXIST) => TunError::NameInUse(name.to_owned()),
        Some(_) | None => TunError::Other(format!("create interface {name}"), error),
    }
}

fn setting_error(what: String, error: io::Error) -> TunError {
    match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => TunError::NotPermitted(what),
        Some(_) | None => TunError::Other(what, error),
    }
}
