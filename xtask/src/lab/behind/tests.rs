use std::time::Duration;

use super::Report;

#[test]
fn what_an_agent_says_is_read_from_its_metrics() {
    let text = "# TYPE ztna_agent_service_path gauge\n\
        ztna_agent_service_path{service=\"echo\",path=\"relayed\"} 0\n\
        ztna_agent_service_path{service=\"echo\",path=\"direct\"} 1\n\
        ztna_agent_time_to_direct_seconds 0.0625\n\
        ztna_agent_search_seconds 0.05\n";
    let report = Report::read(text);
    assert_eq!(report.path.as_deref(), Some("direct"));
    assert_eq!(report.time_to_direct, Some(Duration::from_micros(62_500)));
    assert_eq!(report.search, Some(Duration::from_millis(50)));
    assert_eq!(
        Report::read("ztna_agent_time_to_direct_seconds 0\n"),
        Report::default()
    );
}
