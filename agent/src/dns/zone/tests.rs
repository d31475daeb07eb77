use proptest::prelude::*;

use super::*;

fn id(text: &str) -> ServiceId {
    ServiceId::parse(text.as_bytes()).unwrap()
}

fn zone() -> Zone {
    let services = [
        (id("web"), vec!["10.99.0.2", "fd00::2"]),
        (id("Echo"), vec!["10.99.0.1"]),
        (id("db.eu"), vec!["10.99.0.3"]),
        (id("no name"), vec!["10.99.0.9"]),
    ];
    let services: Vec<(ServiceId, Vec<IpAddr>)> = services
        .into_iter()
        .map(|(id, list)| (id, list.into_iter().map(|text| text.parse().unwrap()).collect()))
        .collect();
    Zone::new(services.iter().map(|(id, list)| (id, list.as_slice())))
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn decide(message: &Message, transport: Transport) -> Message {
    match zone().decide(&message.to_vec().unwrap(), transport, true) {
        Decision::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
        other @ (Decision::Refuse(_) | Decision::Forward | Decision::Drop) => panic!("{other:?}"),
    }
}

fn ask(name: &str, kind: RecordType) -> Message {
    decide(&question(name, kind), Transport::Udp)
}

/// Whether it says that there is nothing, in a way that may be remembered (RFC 2308 §3).
fn is_negative(answer: &Message, code: ResponseCode, apex: &str) -> bool {
    let [soa] = answer.authorities.as_slice() else {
        return false;
    };
    let RData::SOA(data) = &soa.data else {
        return false;
    };
    answer.answers.is_empty()
        && answer.metadata.response_code == code
        && soa.name.to_ascii() == apex
        && soa.ttl == NEGATIVE_TTL
        && data.minimum == NEGATIVE_TTL
}

#[test]
fn a_service_has_its_addresses_by_family() {
    let answer = ask("web.ztna.", RecordType::A);
    assert_eq!(answer.metadata.id, 0x1234);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    let [record] = answer.answers.as_slice() else {
        panic!("{answer:?}");
    };
    assert_eq!(record.data, RData::A(A([10, 99, 0, 2].into())));
    assert_eq!(record.ttl, TTL);
    let answer = ask("web.ztna.", RecordType::AAAA);
    assert_eq!(
        answer.answers[0].data,
        RData::AAAA(AAAA("fd00::2".parse().unwrap()))
    );
    assert_eq!(ask("web.ztna.", RecordType::ANY).answers.len(), 2);
    assert_eq!(ask("db.eu.ztna.", RecordType::A).answers.len(), 1);
}

#[test]
fn letters_come_back_as_they_were_and_mean_the_same_in_any_case() {
    for name in ["ECHO.ztna.", "eChO.ZtNa."] {
        let answer = ask(name, RecordType::A);
        assert_eq!(answer.queries[0].name().to_ascii(), name);
        assert_eq!(answer.answers[0].name.to_ascii(), name);
    }
}

#[test]
fn what_there_is_not_is_said_so_that_it_is_remembered() {
    for kind in [
        RecordType::AAAA,
        RecordType::MX,
        RecordType::HTTPS,
        RecordType::TXT,
    ] {
        assert!(
            is_negative(&ask("echo.ztna.", kind), ResponseCode::NoError, "ztna."),
            "{kind}"
        );
    }
    for name in ["nobody.ztna.", "x.web.ztna."] {
        assert!(
            is_negative(&ask(name, RecordType::A), ResponseCode::NXDomain, "ztna."),
            "{name}"
        );
    }
    // Between the top and a service with a dot in its id.
    assert!(is_negative(
        &ask("eu.ztna.", RecordType::A),
        ResponseCode::NoError,
        "ztna."
    ));
    assert!(is_negative(
        &ask("ztna.", RecordType::A),
        ResponseCode::NoError,
        "ztna."
    ));
    assert_eq!(ask("ztna.", RecordType::SOA).answers.len(), 1);
}

#[test]
fn addresses_lead_back_to_names() {
    let answer = ask("2.0.99.10.in-addr.arpa.", RecordType::PTR);
    let RData::PTR(name) = &answer.answers[0].data else {
        panic!("{answer:?}");
    };
    assert_eq!(name.0.to_ascii(), "web.ztna.");
    let v6 = Name::from("fd00::2".parse::<IpAddr>().unwrap()).to_ascii();
    assert_eq!(ask(&v6, RecordType::PTR).answers.len(), 1);
    let own = "2.0.99.10.in-addr.arpa.";
    assert!(is_negative(
        &ask(own, RecordType::TXT),
        ResponseCode::NoError,
        own
    ));
    let below = "x.2.0.99.10.in-addr.arpa.";
    assert!(is_negative(
        &ask(below, RecordType::PTR),
        ResponseCode::NXDomain,
        own
    ));
}

#[test]
fn what_is_not_ours_is_sent_on_or_refused() {
    for name in [
        "example.com.",
        "web.ztna.corp.example.",
        "notztna.",
        "web\\.ztna.",
        "9.0.99.10.in-addr.arpa.",
        ".",
    ] {
        let bytes = question(name, RecordType::A).to_vec().unwrap();
        let zone = zone();
        assert_eq!(
            zone.decide(&bytes, Transport::Udp, true),
            Decision::Forward,
            "{name}"
        );
        let Decision::Refuse(answer) = zone.decide(&bytes, Transport::Udp, false) else {
            panic!("{name}");
        };
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert!(!answer.metadata.recursion_available);
    }
}

#[test]
fn zones_are_handed_to_nobody() {
    for name in ["ztna.", "example.com."] {
        let bytes = question(name, RecordType::AXFR).to_vec().unwrap();
        assert!(matches!(
            zone().decide(&bytes, Transport::Tcp, true),
            Decision::Refuse(_)
        ));
    }
}

#[test]
fn edns_is_answered_with_edns_and_only_then() {
    assert!(ask("web.ztna.", RecordType::A).edns.is_none());
    let mut message = question("web.ztna.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0);
    message.set_edns(edns);
    let answer = decide(&message, Transport::Udp);
    assert_eq!(answer.edns.as_ref().unwrap().max_payload(), MAX_UDP);
    assert_eq!(answer.answers.len(), 1);
    message.edns.as_mut().unwrap().set_version(1);
    let answer = decide(&message, Transport::Udp);
    // 16 has two names (RFC 6891 §9, RFC 8945 §5.3), and the crate reads the other.
    assert_eq!(
        u16::from(answer.metadata.response_code),
        u16::from(ResponseCode::BADVERS)
    );
    assert!(answer.answers.is_empty());
}

#[test]
fn what_does_not_fit_is_cut_and_whole_over_tcp() {
    let addresses: Vec<IpAddr> = (0..100).map(|i| IpAddr::from([10, 1, 0, i])).collect();
    let many = id("many");
    let zone = Zone::new([(&many, addresses.as_slice())]);
    let mut message = question("many.ztna.", RecordType::A);
    for (payload, limit) in [
        (None, 512),
        (Some(100), 512),
        (Some(900), 900),
        (Some(60_000), 1232),
    ] {
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        let bytes = message.to_vec().unwrap();
        let Decision::Answer(answer) = zone.decide(&bytes, Transport::Udp, false) else {
            panic!();
        };
        assert!(answer.len() <= limit);
        let answer = Message::from_vec(&answer).unwrap();
        assert!(answer.metadata.truncation);
        assert_eq!(answer.queries.len(), 1);
        let Decision::Answer(answer) = zone.decide(&bytes, Transport::Tcp, false) else {
            panic!();
        };
        let answer = Message::from_vec(&answer).unwrap();
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 100);
    }
}

#[test]
fn what_is_no_question_is_answered_shortly_or_not_at_all() {
    let zone = zone();
    let code = |bytes: &[u8]| match zone.decide(bytes, Transport::Udp, true) {
        Decision::Answer(answer) => Message::from_vec(&answer).unwrap().metadata.response_code,
        other @ (Decision::Refuse(_) | Decision::Forward | Decision::Drop) => panic!("{other:?}"),
    };
    assert_eq!(zone.decide(b"", Transport::Udp, true), Decision::Drop);
    assert_eq!(zone.decide(&[0; 11], Transport::Udp, true), Decision::Drop);
    let mut message = question("web.ztna.", RecordType::A);
    let answer = decide(&message, Transport::Udp).to_vec().unwrap();
    assert_eq!(zone.decide(&answer, Transport::Udp, true), Decision::Drop);
    // Two questions could be one of ours and one that is not.
    message.add_query(Query::query(
        Name::from_ascii("example.com.").unwrap(),
        RecordType::A,
    ));
    assert_eq!(code(&message.to_vec().unwrap()), ResponseCode::FormErr);
    let mut bytes = question("web.ztna.", RecordType::A).to_vec().unwrap();
    bytes[2] |= 5 << 3;
    assert_eq!(code(&bytes), ResponseCode::NotImp);
    let bytes = question("web.ztna.", RecordType::A).to_vec().unwrap();
    assert_eq!(code(&bytes[..bytes.len() - 1]), ResponseCode::FormErr);
}

#[test]
fn ids_that_are_no_names_have_none() {
    for (text, name) in [
        ("web-app", Some("web-app.ztna")),
        ("Web_1", Some("web_1.ztna")),
        ("a.b", Some("a.b.ztna")),
        ("a..b", None),
        (".a", None),
        ("ü", None),
        ("a b", None),
        (&"a".repeat(63), Some("")),
        (&"a".repeat(64), None),
        (
            &format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(55)),
            Some(""),
        ),
        (&format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(58)), None),
    ] {
        let found = name_of(&id(text));
        assert_eq!(found.is_some(), name.is_some(), "{text}");
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            assert_eq!(found.as_deref(), Some(name));
        }
        // What has a name can be asked for.
        if let Some(found) = found {
            let address = [IpAddr::from([10, 0, 0, 1])];
            let own = id(text);
            let zone = Zone::new([(&own, &address[..])]);
            let bytes = question(&format!("{found}."), RecordType::A).to_vec().unwrap();
            let Decision::Answer(answer) = zone.decide(&bytes, Transport::Udp, false) else {
                panic!("{text}");
            };
            assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 1, "{text}");
        }
    }
}

proptest! {
    /// No bytes panic, no answer outgrows its transport, and every answer is one to the question's id.
    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..600), forwarding: bool) {
        if let Decision::Answer(answer) | Decision::Refuse(answer) = zone().decide(&bytes, Transport::Udp, forwarding) {
            prop_assert!(answer.len() <= usize::from(MAX_UDP));
            prop_assert_eq!(&answer[..2], &bytes[..2]);
            prop_assert!(answer[2] & 0x80 != 0);
        }
    }

    /// The same, for what begins as a question does.
    #[test]
    fn changed_questions_are_safe(at in 0_usize..60, value: u8, name in "[a-zA-Z0-9._-]{0,60}", forwarding: bool) {
        let Ok(name) = Name::from_ascii(&name) else { return Ok(()) };
        let mut message = Message::query();
        message.add_query(Query::query(name, RecordType::A));
        let mut bytes = message.to_vec().unwrap();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        let _ = zone().decide(&bytes, Transport::Tcp, forwarding);
    }

    /// Nothing at or below our top is ever sent on, however it is written and whatever is asked.
    #[test]
    fn private_names_stay_here(labels in "([a-zA-Z0-9-]{1,10}\\.){0,4}", top in "[zZ][tT][nN][aA]", kind: u16, dot: bool) {
        let name = format!("{labels}{top}{}", if dot { "." } else { "" });
        let Ok(mut name) = Name::from_ascii(&name) else { return Ok(()) };
        name.set_fqdn(true);
        let message = question(&name.to_ascii(), RecordType::from(kind));
        let decision = zone().decide(&message.to_vec().unwrap(), Transport::Udp, true);
        prop_assert!(decision != Decision::Forward);
    }
}
