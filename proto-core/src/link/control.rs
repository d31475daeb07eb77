//! What a link says and hears on the control stream of `ztna-v2`.
//!
//! Registrations go the way of v1 through the registrar, only reliably and for a time. What channels mean is the role's business: it
//! asks through the link, and takes the answers as news.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Incoming, Link, introduced};
use crate::id::{ConnId, ServiceId};
use crate::machine::FourTuple;
use crate::messages::MessageStream;
use crate::quic::identity::Fingerprint;
use crate::quic::{ALPN_V2, CloseReason, Datagram, Pool, Provider};
use crate::wire::channel::CHANNEL;
use crate::wire::control::{
    ChannelEnd, ControlMessage, PeerIdentity, Refusal, SignalingMessage, TAKES_CHANNELS,
};
use crate::wire::datagram::{NackStatus, Role, parse_for_service};

/// The application error code for an intermediate that leaves control messages unread.
const CODE_UNREAD: u64 = 2;

/// News that wait for the role, at most. It takes them after every input; more in one batch is no honest intermediate.
const NEWS: usize = 1024;

/// What a role hears of its link, beside the events for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkNews {
    /// A connection that speaks v2 is established.
    Up,
    /// It is gone, and every channel with it.
    Down,
    /// The intermediate sees this host at this address.
    Observed(SocketAddr),
    /// A channel is open, or open for one more service.
    ChannelOpened {
        /// Our number of the request; `None` if the other end asked.
        request: Option<u32>,
        /// The number of our end.
        channel: u32,
        /// The service.
        service: String,
        /// Whom the intermediate believes at the other end.
        peer: PeerIdentity,
    },
    /// There is no channel for a request.
    ChannelRefused {
        /// Our number of the request.
        request: u32,
        /// Why.
        reason: Refusal,
        /// When it is worth asking again; `None` is never on this connection.
        retry: Option<Duration>,
    },
    /// A channel is over.
    ChannelClosed {
        /// The number of our end.
        channel: u32,
        /// Why.
        reason: ChannelEnd,
    },
    /// A v1 agent, or the intermediate about one, says something to this connector.
    Signal(SignalingMessage),
    /// Whose offer the next is.
    OfferFrom {
        /// The session of the offer.
        session: u64,
        /// The certificate of the agent.
        agent: Fingerprint,
    },
}

/// The control stream of a connection.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) stream: MessageStream,
    next_request: u32,
}

impl Link {
    /// Says to intermediates that this side takes channels.
    pub(crate) fn with_channels(mut self, takes: bool) -> Self {
        self.takes_channels = takes;
        self
    }

    /// Whether the connection speaks v2.
    pub(crate) fn is_v2(&self) -> bool {
        self.control.is_some()
    }

    /// The next thing for the role.
    pub(crate) fn poll_news(&mut self) -> Option<LinkNews> {
        self.news.pop_front()
    }

    /// The path of the connection, which is the path of its channels.
    pub(crate) fn path(&self) -> Option<FourTuple> {
        match self.state {
            super::State::Up { remote, .. } => Some(FourTuple {
                local: self.local,
                remote,
            }),
            super::State::Down { .. }
            | super::State::Connecting { .. }
            | super::State::Withdrawn
            | super::State::Closed => None,
        }
    }

    /// Asks for a channel to a connector that holds a service; the number of the request, if there is a control stream.
    pub(crate) fn open_channel<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        service: &ServiceId,
        now: Instant,
    ) -> Option<u32> {
        let control = self.control.as_mut()?;
        let request = control.next_request;
        control.next_request = request.wrapping_add(1);
        let service = service.as_str().to_owned();
        self.say(pool, &ControlMessage::OpenChannel { request, service }, now);
        Some(request)
    }

    /// Says that a channel is not wanted any more.
    pub(crate) fn close_channel<Q: Provider>(&mut self, pool: &mut Pool<Q>, channel: u32, now: Instant) {
        let reason = ChannelEnd::Closed;
        self.say(pool, &ControlMessage::ChannelClosed { channel, reason }, now);
    }

    /// Asks for the frames of a channel as DATAGRAMs of the connection, or bare again.
    pub(crate) fn set_carriage<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        channel: u32,
        datagram: bool,
        now: Instant,
    ) {
        self.say(pool, &ControlMessage::Carriage { channel, datagram }, now);
    }

    /// Reads the control stream, and goes on writing to it.
    pub(crate) fn on_readable<Q: Provider>(&mut self, pool: &mut Pool<Q>, id: ConnId, now: Instant) {
        let Some(mut control) = self.control.take() else {
            return self.read_signals(pool, id);
        };
        let (mut messages, mut signals) = (Vec::new(), Vec::new());
        let takes_signals = self.role == Role::Connector;
        let malformed = &mut self.stats.malformed;
        control
            .stream
            .read(pool, id, &mut |payload| match ControlMessage::parse(payload) {
                Ok(message) => messages.push(message),
                Err(_) => match SignalingMessage::parse(payload) {
                    Ok(signal) if takes_signals => signals.push((messages.len(), signal)),
                    Ok(_) | Err(_) => *malformed += 1,
                },
            });
        control.stream.flush(pool, id);
        self.control = Some(control);
        // In the order in which they came: whose an offer is, is said before it.
        let mut signals = signals.into_iter().peekable();
        for (index, message) in messages.into_iter().enumerate() {
            while let Some((_, signal)) = signals.next_if(|(before, _)| *before <= index) {
                self.report(LinkNews::Signal(signal));
            }
            self.on_message(pool, message, now);
        }
        for (_, signal) in signals {
            self.report(LinkNews::Signal(signal));
        }
        self.drive_registrar(pool, now);
    }

    pub(super) fn begin_control<Q: Provider>(&mut self, pool: &mut Pool<Q>, id: ConnId) {
        if pool.alpn(id) != ALPN_V2 {
            return self.begin_signals();
        }
        let mut stream = MessageStream::new(0);
        let hello = ControlMessage::Hello {
            role: self.role,
            instance: self.instance,
            capabilities: if self.takes_channels { TAKES_CHANNELS } else { 0 },
        };
        stream.send(hello.write());
        stream.flush(pool, id);
        self.control = Some(Control {
            stream,
            next_request: 1,
        });
        self.report(LinkNews::Up);
    }

    /// Says something on the control stream, if there is one. An intermediate that reads nothing is left.
    pub(super) fn say<Q: Provider>(&mut self, pool: &mut Pool<Q>, message: &ControlMessage, now: Instant) {
        let (Some(id), Some(control)) = (self.connection(), &mut self.control) else {
            return;
        };
        if control.stream.send(message.write()) {
            control.stream.flush(pool, id);
        } else {
            pool.close(id, CODE_UNREAD, b"control messages unread", now);
            self.disconnected(CloseReason::TimedOut, now);
        }
    }

    /// Takes back the registrations of all services but these.
    pub(super) fn unregister_others<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        kept: &[ServiceId],
        now: Instant,
    ) {
        if self.control.is_none() {
            return;
        }
        let gone = self.services.iter().filter(|service| !kept.contains(service));
        let gone: Vec<String> = gone.map(|service| service.as_str().to_owned()).collect();
        for service in gone {
            self.say(pool, &ControlMessage::Unregister { service }, now);
        }
    }

    /// A DATAGRAM of a v2 connection: a packet, with its service before it where this side is a connector, or a frame of a channel.
    pub(super) fn on_v2_datagram<Q: Provider>(
        &mut self,
        pool: &mut Pool<Q>,
        mut datagram: Datagram,
        now: Instant,
    ) -> Option<Incoming> {
        let first = datagram.first().copied()?;
        if first == CHANNEL {
            if let Some(id) = self.connection() {
                pool.handle_carried(&mut datagram, id, now);
            }
            return None;
        }
        if self.role == Role::Agent {
            if !matches!(first >> 4, 4 | 6) {
                self.stats.malformed += 1;
                return None;
            }
            self.heard(now);
            return Some(Incoming::bare(datagram));
        }
        let Ok(arrival) = parse_for_service(&datagram) else {
            self.stats.malformed += 1;
            return None;
        };
        let Some(service) = self.registrar.find(arrival.service) else {
            self.stats.malformed += 1;
            return None;
        };
        let agent = arrival
            .agent
            .map(|(fingerprint, name)| introduced(fingerprint, name));
        let packet_at = arrival.packet_at;
        datagram.advance(packet_at);
        self.heard(now);
        Some(Incoming {
            packet: datagram,
            service: Some(service),
            agent,
        })
    }

    pub(super) fn report(&mut self, news: LinkNews) {
        if self.news.len() >= NEWS {
            self.stats.events_dropped += 1;
            return;
        }
        self.news.push_back(news);
    }

    fn on_message<Q: Provider>(&mut self, pool: &mut Pool<Q>, message: ControlMessage, now: Instant) {
        match message {
            ControlMessage::Registered { service, lease_ms } => {
                let lease = (lease_ms > 0).then(|| Duration::from_millis(u64::from(lease_ms)));
                self.registrar.handle_leased(service.as_bytes(), lease, now);
            }
            ControlMessage::Refused { service, reason, .. } => {
                let status = status_of(reason);
                self.registrar.handle_refused(service.as_bytes(), status, now);
            }
            ControlMessage::ObservedAddress { address } => self.on_observed(address),
            ControlMessage::Ping { nonce } => self.say(pool, &ControlMessage::Pong { nonce }, now),
            ControlMessage::ChannelOpened {
                request,
                channel,
                service,
                peer,
            } => self.report(LinkNews::ChannelOpened {
                request,
                channel,
                service,
                peer,
            }),
            ControlMessage::ChannelRefused {
                request,
                reason,
                retry_ms,
            } => self.report(LinkNews::ChannelRefused {
                request,
                reason,
                retry: (retry_ms > 0).then(|| Duration::from_millis(u64::from(retry_ms))),
            }),
            ControlMessage::ChannelClosed { channel, reason } => {
                self.report(LinkNews::ChannelClosed { channel, reason });
            }
            // Several intermediates are a later matter; until then a drain is the end of the connection.
            ControlMessage::Welcome { .. }
            | ControlMessage::Neighbours { .. }
            | ControlMessage::GoingAway { .. }
            | ControlMessage::Pong { .. } => {}
            ControlMessage::OfferFrom { session, agent } => self.report(LinkNews::OfferFrom {
                session,
                agent: Fingerprint(agent.fingerprint),
            }),
            // What only a client says.
            ControlMessage::Hello { .. }
            | ControlMessage::Register { .. }
            | ControlMessage::Unregister { .. }
            | ControlMessage::OpenChannel { .. }
            | ControlMessage::Carriage { .. } => self.stats.malformed += 1,
        }
    }
}

/// A refusal as v1 says it, for programs that tell people.
fn status_of(reason: Refusal) -> NackStatus {
    match reason {
        Refusal::InvalidId => NackStatus::InvalidId,
        Refusal::NotAuthorised => NackStatus::NotAuthorised,
        Refusal::Taken => NackStatus::Taken,
        Refusal::AtCapacity => NackStatus::AtCapacity,
        Refusal::Unknown | Refusal::NoConnector | Refusal::PeerIsV1 | Refusal::Other(_) => {
            NackStatus::Other(u8::try_from(u32::from(reason)).unwrap_or(u8::MAX))
        }
    }
}
