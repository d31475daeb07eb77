//! A relay made of nothing but quiche: packets in, DATAGRAMs moved by `dgram_recv_buf` and `dgram_send_buf`, packets out.
//!
//! It is what the intermediate is compared with: the same implementation, buffers, congestion control with the same least
//! window, and packets of 1,200 bytes one to each of QUIC's in both; no pool, routing or flow table. Only the costs of the
//! relay's two connections are counted. It has no sockets either, so the kernel's share of the intermediate's cost has to fit
//! into the difference. And it is never offered more than its receiver takes: what the intermediate under full load
//! receives and then has to drop is paid for by the datagrams that arrive, and the report tells how much that was.

use std::net::SocketAddr;

use boring::ssl::{SslContextBuilder, SslMethod, SslVerifyMode};
use boring::x509::X509;
use proto_core::quic::Datagram;
use proto_core::quic::quiche::{Buffers, PemIdentity};
use proto_core::quic::testing::TestPki;

use super::{MOST_TURNS, Moved, address};
use crate::cpu::Cost;

type Connection = quiche::Connection<Buffers>;

/// One connection between two of the relay's neighbours: its two ends.
struct Pair {
    client: Connection,
    server: Connection,
    path: (SocketAddr, SocketAddr),
}

/// Packets on their way, in one buffer that is allocated once.
struct Packets {
    bytes: Box<[u8]>,
    lens: Vec<usize>,
}

/// The largest packet.
const PACKET: usize = 1_350;

impl Packets {
    fn new() -> Self {
        Self {
            bytes: vec![0; PACKET * 2_048].into_boxed_slice(),
            lens: Vec::with_capacity(2_048),
        }
    }

    /// Everything that `from` has to send.
    fn take(&mut self, from: &mut Connection) {
        self.lens.clear();
        for slot in self.bytes.chunks_exact_mut(PACKET) {
            let Ok((len, _)) = from.send(slot) else { return };
            self.lens.push(len);
        }
    }

    /// Hands it to `to`.
    fn give(&mut self, to: &mut Connection, info: quiche::RecvInfo) {
        for (slot, len) in self.bytes.chunks_exact_mut(PACKET).zip(&self.lens) {
            // A packet that quiche refuses is lost, and shows in what arrives.
            let _ = to.recv(&mut slot[..*len], info);
        }
    }
}

/// A sender, the relay's two connections, and a receiver.
pub struct BareRelay {
    inward: Pair,
    outward: Pair,
    packets: [Packets; 4],
    datagram: Vec<u8>,
}

impl std::fmt::Debug for BareRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BareRelay")
    }
}

impl BareRelay {
    /// Connects both sides; DATAGRAMs have `len` bytes.
    ///
    /// # Panics
    /// If a handshake fails, which would be a bug.
    pub fn new(len: usize) -> Self {
        let pki = TestPki::new();
        let mut relay = Self {
            inward: Pair::new(&pki, 3),
            outward: Pair::new(&pki, 2),
            packets: std::array::from_fn(|_| Packets::new()),
            datagram: vec![0x45; len],
        };
        for _ in 0..MOST_TURNS {
            if relay.inward.is_established() && relay.outward.is_established() {
                return relay;
            }
            relay.turn(0, &mut Cost::default());
        }
        panic!("no handshake");
    }

    /// Turns until whole batches pass at once; `between` runs before each.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn warm_up(&mut self, batch: usize, mut between: impl FnMut()) {
        let mut in_a_row = 0;
        for _ in 0..MOST_TURNS {
            between();
            let moved = self.turn(batch, &mut Cost::default());
            in_a_row = if moved.arrived == batch as u64 {
                in_a_row + 1
            } else {
                0
            };
            if in_a_row == 200 {
                return;
            }
        }
        panic!("batches of {batch} never passed whole");
    }

    /// One turn with a batch of DATAGRAMs: the relay's part at the expense of `cost`.
    pub fn turn(&mut self, batch: usize, cost: &mut Cost) -> Moved {
        let mut moved = Moved::default();
        for _ in 0..batch {
            let datagram = Datagram::from(self.datagram.clone());
            moved.sent += u64::from(self.inward.client.dgram_send_buf(datagram).is_ok());
        }
        let [from_sender, from_receiver, to_sender, to_receiver] = &mut self.packets;
        for pair in [&mut self.inward, &mut self.outward] {
            for end in [&mut pair.client, &mut pair.server] {
                if end
                    .timeout_instant()
                    .is_some_and(|at| at <= std::time::Instant::now())
                {
                    end.on_timeout();
                }
            }
        }
        from_sender.take(&mut self.inward.client);
        from_receiver.take(&mut self.outward.client);
        let (inward, outward) = (&mut self.inward, &mut self.outward);
        let (from_inward, from_outward) = (inward.to_server(), outward.to_server());
        cost.measure(|| {
            from_sender.give(&mut inward.server, from_inward);
            while let Ok(datagram) = inward.server.dgram_recv_buf() {
                // A full queue drops it, and it shows in what arrives.
                let _ = outward.server.dgram_send_buf(datagram);
            }
            from_receiver.give(&mut outward.server, from_outward);
            to_sender.take(&mut inward.server);
            to_receiver.take(&mut outward.server);
        });
        let (to_inward, to_outward) = (inward.to_client(), outward.to_client());
        to_sender.give(&mut inward.client, to_inward);
        to_receiver.give(&mut outward.client, to_outward);
        while outward.client.dgram_recv_buf().is_ok() {
            moved.arrived += 1;
        }
        moved
    }
}

impl Pair {
    fn new(pki: &TestPki, host: u8) -> Self {
        let (near, far) = (address(host, 5_000), address(1, 4_433));
        let mut client = config(pki, &pki.issue(&["agent.bench.ztna"]));
        let mut server = config(pki, &pki.issue(&["localhost"]));
        let (near_id, far_id) = ([host; 8], [host + 100; 8]);
        let client = quiche::connect_with_buffer_factory(
            Some("localhost"),
            &quiche::ConnectionId::from_ref(&near_id),
            near,
            far,
            &mut client,
        );
        let far_id = quiche::ConnectionId::from_ref(&far_id);
        let server = quiche::accept_with_buf_factory(&far_id, None, far, near, &mut server);
        Self {
            client: client.expect("a client"),
            server: server.expect("a server"),
            path: (near, far),
        }
    }

    fn is_established(&self) -> bool {
        self.client.is_established() && self.server.is_established()
    }

    fn to_server(&self) -> quiche::RecvInfo {
        quiche::RecvInfo {
            from: self.path.0,
            to: self.path.1,
        }
    }

    fn to_client(&self) -> quiche::RecvInfo {
        quiche::RecvInfo {
            from: self.path.1,
            to: self.path.0,
        }
    }
}

/// The transport of the programs, by quiche's own calls.
fn config(pki: &TestPki, identity: &PemIdentity) -> quiche::Config {
    let mut tls = SslContextBuilder::new(SslMethod::tls()).expect("a context");
    let leaf = X509::from_pem(&identity.chain).expect("a certificate");
    let key = boring::pkey::PKey::private_key_from_pem(&identity.key).expect("a key");
    tls.set_certificate(&leaf).expect("a certificate");
    tls.set_private_key(&key).expect("its key");
    let authority = X509::from_pem(&pki.authority()).expect("an authority");
    tls.cert_store_mut().add_cert(&authority).expect("an authority");
    tls.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let mut config =
        quiche::Config::with_boring_ssl_ctx_builder(quiche::PROTOCOL_VERSION, tls).expect("a configuration");
    config.set_application_protos(&[b"ztna-v1"]).expect("a protocol");
    config.set_max_idle_timeout(30_000);
    config.set_max_recv_udp_payload_size(PACKET);
    config.set_max_send_udp_payload_size(PACKET);
    config.enable_dgram(true, 1_024, 1_024);
    config.set_initial_max_data(256 * 1_024);
    config.set_active_connection_id_limit(4);
    config.set_cc_algorithm(quiche::CongestionControlAlgorithm::Bbr2Gcongestion);
    config.set_initial_congestion_window_packets(256);
    config.enable_pacing(false);
    config
}
