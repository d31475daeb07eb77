use std::io::{Read as _, Write as _};
use std::net::UdpSocket as StdUdp;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use proto_core::id::ServiceId;

use super::super::zone::Zone;
use super::*;

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn served() -> (SocketAddr, Arc<Shared>) {
    let web = ServiceId::parse(b"web").unwrap();
    let address = [IpAddr::from([10, 99, 0, 2])];
    let shared = Arc::new(Shared::new(Zone::new([(&web, &address[..])])));
    let sockets = Sockets::bind(LOCAL).unwrap();
    let at = sockets.address();
    sockets.serve(Arc::clone(&shared)).unwrap();
    (at, shared)
}

fn question(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn client(to: SocketAddr) -> StdUdp {
    let socket = StdUdp::bind(LOCAL).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

fn ask(to: SocketAddr, name: &str) -> Message {
    let socket = client(to);
    socket.send(&question(name, 7)).unwrap();
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn ask_over_tcp(to: SocketAddr, names: &[&str]) -> Vec<Message> {
    let mut stream = std::net::TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    names
        .iter()
        .map(|name| {
            let question = question(name, 8);
            stream.write_all(&(question.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&question).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer).unwrap();
            Message::from_vec(&answer).unwrap()
        })
        .collect()
}

/// Another server: says "refused" to everything that begins with `no`, and lies first where the name begins with
/// `lie`; the names it was asked for come out of the channel.
fn upstream() -> (SocketAddr, std::sync::mpsc::Receiver<(String, u16, SocketAddr)>) {
    let udp = StdUdp::bind(LOCAL).unwrap();
    let at = udp.local_addr().unwrap();
    let tcp = std::net::TcpListener::bind(at).unwrap();
    let (sender, asked) = std::sync::mpsc::channel();
    let respond = |question: &[u8]| {
        let mut message = Message::from_vec(question).unwrap();
        let name = message.queries[0].name().to_ascii();
        let id = message.metadata.id;
        message.metadata.message_type = MessageType::Response;
        if name.starts_with("no") {
            message.metadata.response_code = ResponseCode::Refused;
        }
        (name, id, message)
    };
    let log = sender.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let (name, id, mut message) = respond(&buffer[..length]);
            if name.starts_with("lie") {
                message.metadata.id = id.wrapping_add(1);
                udp.send_to(&message.to_vec().unwrap(), from).unwrap();
                message.metadata.id = id;
            }
            udp.send_to(&message.to_vec().unwrap(), from).unwrap();
            if log.send((name, id, from)).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let (name, id, message) = respond(&question);
            let answer = message.to_vec().unwrap();
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
            if sender.send((name, id, stream.peer_addr().unwrap())).is_err() {
                return;
            }
        }
    });
    (at, asked)
}

#[test]
fn ours_is_answered_and_the_rest_refused_while_nobody_else_is_known() {
    let (at, shared) = served();
    assert_eq!(ask(at, "web.ztna.").answers.len(), 1);
    assert_eq!(ask(at, "x.ztna.").metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        ask(at, "example.com.").metadata.response_code,
        ResponseCode::Refused
    );
    let answers = ask_over_tcp(at, &["web.ztna.", "x.ztna.", "example.com."]);
    assert_eq!(answers[0].answers.len(), 1);
    assert_eq!(answers[2].metadata.response_code, ResponseCode::Refused);
    assert_eq!(
        shared.questions(),
        [("answered".to_owned(), 4), ("refused".to_owned(), 2)].into()
    );
}

#[test]
fn other_questions_go_on_and_private_ones_never_do() {
    let (at, shared) = served();
    let (other, asked) = upstream();
    shared.forward_to(vec![at, other]);
    let mut seen = Vec::new();
    for name in [
        "example.com.",
        "web.ztna.",
        "lie.example.",
        "WEB.ZTNA.",
        "secret.ztna.",
    ] {
        let answer = ask(at, name);
        assert_eq!(answer.metadata.id, 7);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
    }
    assert_eq!(ask_over_tcp(at, &["tcp.example.", "web.ztna."]).len(), 2);
    assert_eq!(shared.questions().get("forwarded"), Some(&3));
    while let Ok((name, id, from)) = asked.try_recv() {
        seen.push(name);
        assert_ne!((id, from.port()), (7, at.port()));
    }
    assert_eq!(seen, ["example.com.", "lie.example.", "tcp.example."]);
}

#[test]
fn a_server_that_refuses_or_is_silent_is_not_the_last() {
    let (at, shared) = served();
    let silent = StdUdp::bind(LOCAL).unwrap();
    let (refusing, _kept) = upstream();
    let (good, asked) = upstream();
    shared.forward_to(vec![silent.local_addr().unwrap(), good]);
    assert_eq!(
        ask(at, "example.com.").metadata.response_code,
        ResponseCode::NoError
    );
    assert_eq!(asked.recv().unwrap().0, "example.com.");
    // Where all refuse, that is the answer; where nobody says anything, the failure is ours.
    shared.forward_to(vec![refusing, good]);
    assert_eq!(
        ask(at, "no.example.").metadata.response_code,
        ResponseCode::Refused
    );
    shared.forward_to(Vec::new());
    assert_eq!(
        ask(at, "example.com.").metadata.response_code,
        ResponseCode::ServFail
    );
    assert_eq!(shared.questions().get("failed"), Some(&1));
}

#[test]
fn a_question_that_goes_round_in_a_circle_ends() {
    let (one, shared) = served();
    let (two, other) = served();
    shared.forward_to(vec![two]);
    other.forward_to(vec![one]);
    assert_eq!(
        ask(one, "example.com.").metadata.response_code,
        ResponseCode::ServFail
    );
}

#[test]
fn only_this_host_may_ask() {
    for (address, may) in [("127.0.0.1:5", true), ("127.9.9.9:5", true), ("[::1]:5", true)] {
        assert_eq!(is_of_this_host(address.parse().unwrap()), may, "{address}");
    }
    for address in ["192.0.2.1:53", "10.99.0.2:53", "[2001:db8::1]:53"] {
        assert!(!is_of_this_host(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn junk_and_silence_harm_nobody() {
    let (at, shared) = served();
    let socket = client(at);
    for junk in [&b""[..], b"x", &[0xff; 1200], &[0; 12]] {
        socket.send(junk).unwrap();
    }
    // As many connections as there may be, minus one, that say nothing, or half a thing.
    let silent: Vec<_> = (1..CONNECTIONS)
        .map(|index| {
            let mut stream = std::net::TcpStream::connect(at).unwrap();
            stream.write_all(&[0xff; 3][..index % 4]).unwrap();
            stream
        })
        .collect();
    assert_eq!(ask(at, "web.ztna.").answers.len(), 1);
    assert_eq!(ask_over_tcp(at, &["web.ztna."])[0].answers.len(), 1);
    drop(silent);
    assert!(shared.questions().get("dropped").is_some_and(|count| *count >= 3));
}

#[test]
fn names_may_change_under_way() {
    let (at, shared) = served();
    shared.set_zone(Zone::default());
    assert_eq!(
        ask(at, "web.ztna.").metadata.response_code,
        ResponseCode::NXDomain
    );
}
