use super::*;

#[test]
fn every_series_and_every_reason_is_documented() {
    let manual = include_str!("../../../../docs/operations.md");
    let machine = ForwardSnapshot {
        sessions: SessionStats::default(),
        stats: ForwardStats::default(),
        streams: 0,
        udp_flows: 0,
        buffered: 0,
        agent: AgentStats::default(),
        link: LinkStats::default(),
        pool: PoolStats::default(),
        shell: ShellStats::default(),
        status: AgentStatus {
            connected: false,
            path_payload: Some(1452),
            observed: None,
            services: Vec::new(),
        },
    };
    let mut text = Exposition::default();
    text.build_info("x", "mio");
    machine.write(Duration::ZERO, &mut text);
    for name in text.families() {
        assert!(manual.contains(&format!("`{name}`")), "{name}");
    }
    for family in ["ztna_dropped_total", "ztna_forward_not_reached_total"] {
        for reason in text.reasons(family) {
            assert!(manual.contains(&format!("`{reason}`")), "{reason}");
        }
    }
}
