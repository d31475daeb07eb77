use std::time::{Duration, Instant};

use super::{Account, Direction, ON_THE_WAY};
use crate::tool::wire::Conditions;

const MS: Duration = Duration::from_millis(1);

fn direction(words: &str) -> Direction {
    Direction::new(&words.parse::<Conditions>().unwrap(), 0)
}

/// Sends `count` numbered packets, one every `gap`, and returns what arrives: number and travelling time.
fn send(direction: &mut Direction, count: u32, gap: Duration, length: usize) -> Vec<(u32, Duration)> {
    let start = Instant::now();
    for number in 0..count {
        let mut packet = vec![0; length.max(4)];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        direction.take(&packet, start + gap * number);
    }
    let mut arrived = Vec::new();
    while let Some(due) = direction.next_due() {
        assert!(direction.release(due - Duration::from_nanos(1)).is_none());
        let packet = direction.release(due).unwrap();
        let number = u32::from_be_bytes(packet[..4].try_into().unwrap());
        arrived.push((number, due - (start + gap * number)));
    }
    arrived
}

#[test]
fn without_conditions_everything_arrives_at_once_and_in_order() {
    let mut direction = direction("");
    let arrived = send(&mut direction, 1_000, Duration::ZERO, 100);
    let expected: Vec<(u32, Duration)> = (0..1_000).map(|number| (number, Duration::ZERO)).collect();
    assert_eq!(arrived, expected);
}

#[test]
fn delay_is_exact_and_jitter_is_bounded_and_keeps_order() {
    let mut exact = direction("delay=10");
    assert!(
        send(&mut exact, 100, MS, 100)
            .iter()
            .all(|(_, took)| *took == 10 * MS)
    );
    let mut shaky = direction("delay=10 jitter=5");
    let arrived = send(&mut shaky, 1_000, MS, 100);
    assert!(arrived.is_sorted_by_key(|(number, _)| *number));
    assert!(arrived.iter().all(|(_, took)| (10 * MS..15 * MS).contains(took)));
    let slowest = arrived.iter().map(|(_, took)| *took).max().unwrap();
    let fastest = arrived.iter().map(|(_, took)| *took).min().unwrap();
    assert!(slowest - fastest > 3 * MS);
}

#[test]
fn loss_is_the_share_asked_for_and_the_same_for_the_same_seed_only() {
    let lose = |words: &str| {
        let mut direction = direction(words);
        let arrived = send(&mut direction, 10_000, MS, 100);
        assert_eq!(arrived.len() as u64 + direction.account().lost, 10_000);
        arrived
    };
    let once = lose("loss=3 seed=5");
    assert!((9_600..9_800).contains(&once.len()), "{}", once.len());
    // Neither another pace nor other conditions change which ones.
    assert_eq!(once, lose("loss=3 seed=5"));
    let numbers = |list: &[(u32, Duration)]| list.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_eq!(numbers(&once), numbers(&lose("loss=3 seed=5 delay=7 jitter=0.5")));
    assert_ne!(once, lose("loss=3 seed=6"));
}

#[test]
fn bursts_lose_the_same_share_in_longer_rows() {
    let rows = |words: &str| {
        let mut direction = direction(words);
        let arrived = send(&mut direction, 20_000, MS, 10);
        let gaps = arrived
            .windows(2)
            .filter(|pair| pair[1].0 > pair[0].0 + 1)
            .count();
        let lost = direction.account().lost as f64;
        assert!((300.0..500.0).contains(&lost), "{words}: {lost}");
        lost / gaps as f64
    };
    let alone = rows("loss=2");
    let together = rows("loss=2 burst=5");
    assert!((1.0..1.1).contains(&alone), "{alone}");
    assert!((4.0..6.0).contains(&together), "{together}");
}

#[test]
fn a_bottleneck_spaces_packets_and_drops_what_would_wait_too_long() {
    // 1,250 bytes at 10 Mbit/s take 1 ms; the queue holds 10 ms.
    let mut direction = direction("rate=10 queue=10");
    let arrived = send(&mut direction, 100, Duration::ZERO, 1_250);
    let expected: Vec<(u32, Duration)> = (0..11).map(|number| (number, MS * (number + 1))).collect();
    assert_eq!(arrived, expected);
    let expected = Account {
        packets: 100,
        delivered: 11,
        queue_full: 89,
        ..Account::default()
    };
    assert_eq!(direction.account(), expected);
}

#[test]
fn reordered_packets_are_overtaken_and_all_arrive() {
    let mut direction = direction("delay=10 reorder=10 lag=5");
    let arrived = send(&mut direction, 1_000, MS, 100);
    assert_eq!(arrived.len(), 1_000);
    let late = arrived.iter().filter(|(_, took)| *took == 15 * MS).count();
    assert_eq!(late as u64, direction.account().reordered);
    assert!((60..140).contains(&late), "{late}");
    assert!(!arrived.is_sorted_by_key(|(number, _)| *number));
}

#[test]
fn a_wire_holds_only_so_much() {
    let mut direction = direction("delay=1000");
    let arrived = send(&mut direction, 30_000, Duration::ZERO, 4);
    assert_eq!(arrived.len(), ON_THE_WAY);
    assert_eq!(direction.account().queue_full, 30_000 - ON_THE_WAY as u64);
}

#[test]
fn conditions_are_read_as_they_are_written() {
    let words = "delay=10 jitter=2 reorder=1 lag=4 loss=1.5 burst=3 rate=100 queue=20 seed=9";
    let conditions: Conditions = words.parse().unwrap();
    assert_eq!(conditions.to_string(), words);
    for wrong in ["delay", "delay=x", "loss=-1", "colour=3", "seed=1.5"] {
        assert!(wrong.parse::<Conditions>().is_err(), "{wrong}");
    }
}
