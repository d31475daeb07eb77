//! What stories of `ztna-v2` clients are told with: their messages, and a scene with clients that say them.

use std::time::Duration;

use proto_core::sim::HostId;
use proto_core::wire::control::{ChannelEnd, ControlMessage, Refusal};
use proto_core::wire::datagram::Role;

use crate::setup::{DELAY, Quic, Scene, SpeakerHost};
use crate::speaker::frame;

pub(crate) const AGENT: &str = "198.51.100.1:1111";
pub(crate) const OTHER_AGENT: &str = "198.51.100.2:2222";
pub(crate) const CONNECTOR: &str = "203.0.113.1:3333";
pub(crate) const OTHER_CONNECTOR: &str = "203.0.113.2:4444";

pub(crate) const INNER_AGENT: &str = "10.9.0.1:5000";
pub(crate) const SERVICE: &str = "10.100.0.1:9999";

/// The lease that an intermediate grants.
const LEASE: Duration = Duration::from_secs(120);

pub(crate) fn hello(role: Role) -> ControlMessage {
    ControlMessage::Hello {
        role,
        instance: 7,
        capabilities: u64::MAX,
    }
}

pub(crate) fn register(service: &str) -> ControlMessage {
    ControlMessage::Register {
        service: service.to_owned(),
    }
}

pub(crate) fn open(request: u32, service: &str) -> ControlMessage {
    ControlMessage::OpenChannel {
        request,
        service: service.to_owned(),
    }
}

pub(crate) fn refused(service: &str, reason: Refusal, retry_ms: u32) -> ControlMessage {
    ControlMessage::Refused {
        service: service.to_owned(),
        reason,
        retry_ms,
    }
}

pub(crate) fn registered(service: &str) -> ControlMessage {
    ControlMessage::Registered {
        service: service.to_owned(),
        lease_ms: LEASE.as_millis() as u32,
    }
}

pub(crate) fn closed(channel: u32, reason: ChannelEnd) -> ControlMessage {
    ControlMessage::ChannelClosed { channel, reason }
}

impl<Q: Quic> Scene<Q> {
    /// A client of v2 that has said hello.
    pub(crate) fn speaker(
        &mut self,
        name: &str,
        address: &str,
        role: Role,
        names: &[&str],
    ) -> HostId<SpeakerHost<Q>> {
        let host = self.silent(name, address, names);
        assert_eq!(self.world[host].machine.alpn(), b"ztna-v2");
        self.say(host, &[hello(role)]);
        let address = address.parse().unwrap();
        let welcome = [
            ControlMessage::Welcome { capabilities: 0 },
            ControlMessage::ObservedAddress { address },
        ];
        assert_eq!(self.take_heard(host), welcome);
        host
    }

    /// Says messages and lets them arrive and be answered.
    pub(crate) fn say(&mut self, host: HostId<SpeakerHost<Q>>, messages: &[ControlMessage]) {
        self.world.with(host, |host, _| {
            messages.iter().for_each(|message| host.machine.say(message))
        });
        self.world.run_for(6 * DELAY);
    }

    pub(crate) fn take_heard(&mut self, host: HostId<SpeakerHost<Q>>) -> Vec<ControlMessage> {
        self.world
            .with(host, |host, _| std::mem::take(&mut host.machine.heard))
    }

    pub(crate) fn take_datagrams(&mut self, host: HostId<SpeakerHost<Q>>) -> Vec<Vec<u8>> {
        self.world
            .with(host, |host, _| std::mem::take(&mut host.machine.datagrams))
    }

    /// The packets that arrived in bare frames of a channel.
    pub(crate) fn take_packets(&mut self, host: HostId<SpeakerHost<Q>>, channel: u32) -> Vec<Vec<u8>> {
        let frames = self
            .world
            .with(host, |host, _| std::mem::take(&mut host.machine.frames));
        let prefix = frame(channel, b"");
        let packets = frames.into_iter().map(|(from, bytes)| {
            assert_eq!(from, crate::setup::RELAY.parse().unwrap());
            bytes.strip_prefix(&prefix[..]).unwrap().to_vec()
        });
        packets.collect()
    }

    pub(crate) fn send_frames(&mut self, host: HostId<SpeakerHost<Q>>, channel: u32, packets: &[&[u8]]) {
        self.world
            .with(host, |host, _| host.machine.send_frames(channel, packets));
        self.world.run_for(4 * DELAY);
    }

    /// An agent and a connector of the service "echo", registered.
    pub(crate) fn pair(&mut self) -> [HostId<SpeakerHost<Q>>; 2] {
        let connector = self.speaker("connector", CONNECTOR, Role::Connector, &["connector.*.ztna"]);
        let agent = self.speaker("agent", AGENT, Role::Agent, &["agent.*.ztna"]);
        for host in [connector, agent] {
            self.say(host, &[register("echo")]);
            assert_eq!(self.take_heard(host), [registered("echo")]);
        }
        [agent, connector]
    }

    /// Opens the channel between them; its numbers.
    pub(crate) fn channel(
        &mut self,
        [agent, connector]: [HostId<SpeakerHost<Q>>; 2],
        service: &str,
    ) -> [u32; 2] {
        self.say(agent, &[open(5, service)]);
        let numbers = [(agent, Some(5)), (connector, None)].map(|(host, expected)| {
            let heard = self.take_heard(host);
            let [
                ControlMessage::ChannelOpened {
                    request,
                    channel,
                    service: told,
                    peer,
                },
            ] = heard.as_slice()
            else {
                panic!("no channel: {heard:?}");
            };
            assert_eq!((*request, told.as_str()), (expected, service));
            assert_ne!(peer.fingerprint, [0; 32]);
            *channel
        });
        assert_ne!(numbers[0], numbers[1]);
        numbers
    }
}
