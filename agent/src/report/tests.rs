use super::*;

fn report() -> Report {
    Report {
        version: "1.2.3".to_owned(),
        pid: 42,
        uptime_seconds: 3_700,
        intermediate: Intermediate {
            name: "relay.example.com:4433".to_owned(),
            connected: true,
            observed: Some("203.0.113.7:40000".to_owned()),
            reconnections: 0,
        },
        interface: Interface {
            name: "ztna0".to_owned(),
            mtu: 1280,
            path_mtu: Some(1297),
            addresses: vec!["10.100.255.1".parse().unwrap()],
            tcp_offload: true,
            udp_offload: false,
        },
        dns: Dns {
            mode: "resolvconf".to_owned(),
            listen: Some("10.100.255.1:53".to_owned()),
            upstreams: vec!["192.0.2.53:53".to_owned()],
            questions: [("answered".to_owned(), 3)].into(),
        },
        services: vec![
            Service {
                id: "web-app".to_owned(),
                name: Some("web-app.ztna".to_owned()),
                addresses: vec!["10.100.0.2".parse().unwrap()],
                registered: true,
                path: "direct".to_owned(),
                peer: Some("198.51.100.7:4433".to_owned()),
                rtt_ms: Some(12.34),
                time_to_direct_ms: Some(80.0),
                search_ms: Some(52.0),
            },
            Service {
                id: "odd name".to_owned(),
                path: "none".to_owned(),
                ..Service::default()
            },
        ],
        traffic: Traffic {
            sent_packets: 10,
            sent_bytes: 12_345_678,
            ..Traffic::default()
        },
        dropped: BTreeMap::new(),
    }
}

#[test]
fn the_table_reads_well() {
    assert_eq!(
        report().table(),
        "\
ztna          1.2.3, process 42, up 1 h 1 min
intermediate  relay.example.com:4433, connected, sees this host as 203.0.113.7:40000
interface     ztna0, 10.100.255.1, MTU 1280, TCP offload
names         resolvconf, answered at 10.100.255.1:53, others sent on to 192.0.2.53:53 (answered 3)
traffic       sent 10 packets, 12.3 MB; received 0 packets, 0 bytes
dropped       nothing

SERVICE   NAME          ADDRESS     STATE           PATH
web-app   web-app.ztna  10.100.0.2  registered      direct to 198.51.100.7:4433, 12.3 ms
odd name  -                         NOT REGISTERED  none
"
    );
}

#[test]
fn every_field_of_the_json_is_documented() {
    let manual = include_str!("../../../docs/operations.md");
    let json = serde_json::to_value(report()).unwrap();
    let mut fields = Vec::new();
    collect("", &json, &mut fields);
    assert!(fields.len() > 25, "{fields:?}");
    for field in fields {
        assert!(
            manual.contains(&format!("`{field}`")),
            "{field} is not documented"
        );
    }
    let back: Report = serde_json::from_value(json).unwrap();
    assert_eq!(back, report());
}

fn collect(prefix: &str, value: &serde_json::Value, fields: &mut Vec<String>) {
    // What is counted by name has names of its own.
    if prefix == "dns.questions." || prefix == "dropped." {
        return;
    }
    for (key, member) in value.as_object().into_iter().flatten() {
        fields.push(format!("{prefix}{key}"));
        collect(&format!("{prefix}{key}."), member, fields);
    }
    if let Some(first) = value.as_array().and_then(|values| values.first())
        && first.is_object()
    {
        collect(&format!("{}[].", prefix.trim_end_matches('.')), first, fields);
    }
}
