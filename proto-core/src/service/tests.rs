//! Backends, names and checks, question by question.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::access::{Allowed, Peer};
use super::health::{Ailment, Awaited, Question};
use super::*;
use crate::backend::{Answer, Ask, Found, NameId, ProbeId, Refusal};
use crate::id::ServiceIndex;
use crate::quic::identity::Fingerprint;
use crate::rng::{Rng, Seed};
use crate::test_origin::origin;

const WEB: ServiceIndex = ServiceIndex(0);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn backend(text: &str) -> Backend {
    Backend {
        host: Host::Address(at(text).ip()),
        port: Some(at(text).port()),
    }
}

fn offer(ports: RangeInclusive<u16>, protocol: Protocol, backends: Vec<Backend>) -> Offer {
    Offer {
        listeners: vec![Listener {
            ports,
            protocol,
            backends,
        }],
        health: None,
        proxy_protocol: false,
        allow: None,
    }
}

fn checked(question: Question) -> HealthCheck {
    HealthCheck {
        question,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        healthy: 2,
        unhealthy: 3,
    }
}

fn services(offer: Offer, now: Instant) -> Services {
    let mut services = Services::new(Rng::new(&Seed([6; 32])));
    services.install(WEB, offer, now);
    services
}

fn pick(services: &mut Services, port: u16, now: Instant) -> Result<Pick, NoBackend> {
    services.pick(WEB, Transport::Tcp, port, None, now)
}

fn events(services: &mut Services) -> Vec<ServiceEvent> {
    std::iter::from_fn(|| services.poll_event())
        .map(|(_, event)| event)
        .collect()
}

/// Every check that is asked for, with where it goes.
fn probes(services: &mut Services) -> Vec<(ProbeId, SocketAddr)> {
    let mut probes = Vec::new();
    while let Some(ask) = services.poll_ask() {
        if let Ask::Probe { probe, address, .. } = ask {
            probes.push((probe, address));
        }
    }
    probes
}

#[test]
fn the_backend_with_the_fewest_flows_is_next_and_equals_take_turns() {
    let now = origin();
    let list = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
        .map(backend)
        .to_vec();
    let mut services = services(offer(0..=u16::MAX, Protocol::Both, list), now);
    let mut picks: Vec<Pick> = (0..6).map(|_| pick(&mut services, 443, now).unwrap()).collect();
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    picks
        .iter()
        .for_each(|pick| *counts.entry(pick.address).or_default() += 1);
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    // Where flows end, the next ones begin.
    let ended: Vec<Pick> = picks
        .extract_if(.., |pick| pick.address == at("10.0.0.2:80"))
        .collect();
    ended.iter().for_each(|pick| services.release(pick.target));
    for _ in 0..2 {
        assert_eq!(pick(&mut services, 443, now).unwrap().address, at("10.0.0.2:80"));
    }
    let flows: Vec<u32> = services
        .backends(WEB)
        .iter()
        .map(|backend| backend.flows)
        .collect();
    assert_eq!(flows, [2, 2, 2]);
}

#[test]
fn a_port_that_is_not_listened_on_has_no_backend_and_a_range_keeps_the_port() {
    let now = origin();
    let any = Backend {
        host: Host::Address("10.0.0.1".parse().unwrap()),
        port: None,
    };
    let mut services = services(offer(8000..=8100, Protocol::Tcp, vec![any]), now);
    assert_eq!(
        pick(&mut services, 8042, now).unwrap().address,
        at("10.0.0.1:8042")
    );
    for port in [7999, 8101] {
        assert_eq!(pick(&mut services, port, now), Err(NoBackend::NotListened));
    }
    let udp = services.pick(WEB, Transport::Udp, 8042, None, now);
    assert_eq!(udp, Err(NoBackend::NotListened));
    let stranger = services.pick(ServiceIndex(7), Transport::Tcp, 8042, None, now);
    assert_eq!(stranger, Err(NoBackend::NotListened));
}

#[test]
fn one_that_refused_is_asked_last_for_a_while_and_not_at_all_for_the_same_flow() {
    let now = origin();
    let list = ["10.0.0.1:80", "10.0.0.2:80"].map(backend).to_vec();
    let mut services = services(offer(0..=u16::MAX, Protocol::Both, list), now);
    let first = pick(&mut services, 80, now).unwrap();
    services.shun(first.target, now);
    let second = services
        .pick(WEB, Transport::Tcp, 80, Some(first.target), now)
        .unwrap();
    services.release(first.target);
    assert_ne!(first.address, second.address);
    // It has no flow and would be next, if it had not just refused.
    for _ in 0..3 {
        assert_eq!(pick(&mut services, 80, now).unwrap().address, second.address);
    }
    let later = now + Duration::from_secs(3);
    assert_eq!(pick(&mut services, 80, later).unwrap().address, first.address);
}

#[test]
fn a_backend_is_up_after_its_first_good_check_and_down_after_enough_bad_ones() {
    let mut now = origin();
    let mut offer = offer(0..=u16::MAX, Protocol::Tcp, vec![backend("10.0.0.1:80")]);
    offer.health = Some(checked(Question::Connect));
    let mut services = services(offer, now);
    assert!(!services.is_available(WEB) && events(&mut services).is_empty());
    assert_eq!(pick(&mut services, 80, now), Err(NoBackend::NoneHealthy));

    // Good at once; three bad ones take it out, two good ones bring it back, and one of the other kind starts anew.
    let answers = [
        true, false, false, true, false, false, false, true, false, true, true,
    ];
    let available = [
        true, true, true, true, true, true, false, false, false, false, true,
    ];
    for (good, available) in answers.into_iter().zip(available) {
        now = services.poll_timeout().unwrap();
        services.handle_timeout(now);
        let [(probe, address)] = probes(&mut services)[..] else {
            panic!("one check at a time");
        };
        assert_eq!(address, at("10.0.0.1:80"));
        let result = if good { Ok(&b""[..]) } else { Err(Refusal::Refused) };
        services.handle_answer(Answer::Probed { probe, result }, now);
        assert_eq!(services.is_available(WEB), available);
        assert!(
            services.poll_timeout().is_some_and(|next| next > now),
            "never at once again"
        );
    }
    let down = ServiceEvent::BackendDown {
        backend: "10.0.0.1:80".into(),
        why: Ailment::Unreachable(Refusal::Refused),
    };
    let up = || ServiceEvent::BackendUp {
        backend: "10.0.0.1:80".into(),
    };
    assert_eq!(
        events(&mut services),
        [
            up(),
            ServiceEvent::Available,
            down,
            ServiceEvent::Withdrawn,
            up(),
            ServiceEvent::Available
        ]
    );
}

#[test]
fn a_check_without_an_answer_ends_by_its_time_limit_and_a_late_answer_is_ignored() {
    let now = origin();
    let mut offer = offer(0..=u16::MAX, Protocol::Tcp, vec![backend("10.0.0.1:80")]);
    offer.health = Some(checked(Question::Connect));
    let mut services = services(offer, now);
    let now = services.poll_timeout().unwrap();
    services.handle_timeout(now);
    let (probe, _) = probes(&mut services)[0];
    assert_eq!(services.poll_timeout(), Some(now + Duration::from_secs(2)));
    let now = now + Duration::from_secs(2);
    services.handle_timeout(now);
    assert_eq!(services.poll_ask(), Some(Ask::EndProbe { probe }));
    services.handle_answer(
        Answer::Probed {
            probe,
            result: Ok(b""),
        },
        now,
    );
    let expected = ServiceEvent::BackendDown {
        backend: "10.0.0.1:80".into(),
        why: Ailment::Silent,
    };
    assert_eq!(events(&mut services), [expected]);
}

#[test]
fn an_http_check_reads_the_status_line_and_nothing_else() {
    let question = Question::Http {
        path: "/health".into(),
        status: 200..=299,
    };
    let mut sent = Vec::new();
    question.write(&Host::Name("web.internal".into()), &mut sent);
    let sent = String::from_utf8(sent).unwrap();
    assert!(
        sent.starts_with("GET /health HTTP/1.1\r\nHost: web.internal\r\n"),
        "{sent}"
    );
    assert!(sent.ends_with("\r\n\r\n"));
    assert_eq!(question.awaits(), Awaited::Line);
    for (answer, verdict) in [
        (&b"HTTP/1.1 204 No Content\r\n"[..], Ok(())),
        (b"HTTP/1.0 200\r\n", Ok(())),
        (b"HTTP/1.1 503 Busy\r\n", Err(Ailment::Status(503))),
        (b"HTTP/1.1 2", Err(Ailment::NotHttp)),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Err(Ailment::NotHttp)),
        (b"", Err(Ailment::NotHttp)),
    ] {
        assert_eq!(question.judge(answer), verdict, "{answer:?}");
    }
}

#[test]
fn a_udp_check_without_an_expectation_fails_only_if_nobody_is_there() {
    let quiet = Question::Udp {
        send: b"?"[..].into(),
        expect: None,
    };
    assert_eq!((quiet.silence(), quiet.judge(b"x")), (Ok(()), Ok(())));
    let strict = Question::Udp {
        send: b"?"[..].into(),
        expect: Some(b"ok"[..].into()),
    };
    assert_eq!(strict.silence(), Err(Ailment::Silent));
    assert_eq!(
        (strict.judge(b"okay"), strict.judge(b"no")),
        (Ok(()), Err(Ailment::OtherAnswer))
    );
}

fn named() -> Backend {
    Backend {
        host: Host::Name("db.internal".into()),
        port: Some(5432),
    }
}

fn asked_name(services: &mut Services) -> Option<NameId> {
    while let Some(ask) = services.poll_ask() {
        if let Ask::Resolve { name, host } = ask {
            assert_eq!(host, "db.internal");
            return Some(name);
        }
    }
    None
}

fn resolve(services: &mut Services, answer: Option<(&[IpAddr], u64)>, now: Instant) {
    let name = asked_name(services).expect("a name is asked for");
    let found = answer.map(|(addresses, ttl)| Found {
        addresses,
        ttl: Duration::from_secs(ttl),
    });
    services.handle_answer(Answer::Resolved { name, found }, now);
}

#[test]
fn a_name_is_looked_up_again_when_it_expires_and_an_old_answer_outlives_failures() {
    let mut now = origin();
    let mut services = services(offer(5432..=5432, Protocol::Tcp, vec![named()]), now);
    let [first, second]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
    services.handle_timeout(now);
    assert!(!services.is_available(WEB), "no address yet");
    resolve(&mut services, Some((&[first], 30)), now);
    assert_eq!(events(&mut services), [ServiceEvent::Available]);
    let session = pick(&mut services, 5432, now).unwrap();
    assert_eq!(session.address, SocketAddr::new(first, 5432));

    assert_eq!(services.poll_timeout(), Some(now + Duration::from_secs(30)));
    now += Duration::from_secs(30);
    services.handle_timeout(now);
    resolve(&mut services, None, now);
    assert_eq!(
        events(&mut services),
        [ServiceEvent::NameUnknown {
            name: "db.internal".into()
        }]
    );
    assert!(services.is_available(WEB), "what was right once is still used");
    let again = services.poll_timeout().unwrap();
    assert!(again > now && again <= now + Duration::from_secs(1));

    now = again;
    services.handle_timeout(now);
    resolve(&mut services, Some((&[second], 0)), now);
    assert_eq!(
        services.poll_timeout(),
        Some(now + Duration::from_secs(1)),
        "never without a pause"
    );
    assert_eq!(
        pick(&mut services, 5432, now).unwrap().address,
        SocketAddr::new(second, 5432)
    );
    // The session at the address that is gone may end whenever it likes.
    services.release(session.target);
    let backends = services.backends(WEB);
    assert_eq!(backends.len(), 1);
    assert_eq!(
        (backends[0].backend.as_str(), backends[0].flows),
        ("db.internal:5432 (10.0.0.2)", 1)
    );
}

#[test]
fn a_resolver_that_never_answers_is_asked_again() {
    let mut now = origin();
    let mut services = services(offer(1..=1, Protocol::Tcp, vec![named()]), now);
    for _ in 0..3 {
        services.handle_timeout(now);
        assert!(asked_name(&mut services).is_some());
        now += Duration::from_secs(31);
        services.handle_timeout(now);
        now = services.poll_timeout().unwrap();
    }
    assert_eq!(events(&mut services).len(), 1, "said once");
}

#[test]
fn a_change_keeps_the_flows_and_the_health_of_backends_that_stay() {
    let now = origin();
    let list = ["10.0.0.1:80", "10.0.0.2:80"].map(backend).to_vec();
    let mut before = offer(0..=u16::MAX, Protocol::Tcp, list);
    before.health = Some(checked(Question::Connect));
    let mut services = services(before.clone(), now);
    let now = now + Duration::from_millis(200);
    services.handle_timeout(now);
    for (probe, _) in probes(&mut services) {
        services.handle_answer(
            Answer::Probed {
                probe,
                result: Ok(b""),
            },
            now,
        );
    }
    let kept = pick(&mut services, 80, now).unwrap();
    events(&mut services);

    let mut after = before;
    after.listeners[0].backends = vec![backend(&kept.address.to_string()), backend("10.0.0.9:80")];
    services.install(WEB, after, now);
    assert!(
        services.is_available(WEB) && events(&mut services).is_empty(),
        "nothing has happened"
    );
    let backends = services.backends(WEB);
    let parts: Vec<(bool, u32)> = backends
        .iter()
        .map(|backend| (backend.up, backend.flows))
        .collect();
    assert_eq!(parts, [(true, 1), (false, 0)], "the new one is checked first");
    services.remove(WEB);
    assert!(services.backends(WEB).is_empty());
    services.release(kept.target);
    assert_eq!(services.poll_timeout(), None, "nothing is left to wait for");
}

#[test]
fn a_list_knows_names_without_case_and_certificates_and_nobody_unknown() {
    let peer = |name: &str, byte| Peer {
        fingerprint: Fingerprint([byte; 32]),
        name: name.into(),
    };
    let list = AllowList::new([
        Allowed::Name("alice-laptop".into()),
        Allowed::Certificate(Fingerprint([7; 32])),
    ]);
    assert!(list.permits(Some(&peer("Alice-Laptop", 1))));
    assert!(list.permits(Some(&peer("", 7))));
    assert!(!list.permits(Some(&peer("bob", 1))));
    assert!(!list.permits(None));
    assert!(!AllowList::new([Allowed::Name("".into())]).permits(Some(&peer("", 1))));
}

#[test]
fn golden_proxy_headers() {
    let signature = "0d0a0d0a000d0a515549540a";
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&proxy::local()), format!("{signature}20000000"));
    let bare = proxy::header(at("10.9.0.1:5000"), at("10.100.0.1:80"), None);
    assert_eq!(hex(&bare), format!("{signature}2111000c0a0900010a64000113880050"));
    let alice = Peer {
        fingerprint: Fingerprint([0xab; 32]),
        name: "alice".into(),
    };
    let known = proxy::header(at("[fd00::1]:5000"), at("[fd00::2]:80"), Some(&alice));
    let addresses = "fd000000000000000000000000000001fd00000000000000000000000000000213880050";
    let ssl = "20000d070000000022000561 6c696365".replace(' ', "");
    let fingerprint = format!("e00020{}", "ab".repeat(32));
    assert_eq!(
        hex(&known),
        format!("{signature}21210057{addresses}{ssl}{fingerprint}")
    );
    let longest = Peer {
        fingerprint: Fingerprint([0; 32]),
        name: "x".repeat(255).into(),
    };
    let longest = proxy::header(at("[fd00::1]:5000"), at("[fd00::2]:80"), Some(&longest));
    assert_eq!(longest.len(), proxy::MAX_HEADER);
}
