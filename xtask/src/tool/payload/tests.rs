use super::{Reply, judge, make};

#[test]
fn a_payload_is_told_from_everybody_elses() {
    for size in [12, 13, 100, 1200] {
        let sent = make(3, 17, size);
        assert_eq!(sent.len(), size);
        assert_eq!(judge(3, size, &sent), Reply::Own(17));
        assert_eq!(judge(4, size, &sent), Reply::Foreign);
    }
}

#[test]
fn a_changed_or_shortened_reply_is_corrupt() {
    let mut sent = make(3, 17, 100);
    assert_eq!(judge(3, 100, sent.get(..99).unwrap()), Reply::Corrupt);
    if let Some(last) = sent.last_mut() {
        *last ^= 1;
    }
    assert_eq!(judge(3, 100, &sent), Reply::Corrupt);
    assert_eq!(judge(3, 100, &[]), Reply::Corrupt);
}
