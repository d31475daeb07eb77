use std::net::UdpSocket;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};

use super::*;

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_hosts_file_counts() {
    let found = look_up("localhost");
    assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback));
}

#[test]
fn an_answer_in_another_order_is_the_same() {
    let one = addresses(&["192.0.2.1", "2001:db8::1", "192.0.2.1"]);
    assert!(same(&one, &addresses(&["2001:db8::1", "192.0.2.1"])));
    assert!(!same(&one, &addresses(&["192.0.2.1"])), "DNS leaves one out");
    assert!(
        !same(&addresses(&["192.0.2.1"]), &one),
        "the system leaves one out"
    );
}

/// A name server that knows one IPv4 address of every name, for 7 seconds.
fn name_server() -> ResolverBuilder<TokioRuntimeProvider> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut question) {
            // The name, its end, type and class follow the header of 12 bytes.
            let name = question[12..len].iter().position(|byte| *byte == 0).unwrap();
            let end = 12 + name + 5;
            let is_a = question[end - 4..end - 2] == [0, 1];
            let mut answer = question[..end].to_vec();
            // An answer with recursion; one question, no record but perhaps one.
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 7, 0, 4, 192, 0, 2, 1]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    let mut connection = ConnectionConfig::udp();
    connection.port = port;
    let mut server = NameServerConfig::udp("127.0.0.1".parse().unwrap());
    server.connections = vec![connection];
    let config = ResolverConfig::from_name_servers(vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

#[test]
fn dns_says_for_how_long() {
    let (found, ttl) = ask_dns(name_server(), "db.internal.").unwrap();
    assert_eq!(found, addresses(&["192.0.2.1"]));
    assert!(ttl > Duration::ZERO && ttl <= Duration::from_secs(7), "{ttl:?}");
}
