use super::*;

#[test]
fn every_series_and_every_reason_is_documented() {
    let manual = include_str!("../../../docs/operations.md");
    let machine = ConnectorSnapshot {
        stats: ConnectorStats::default(),
        netstack: NetstackStats::default(),
        link: LinkStats::default(),
        pool: PoolStats::default(),
        shell: ShellStats::default(),
        connected: true,
        sessions: SessionStats::default(),
        session_counts: SessionCounts::default(),
        v1: V1PeerStats::default(),
        v1_agents: 0,
        services: Vec::new(),
    };
    let mut text = Exposition::default();
    text.build_info("x", "mio");
    machine.write(Duration::ZERO, &mut text);
    for name in text.families() {
        assert!(manual.contains(&format!("`{name}`")), "{name}");
    }
    for reason in text.reasons("ztna_dropped_total") {
        assert!(manual.contains(&format!("`{reason}`")), "{reason}");
    }
}
