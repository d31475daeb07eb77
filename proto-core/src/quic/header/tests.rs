use proptest::prelude::*;

use super::*;

/// The client Initial of RFC 9001 §A.2, its first bytes; the header is readable although the packet is protected.
const RFC_9001_INITIAL: [u8; 24] = [
    0xc0, 0x00, 0x00, 0x00, 0x01, 0x08, 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08, 0x00, 0x00, 0x44,
    0x9e, 0x7b, 0x9a, 0xec, 0x34, 0xd1, 0xb1,
];

#[test]
fn reads_the_initial_of_rfc_9001() {
    let header = Header::parse(&RFC_9001_INITIAL, 8).unwrap();
    let dcid = Cid::new(&[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]).unwrap();
    let scid = Cid::new(&[]).unwrap();
    assert_eq!(
        header,
        Header::Long {
            kind: LongKind::Initial,
            version: 1,
            dcid,
            scid,
            token: 16..16
        }
    );
}

#[test]
fn finds_the_token_of_an_initial() {
    let mut packet = vec![0xc3, 0, 0, 0, 1, 1, 0xaa, 1, 0xbb, 0x40, 0x05];
    packet.extend_from_slice(b"token-and-more");
    let Header::Long { token, .. } = Header::parse(&packet, 8).unwrap() else {
        panic!("a long header")
    };
    assert_eq!(&packet[token], b"token");
}

#[test]
fn reads_short_headers_by_our_own_length() {
    let packet = [0x41, 1, 2, 3, 4, 5, 6, 7, 8, 99, 99];
    let dcid = Cid::new(&packet[1..9]).unwrap();
    assert_eq!(Header::parse(&packet, 8), Ok(Header::Short { dcid }));
    assert_eq!(Header::parse(&packet[..8], 8), Err(NotQuic));
}

#[test]
fn knows_only_the_ids_of_other_versions() {
    let packet = [0x80, 0xba, 0xba, 0xba, 0xba, 1, 7, 1, 9, 0xff];
    let Header::Long {
        kind, version, dcid, ..
    } = Header::parse(&packet, 8).unwrap()
    else {
        panic!()
    };
    assert_eq!(
        (kind, version, dcid.as_bytes()),
        (LongKind::OtherVersion, 0xbaba_baba, &[7][..])
    );
}

#[test]
fn refuses_what_is_not_quic() {
    assert_eq!(Header::parse(&[], 8), Err(NotQuic));
    assert_eq!(Header::parse(&[0x22; 40], 8), Err(NotQuic));
    let id_of_21_bytes = [&[0xc0, 0, 0, 0, 1, 21][..], &[0; 60]].concat();
    assert_eq!(Header::parse(&id_of_21_bytes, 8), Err(NotQuic));
    let endless_token = [
        0xc0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3,
    ];
    assert_eq!(Header::parse(&endless_token, 8), Err(NotQuic));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), len in 0_usize..=20) {
        if let Ok(Header::Long { token, .. }) = Header::parse(&bytes, len) {
            prop_assert!(token.end <= bytes.len());
        }
    }
}
