use std::io::Write as _;

use super::{Hash, digest, write};

#[test]
fn a_shorter_file_is_the_beginning_of_a_longer_one() {
    let mut long = Vec::new();
    write(&mut long, 200_000).unwrap();
    let mut short = Vec::new();
    write(&mut short, 65_537).unwrap();
    assert_eq!(short.len(), 65_537);
    assert_eq!(long.get(..65_537), Some(short.as_slice()));
    assert_ne!(long.get(..1000), long.get(65_536..66_536));
}

#[test]
fn the_digest_is_sha_256() {
    let mut hash = Hash::default();
    hash.write_all(b"abc").unwrap();
    assert_eq!(hash.length(), 3);
    assert_eq!(
        hash.finish(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        digest(0),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_ne!(digest(1), digest(2));
}
