//! Where programs come in: accepted connections, the standard streams, datagrams, and the UDP socket beside a stream.

use std::io;
use std::net::SocketAddr;

use proto_core::backend::FlowId;
use proto_core::local::{DatagramSocket, FromLocal, ListenerIndex};
use proto_core::machine::Locals;
use rustix::io::Errno;
use socket2::Socket;

use super::datagrams::Datagrams;
use super::pipes::Pipes;
use super::{ACCEPTS, Door, DoorKind, LocalEnd, LocalSide, MAX_INDEX, PAUSE, bind_datagrams};
use crate::reactor::{Interest, Ready};
use crate::side::SideContext;
use crate::stream::Stream;

impl LocalSide {
    /// What a door has; whether it may have more.
    pub(super) fn answer<M: Locals>(
        &mut self,
        index: u32,
        machine: &mut M,
        context: &mut SideContext<'_>,
    ) -> bool {
        let listener = ListenerIndex(index as u16);
        let Some(Door { kind, .. }) = self.doors.get_mut(index as usize) else {
            return false;
        };
        match kind {
            DoorKind::Datagram(socket) => {
                let stats = &mut context.stats.locals;
                let to = DatagramSocket::Listener(listener);
                socket.receive(to, machine, &mut self.buffer, stats, context.now)
            }
            DoorKind::Standard(taken) => {
                if taken.is_none() {
                    self.take_standard(index, machine, context);
                }
                false
            }
            DoorKind::Stream(_) => self.take_connections(index, machine, context),
            DoorKind::Closed => false,
        }
    }

    fn take_connections<M: Locals>(
        &mut self,
        index: u32,
        machine: &mut M,
        context: &mut SideContext<'_>,
    ) -> bool {
        for _ in 0..ACCEPTS {
            let Some(Door {
                kind: DoorKind::Stream(listener),
                is_told,
                ..
            }) = self.doors.get_mut(index as usize)
            else {
                return false;
            };
            match listener.accept() {
                Ok((socket, peer)) => {
                    *is_told = false;
                    self.take_in(index, socket.into(), peer, machine, context);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // One that went before it was taken, and the errors of its network (accept(2)).
                Err(error) if is_passing(&error) => context.stats.locals.accept_errors += 1,
                Err(error) => {
                    context.stats.locals.accept_errors += 1;
                    let again = std::mem::replace(is_told, true);
                    let level = if again {
                        log::Level::Debug
                    } else {
                        log::Level::Warn
                    };
                    log::log!(level, "cannot take local connections, resting: {error}");
                    self.resting.push_back((context.now + PAUSE, index));
                    return false;
                }
            }
        }
        true
    }

    fn take_in<M: Locals>(
        &mut self,
        index: u32,
        socket: Socket,
        peer: SocketAddr,
        machine: &mut M,
        context: &mut SideContext<'_>,
    ) {
        let ready = socket.set_nonblocking(true).is_ok();
        // Small writes of programs are not held back; without it everything works, slower.
        let _ = socket.set_tcp_nodelay(true);
        let flow = if ready {
            machine.accept(ListenerIndex(index as u16), Some(peer), context.now)
        } else {
            None
        };
        let stream = Stream::new(socket);
        let Some(flow) = flow else {
            context.stats.locals.refused += 1;
            stream.abort();
            return;
        };
        let (token, _) = self.tokens(flow.index);
        let registered = context
            .reactor
            .register(token, stream.as_fd(), Interest::ReadWrite);
        if registered.is_err() || flow.index >= MAX_INDEX {
            context.stats.locals.refused += 1;
            stream.abort();
            machine.handle_local(FromLocal::Reset { flow }, context.now);
            return;
        }
        context.stats.locals.accepted += 1;
        self.put(flow, LocalEnd::Socket(stream));
    }

    fn take_standard<M: Locals>(&mut self, index: u32, machine: &mut M, context: &mut SideContext<'_>) {
        let Some(flow) = machine.accept(ListenerIndex(index as u16), None, context.now) else {
            return;
        };
        if let Some(Door {
            kind: DoorKind::Standard(taken),
            ..
        }) = self.doors.get_mut(index as usize)
        {
            *taken = Some(flow);
        }
        let (input, output) = self.standard_tokens();
        match Pipes::open(context.reactor, input, output) {
            Ok(pipes) => {
                let mut stream = Stream::new(pipes);
                // A file is ready without ever saying so.
                stream.hint(Ready {
                    token: input,
                    readable: true,
                    writable: true,
                });
                context.stats.locals.accepted += 1;
                self.put(flow, LocalEnd::Pipes(Box::new(stream)));
            }
            Err(error) => {
                log::error!("cannot use the standard streams: {error}");
                machine.handle_local(FromLocal::Reset { flow }, context.now);
            }
        }
    }

    /// Opens a UDP socket at the address where the program has found us.
    pub(super) fn relay(&mut self, flow: FlowId, context: &mut SideContext<'_>) -> Option<SocketAddr> {
        let (_, token) = self.tokens(flow.index);
        let slot = self.slot(flow)?;
        let LocalEnd::Socket(stream) = &slot.end else {
            return None;
        };
        let here = stream.channel().local_addr().ok()?.as_socket()?;
        let socket = bind_datagrams(SocketAddr::new(here.ip(), 0)).ok()?;
        let socket = Datagrams::new(socket).ok()?;
        let at = socket.local_addr()?;
        context
            .reactor
            .register(token, socket.as_fd(), Interest::Read)
            .ok()?;
        slot.relay = Some(socket);
        Some(at)
    }
}

/// Errors of accept(2) that are about one connection, not about the listener.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM
        )
    )
}
