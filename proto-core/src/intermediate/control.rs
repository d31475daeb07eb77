//! The control stream of a client of v2: what it says, in which order, how fast, and what it is told.
//!
//! Nothing that a client writes ends anything but its own connection, and that only if it writes faster than anybody needs to, or
//! does not read its answers. What cannot be read, or comes at a wrong time, is counted and has no effect.

use std::time::Instant;

use super::Intermediate;
use crate::config::timing::LEAVING;
use crate::id::ConnId;
use crate::link::CODE_GOODBYE;
use crate::quic::Provider;
use crate::wire::control::{ControlMessage, SignalingMessage, TAKES_CHANNELS};
use crate::wire::datagram::Role;

/// The application error code for a client that abuses its control stream.
const CODE_MISUSE: u64 = 2;

impl<Q: Provider> Intermediate<Q> {
    /// Reads what a client has written, and writes on what it could not take before.
    pub(super) fn read_control(&mut self, id: ConnId, now: Instant) {
        let limits = self.allowance;
        let Some(session) = self.sessions.get_mut(id.index as usize).and_then(Option::as_mut) else {
            return;
        };
        let Some(control) = session.control.as_deref_mut().filter(|_| session.id == id) else {
            return;
        };
        control.stream.flush(&mut self.pool, id);
        let (mut messages, mut signals) = (Vec::new(), Vec::new());
        let mut flooded = false;
        let allowance = &mut control.allowance;
        let counters = &mut self.stats.control;
        let skipped = control.stream.skipped();
        control.stream.read(&mut self.pool, id, &mut |payload| {
            if flooded || !limits.take(allowance, now) {
                flooded = true;
                return;
            }
            match ControlMessage::parse(payload) {
                Ok(message) => messages.push(message),
                // The signalling of v1 peers shares the space of indices.
                Err(_) => match SignalingMessage::parse(payload) {
                    Ok(signal) => signals.push(signal),
                    Err(_) => counters.undecodable += 1,
                },
            }
        });
        counters.undecodable += control.stream.skipped() - skipped;
        for message in messages {
            self.on_message(id, message, now);
        }
        for signal in signals {
            self.on_signal(id, signal, now);
        }
        if flooded {
            self.stats.control.flooded += 1;
            self.pool.close(id, CODE_MISUSE, b"too many messages", now);
        }
    }

    fn on_message(&mut self, id: ConnId, message: ControlMessage, now: Instant) {
        let role = self
            .session(id)
            .and_then(|session| session.control.as_ref()?.role);
        let counters = &mut self.stats.control;
        match (role, message) {
            (
                None,
                ControlMessage::Hello {
                    role, capabilities, ..
                },
            ) => {
                counters.hello += 1;
                self.on_hello(id, role, capabilities);
            }
            (Some(role), ControlMessage::Register { service }) => {
                counters.register += 1;
                self.on_register(id, role, service, now);
            }
            (Some(role), ControlMessage::Unregister { service }) => {
                counters.unregister += 1;
                self.on_unregister(id, role, &service);
            }
            (Some(Role::Agent), ControlMessage::OpenChannel { request, service }) => {
                counters.open_channel += 1;
                self.on_open_channel(id, request, &service, now);
            }
            (Some(_), ControlMessage::ChannelClosed { channel, .. }) => {
                counters.channel_closed += 1;
                self.on_channel_closed(id, channel);
            }
            (Some(_), ControlMessage::Carriage { channel, datagram }) => {
                counters.carriage += 1;
                let own = self.channels.set_inside(id, channel, datagram);
                self.stats.control.unexpected += u64::from(!own);
            }
            (Some(_), ControlMessage::Ping { nonce }) => {
                counters.ping += 1;
                self.say(id, &ControlMessage::Pong { nonce });
            }
            (Some(_), ControlMessage::Pong { .. }) => counters.pong += 1,
            // Before the hello, a second one, or what only an intermediate says.
            (
                None,
                ControlMessage::Register { .. }
                | ControlMessage::Unregister { .. }
                | ControlMessage::OpenChannel { .. }
                | ControlMessage::ChannelClosed { .. }
                | ControlMessage::Carriage { .. }
                | ControlMessage::Ping { .. }
                | ControlMessage::Pong { .. },
            )
            | (Some(Role::Connector), ControlMessage::OpenChannel { .. })
            | (Some(_), ControlMessage::Hello { .. })
            | (
                _,
                ControlMessage::Welcome { .. }
                | ControlMessage::Registered { .. }
                | ControlMessage::Refused { .. }
                | ControlMessage::ChannelOpened { .. }
                | ControlMessage::ChannelRefused { .. }
                | ControlMessage::ObservedAddress { .. }
                | ControlMessage::Neighbours { .. }
                | ControlMessage::GoingAway { .. }
                | ControlMessage::OfferFrom { .. },
            ) => counters.unexpected += 1,
        }
    }

    fn on_hello(&mut self, id: ConnId, role: Role, capabilities: u64) {
        let Some(session) = self.session_mut(id) else {
            return;
        };
        let Some(control) = session.control.as_mut() else {
            return;
        };
        control.role = Some(role);
        control.takes_channels = capabilities & TAKES_CHANNELS != 0;
        session.asks_who = role == Role::Connector;
        self.say(id, &ControlMessage::Welcome { capabilities: 0 });
        if let Some(path) = self.pool.path(id) {
            self.observe(id, path.remote);
        }
    }

    /// Tells a client something; `false` if it cannot be told any more. A client that lets so much wait unread is given up:
    /// what it believes would no longer be what is.
    pub(super) fn say(&mut self, id: ConnId, message: &ControlMessage) -> bool {
        let Some(session) = self.sessions.get_mut(id.index as usize).and_then(Option::as_mut) else {
            return false;
        };
        let Some(control) = session.control.as_deref_mut().filter(|_| session.id == id) else {
            return false;
        };
        if control.deaf {
            return false;
        }
        if control.stream.send(message.write()) {
            control.stream.flush(&mut self.pool, id);
            return true;
        }
        control.deaf = true;
        self.stats.control.deaf += 1;
        let now = self.pool.now();
        self.pool.close(id, CODE_MISUSE, b"answers are not read", now);
        false
    }

    /// Tells clients of v2 that the end is near, and clients of v1 that it is here; `false` if nobody needs the time.
    pub(super) fn announce_end(&mut self, now: Instant) -> bool {
        let sessions = self.sessions.iter().flatten();
        let (told, left): (Vec<_>, Vec<_>) = sessions
            .map(|session| (session.id, session.control.is_some()))
            .partition(|(_, speaks_v2)| *speaks_v2);
        if told.is_empty() {
            return false;
        }
        for (id, _) in left {
            self.pool.close(id, CODE_GOODBYE, b"shutting down", now);
        }
        let within_ms = u32::try_from(LEAVING.as_millis()).unwrap_or(u32::MAX);
        for (id, _) in told {
            self.say(id, &ControlMessage::GoingAway { within_ms });
        }
        self.leaving = Some(now + LEAVING);
        true
    }
}
