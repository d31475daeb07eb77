use proptest::prelude::*;

use crate::wire::framing::{Frames, MAX_FRAME_LEN, write_frame};

/// Feeds `stream` in pieces of the given sizes (the last one repeats) and collects the frames.
fn read_in_pieces(frames: &mut Frames, stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut read = Vec::new();
    let mut rest = stream;
    let mut sizes = sizes
        .iter()
        .copied()
        .chain(std::iter::repeat(sizes.last().copied().unwrap_or(1)));
    while !rest.is_empty() {
        let (mut piece, tail) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        rest = tail;
        while let Some(frame) = frames.read(&mut piece) {
            read.push(frame.to_vec());
        }
        assert!(piece.is_empty());
    }
    read
}

#[test]
fn golden_frame() {
    assert_eq!(write_frame(b"ab").unwrap(), [0, 0, 0, 2, b'a', b'b']);
    assert_eq!(write_frame(b"").unwrap(), [0; 4]);
    assert!(write_frame(&vec![0; MAX_FRAME_LEN]).is_some());
    assert!(write_frame(&vec![0; MAX_FRAME_LEN + 1]).is_none());
}

#[test]
fn an_empty_frame_at_the_very_end_is_not_held_back() {
    let mut frames = Frames::new();
    assert_eq!(read_in_pieces(&mut frames, &[0; 8], &[8]), [b"", b""]);
    assert_eq!(frames.buffered(), 0);
}

#[test]
fn an_over_long_frame_is_skipped_without_being_kept_and_the_stream_goes_on() {
    let mut stream = (MAX_FRAME_LEN as u32 + 1).to_be_bytes().to_vec();
    stream.extend(vec![7; MAX_FRAME_LEN + 1]);
    stream.extend(write_frame(b"after").unwrap());
    for piece in [1000, stream.len()] {
        let mut frames = Frames::new();
        assert_eq!(read_in_pieces(&mut frames, &stream, &[piece]), [b"after"]);
        assert_eq!(frames.skipped(), 1);
    }
}

#[test]
fn a_promised_length_reserves_nothing() {
    let mut frames = Frames::new();
    let mut input = &[0, 1, 0, 0, 9][..];
    assert!(frames.read(&mut input).is_none());
    assert_eq!(frames.buffered(), 1);
    let mut hostile = Frames::new();
    assert!(hostile.read(&mut &[0xFF; 100][..]).is_none());
    assert_eq!((hostile.buffered(), hostile.skipped()), (0, 1));
}

proptest! {
    #[test]
    fn any_cut_of_the_stream_gives_the_same_frames(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10),
        sizes in prop::collection::vec(1..30usize, 1..20),
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| write_frame(payload).unwrap()).collect();
        let mut frames = Frames::new();
        prop_assert_eq!(read_in_pieces(&mut frames, &stream, &sizes), payloads);
        prop_assert_eq!(frames.buffered(), 0);
    }

    #[test]
    fn junk_never_panics_and_never_piles_up(
        stream in prop::collection::vec(any::<u8>(), 0..500), sizes in prop::collection::vec(1..30usize, 1..20),
    ) {
        let mut frames = Frames::new();
        let read = read_in_pieces(&mut frames, &stream, &sizes);
        prop_assert!(frames.buffered() + read.iter().map(Vec::len).sum::<usize>() <= stream.len());
    }

    #[test]
    fn no_prefix_of_a_frame_is_a_frame(payload in prop::collection::vec(any::<u8>(), 0..60)) {
        let frame = write_frame(&payload).unwrap();
        for len in 0..frame.len() {
            prop_assert!(Frames::new().read(&mut &frame[..len]).is_none());
        }
    }
}
