//! The sockets of names, on a thread of their own: UDP and TCP at one address, and one socket per question sent on.
//!
//! Everything is bounded: questions under way, of them the same question, TCP connections, lengths and times. Only
//! addresses of this host may ask: neither a service through the tunnel nor a neighbour on the network. (The kernel drops
//! packets from outside that claim to come from here. Binding to the loopback device would be no help: to a socket,
//! packets between addresses of a host come from the interface that has the address.)

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::forward::{Pending, is_no_help, random_id};
use super::zone::{Decision, Transport};
use super::{Outcome, Shared};

/// Questions under way to other servers, and of them the same one: more of the same go round in a circle.
const UNDER_WAY: usize = 256;
const SAME: u32 = 64;

/// TCP connections, how long one may be silent, and how long an answer may take to leave.
const CONNECTIONS: usize = 64;
const SILENCE: Duration = Duration::from_secs(10);

/// How long one server has for its reply; the C library gives five seconds for all.
const REPLY: Duration = Duration::from_secs(2);

/// The servers that are asked in turn.
const SERVERS: usize = 3;

/// Pause after the system refused a socket.
const PAUSE: Duration = Duration::from_millis(100);

const MAX_MESSAGE: usize = 65_535;

/// Sockets that listen, and are not yet served.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    address: SocketAddr,
}

impl Sockets {
    /// Listens at `address`; port 0 is for tests.
    ///
    /// # Errors
    /// If it cannot be had.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
        let address = udp.local_addr()?.as_socket().unwrap_or(address);
        let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
        tcp.listen(CONNECTIONS as i32)?;
        Ok(Self {
            udp: udp.into(),
            tcp: tcp.into(),
            address,
        })
    }

    /// Where they listen.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// If there is no thread, or no event loop.
    pub(crate) fn serve(self, shared: Arc<Shared>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (udp, tcp) = {
            let _inside = runtime.enter();
            (UdpSocket::from_std(self.udp)?, TcpListener::from_std(self.tcp)?)
        };
        let server = Arc::new(Server {
            shared,
            udp,
            address: self.address,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            questions: Mutex::default(),
        });
        std::thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::join!(Arc::clone(&server).datagrams(), Arc::clone(&server).streams(tcp));
                });
            })?;
        Ok(())
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        // Connections of an earlier run that are still being forgotten are in nobody's way.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

struct Server {
    shared: Arc<Shared>,
    udp: UdpSocket,
    address: SocketAddr,
    under_way: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    /// How often each question is under way; as many entries as there may be questions.
    questions: Mutex<BTreeMap<Vec<u8>, u32>>,
}

/// One question of those that are under way; it is not, once this goes.
struct UnderWay<'a> {
    server: &'a Server,
    question: Vec<u8>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut questions = self
            .server
            .questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = questions.get_mut(&self.question) {
            *count -= 1;
            if *count == 0 {
                questions.remove(&self.question);
            }
        }
    }
}

impl Server {
    async fn datagrams(self: Arc<Self>) {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let (length, from) = match self.udp.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    log::debug!("names: receiving failed: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if !self.may_ask(from) {
                self.shared.count(Outcome::Dropped);
                continue;
            }
            let question = buffer.get(..length).unwrap_or_default();
            match self.decide(question, Transport::Udp) {
                Some(Ok(answer)) => self.send(&answer, from).await,
                Some(Err(pending)) => {
                    let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() else {
                        self.shared.count(Outcome::Dropped);
                        continue;
                    };
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        let answer = server.forward(&pending, Transport::Udp).await;
                        server.send(&answer, from).await;
                        drop(permit);
                    });
                }
                None => {}
            }
        }
    }

    fn may_ask(&self, from: SocketAddr) -> bool {
        from.ip() == self.address.ip() || is_of_this_host(from)
    }

    async fn send(&self, answer: &[u8], to: SocketAddr) {
        // Whoever does not listen any more asks again.
        let _ = self.udp.send_to(answer, to).await;
    }

    async fn streams(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((_, from)) if !self.may_ask(from) => self.shared.count(Outcome::Dropped),
                Ok((stream, _)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        // A client that breaks off is its own affair.
                        let _ = server.stream(stream).await;
                        drop(permit);
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Questions of one connection, one after the other.
    async fn stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let question = timeout(SILENCE, read_message(&mut stream)).await??;
            let answer = match self.decide(&question, Transport::Tcp) {
                Some(Ok(answer)) => answer,
                Some(Err(pending)) => {
                    let _permit = self.under_way.acquire().await.map_err(io::Error::other)?;
                    self.forward(&pending, Transport::Tcp).await
                }
                None => return Ok(()),
            };
            timeout(SILENCE, write_message(&mut stream, &answer)).await??;
        }
    }

    /// The answer, or the question to be sent on, or nothing at all.
    fn decide(&self, question: &[u8], transport: Transport) -> Option<Result<Vec<u8>, Pending>> {
        let forwarding = self.shared.is_forwarding();
        let (outcome, decided) = match self.shared.zone().decide(question, transport, forwarding) {
            Decision::Answer(answer) => (Outcome::Answered, Ok(answer)),
            Decision::Refuse(answer) => (Outcome::Refused, Ok(answer)),
            Decision::Forward => {
                let pending = random_id().and_then(|id| Pending::new(question.to_vec(), id));
                match pending {
                    Some(pending) => return Some(Err(pending)),
                    None => return self.dropped(),
                }
            }
            Decision::Drop => return self.dropped(),
        };
        self.shared.count(outcome);
        Some(decided)
    }

    fn dropped<T>(&self) -> Option<T> {
        self.shared.count(Outcome::Dropped);
        None
    }

    /// The reply of the first server that helps; of none, what the last one said, or that all failed.
    async fn forward(&self, pending: &Pending, transport: Transport) -> Vec<u8> {
        let mut last = None;
        if let Some(_under_way) = self.under_way(pending.question()) {
            let servers = self.shared.upstreams();
            for server in servers
                .iter()
                .filter(|server| **server != self.address)
                .take(SERVERS)
            {
                let asked = async {
                    match transport {
                        Transport::Udp => ask_udp(*server, pending).await,
                        Transport::Tcp => ask_tcp(*server, pending).await,
                    }
                };
                let Ok(Ok(reply)) = timeout(REPLY, asked).await else {
                    continue;
                };
                let is_no_help = is_no_help(&reply);
                last = Some(reply);
                if !is_no_help {
                    break;
                }
            }
        }
        self.shared.count(match last {
            Some(_) => Outcome::Forwarded,
            None => Outcome::Failed,
        });
        last.unwrap_or_else(|| pending.failed())
    }

    fn under_way(&self, question: &[u8]) -> Option<UnderWay<'_>> {
        let question = question.to_vec();
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let count = questions.entry(question.clone()).or_default();
        if *count >= SAME {
            return None;
        }
        *count += 1;
        Some(UnderWay {
            server: self,
            question,
        })
    }
}

/// Whether it is an address of this host: only such a one can be bound.
fn is_of_this_host(mut address: SocketAddr) -> bool {
    address.set_port(0);
    address.ip().to_canonical().is_loopback() || std::net::UdpSocket::bind(address).is_ok()
}

async fn ask_udp(server: SocketAddr, pending: &Pending) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(pending.bytes()).await?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        // Forged replies cost a look each, until the time is over.
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = pending.accept(buffer.get(..length).unwrap_or_default()) {
            return Ok(reply);
        }
    }
}

async fn ask_tcp(server: SocketAddr, pending: &Pending) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, pending.bytes()).await?;
    let reply = read_message(&mut stream).await?;
    pending
        .accept(&reply)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a reply to the question"))
}

/// A message behind its length (RFC 1035 §4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    // In one call: some clients expect length and message in one segment (RFC 7766 §8).
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests;
