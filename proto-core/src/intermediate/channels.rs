//! Relay channels: who is given one, what its two ends are told, and which way its frames take.
//!
//! A channel is granted if agent and connector are both registered and authorised for the service at that moment, and both speak v2.
//! Frames travel as UDP payloads beside QUIC's: a received batch is sorted by first byte, frames go on out of the very buffer
//! they came in, the rest goes to the pool. The table decides about each frame; nothing here looks behind its number.

use std::time::Instant;

use super::Intermediate;
use super::registering::retry_ms;
use crate::channel::{Closed, Onward};
use crate::id::{ConnId, ServiceId};
use crate::machine::{Forward, Received};
use crate::quic::identity::Capacity;
use crate::quic::{Datagram, DatagramError, Provider};
use crate::registration::Unroutable;
use crate::wire::channel::CHANNEL;
use crate::wire::control::{ControlMessage, PeerIdentity, Refusal};

/// A connector that has so many bytes of messages to read gets no further channels until it has read them: agents cannot drown
/// it. What is left of its queue holds the end of every channel it may have.
const BUSY: usize = 128 * 1024;

/// A name in a certificate beyond this is cut, as in introductions.
const MAX_NAME: usize = 255;

impl<Q: Provider> Intermediate<Q> {
    /// An agent asks for a channel to the connector of a service.
    pub(super) fn on_open_channel(&mut self, agent: ConnId, request: u32, service: &str, now: Instant) {
        let Err(reason) = self.open_channel(agent, request, service, now) else {
            return;
        };
        *self.stats.control.refused.of(reason) += 1;
        self.say(
            agent,
            &ControlMessage::ChannelRefused {
                request,
                reason,
                retry_ms: retry_ms(reason),
            },
        );
    }

    fn open_channel(
        &mut self,
        agent: ConnId,
        request: u32,
        service: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        let name = ServiceId::parse(service.as_bytes()).map_err(|_| Refusal::InvalidId)?;
        let connector = self
            .registry
            .route(agent, name.as_bytes())
            .map_err(|why| match why {
                // It may be registered again in a moment: its lease has just run out.
                Unroutable::NotRegistered | Unroutable::Ambiguous => Refusal::Unknown,
                Unroutable::NoConnector => Refusal::NoConnector,
            })?;
        if !self.permits(agent, Capacity::Agent, &name) {
            self.stats.control.revoked += 1;
            self.take_back(agent, &name, Refusal::NotAuthorised);
            return Err(Refusal::NotAuthorised);
        }
        let other = self.session(connector).ok_or(Refusal::NoConnector)?;
        let other = other.control.as_ref().ok_or(Refusal::PeerIsV1)?;
        if !other.takes_channels {
            return Err(Refusal::PeerIsV1);
        }
        if other.stream.waiting() > BUSY {
            return Err(Refusal::AtCapacity);
        }
        if !self.permits(connector, Capacity::Connector, &name) {
            self.stats.control.revoked += 1;
            self.take_back(connector, &name, Refusal::NotAuthorised);
            return Err(Refusal::NoConnector);
        }
        let path = |id| self.pool.path(id).ok_or(Refusal::NoConnector);
        let ends = [(agent, path(agent)?), (connector, path(connector)?)];
        let opened = self
            .channels
            .open(ends[0], ends[1], &name, now)
            .map_err(|_| Refusal::AtCapacity)?;
        // An agent that asks again for what it has is answered; its connector knows.
        if !opened.known {
            self.tell_opened(connector, None, opened.connector, service, agent);
        }
        self.tell_opened(agent, Some(request), opened.agent, service, connector);
        Ok(())
    }

    fn tell_opened(&mut self, id: ConnId, request: Option<u32>, channel: u32, service: &str, peer: ConnId) {
        let identity = self.session(peer).and_then(|session| session.identity.as_ref());
        // Without certificates, which is for development only, there is nothing to say.
        let peer = PeerIdentity {
            fingerprint: identity.map_or([0; 32], |identity| identity.fingerprint().0),
            name: identity.map_or_else(String::new, |identity| cut(identity.name()).to_owned()),
        };
        let service = service.to_owned();
        self.say(
            id,
            &ControlMessage::ChannelOpened {
                request,
                channel,
                service,
                peer,
            },
        );
    }

    pub(super) fn on_channel_closed(&mut self, id: ConnId, channel: u32) {
        match self.channels.close(id, channel) {
            Some(other) => self.tell_closed([other]),
            None => self.stats.control.unexpected += 1,
        }
    }

    /// Tells the ends of channels that they are over.
    pub(super) fn tell_closed(&mut self, closed: impl IntoIterator<Item = Closed>) {
        for end in closed {
            let Closed {
                client,
                number,
                reason,
            } = end;
            self.say(
                client,
                &ControlMessage::ChannelClosed {
                    channel: number,
                    reason,
                },
            );
        }
    }

    /// Hands the parts of a received batch to whom they concern. A batch is of one source and may hold both: packets of a
    /// client's connection, and frames of its channels.
    pub(super) fn sort(&mut self, received: Received<'_>, now: Instant) -> Forward {
        let mut forward = Forward::NONE;
        let size = received.segment_size();
        let Received {
            path,
            ecn,
            stride,
            payload,
        } = received;
        let is_frame = |payload: &[u8], at: usize| payload.get(at) == Some(&CHANNEL);
        let mut start = 0;
        while start < payload.len() {
            let frames = is_frame(payload, start);
            let mut end = start + size;
            while end < payload.len() && is_frame(payload, end) == frames {
                end += size;
            }
            end = end.min(payload.len());
            let part = Received {
                path,
                ecn,
                stride,
                payload: payload.get_mut(start..end).unwrap_or_default(),
            };
            if frames {
                self.forward(part, start, &mut forward, now);
            } else {
                self.pool.handle_datagram(part, now);
            }
            start = end;
        }
        forward
    }

    fn forward(&mut self, mut part: Received<'_>, offset: usize, forward: &mut Forward, now: Instant) {
        let Self {
            channels,
            pool,
            stats,
            ..
        } = self;
        channels.forward(&mut part, offset, forward, now, |client, frame| {
            let sent = pool.send_datagram(client, frame.to_vec().into());
            stats.dropped.count_unsent(sent);
        });
    }

    /// A frame that came inside the control connection of a client.
    pub(super) fn on_frame(&mut self, id: ConnId, mut frame: Datagram, now: Instant) {
        match self.channels.forward_inside(&mut frame, id, now) {
            Some(Onward::Bare(path)) => {
                let taken = self.outbox.push(path, frame);
                self.stats.dropped.frame_queue_full += u64::from(!taken);
            }
            Some(Onward::Inside(client)) => {
                let sent = self.pool.send_datagram(client, frame);
                self.stats.dropped.count_unsent(sent);
            }
            None => {}
        }
    }
}

impl super::Dropped {
    /// Counts what a connection did not take.
    pub(super) fn count_unsent(&mut self, sent: Result<(), DatagramError>) {
        match sent {
            Ok(()) => {}
            Err(DatagramError::Full) => self.queue_full += 1,
            Err(DatagramError::TooLarge) => self.too_large += 1,
            Err(DatagramError::NotReady) => self.receiver_gone += 1,
        }
    }
}

/// A name of at most [`MAX_NAME`] bytes, cut between two characters.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}
