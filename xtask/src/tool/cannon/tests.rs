use super::{Dice, KINDS, initial, portless};

#[test]
fn the_same_shots_every_time_and_every_kind_fits_a_datagram() {
    for (name, shot) in KINDS {
        let (mut one, mut other) = (Dice(7), Dice(7));
        for _ in 0..50 {
            let bytes = shot(&mut one);
            assert_eq!(bytes, shot(&mut other), "{name}");
            assert!(bytes.len() < 65_000, "{name}");
        }
    }
}

#[test]
fn a_junk_initial_is_as_long_as_a_real_one() {
    let shot = initial(&mut Dice(1), 1);
    assert_eq!(shot.len(), 1200);
    assert_eq!(shot.get(1..5), Some([0, 0, 0, 1].as_slice()));
}

#[test]
fn the_portless_header_says_its_length() {
    assert_eq!(
        portless(b"abc", 4433),
        [0, 0, 0x11, 0x51, 0, 11, 0, 0, b'a', b'b', b'c']
    );
}
