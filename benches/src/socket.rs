//! A UDP socket that takes and gives whole batches (UDP_GRO in, UDP_SEGMENT out), or one datagram a call for comparison.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

/// Batches taken by one call.
const SLOTS: usize = 16;

/// The most one batch can be.
const SLOT: usize = 65_535;

/// Kernel buffers, both ways.
const KERNEL_BUFFER: usize = 8 << 20;

/// How long a full socket is waited for before the batch is given up.
const PATIENCE: Duration = Duration::from_millis(20);

/// How datagrams reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Super-packets both ways.
    Segments,
    /// One datagram, one system call.
    None,
}

/// A bound, non-blocking socket with its receive buffers.
#[derive(Debug)]
pub struct BatchSocket {
    socket: Socket,
    state: UdpSocketState,
    offload: Offload,
    local: SocketAddr,
    buffers: Vec<Box<[u8]>>,
}

impl BatchSocket {
    /// Binds one.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn bind(address: SocketAddr, offload: Offload) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        size_buffers(&socket);
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?.as_socket().unwrap_or(address);
        let state = state(&socket, offload, address)?;
        let slots = if offload == Offload::Segments { SLOTS } else { 1 };
        let buffers = (0..slots).map(|_| vec![0; SLOT].into_boxed_slice()).collect();
        Ok(Self {
            socket,
            state,
            offload,
            local,
            buffers,
        })
    }

    /// The same socket for sending, so that a batch can be answered while it is being received.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn reply_of(other: &Self) -> io::Result<Self> {
        let socket = other.socket.try_clone()?;
        let state = state(&socket, other.offload, other.local)?;
        Ok(Self {
            socket,
            state,
            offload: other.offload,
            local: other.local,
            buffers: Vec::new(),
        })
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receives what is there, up to one call's worth; each batch with its source and the size of its datagrams.
    ///
    /// Returns whether there was anything.
    ///
    /// # Errors
    /// As the operating system says, except that there is nothing now.
    pub fn receive(&mut self, mut take: impl FnMut(SocketAddr, usize, &mut [u8])) -> io::Result<bool> {
        if self.offload == Offload::None {
            let Some(buffer) = self.buffers.first_mut() else {
                return Ok(false);
            };
            let received =
                rustix::net::recvfrom(&self.socket, &mut buffer[..], rustix::net::RecvFlags::empty());
            return match received {
                Ok((_, len, Some(from))) => {
                    let from = SocketAddr::try_from(from).map_err(|_| io::ErrorKind::InvalidData)?;
                    take(from, len.max(1), &mut buffer[..len]);
                    Ok(true)
                }
                Ok((_, _, None)) => Ok(true),
                Err(error) => quiet(error.into()).map(|()| false),
            };
        }
        let mut meta = [RecvMeta::default(); SLOTS];
        let mut slots = self.buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; SLOTS] = std::array::from_fn(|_| {
            IoSliceMut::new(slots.next().map(|slot| &mut slot[..]).unwrap_or_default())
        });
        let count = match self
            .state
            .recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta)
        {
            Ok(count) => count,
            Err(error) => return quiet(error).map(|()| false),
        };
        for (buffer, meta) in self.buffers.iter_mut().zip(&meta).take(count) {
            take(meta.addr, meta.stride.max(1), &mut buffer[..meta.len]);
        }
        Ok(count > 0)
    }

    /// Sends one batch; waits a moment if the socket is full. Returns how many datagrams the kernel took.
    ///
    /// # Errors
    /// As the operating system says, except that there is no room or nobody listens.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<u64> {
        let mut sent = 0;
        let at_once = match self.offload {
            Offload::Segments => self.state.max_gso_segments().min(65_487 / segment.max(1)).max(1),
            Offload::None => 1,
        };
        for chunk in bytes.chunks(at_once * segment.max(1)) {
            let datagrams = chunk.len().div_ceil(segment.max(1));
            for attempt in 0..2 {
                let result = if self.offload == Offload::None {
                    self.socket.send_to(chunk, &to.into()).map(drop)
                } else {
                    let transmit = quinn_udp::Transmit {
                        destination: to,
                        ecn: None,
                        contents: chunk,
                        segment_size: (datagrams > 1).then_some(segment),
                        src_ip: None,
                    };
                    self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
                };
                match result {
                    Ok(()) => {
                        sent += datagrams as u64;
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempt == 0 => {
                        wait(&[self.as_fd()], PollFlags::OUT, PATIENCE)?;
                    }
                    Err(error) => {
                        quiet(error)?;
                        break;
                    }
                }
            }
        }
        Ok(sent)
    }
}

impl AsFd for BatchSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of the descriptors can be read, or `timeout` is over.
///
/// # Errors
/// As the operating system says.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<()> {
    wait(fds, PollFlags::IN, timeout)
}

fn wait(fds: &[BorrowedFd<'_>], flags: PollFlags, timeout: Duration) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, flags))
        .collect();
    let timeout = Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What quinn-udp knows about the socket. Asking turns UDP_GRO on, which a plain socket must not have: for that one a
/// stranger of the same family is asked, and the answer never used.
fn state(socket: &Socket, offload: Offload, address: SocketAddr) -> io::Result<UdpSocketState> {
    match offload {
        Offload::Segments => UdpSocketState::new(UdpSockRef::from(socket)),
        Offload::None => {
            let other = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            UdpSocketState::new(UdpSockRef::from(&other))
        }
    }
}

/// As large as the system grants: the forced option needs root.
fn size_buffers(socket: &Socket) {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, KERNEL_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, KERNEL_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    }
}

/// Errors that cost the datagram at hand and nothing else: nothing there, no room, nobody listens.
fn quiet(error: io::Error) -> io::Result<()> {
    let costs_a_datagram = matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    );
    if costs_a_datagram { Ok(()) } else { Err(error) }
}
