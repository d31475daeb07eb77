use super::{Cell, Findings, percentile};
use crate::lab::behind::run::{Cut, Gap, Run, Way};

fn run(way: Way, said: &str, time: Option<f64>) -> Run {
    Run {
        way,
        said: Some(said.to_owned()),
        first_reply: Some(40.0),
        first_direct: time,
        time_to_direct: time,
        search: time,
    }
}

fn findings(cell: &str, runs: Vec<Run>) -> Findings {
    Findings {
        runs,
        ..Findings::new(cell.parse::<Cell>().unwrap())
    }
}

#[test]
fn percentiles_are_of_the_nearest_rank() {
    let times: Vec<f64> = (1..=20).map(f64::from).collect();
    assert_eq!(percentile(&times, 50), Some(10.0));
    assert_eq!(percentile(&times, 99), Some(20.0));
    assert_eq!(percentile(&times, 100), Some(20.0));
    assert_eq!(percentile(&[], 50), None);
}

#[test]
fn direct_where_theory_has_a_way_and_relayed_elsewhere() {
    let good = findings("linux×linux", vec![run(Way::Direct, "direct", Some(60.0))]);
    assert_eq!(good.wrong(), [""; 0]);
    let good = findings("linux:symmetric", vec![run(Way::Relayed, "relayed", None)]);
    assert_eq!(good.wrong(), [""; 0]);
    let relayed = findings("linux×linux", vec![run(Way::Relayed, "relayed", None)]);
    assert_eq!(relayed.wrong(), ["only 0 of 1 runs were direct"]);
    let neither = findings("linux:symmetric", vec![run(Way::Neither, "none", None)]);
    assert_eq!(neither.wrong(), ["1 of 1 runs had neither way"]);
    let liar = findings("linux:symmetric", vec![run(Way::Relayed, "direct", None)]);
    assert_eq!(liar.wrong(), ["an agent said direct while echoes were relayed"]);
    let silent = findings("linux×linux", vec![run(Way::Direct, "direct", None)]);
    assert_eq!(silent.wrong(), ["an agent did not say how long it took"]);
    let blocked = findings("open×udp-blocked", vec![run(Way::Neither, "none", None)]);
    assert_eq!(blocked.wrong(), [""; 0]);
}

#[test]
fn figures_have_limits() {
    let mut slow = findings("open×open", vec![run(Way::Direct, "direct", Some(300.0))]);
    let gap = |gap, back| Gap {
        cut: Cut::Both,
        gap,
        back,
        relayed: 1,
    };
    slow.gaps = vec![gap(99.0, Some(900.0)), gap(120.0, Some(1_100.0)), gap(1.0, None)];
    assert_eq!(slow.wrong_ways(), ["after 1 of 3 cuts it never returned"]);
    let wrong = slow.wrong().join("; ");
    for part in ["p50 300 ms", "p99 300 ms", "gap 120 ms", "return 1100 ms"] {
        assert!(wrong.contains(part), "{wrong}");
    }
}
