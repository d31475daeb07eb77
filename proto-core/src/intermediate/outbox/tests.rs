use super::*;

fn path(port: u16) -> FourTuple {
    FourTuple {
        local: "198.51.100.1:4433".parse().unwrap(),
        remote: std::net::SocketAddr::new("203.0.113.5".parse().unwrap(), port),
    }
}

fn outbox(frames: &[(u16, usize)]) -> Outbox {
    let mut outbox = Outbox::default();
    for (port, len) in frames {
        assert!(outbox.push(path(*port), vec![*port as u8; *len].into()));
    }
    outbox
}

fn sent(outbox: &mut Outbox, room: usize) -> Vec<(u16, usize, Option<usize>)> {
    let mut buf = vec![0; room];
    std::iter::from_fn(|| outbox.poll_transmit(&mut buf))
        .map(|out| {
            (
                out.path.remote.port(),
                out.len,
                out.segment_size.map(NonZeroUsize::get),
            )
        })
        .collect()
}

#[test]
fn frames_of_one_size_to_one_place_leave_together() {
    let mut outbox = outbox(&[(1, 100), (1, 100), (1, 60), (1, 100), (2, 100), (2, 120), (1, 7)]);
    assert_eq!(
        sent(&mut outbox, 65_507),
        [
            (1, 260, Some(100)),
            (1, 100, None),
            (2, 100, None),
            (2, 120, None),
            (1, 7, None)
        ]
    );
    assert!(outbox.is_empty());
}

#[test]
fn batches_end_with_the_buffer_and_after_64_frames() {
    assert_eq!(
        sent(&mut outbox(&[(1, 100), (1, 100), (1, 100)]), 250),
        [(1, 200, Some(100)), (1, 100, None)]
    );
    assert_eq!(
        sent(&mut outbox(&[(1, 10); 70]), 65_507),
        [(1, 640, Some(10)), (1, 60, Some(10))]
    );
}

#[test]
fn what_does_not_fit_the_queue_or_the_buffer_is_dropped() {
    let mut outbox = outbox(&[(1, 10); FRAME_QUEUE]);
    assert!(!outbox.push(path(1), vec![1; 10].into()));
    let mut large = Outbox::default();
    assert!(large.push(path(1), vec![1; 300].into()));
    assert!(large.push(path(1), vec![1; 100].into()));
    assert_eq!(sent(&mut large, 200), [(1, 100, None)]);
}
