//! Checks of a backend's health: a socket that is opened, says what the machine wants said, and waits for the first answer.
//!
//! It decides nothing: not when a check is due, not how long it may take, not what an answer means. An answer is read up
//! to a bound, so that a backend that talks without end costs nothing.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use proto_core::backend::{ProbeId, Refusal, Transport};
use proto_core::service::health::{ANSWER, Awaited};
use rustix::io::Errno;
use socket2::{Protocol, Socket, Type};

use super::refusal;
use crate::stream::is_unready;

/// Reads in one turn; what is left comes with the next.
const CALLS: usize = 4;

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) id: ProbeId,
    socket: Socket,
    transport: Transport,
    connected: bool,
    /// What is still to be sent.
    send: Vec<u8>,
    awaited: Awaited,
    answer: Vec<u8>,
}

/// How far a check came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for a hint.
    Waits,
    /// It has ended, with the answer in [`Probe::answer`] or without one.
    Ended(Result<(), Refusal>),
}

impl Probe {
    pub(super) fn open(
        id: ProbeId,
        transport: Transport,
        address: SocketAddr,
        send: &[u8],
        awaited: Awaited,
    ) -> io::Result<Self> {
        let (kind, protocol) = match transport {
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = super::socket(address, kind, protocol)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::INPROGRESS | Errno::INTR)
                ) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            id,
            socket,
            transport,
            connected: false,
            send: send.to_vec(),
            awaited,
            answer: Vec::new(),
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Does what is possible now.
    pub(super) fn work(&mut self) -> Progress {
        match self.step() {
            Ok(true) => Progress::Ended(Ok(())),
            Ok(false) => Progress::Waits,
            Err(error) if is_unready(&error) || error.kind() == io::ErrorKind::Interrupted => Progress::Waits,
            // What came before the end is an answer as well.
            Err(_) if !self.answer.is_empty() => Progress::Ended(Ok(())),
            Err(error) => Progress::Ended(Err(refusal(&error))),
        }
    }

    fn step(&mut self) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            match self.socket.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        while !self.send.is_empty() {
            let sent = self.socket.write(&self.send)?;
            self.send.drain(..sent);
            if self.transport == Transport::Udp {
                self.send.clear();
            }
        }
        if self.awaited == Awaited::Connection {
            return Ok(true);
        }
        for _ in 0..CALLS {
            let mut buffer = [0; ANSWER];
            let room = buffer.get_mut(self.answer.len()..).unwrap_or_default();
            let count = self.socket.read(room)?;
            self.answer.extend(room.iter().take(count));
            let ended = match self.awaited {
                Awaited::Connection | Awaited::Datagram => true,
                Awaited::Line => count == 0 || self.answer.contains(&b'\n') || self.answer.len() >= ANSWER,
            };
            if ended {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
