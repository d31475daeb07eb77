use super::*;

#[test]
fn every_series_and_every_reason_is_documented() {
    let manual = include_str!("../../../docs/operations.md");
    let machine = IntermediateSnapshot {
        stats: IntermediateStats::default(),
        signalling: SignallingStats::default(),
        pool: PoolStats::default(),
        shell: ShellStats::default(),
        connections: 0,
        flows: 0,
        flow_stats: proto_core::routing::flow::FlowStats::default(),
        agents: 0,
        connectors: 0,
        channels: 0,
        channel_stats: ChannelStats::default(),
        payloads: [0; PAYLOADS.len()],
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
    let reasons = [
        "ztna_leases_ended_total",
        "ztna_control_closed_total",
        "ztna_channel_refusals_total",
    ];
    for reason in reasons.iter().flat_map(|name| text.reasons(name)) {
        assert!(manual.contains(&format!("`{reason}`")), "{reason}");
    }
}
