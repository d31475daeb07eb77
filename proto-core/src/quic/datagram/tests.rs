//! What goes in front of a payload.

use super::Datagram;

#[test]
fn what_is_put_in_front_takes_room_that_was_dropped_or_new_room() {
    let mut datagram = Datagram::from(b"headpacket".to_vec());
    datagram.advance(4);
    let place = datagram.as_ptr();
    datagram.prepend(b"abc");
    assert_eq!(&*datagram, b"abcpacket");
    datagram.advance(3);
    assert_eq!(datagram.as_ptr(), place, "nothing moved");
    datagram.prepend(b"longer");
    assert_eq!(&*datagram, b"longerpacket");
    datagram.prepend(b"");
    assert_eq!(&*datagram, b"longerpacket");
}
