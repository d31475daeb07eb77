use std::sync::mpsc;

use super::*;

fn endpoint(host: &str) -> Endpoint {
    Endpoint {
        host: host.to_owned(),
        port: 4433,
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Answers one after the other; `None` is a failure. When they are used up the name fails for good.
fn script(answers: Vec<Option<&'static str>>) -> LookUp {
    let mut answers = answers.into_iter();
    Box::new(move |_| {
        let answer = answers.next().flatten().ok_or_else(|| io::Error::other("no"))?;
        Ok(vec![address(answer)])
    })
}

#[test]
fn an_address_needs_no_resolver() {
    let resolving = Resolving::start(&endpoint("2001:db8::1"));
    assert_eq!(resolving.addresses, [address("[2001:db8::1]:4433")]);
    resolving.deliver(|_| false).wanted();
}

#[test]
fn the_system_resolves_localhost() {
    let resolving = Resolving::start(&endpoint("localhost"));
    assert!(!resolving.addresses.is_empty());
    assert!(resolving.addresses.iter().all(|a| a.ip().is_loopback()));
}

#[test]
fn a_name_that_fails_at_first_is_delivered_later() {
    let answers = script(vec![None, None, Some("192.0.2.1:1"), Some("192.0.2.2:2")]);
    let resolving = Resolving::start_with(&endpoint("name"), answers, Duration::from_millis(1));
    let (sender, receiver) = mpsc::channel();
    let mut first = resolving.addresses.clone();
    let refresh = resolving.deliver(move |addresses| sender.send(addresses).is_ok());
    if first.is_empty() {
        first = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    assert_eq!(first, [address("192.0.2.1:1")]);
    refresh.wanted();
    let second = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(second, [address("192.0.2.2:2")], "looked up again when asked");
}

#[test]
fn an_unchanged_answer_is_not_delivered_again() {
    let answers = script(vec![
        Some("192.0.2.1:1"),
        Some("192.0.2.1:1"),
        Some("192.0.2.2:2"),
    ]);
    let resolving = Resolving::start_with(&endpoint("name"), answers, Duration::from_millis(1));
    assert_eq!(resolving.addresses, [address("192.0.2.1:1")]);
    let (sender, receiver) = mpsc::channel();
    let refresh = resolving.deliver(move |addresses| sender.send(addresses).is_ok());
    let next = loop {
        refresh.wanted();
        if let Ok(next) = receiver.recv_timeout(Duration::from_millis(1)) {
            break next;
        }
    };
    assert_eq!(next, [address("192.0.2.2:2")]);
}
