use super::*;

fn network(text: &str, len: u8) -> Prefix {
    Prefix {
        address: text.parse().unwrap(),
        len,
    }
}

#[test]
fn an_address_of_this_host_is_found_as_such() {
    // Asking needs no right, and loopback is everywhere.
    let mut netlink = Netlink::open().unwrap();
    assert_eq!(
        netlink.find_route(network("127.0.0.1", 32)).unwrap(),
        Some(Found::Local)
    );
}

#[test]
fn an_interface_has_its_name() {
    let netlink = Netlink::open().unwrap();
    let names: Vec<String> = (1..100).filter_map(|index| netlink.name_of(index)).collect();
    assert!(names.iter().any(|name| name == "lo"), "{names:?}");
}

#[test]
fn a_route_is_read_with_its_interface_and_length() {
    let body = route_body(7, network("10.1.2.3", 24));
    assert_eq!(parse_route(&body), Some(Found::Interface(7, 24)));
    let body = route_body(9, network("fd00::1", 128));
    assert_eq!(parse_route(&body), Some(Found::Interface(9, 128)));
    for len in 0..body.len() {
        // Whatever is cut off, nothing is read that is not there.
        let _ = parse_route(&body[..len]);
    }
}

#[test]
fn answers_to_other_questions_are_none() {
    let mut answer = vec![0; HEADER + 4];
    answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
    answer[8..12].copy_from_slice(&5_u32.to_ne_bytes());
    assert!(matches!(parse_answer(&answer, 5), Ok(Answer::Done)));
    assert!(parse_answer(&answer, 6).is_err());
    assert!(parse_answer(&answer[..HEADER], 5).is_err());
    answer[HEADER..].copy_from_slice(&(-3_i32).to_ne_bytes());
    let error = parse_answer(&answer, 5).err().unwrap();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::SRCH));
}
