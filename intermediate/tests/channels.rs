//! Frames of relay channels through the real program and real sockets: a super-packet in, a super-packet out.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "nothing is refused here, and nobody needs a certificate")]
#[path = "../../program/stories/process.rs"]
mod process;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use process::{Running, Site, command, loopback, page, value};
use proto_core::config::limits::MAX_UDP_PAYLOAD;
use proto_core::id::ConnId;
use proto_core::machine::{Ecn, FourTuple, Received};
use proto_core::messages::MessageStream;
use proto_core::quic::quiche::{CLIENT_GROUPS, QuicheConfig, QuicheProvider, Verify};
use proto_core::quic::{ALPN_V2, Admission, Pool, PoolConfig, PoolEvent};
use proto_core::rng::{Rng, Seed};
use proto_core::wire::channel::{CHANNEL, channel_prefix};
use proto_core::wire::control::{ControlMessage, TAKES_CHANNELS};
use proto_core::wire::datagram::Role;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use rustix::process::Signal;

const EXE: &str = env!("CARGO_BIN_EXE_ztna-intermediate");

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one batch holds.
const FRAMES: usize = 40;

/// The size of each.
const SIZE: usize = 1_200;

/// A client of v2 on a socket of its own.
struct Client {
    socket: UdpSocket,
    path: FourTuple,
    pool: Pool<QuicheProvider>,
    id: ConnId,
    stream: MessageStream,
    heard: Vec<ControlMessage>,
    frames: Vec<Vec<u8>>,
}

impl Client {
    fn new(host: IpAddr, relay: SocketAddr, role: Role) -> Self {
        let socket = UdpSocket::bind((host, 0)).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .expect("a timeout");
        let config = QuicheConfig {
            alpn: vec![ALPN_V2.to_vec()],
            session_alpn: Vec::new(),
            identity: None,
            trusted: Vec::new(),
            verify: Verify::InsecureNone,
            groups: CLIENT_GROUPS,
            idle_timeout: Duration::from_secs(30),
            max_udp_payload: MAX_UDP_PAYLOAD,
            send_queue: 64,
            receive_queue: 64,
        };
        let provider = QuicheProvider::new(&config).expect("a usable configuration");
        let pool = PoolConfig {
            admission: Admission::Nobody,
            raw: false,
            reset_key: None,
            max_connections: 1,
            max_handshakes: 1,
            max_udp_payload: MAX_UDP_PAYLOAD,
        };
        let now = Instant::now();
        let path = FourTuple {
            local: socket.local_addr().expect("an address"),
            remote: relay,
        };
        let mut pool = Pool::new(provider, pool, Rng::new(&Seed([role as u8; 32])), now);
        let id = pool.connect(None, path, now).expect("a connection");
        let mut client = Self {
            socket,
            path,
            pool,
            id,
            stream: MessageStream::new(0),
            heard: Vec::new(),
            frames: Vec::new(),
        };
        client.say(&ControlMessage::Hello {
            role,
            instance: 1,
            capabilities: TAKES_CHANNELS,
        });
        let service = "echo".to_owned();
        client.say(&ControlMessage::Register { service });
        client
    }

    fn say(&mut self, message: &ControlMessage) {
        assert!(self.stream.send(message.write()));
        self.stream.flush(&mut self.pool, self.id);
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let mut buffer = [0; 2_048];
        match self.socket.recv(&mut buffer) {
            Ok(len) if buffer[0] == CHANNEL => self.frames.push(buffer[..len].to_vec()),
            Ok(len) => {
                let received = Received {
                    path: self.path,
                    ecn: Ecn::NotEct,
                    stride: None,
                    payload: &mut buffer[..len],
                };
                self.pool.handle_datagram(received, now);
            }
            Err(error) => assert!(matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::TimedOut
            )),
        }
        if self.pool.poll_timeout().is_some_and(|due| due.at <= now) {
            self.pool.handle_timeout(now);
        }
        while let Some(event) = self.pool.poll_event() {
            if let PoolEvent::Closed(_, reason) = &event {
                panic!("the connection has ended: {reason:?}");
            }
            self.stream.flush(&mut self.pool, self.id);
            self.stream.read(&mut self.pool, self.id, &mut |payload| {
                self.heard
                    .push(ControlMessage::parse(payload).expect("a message"));
            });
        }
        let mut buffer = [0; 65_507];
        while let Some(transmit) = self.pool.poll_transmit(&mut buffer, now) {
            let size = transmit.segment_size.map_or(transmit.len, |size| size.get());
            for datagram in buffer[..transmit.len].chunks(size) {
                self.socket.send_to(datagram, self.path.remote).expect("sent");
            }
        }
    }

    fn channel(&self) -> Option<u32> {
        self.heard.iter().find_map(|message| {
            let ControlMessage::ChannelOpened { channel, .. } = message else {
                return None;
            };
            Some(*channel)
        })
    }

    fn is_registered(&self) -> bool {
        let registered = |message: &ControlMessage| matches!(message, ControlMessage::Registered { .. });
        self.heard.iter().any(registered)
    }
}

/// Lets clients speak until something holds.
fn until(clients: &mut [Client; 2], holds: impl Fn(&[Client; 2]) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds(clients) {
        assert!(
            Instant::now() < end,
            "{:?}",
            clients.each_ref().map(|client| &client.heard)
        );
        clients.iter_mut().for_each(Client::turn);
    }
}

#[test]
fn batches_of_frames_pass_whole_on_both_runtimes() {
    for runtime in ["mio", "tokio"] {
        let site = Site::new(&format!("channels-{runtime}"));
        let host = loopback();
        let content = format!(r#"{{"bind_addr": "{host}", "port": 0, "metrics_addr": "{host}"}}"#);
        let file = site.write("i.json", &content);
        let mut running =
            Running::start(command(EXE).args(["--config", &file, "--insecure-dev", "--runtime", runtime]));
        let relay: SocketAddr = running
            .expect("ztna-intermediate ready on ")
            .parse()
            .expect("an address");
        let mut clients = [Role::Agent, Role::Connector].map(|role| Client::new(host.into(), relay, role));
        until(&mut clients, |clients| clients.iter().all(Client::is_registered));
        clients[0].say(&ControlMessage::OpenChannel {
            request: 1,
            service: "echo".to_owned(),
        });
        until(&mut clients, |clients| {
            clients.iter().all(|client| client.channel().is_some())
        });

        let [there, back] = clients.each_ref().map(|client| client.channel().expect("open"));
        let frame = |channel: u32, number: usize| {
            let mut frame = channel_prefix(channel).to_vec();
            frame.resize(SIZE, number as u8);
            frame
        };
        let batch: Vec<u8> = (0..FRAMES).flat_map(|number| frame(there, number)).collect();
        // Asking turns UDP_GRO on, which a plain socket must not have: so a stranger is asked.
        let stranger = UdpSocket::bind((host, 0)).expect("a socket");
        let state = UdpSocketState::new(UdpSockRef::from(&stranger)).expect("a socket");
        let metrics = |name: &str| value(&page(SocketAddr::from((host, 9090)), "/metrics").1, name);
        let calls = metrics("ztna_udp_sent_batches_total");
        for chunk in batch.chunks(state.max_gso_segments().min(FRAMES) * SIZE) {
            let transmit = Transmit {
                destination: relay,
                ecn: None,
                contents: chunk,
                segment_size: Some(SIZE),
                src_ip: None,
            };
            state
                .try_send(UdpSockRef::from(&clients[0].socket), &transmit)
                .expect("sent");
        }
        until(&mut clients, |clients| clients[1].frames.len() == FRAMES);
        let expected: Vec<_> = (0..FRAMES).map(|number| frame(back, number)).collect();
        assert!(clients[1].frames == expected, "{runtime}");
        assert_eq!(metrics("ztna_channel_frames_total"), FRAMES as u64);
        assert_eq!(metrics("ztna_udp_forwarded_datagrams_total"), FRAMES as u64);
        assert_eq!(metrics("ztna_channels"), 1);
        if state.max_gso_segments() >= FRAMES {
            let calls = metrics("ztna_udp_sent_batches_total") - calls;
            assert!(calls < FRAMES as u64 / 2, "{calls} calls for {FRAMES} frames");
        }
        let (status, log) = running.end(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{log}");
    }
}
