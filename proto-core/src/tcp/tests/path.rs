//! What ICMP says of the path.

use super::harness::{Application, Net, Pairing, SECOND, Weather, pattern};
use crate::routing::packet;
use crate::tcp::Config;

/// The sequence number of the newest segment with data on a link.
fn newest(net: &mut Net) -> u32 {
    let log = net.links[0].log.as_ref().unwrap();
    let segment = log.iter().rev().find(|packet| packet.len() > 1000).unwrap();
    let transport = packet::parse(segment).unwrap().transport;
    u32::from_be_bytes(
        segment[transport.start + 4..transport.start + 8]
            .try_into()
            .unwrap(),
    )
}

fn largest_from(net: &Net, at: usize) -> usize {
    let log = net.links[0].log.as_ref().unwrap();
    log[at..].iter().map(Vec::len).max().unwrap()
}

#[test]
fn segments_shorten_when_the_path_says_so_and_only_for_what_is_under_way() {
    let applications = [
        Application::sends(pattern(2_000_000, 1)),
        Application::sends(Vec::new()),
    ];
    let mut net = Net::new(Pairing::Ours, Config::default(), Weather::default(), applications);
    net.links[0].log = Some(Vec::new());
    net.run(SECOND, |net| net.links[0].carried > 100_000);
    let sequence = newest(&mut net);
    let connection = net.ours(0).connection.as_mut().unwrap();
    connection.on_too_big(600, sequence.wrapping_add(10_000_000));
    connection.on_too_big(600, sequence.wrapping_sub(10_000_000));
    let before = net.links[0].log.as_ref().unwrap().len();
    net.run(SECOND, |net| net.links[0].carried > 200_000);
    assert_eq!(largest_from(&net, before), 1280, "a stranger's guess");

    let sequence = newest(&mut net);
    // A wider path than before is not believed either.
    for mtu in [900, 1000] {
        net.ours(0).connection.as_mut().unwrap().on_too_big(mtu, sequence);
    }
    let before = net.links[0].log.as_ref().unwrap().len();
    net.finish(20 * SECOND);
    assert!((700..=900).contains(&largest_from(&net, before)));
}

#[test]
fn what_timed_out_for_its_length_is_sent_again_as_soon_as_that_is_known() {
    let applications = [
        Application::sends(pattern(2_000_000, 1)),
        Application::sends(Vec::new()),
    ];
    let mut net = Net::new(Pairing::Ours, Config::default(), Weather::default(), applications);
    net.links[0].log = Some(Vec::new());
    net.run(SECOND, |net| net.links[0].carried > 100_000);
    // From now on long segments vanish; the pauses between their repetitions grow to seconds.
    net.links[0].broken = true;
    net.pass(5 * SECOND);
    let carried = net.links[0].carried;
    let sequence = newest(&mut net);
    net.links[0].broken = false;
    net.ours(0).connection.as_mut().unwrap().on_too_big(900, sequence);
    net.run(SECOND / 10, |net| net.links[0].carried > carried + 2_000);
    net.finish(20 * SECOND);
}
