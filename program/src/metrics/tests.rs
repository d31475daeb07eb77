use super::*;

#[test]
fn families_have_help_and_type_and_samples() {
    let mut text = Exposition::default();
    text.counter("ztna_a_total", "Things\nthat \\ happened.", 3);
    text.gauge("ztna_b", "Things there.", 0);
    text.seconds("ztna_uptime_seconds", "Age.", Duration::from_millis(1_999));
    assert_eq!(
        text.finish(),
        "# HELP ztna_a_total Things\\nthat \\\\ happened.\n# TYPE ztna_a_total counter\nztna_a_total 3\n\
         # HELP ztna_b Things there.\n# TYPE ztna_b gauge\nztna_b 0\n\
         # HELP ztna_uptime_seconds Age.\n# TYPE ztna_uptime_seconds gauge\nztna_uptime_seconds 1\n"
    );
}

#[test]
fn reasons_are_one_family_and_each_comes_once() {
    let mut text = Exposition::default();
    text.by_reason(
        "ztna_dropped_total",
        "Drops.",
        vec![("b", 1), ("a", u64::MAX), ("b", 2), ("a", 9)],
    );
    assert_eq!(
        text.finish(),
        format!(
            "# HELP ztna_dropped_total Drops.\n# TYPE ztna_dropped_total counter\n\
             ztna_dropped_total{{reason=\"a\"}} {}\nztna_dropped_total{{reason=\"b\"}} 3\n",
            u64::MAX
        )
    );
}

#[test]
fn labels_are_escaped() {
    assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
}

#[test]
fn every_line_of_the_common_families_is_well_formed() {
    let mut text = Exposition::default();
    text.build_info("agent", "mio");
    text.shell(&ShellStats::default());
    let reasons = [
        shell_drops(&ShellStats::default()),
        pool_drops(&PoolStats::default()),
    ]
    .concat();
    text.by_reason("ztna_dropped_total", "Drops.", reasons);
    let text = text.finish();
    assert!(text.ends_with('\n'));
    let mut described = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            described = rest.split(' ').next().unwrap();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest.split(' ').next().unwrap(), described);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next().unwrap(), described);
            assert!(value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
