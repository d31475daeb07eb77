use super::*;

use ServiceState::{Missing, Registered, Withdrawn};

fn answers(services: &[(&str, ServiceState)], connected: bool) -> [Result<String, String>; 2] {
    let services = services.to_vec();
    let standing = Standing { services, connected };
    [standing.health(), standing.ready()]
}

fn good(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn bad(text: &str) -> Result<String, String> {
    Err(text.to_owned())
}

#[test]
fn a_service_without_a_backend_is_named_and_takes_nobody_down() {
    assert_eq!(
        answers(&[("a", Registered), ("b", Registered)], true),
        [good("ok"), good("ok")]
    );
    assert_eq!(
        answers(&[("a", Registered), ("b", Withdrawn)], true),
        [good("ok; withdrawn: b"), good("ok; withdrawn: b")]
    );
    assert_eq!(
        answers(&[("a", Withdrawn), ("b", Withdrawn)], false),
        [
            good("ok; withdrawn: a, b"),
            bad("no service is offered; withdrawn: a, b")
        ]
    );
}

#[test]
fn a_service_that_should_be_registered_is_missed() {
    assert_eq!(
        answers(&[("a", Registered), ("b", Missing)], true),
        [bad("not registered: b"), good("ok; not registered: b")]
    );
    let nothing = "not connected to the intermediate; not registered: a; withdrawn: b";
    assert_eq!(
        answers(&[("a", Missing), ("b", Withdrawn)], false),
        [bad(nothing), bad(nothing)]
    );
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let many: Vec<(&str, ServiceState)> = names.iter().map(|name| (name.as_str(), Missing)).collect();
    let [health, _] = answers(&many, true);
    assert!(health.unwrap_err().ends_with("s6, s7 and 2 more"));
    // Nothing is configured: there is nothing to miss.
    assert_eq!(answers(&[], false), [good("ok"), good("ok")]);
}
