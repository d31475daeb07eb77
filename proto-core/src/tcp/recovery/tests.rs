//! Proportional rate reduction by the figures of RFC 6937 §4.

use super::*;
use crate::tcp::Algorithm;

const MSS: u64 = 1000;

fn episode(flight: u64) -> Episode {
    Episode::new(
        Cause::Hole,
        100_000,
        flight * MSS,
        Congestion::new(Algorithm::Cubic, MSS, None, 0),
    )
}

#[test]
fn one_loss_sends_half_as_much_as_comes() {
    // RFC 6937's first example: 20 segments under way, the first is lost, the threshold is half. The first
    // acknowledgements let the retransmission go, and then every second a segment, down to the threshold.
    let mut episode = episode(20);
    let (mut pipe, threshold, mut sent) = (19 * MSS, 10 * MSS, Vec::new());
    for at in 0..19 {
        pipe -= MSS;
        let window = episode.window(MSS, pipe, threshold, MSS, false);
        if window - pipe >= MSS {
            episode.on_sent(MSS, sent.is_empty(), 0);
            pipe += MSS;
            sent.push(at);
        }
    }
    assert_eq!(sent[..7], [0, 3, 5, 7, 9, 11, 13]);
    assert_eq!((sent.len(), pipe), (10, 10 * MSS));
}

#[test]
fn a_window_that_is_mostly_lost_grows_back_to_the_threshold() {
    // RFC 6937's second example: so much is lost that what is under way is below the threshold: for each segment that
    // comes one goes, and one more while nothing else is lost.
    let mut episode = episode(20);
    episode.on_sent(MSS, true, 0);
    let mut pipe = 4 * MSS;
    for expected in [5, 6, 7, 8, 9, 10, 10, 10] {
        pipe -= MSS;
        let window = episode.window(MSS, pipe, 10 * MSS, MSS, true);
        assert_eq!(window, expected * MSS);
        episode.on_sent(window - pipe, false, 0);
        pipe = window;
    }
}
